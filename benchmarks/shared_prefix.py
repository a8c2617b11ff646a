"""k completions of one prompt beside k separate calls: wall time, and how far the memory goes up.

Same model (SmolLM2-135M-Instruct), same prompt of about 256 tokens, 64 new tokens each, one thread, the whole softmax
at temperature 1. Separate calls are the own ones of the runtime, `model.generate` and `Llama.create_completion`, each
of which reads the prompt (the memory of llama.cpp is emptied before each). The ways take turns. For llama.cpp there is
a third: the adapter's single calls, which keep the prompt in memory between them and so show what decoding together
adds.

    OMP_NUM_THREADS=1 python benchmarks/shared_prefix.py [--runtime hf llama-cpp] [--k 8] [--rounds 3] [--json FILE]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibwrap.base import Adapter, Sampling
from calibwrap.data import packaged_model

SENTENCE = "In the first stage of photosynthesis, light is absorbed by chlorophyll and drives the splitting of water. "


def prompt_of(adapter: Adapter, length: int) -> str:
    """Return a text of at least `length` tokens, as few as whole words allow."""
    words = (SENTENCE * length).split()
    count = next(count for count in range(1, len(words)) if len(adapter.tokenize(" ".join(words[:count]))[0]) >= length)
    return " ".join(words[:count])


def on_transformers(prompt_tokens: int, k: int, new: int) -> tuple[dict[str, Callable[[int], int]], int]:
    """Return the ways of drawing, each of which tells how many tokens it drew, and the prompt's length."""
    import torch

    from calibwrap.adapters.hf import Transformers

    torch.set_num_threads(1)
    adapter = Transformers.load(str(packaged_model("smollm2-135m-instruct")))
    prompt = prompt_of(adapter, prompt_tokens)
    ids = torch.tensor([adapter.tokenize(prompt)[0]])
    whole = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "repetition_penalty": 1.0}

    def separate(seed: int) -> int:
        drawn = 0
        for number in range(k):
            torch.manual_seed(seed * k + number)
            out = adapter.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **whole)
            drawn += out.shape[1] - ids.shape[1]
        return drawn

    return {"separate": separate, "together": lambda seed: drawn_at_once(adapter, prompt, k, new, seed)}, ids.shape[1]


def on_llama_cpp(prompt_tokens: int, k: int, new: int) -> tuple[dict[str, Callable[[int], int]], int]:
    """Return the ways of drawing, each of which tells how many tokens it drew, and the prompt's length."""
    from calibwrap.adapters.llamacpp import LlamaCpp

    adapter = LlamaCpp.load(str(packaged_model("smollm2-135m-instruct")), n_threads=1)
    prompt = prompt_of(adapter, prompt_tokens)
    ids = adapter.tokenize(prompt)[0]
    whole = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0, "repeat_penalty": 1.0}

    def separate(seed: int) -> int:
        drawn = 0
        for number in range(k):
            adapter.llama.reset()
            reply: Any = adapter.llama.create_completion(ids, max_tokens=new, seed=seed * k + number, **whole)
            drawn += reply["usage"]["completion_tokens"]
        return drawn

    def one_by_one(seed: int) -> int:
        adapter.llama.reset()
        return sum(drawn_at_once(adapter, prompt, 1, new, seed * k + number) for number in range(k))

    def together(seed: int) -> int:
        adapter.llama.reset()
        return drawn_at_once(adapter, prompt, k, new, seed)

    return {"separate": separate, "one_by_one": one_by_one, "together": together}, len(ids)


def drawn_at_once(adapter: Adapter, prompt: str, k: int, new: int, seed: int) -> int:
    """Return how many tokens one call of the adapter drew."""
    (group,) = adapter.generate([prompt], Sampling(n=k, max_tokens=new, seed=seed))
    return sum(len(one.scores) for one in group)


def megabytes(field: str) -> float:
    """Return a memory figure of this process: VmRSS, now in memory, or VmHWM, the most since the last reset."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measured(draw: Callable[[int], int], seed: int) -> dict[str, float]:
    """Return seconds, tokens and the rise of memory of one turn."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, began = megabytes("VmRSS"), time.perf_counter()
    tokens = draw(seed)
    return {
        "seconds": time.perf_counter() - began,
        "tokens": tokens,
        "megabytes": megabytes("VmHWM") - before,
    }


def compared(runtime: str, ways: dict[str, Callable[[int], int]], rounds: int) -> dict[str, float]:
    """Return the figures of one runtime; ratios are those of seconds a token, turn by turn, then the median."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for draw in ways.values():
        draw(10_000)  # the first call of each warms up
    for number in range(rounds):
        for name, draw in ways.items():
            turns[name].append(measured(draw, number))
    figures: dict[str, float] = {}
    for name, own in turns.items():
        figures[f"{name}_seconds"] = statistics.median(turn["seconds"] for turn in own)
        figures[f"{name}_tokens"] = sum(turn["tokens"] for turn in own)
        figures[f"{name}_megabytes_more"] = max(turn["megabytes"] for turn in own)
    pace = {name: [turn["seconds"] / turn["tokens"] for turn in own] for name, own in turns.items()}
    for name in set(ways) - {"together"}:
        ratios = sorted(a / b for a, b in zip(pace[name], pace["together"], strict=True))
        figures[f"{name}_over_together"] = statistics.median(ratios)
        figures[f"{name}_over_together_least"], figures[f"{name}_over_together_most"] = ratios[0], ratios[-1]
    return {f"{runtime}_{name}": value for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", choices=("hf", "llama-cpp"), default=["hf", "llama-cpp"])
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    makers = {"hf": on_transformers, "llama-cpp": on_llama_cpp}
    results: dict[str, float] = {"k": arguments.k, "new_tokens": arguments.new}
    for runtime in arguments.runtime:
        ways, length = makers[runtime](arguments.prompt, arguments.k, arguments.new)
        results[f"{runtime}_prompt_tokens"] = length
        results |= compared(runtime, ways, arguments.rounds)
    results["load_of_the_machine"] = os.getloadavg()[0]
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
