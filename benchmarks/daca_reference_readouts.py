"""DACA's reference: which way of reading it gives the best calibration, over sets and many random halves?

The model (SmolLM2-135M-Instruct) is read by summed option text; the reference (Gemma-3-270m, pre-trained) summed, per
token and per byte. Half of the questions fit, the other half is measured; the mean over random halves is printed with
its 95 % range over halves. Labels are used for the row "temperature (labels)" and for measuring only.

    python benchmarks/daca_reference_readouts.py [--questions 500] [--halves 50] [--threads 2] [--json FILE]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import calibwrap as cw
from calibwrap.data import load_questions, packaged_model
from calibwrap.halves import over_halves
from calibwrap.questions import CLOZE, answers_of

SETS = ("arc_easy", "sciq", "openbookqa")
NORMALISATIONS = ("sum", "token", "byte")


def read(name: str, questions: list[cw.Question]) -> dict[str, cw.OptionScores]:
    """Return the scores of one model under all three normalisations, from one pass over the questions."""
    with cw.wrap(f"hf:{packaged_model(name)}") as lm:
        prompts = [CLOZE.prompt(question) for question in questions]
        options = [[CLOZE.separator + option for option in question.options] for question in questions]
        tokens = lm.adapter.score(prompts, options)
    found = {}
    for normalise in NORMALISATIONS:
        rows = []
        for question, scores in zip(questions, tokens, strict=True):
            sums = [float(one.chosen_logprob.sum()) for one in scores]
            bytes_ = [len(option.encode()) for option in question.options]
            lengths = {"sum": [1] * len(sums), "token": [len(one) for one in scores], "byte": bytes_}[normalise]
            rows.append([total / length for total, length in zip(sums, lengths, strict=True)])
        found[normalise] = cw.OptionScores.from_rows(rows, f"continuation:{normalise}:cloze")
    return found


def ece(scores: cw.OptionScores, answers: np.ndarray) -> float:
    """Return the calibration error of first choices, 15 bins."""
    return cw.metrics.ece(scores.confidence, scores.choice == answers)


def halves(
    model: cw.OptionScores, references: dict[str, cw.OptionScores], answers: np.ndarray, n: int
) -> dict[str, Any]:
    """Return the held-out ECE of every method over `n` random halves."""
    found = over_halves(model, answers, ["temperature"], halves=n)
    errors = {"raw": found["raw"], "temperature (labels)": found["temperature"]}
    for name, reference in references.items():
        found = over_halves(model, answers, ["daca", "naive-kl"], reference, halves=n)
        errors |= {f"DACA, reference {name}": found["daca"], f"naive KL, reference {name}": found["naive-kl"]}
    return {name: {"ece": figure.value, "low": figure.low, "high": figure.high} for name, figure in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--halves", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sets = {name: load_questions(name, limit=arguments.questions, seed=0) for name in SETS}
    everything = [question for questions in sets.values() for question in questions]
    models = {name: read(name, everything) for name in ("smollm2-135m-instruct", "gemma-3-270m")}
    results: dict[str, Any] = {}
    start = 0
    for name, questions in sets.items():
        rows = np.arange(start, start + len(questions))
        start += len(questions)
        answers = np.array(answers_of(questions))
        model = models["smollm2-135m-instruct"]["sum"].take(rows)
        references = {n: scores.take(rows) for n, scores in models["gemma-3-270m"].items()}
        found = halves(model, references, answers, arguments.halves)
        own = {n: ece(scores, answers) for n, scores in references.items()}
        results[name] = {"questions": len(questions), "held_out": found, "reference_own_ece": own}
        print(f"\n{name}: {len(questions)} questions, mean over {arguments.halves} random halves")
        for method, figure in found.items():
            print(
                f"  {method:28s} ECE {figure['ece']:.3f}   95 % of halves {figure['low']:.3f} to {figure['high']:.3f}"
            )
        print("  the reference's own ECE: " + ", ".join(f"{n} {value:.3f}" for n, value in own.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
