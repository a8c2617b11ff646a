"""The same GGUF file through Transformers and through llama.cpp: how far apart are option probabilities, accuracy, ECE?

Transformers turns the Q4_1 weights into float32; llama.cpp also rounds activations to 8 bits, so the two differ. A
calibrator is therefore tied to its runtime. ARC-Easy, continuation readout, summed.

    python benchmarks/runtime_parity.py [--questions 200] [--threads 1] [--json FILE]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import calibwrap as cw
from calibwrap import metrics
from calibwrap.data import load_questions, packaged_model
from calibwrap.readouts import Continuation


def quality(scores: cw.OptionScores, answers: np.ndarray) -> dict[str, float]:
    """Return accuracy, mean confidence and ECE (15 bins)."""
    correct = scores.choice == answers
    return {
        "accuracy": float(correct.mean()),
        "confidence": float(scores.confidence.mean()),
        "ece": float(metrics.ece(scores.confidence, correct, n_bins=15)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    questions = load_questions("arc_easy", limit=arguments.questions, seed=0)
    answers = np.array([question.answer for question in questions])
    path = packaged_model("smollm2-135m-instruct")
    threads = {"n_threads": arguments.threads, "n_threads_batch": arguments.threads}
    scores = {}
    for spec, options in ((f"hf:{path}", {}), (f"llama-cpp:{path}", threads)):
        with cw.wrap(spec, **options) as lm:
            scores[spec.partition(":")[0]] = lm.scores(questions, readout=Continuation())
    hf, llama = scores["hf"], scores["llama-cpp"]
    apart = np.abs(hf.probabilities - llama.probabilities)[hf.mask]
    both = {name: quality(one, answers) for name, one in scores.items()}
    results = {
        "questions": len(questions),
        "options": int(hf.mask.sum()),
        "probability_difference_largest": float(apart.max()),
        "probability_difference_mean": float(apart.mean()),
        "same_choice": float((hf.choice == llama.choice).mean()),
        **{f"{metric}_{name}": value for name, values in both.items() for metric, value in values.items()},
        "accuracy_difference": abs(both["hf"]["accuracy"] - both["llama-cpp"]["accuracy"]),
        "ece_difference": abs(both["hf"]["ece"] - both["llama-cpp"]["ece"]),
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
