"""Continuation readout with Transformers beside EleutherAI's lm-evaluation-harness: speed and equality.

Same weights (SmolLM2-135M-Instruct, float32), same ARC-Easy questions, same batch size, same threads, same process; the
two take turns on the same questions. The harness scores each option as its own request, as its tasks do.

    python benchmarks/lm_eval_harness.py [--questions 200] [--batch-size 8] [--threads 1] [--rounds 5] [--json FILE]
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.data import load_questions, packaged_model
from calibwrap.questions import CLOZE


def harness(model: HFLM, questions: list[cw.Question]) -> list[list[float]]:
    """Return the summed log-probability of every option, by the harness."""
    pairs = [(CLOZE.prompt(q), CLOZE.separator + option) for q in questions for option in q.options]
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(pairs)
    ]
    found = iter(value for value, _ in model.loglikelihood(requests, disable_tqdm=True))
    return [[float(next(found)) for _ in q.options] for q in questions]


def ours(adapter: Any, questions: list[cw.Question]) -> list[list[float]]:
    """Return the same by calibwrap's adapter."""
    prompts = [CLOZE.prompt(q) for q in questions]
    options = [[CLOZE.separator + option for option in q.options] for q in questions]
    return [[float(one.chosen_logprob.sum()) for one in row] for row in adapter.score(prompts, options)]


def against_float64(adapter: Any, both: list[tuple[cw.Question, list[float], list[float]]]) -> dict[str, float]:
    """Return how far each side is from the same weights in float64: who is right where the two differ."""
    adapter.model.double()
    exact = ours(Transformers(adapter.model, adapter.tokenizer, batch_size=1), [question for question, _, _ in both])
    sides = {"calibwrap_from_float64_largest": 1, "harness_from_float64_largest": 2}
    return {
        name: max(
            abs(a - b) for row, line in zip(both, exact, strict=True) for a, b in zip(row[side], line, strict=True)
        )
        for name, side in sides.items()
    }


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Return seconds and result."""
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exact", type=int, default=40, help="questions to compare with float64")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    questions = load_questions("arc_easy", limit=arguments.questions, seed=0)
    lm = cw.wrap(f"hf:{packaged_model('smollm2-135m-instruct')}", batch_size=arguments.batch_size)
    peer = HFLM(pretrained=lm.adapter.model, tokenizer=lm.adapter.tokenizer, batch_size=arguments.batch_size)
    pieces = np.array_split(np.arange(len(questions)), arguments.rounds)
    speeds, differences, both = [], [], []
    for piece in pieces:  # in turns, so that noise of the machine falls on both
        chosen = [questions[int(index)] for index in piece]
        mine, own = timed(ours, lm.adapter, chosen)
        theirs, other = timed(harness, peer, chosen)
        speeds.append((len(chosen) / mine, len(chosen) / theirs))
        both += list(zip(chosen, own, other, strict=True))
        differences += [
            abs(a - b) for row, line in zip(own, other, strict=True) for a, b in zip(row, line, strict=True)
        ]
    ratios = [a / b for a, b in speeds]
    results = {
        "questions": len(questions),
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "calibwrap_questions_per_second": statistics.median(a for a, _ in speeds),
        "harness_questions_per_second": statistics.median(b for _, b in speeds),
        "ratio_median": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "difference_median": float(np.median(differences)),
        "difference_99_percent": float(np.quantile(differences, 0.99)),
        "difference_largest": max(differences),
        **against_float64(lm.adapter, both[: arguments.exact]),
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
