"""First token: how long after asking it is there, beside the runtime's own stream, on the same model and prompt.

Transformers: `TextIteratorStreamer` around `model.generate` in a thread; llama.cpp: `create_completion(stream=True)`;
servers: the SDK's `completions.create(stream=True)`, asked for log-probabilities too. Greedy, the two in turns, each
prompt new to both, so that neither finds it in a cache. Also the time of the whole text. `TextIteratorStreamer` waits
for whole words, so its first text may be a token or two late.

    python benchmarks/streaming.py [--repeats 20] [--prompt-tokens 256] [--new-tokens 32]
        [--only Transformers ...] [--json FILE]
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import calibwrap as cw
from calibwrap.base import Sampling

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the servers that the tests start
from tests.servers import matched, real

Stream = Callable[[str, int], Iterator[Any]]
WORDS = ("river", "winter", "market", "engine", "letter", "garden", "silver", "window", "paper", "planet")


def prompt_of(number: int, tokens: int) -> str:
    """Return a text of about so many tokens, another one for each number from its first word on."""
    return f"Story {number}: " + " ".join(WORDS[(number * 7 + place * place) % 10] for place in range(tokens - 6))


def ours(adapter: cw.Adapter) -> Stream:
    def stream(prompt: str, tokens: int) -> Iterator[Any]:
        return adapter.stream(prompt, Sampling(max_tokens=tokens, temperature=0.0))

    return stream


def transformers_own(adapter: Any) -> Stream:
    from transformers import TextIteratorStreamer

    def stream(prompt: str, tokens: int) -> Iterator[str]:
        streamer = TextIteratorStreamer(adapter.tokenizer, skip_prompt=True)
        inputs = adapter.tokenizer(prompt, return_tensors="pt")
        options = {"max_new_tokens": tokens, "do_sample": False, "streamer": streamer}
        thread = threading.Thread(target=adapter.model.generate, kwargs={**inputs, **options})
        thread.start()
        yield from streamer
        thread.join()

    return stream


def llamacpp_own(llama: Any) -> Stream:
    def stream(prompt: str, tokens: int) -> Iterator[Any]:
        yield from llama.create_completion(prompt, max_tokens=tokens, temperature=0.0, stream=True)

    return stream


def server_own(server: real.Server) -> Stream:
    import openai

    client = openai.OpenAI(base_url=server.base_url, api_key="any")

    def stream(prompt: str, tokens: int) -> Iterator[Any]:
        options: dict[str, Any] = {"max_tokens": tokens, "temperature": 0.0, "logprobs": 1, "stream": True}
        yield from client.completions.create(model=server.model, prompt=prompt, **options)

    return stream


def opened(name: str, stack: ExitStack) -> tuple[Stream, Stream]:
    """Return calibwrap's stream and the runtime's own, each with a model of its own where it lives in this process."""
    model = matched.smollm2()
    if name == "Transformers":
        adapter = stack.enter_context(cw.wrap(f"hf:{model.directory}")).adapter
        return ours(adapter), transformers_own(adapter)
    if name == "llama.cpp":
        options = {"n_ctx": 1024, "n_threads": 1, "n_threads_batch": 1}
        adapters: list[Any] = [
            stack.enter_context(cw.wrap(f"llama-cpp:{model.gguf}", **options)).adapter for _ in range(2)
        ]
        return ours(adapters[0]), llamacpp_own(adapters[1].llama)
    start = {"llama-server": lambda: real.llama_server(model.gguf, n_ctx=1024)}
    start["vLLM server"] = lambda: real.vllm_server(model.directory, "--max-model-len", "1024")
    server = stack.enter_context(start[name]())
    lm = stack.enter_context(cw.wrap(f"openai:{server.model}", base_url=server.base_url))
    assert lm.adapter.provides.streams
    return ours(lm.adapter), server_own(server)


def timed(ask: Stream, prompt: str, tokens: int) -> tuple[float, float]:
    """Return seconds to the first item and to the end."""
    began = time.perf_counter()
    stream = ask(prompt, tokens)
    next(stream)
    first = time.perf_counter() - began
    for _ in stream:
        pass
    return first, time.perf_counter() - began


def compared(name: str, repeats: int, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Return the figures of one runtime."""
    rows: list[tuple[tuple[float, float], tuple[float, float]]] = []
    with ExitStack() as stack:
        pair = opened(name, stack)
        for number in range(-2, repeats):
            order = (0, 1) if number % 2 else (1, 0)
            asked = [prompt_of(1000 * who + number + 5, prompt_tokens) for who in (0, 1)]
            found = {who: timed(pair[who], asked[who], new_tokens) for who in order}
            if number >= 0:  # the first two warm up
                rows.append((found[0], found[1]))
    ratios = sorted(mine[0] / plain[0] for mine, plain in rows)
    return {
        "first_token_ms": 1000 * statistics.median(mine[0] for mine, _ in rows),
        "first_token_plain_ms": 1000 * statistics.median(plain[0] for _, plain in rows),
        "ratio_median": statistics.median(ratios),
        "ratio_low": ratios[len(ratios) // 10],
        "ratio_high": ratios[-1 - len(ratios) // 10],
        "whole_ratio_median": statistics.median(mine[1] / plain[1] for mine, plain in rows),
    }


def main() -> None:
    names = ("Transformers", "llama.cpp", "llama-server", "vLLM server")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.update(real.ENVIRONMENT)
    warnings.simplefilter("ignore")  # llama-server keeps parts of characters to itself
    results = {}
    for name in arguments.only:
        figures = compared(name, arguments.repeats, arguments.prompt_tokens, arguments.new_tokens)
        results[name] = figures
        print(
            f"{name:>12}: first token {figures['first_token_ms']:.1f} ms, plain {figures['first_token_plain_ms']:.1f} "
            f"ms, ratio {figures['ratio_median']:.2f} (80 % of pairs {figures['ratio_low']:.2f} to "
            f"{figures['ratio_high']:.2f}); whole text {figures['whole_ratio_median']:.2f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
