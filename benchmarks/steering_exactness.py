"""Whether draws follow the calibrated distribution: 20 000 samples a runtime, held against it by a chi-square test.

The same tiny Llama (random weights, real engines) behind Transformers, llama.cpp and vLLM's V1 runner, the toy model of
`calibwrap.testing`, and SmolLM2-135M-Instruct behind llama.cpp. Wanted is softmax(log-probabilities / 1.7), from the
toy's own table, from a separate forward of Transformers for the tiny model, and from the raw scores for SmolLM2. Tokens
that are expected fewer than 5 times count together. The last column shows that the test is able to fail: the same draws
against the distribution without calibration. Then greedy texts of 24 tokens, with the calibrator and without.

    OMP_NUM_THREADS=1 python benchmarks/steering_exactness.py [--samples 20000] [--runtime NAME ...] [--json FILE]
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import chisquare

from calibwrap.base import Adapter, Sampling
from calibwrap.calibrators import Temperature
from calibwrap.data import packaged_model
from calibwrap.scores import Floats, log_softmax

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the model directory that the tests make
from tests.servers import matched

PROMPTS = ("The capital of France", "Question: what is red? Answer:", "A")
STEER = Temperature(1.7, level="token")
PIECE = 1000
"""Samples of one call."""


def p_value(counts: Floats, logprobs: Floats) -> float:
    """Return how probable it is that draws from `logprobs` (V,) differ from it at least as much as `counts` (V,) do."""
    wanted = np.exp(log_softmax(logprobs)) * counts.sum()
    often = wanted >= 5
    groups = [np.append(array[often], array[~often].sum()) for array in (counts, wanted)]
    seen, expected = (group[groups[1] > 0] for group in groups)
    return float(chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)


def counts_of(adapter: Adapter, prompt: str, samples: int, vocabulary: int) -> Floats:
    """Return how often each token (V,) was drawn first after `prompt`, with the calibrator inside."""
    found = np.zeros(vocabulary)
    for start in range(0, samples, PIECE):
        sampling = Sampling(n=min(PIECE, samples - start), max_tokens=1, seed=start)
        (group,) = adapter.generate([prompt], sampling, STEER)
        np.add.at(found, [one.scores.chosen[0] for one in group], 1)
    return found


def greedy_is_unchanged(adapter: Adapter, prompts: Sequence[str]) -> bool:
    """Return whether a temperature leaves every greedy token as it was."""
    greedy = Sampling(max_tokens=24, temperature=0.0)
    drawn = [
        [one.scores.chosen.tolist() for (one,) in adapter.generate(prompts, greedy, steer)] for steer in (None, STEER)
    ]
    return drawn[0] == drawn[1]


def judged(name: str, adapter: Adapter, prompts: Sequence[str], raw: Floats, samples: int) -> dict[str, float]:
    """Return the figures of one runtime, whose raw log-probabilities after the first prompt are `raw` (V,)."""
    counts = counts_of(adapter, prompts[0], samples, len(raw))
    return {
        f"{name}_samples": counts.sum(),
        f"{name}_p_calibrated": p_value(counts, raw / STEER.value),
        f"{name}_p_uncalibrated": p_value(counts, raw),
        f"{name}_greedy_unchanged": float(greedy_is_unchanged(adapter, prompts)),
    }


def on_toy(samples: int, model: matched.Matched) -> dict[str, float]:
    from calibwrap.testing import ToyAdapter, ToyModel

    toy = ToyModel.random(2)
    text = "In the morning the sun"
    return judged("toy", ToyAdapter(toy), [text], toy.next_logprobs(toy.encode(text)), samples)


def truth_of(model: matched.Matched) -> tuple[Adapter, Floats]:
    """Return Transformers around the tiny model, and its raw log-probabilities after the first prompt."""
    import torch

    from calibwrap.adapters.hf import Transformers

    torch.set_num_threads(1)
    adapter = Transformers.load(str(model.directory))
    with torch.no_grad():
        ids = torch.tensor([adapter.tokenize(PROMPTS[0])[0]])
        return adapter, log_softmax(adapter.model(ids, use_cache=False).logits[0, -1].double().numpy())


def on_transformers(samples: int, model: matched.Matched) -> dict[str, float]:
    adapter, raw = truth_of(model)
    return judged("hf_tiny", adapter, PROMPTS, raw, samples)


def on_llama_cpp(samples: int, model: matched.Matched) -> dict[str, float]:
    from calibwrap.adapters.llamacpp import LlamaCpp

    tiny = LlamaCpp.load(str(model.gguf), n_threads=1)
    found = judged("llama_cpp_tiny", tiny, PROMPTS, truth_of(model)[1], samples)
    real = LlamaCpp.load(str(packaged_model("smollm2-135m-instruct")), n_threads=1)
    found |= judged("llama_cpp_smollm2", real, PROMPTS, real.next_token(PROMPTS[:1])[0].logprobs[0], samples)
    tiny.close()
    real.close()
    return found


def on_vllm(samples: int, model: matched.Matched) -> dict[str, float]:
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    from calibwrap.adapters.vllm_engine import VLLM

    adapter = VLLM.load(str(model.directory), dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=64)
    try:
        return judged("vllm_tiny", adapter, PROMPTS, truth_of(model)[1], samples)
    finally:
        adapter.close()


RUNTIMES: dict[str, Callable[[int, matched.Matched], dict[str, float]]] = {
    "toy": on_toy,
    "hf": on_transformers,
    "llama-cpp": on_llama_cpp,
    "vllm": on_vllm,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--runtime", nargs="+", choices=tuple(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tiny-") as folder:
        model = matched.tiny(Path(folder))
        for name in arguments.runtime:
            results |= RUNTIMES[name](arguments.samples, model)
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
