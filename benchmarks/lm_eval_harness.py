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
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    questions = load_questions("arc_easy", limit=arguments.questions, seed=0)
    lm = cw.wrap(f"hf:{packaged_model('smollm2-135m-instruct')}", batch_size=arguments.batch_size)
    peer = HFLM(pretrained=lm.adapter.model, tokenizer=lm.adapter.tokenizer, batch_size=arguments.batch_size)
    pieces = np.array_split(np.arange(len(questions)), arguments.rounds)
    speeds, largest = [], 0.0
    for piece in pieces:  # in turns, so that noise of the machine falls on both
        chosen = [questions[int(index)] for index in piece]
        mine, own = timed(ours, lm.adapter, chosen)
        theirs, other = timed(harness, peer, chosen)
        speeds.append((len(chosen) / mine, len(chosen) / theirs))
        pairs = zip(own, other, strict=True)
        largest = max(largest, *(abs(a - b) for row, line in pairs for a, b in zip(row, line, strict=True)))
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
        "largest_log_likelihood_difference": largest,
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
