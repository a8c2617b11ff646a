"""Prompts that begin alike on Transformers: each read in full beside their common beginning read once.

SmolLM2-135M-Instruct, letters under its chat template, one thread. "label" asks each question once: its prompts share
the template's system message; "permuted" asks it in every cyclic order of its options, which share the question too.
The two ways take turns; written are the median seconds a question of each way, the median and
the range of their ratio turn by turn, and the largest difference between two log-probabilities of a letter.

    OMP_NUM_THREADS=1 python benchmarks/shared_beginning.py [--sets arc_easy] [--questions 30] [--rounds 3]
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.data import load_questions, packaged_model

READOUTS = ("label:letter-chat", "permuted:label:letter-chat")


def compared(
    shared: cw.CalibratedLM, whole: cw.CalibratedLM, questions: list[cw.Question], readout: str, rounds: int
) -> dict[str, float]:
    """Return the figures of one readout on one set."""
    seconds: dict[str, list[float]] = {"shared": [], "whole": []}
    for _ in range(rounds):
        read = {}
        for name, lm in (("whole", whole), ("shared", shared)):
            began = time.perf_counter()
            read[name] = lm.scores(questions, readout)
            seconds[name].append((time.perf_counter() - began) / len(questions))
    ratios = sorted(a / b for a, b in zip(seconds["whole"], seconds["shared"], strict=True))
    known = read["whole"].mask
    return {
        "whole_seconds": statistics.median(seconds["whole"]),
        "shared_seconds": statistics.median(seconds["shared"]),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
        "largest_difference": float(np.abs(read["whole"].logprobs[known] - read["shared"].logprobs[known]).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["arc_easy"])
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    adapter = Transformers.load(str(packaged_model("smollm2-135m-instruct")))
    other = Transformers(adapter.model, adapter.tokenizer)
    other._engine = replace(other._engine, can_repeat=False)  # as for a model whose cache cannot be copied
    results: dict[str, float] = {}
    for name in arguments.sets:
        questions = load_questions(name)[: arguments.questions]
        for readout in READOUTS:
            found = compared(cw.wrap(adapter), cw.wrap(other), questions, readout, arguments.rounds)
            results |= {f"{name}_{readout.partition(':')[0]}_{key}": value for key, value in found.items()}
    results["load_of_the_machine"] = os.getloadavg()[0]
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
