"""Continuation readout with llama.cpp beside the plain way: reading the whole prompt again for each option.

Same model (SmolLM2-135M-Instruct, Q4_1), same ARC-Easy questions, same threads; the two take turns, question by
question, each with a context of its own, so that neither finds what the other has read. The plain way evaluates prompt
and option from an empty context and reads the same rows. With --shots, what stands before all questions is shared too.

    python benchmarks/llamacpp_continuation.py [--questions 50] [--threads 1] [--shots 0] [--json FILE]
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from calibwrap.adapters.llamacpp import LlamaCpp
from calibwrap.data import load_questions, packaged_model
from calibwrap.questions import CLOZE, Question


def options_of(question: Question) -> list[str]:
    return [CLOZE.separator + option for option in question.options]


def shared(adapter: LlamaCpp, prompt: str, options: list[str]) -> list[float]:
    """Return the options' log-probabilities: one pass over the prompt, kept for all of them."""
    return [float(one.chosen_logprob.sum()) for one in adapter.score([prompt], [options])[0]]


def again(adapter: LlamaCpp, prompt: str, options: list[str]) -> list[float]:
    """Return the same, the context emptied before each option."""
    sums = []
    for option in options:
        adapter.llama.reset()
        sums.append(float(adapter.score([prompt], [[option]])[0][0].chosen_logprob.sum()))
    return sums


def timed(function: Any, *arguments: Any) -> tuple[float, list[float]]:
    """Return seconds and result."""
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shots", type=int, default=0, help="answered questions that stand before each question")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    questions = load_questions("arc_easy", limit=arguments.questions + arguments.shots, seed=0)
    solved, asked = questions[: arguments.shots], questions[arguments.shots :]
    before = "".join(f"{CLOZE.prompt(question)} {question.answer_text}\n\n" for question in solved)
    path = packaged_model("smollm2-135m-instruct")
    threads = {"n_threads": arguments.threads, "n_threads_batch": arguments.threads}
    plain, adapter = (LlamaCpp.load(str(path), **threads) for _ in range(2))
    seconds: list[tuple[float, float]] = []
    largest = 0.0
    for question in asked:
        prompt, options = before + str(CLOZE.prompt(question)), options_of(question)
        slow, theirs = timed(again, plain, prompt, options)
        fast, mine = timed(shared, adapter, prompt, options)
        seconds.append((fast, slow))
        largest = max(largest, *(abs(a - b) for a, b in zip(mine, theirs, strict=True)))
    plain.close()
    adapter.close()
    results = {
        "questions": len(asked),
        "shots": arguments.shots,
        "threads": arguments.threads,
        "shared_prefix_median_ms": 1000 * statistics.median(fast for fast, _ in seconds),
        "prompt_again_median_ms": 1000 * statistics.median(slow for _, slow in seconds),
        "ratio_median": statistics.median(slow / fast for fast, slow in seconds),
        "ratio_of_totals": sum(slow for _, slow in seconds) / sum(fast for fast, _ in seconds),
        "largest_log_probability_difference": largest,
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
