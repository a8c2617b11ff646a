"""What a calibrator inside decoding costs per token: scalar temperature steering beside plain decoding.

Same model (SmolLM2-135M-Instruct), same adapter, same prompt and seed, one thread; steered and plain calls take turns,
and each pair gives a ratio of times per token. The temperature is 1, which costs what any other does and lets both ways
draw the same tokens: texts that end elsewhere are decoded in other batches, which would be measured too. The time is
the processor's time of this process, which other programs on the machine move far less than the clock on the wall; the
ratio of wall times is printed too.

One per cent drowns in that noise. For llama.cpp the difference itself is also timed alone: a token drawn from the same
row of the model's logits, with the calibrator and without, in turns, many times over; only this step differs between
the two ways. The median of the differences, over the plain time of a token, is `_added_share`. (On Transformers, where
large tensors come and go, what such a step costs alone says little of what it costs inside.)

    OMP_NUM_THREADS=1 python benchmarks/steering_overhead.py [--runtime hf llama-cpp] [--rounds 20] [--json FILE]
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

from calibwrap.base import Adapter, Calibrator, Sampling
from calibwrap.calibrators import Temperature
from calibwrap.data import packaged_model

PROMPT = "Photosynthesis is the process by which plants"
PAIRS, DRAWS = 41, 200
"""Pairs of timings of the draw alone, and how often each of them draws."""
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def opened(runtime: str) -> Adapter:
    """Return the adapter, on one thread."""
    path = str(packaged_model("smollm2-135m-instruct"))
    if runtime == "llama-cpp":
        from calibwrap.adapters.llamacpp import LlamaCpp

        return LlamaCpp.load(path, n_threads=1)
    import torch

    from calibwrap.adapters.hf import Transformers

    torch.set_num_threads(1)
    return Transformers.load(path)


def turn(adapter: Adapter, sampling: Sampling, steer: Calibrator | None) -> dict[str, float]:
    """Return milliseconds a token by each clock."""
    began = {name: clock() for name, clock in CLOCKS.items()}
    (group,) = adapter.generate([PROMPT], sampling, steer)
    spent = {name: clock() - began[name] for name, clock in CLOCKS.items()}
    return {name: 1000 * seconds / sum(len(one.scores) for one in group) for name, seconds in spent.items()}


def added_ms(adapter: Adapter, steer: Calibrator) -> float:
    """Return milliseconds of processor time that the calibrator adds to a token of llama.cpp: the median of pairs."""
    from calibwrap.adapters._llamacpp_drawing import drawer

    (scores,) = adapter.next_token([PROMPT])
    row = (scores.logprobs[0] + scores.log_z[0]).astype(np.float32)
    ways = [drawer(Sampling(seed=0), way, 0) for way in (None, steer)]
    differences = []
    for _ in range(PAIRS):
        spent = []
        for draw in ways:
            began = time.process_time()
            for _ in range(DRAWS):
                draw(row)
            spent.append(1000 * (time.process_time() - began) / DRAWS)
        differences.append(spent[1] - spent[0])
    return statistics.median(differences[1:])  # the first pair warms up


def compared(runtime: str, k: int, new: int, rounds: int) -> dict[str, float]:
    """Return the figures of one runtime: medians, and the quartiles of the ratios of pairs."""
    adapter, steer = opened(runtime), Temperature(1.0, level="token")
    turn(adapter, Sampling(n=k, max_tokens=4, seed=0), steer)
    plain, steered = [], []
    for number in range(rounds):
        sampling = Sampling(n=k, max_tokens=new, seed=number)
        first = number % 2 == 0  # neither way is always the one that runs on a warmer machine
        for steers in (first, not first):
            (steered if steers else plain).append(turn(adapter, sampling, steer if steers else None))
    found = {}
    if runtime == "llama-cpp":
        added, whole = added_ms(adapter, steer), statistics.median(one["processor"] for one in plain)
        found = {f"{runtime}_k{k}_added_ms_per_token": added, f"{runtime}_k{k}_added_share": added / whole}
    adapter.close()
    for clock in CLOCKS:
        ratios = [a[clock] / b[clock] for a, b in zip(steered, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        name = f"{runtime}_k{k}_{clock}"
        found |= {
            f"{name}_plain_ms_per_token": statistics.median(one[clock] for one in plain),
            f"{name}_steered_over_plain": middle,
            f"{name}_ratio_quartile_low": low,
            f"{name}_ratio_quartile_high": high,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", choices=("hf", "llama-cpp"), default=["hf", "llama-cpp"])
    parser.add_argument("--k", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    for runtime in arguments.runtime:
        for k in arguments.k:
            results |= compared(runtime, k, arguments.new, arguments.rounds)
    results["load_of_the_machine"] = os.getloadavg()[0]
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
