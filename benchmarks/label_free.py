"""Which method without labels is best? All of them beside a temperature fitted with labels, on packaged models.

The model is SmolLM2-135M-Instruct, the reference Gemma-3-270m (pre-trained), read per token of options. The model is
read by summed option text ("text") and by letters in its chat template ("letters"). In each of five seeded splits half
of the questions fit and the other half is measured; labels are used for the row "temperature (labels)" and for
measuring only. Written in each cell: the mean over splits, and the least and greatest of them. "mean" stands behind
methods that move probability between options and leave the confidence as it comes: a matched mean was fitted after.

Readings are journalled question by question: a run that was ended goes on where it stopped. The last table of a family
says how far each method's ECE and log loss lie above those of the temperature with labels, over sets; it is ordered by
log loss, which no fluke of bins can lower.

    OMP_NUM_THREADS=1 python benchmarks/label_free.py [--work FOLDER] [--questions 300] [--json FILE] [--markdown FILE]
    OMP_NUM_THREADS=1 python benchmarks/label_free.py --questions 12 --sets arc_easy   # the smallest, two minutes
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import calibwrap as cw
from calibwrap import metrics
from calibwrap.calibrators import Identity, TopLabel, fit_batch, fit_without_labels
from calibwrap.calibrators.soft_labels import soft_labels
from calibwrap.data import load_questions, packaged_model
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError
from calibwrap.evaluate import collect
from calibwrap.questions import answers_of
from calibwrap.readouts import find_readout

MODEL, REFERENCE = "smollm2-135m-instruct", "gemma-3-270m"
REFERENCE_READOUT = "continuation:token"
SETS = ("arc_easy", "sciq", "openbookqa", "commonsense_qa")
READINGS = {
    "text": ("continuation:sum", "contextual:continuation:sum"),
    "letters": ("label:letter-chat", "contextual:label:letter-chat", "permuted:label:letter-chat"),
}
"""By family: the plain readout, then those that correct it."""
MEASURES = ("accuracy", "ece", "smooth_ece", "brier", "nll")
SOFT = ("beta", "isotonic", "platt")
LABELLED = "temperature (labels)"
SPLITS = 5

Fit = Callable[[cw.OptionScores, np.ndarray, cw.OptionScores], cw.Calibrator]
"""Takes the model's scores, the right answers and the reference's scores of the fit half."""


@dataclass(frozen=True)
class Row:
    """One method: which readout it maps, and how it is fitted."""

    name: str
    readout: str
    fit: Fit
    keeps_choice: bool = True


def rows_of(family: str) -> list[Row]:
    """Return the methods of one family of readouts, in the order of the table."""
    plain, *corrections = READINGS[family]
    fits: dict[str, Fit] = {
        "raw": lambda scores, answers, other: Identity(),
        LABELLED: lambda scores, answers, other: cw.fit_temperature(scores, answers),
        "DACA": lambda scores, answers, other: cw.fit_daca(scores, other, n_bootstrap=0),
        "naive KL": lambda scores, answers, other: cw.fit_naive_kl(scores, other, n_bootstrap=0),
        "mean": mean,
        **{f"soft {name}": soft(name) for name in SOFT},
        "platt alone": platt_alone,
    }
    found = [Row(name, plain, fit) for name, fit in fits.items()]
    found += [Row("batch", plain, lambda scores, answers, other: fit_batch(scores), False)]
    found += [Row("batch, mean", plain, then_mean(fit_batch), False)]
    for readout in corrections:
        name = readout.partition(":")[0]
        found += [Row(name, readout, fits["raw"], False), Row(f"{name}, mean", readout, mean, False)]
        found += [Row(f"{name}, {LABELLED}", readout, fits[LABELLED], False)]
    return found


def mean(scores: cw.OptionScores, answers: np.ndarray, other: cw.OptionScores) -> cw.Calibrator:
    """Return the temperature that matches the mean confidence with the reference's word."""
    return cw.fit_matched_mean(scores, other, n_bootstrap=0)


def soft(name: str) -> Fit:
    """Return the fit of a matched mean and then of one map of the first choice to the reference's word."""
    return lambda scores, answers, other: fit_without_labels(scores, other, name)


def platt_alone(scores: cw.OptionScores, answers: np.ndarray, other: cw.OptionScores) -> cw.Calibrator:
    """Return what "soft platt" is without the temperature before it: the other options stay as sharp as they are."""
    rows = soft_labels(scores, other, "platt alone")
    return TopLabel(cw.fit_platt(rows.confidence, rows.correct))


def then_mean(fit: Callable[[cw.OptionScores], cw.Calibrator]) -> Fit:
    """Return `fit` followed by a matched mean of what it gives."""

    def both(scores: cw.OptionScores, answers: np.ndarray, other: cw.OptionScores) -> cw.Calibrator:
        first = fit(scores)
        return cw.chain(first, mean(first(scores), answers, other))

    return both


def read(
    work: Path, sets: Mapping[str, Sequence[cw.Question]], readouts: Sequence[str], threads: int
) -> dict[tuple[str, str], cw.OptionScores]:
    """Return the scores by set and readout, "reference" among them; what the journals hold is not asked again."""
    found: dict[tuple[str, str], cw.OptionScores] = {}
    for model, asked in ((MODEL, readouts), (REFERENCE, ("reference",))):
        with cw.wrap(f"llama-cpp:{packaged_model(model)}", n_threads=threads, n_ctx=1024, verbose=False) as lm:
            for name, questions in sets.items():
                for readout in asked:
                    how = find_readout(REFERENCE_READOUT if readout == "reference" else readout)
                    journal = work / f"{name}-{len(questions)}-{readout.replace(':', '-')}.jsonl"
                    start = time.perf_counter()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", CalibrationWarning)  # little mass on letters: in the table
                        found[name, readout] = collect(lm, questions, journal, readout=how, resume=True)
                    took = time.perf_counter() - start
                    print(f"{model} {name} {readout}: {took:.0f} s", file=sys.stderr, flush=True)
    return found


def measured(scores: cw.OptionScores, answers: np.ndarray) -> dict[str, float]:
    """Return the figures of held-out scores."""
    correct = scores.choice == answers
    return {
        "accuracy": float(correct.mean()),
        "ece": metrics.ece(scores.confidence, correct, n_bins=15),
        "smooth_ece": metrics.smooth_ece(scores.confidence, correct),
        "brier": metrics.brier(scores.probabilities, answers),
        "nll": metrics.nll(scores.logprobs, answers),
        "confidence": float(scores.confidence.mean()),
    }


def over_splits(row: Row, scores: cw.OptionScores, answers: np.ndarray, other: cw.OptionScores) -> dict[str, Any]:
    """Return the figures of one method on one set in every split; a fit that the data do not determine says why."""
    splits: list[dict[str, float]] = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(answers))
        fit, held = order[: len(order) // 2], order[len(order) // 2 :]
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CalibrationWarning)  # what comes of it is in the table
                calibrator = row.fit(scores.take(fit), answers[fit], other.take(fit))
            seconds = time.perf_counter() - start
            splits.append({**measured(calibrator(scores.take(held)), answers[held]), "fit_seconds": seconds})
        except (CapabilityError, FitError) as error:
            return {"failed": str(error)}
    return {"splits": splits, "keeps_choice": row.keeps_choice}


def cell(result: Mapping[str, Any], measure: str) -> str:
    """Return a mean over splits with its range."""
    if "failed" in result:
        return "none"
    values = [split[measure] for split in result["splits"]]
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(results: Mapping[str, Any], family: str, name: str) -> list[str]:
    """Return the Markdown table of one set under one family of readouts."""
    lines = [f"| {name}, {family} | choice stays | {' | '.join(MEASURES)} |", "|---" * (2 + len(MEASURES)) + "|"]
    for method, result in results.items():
        stays = "yes" if result.get("keeps_choice") else "no"
        lines.append(f"| {method} | {stays} | {' | '.join(cell(result, measure) for measure in MEASURES)} |")
    return lines


def against_labels(results: Mapping[str, Mapping[str, Any]], family: str) -> list[str]:
    """Return for each method how far its ECE and log loss lie above those of labels: mean over sets, and worst set."""
    gaps: dict[str, dict[str, list[float]]] = {}
    for of_set in results.values():
        for method, result in of_set.items():
            if "splits" in result:
                of = gaps.setdefault(method, {"ece": [], "nll": []})
                for measure, values in of.items():
                    values.append(mean_of(result, measure) - mean_of(of_set[LABELLED], measure))
    lines = [
        f"| {family}, above a temperature with labels | ECE, points | worst set | log loss, nats | worst set |",
        "|---|---|---|---|---|",
    ]
    for method, of in sorted(gaps.items(), key=lambda pair: float(np.mean(pair[1]["nll"]))):
        ece, nll = 100.0 * np.array(of["ece"]), np.array(of["nll"])
        lines.append(f"| {method} | {ece.mean():+.1f} | {ece.max():+.1f} | {nll.mean():+.3f} | {nll.max():+.3f} |")
    return lines


def mean_of(result: Mapping[str, Any], measure: str) -> float:
    """Return the mean of a figure over splits."""
    return float(np.mean([split[measure] for split in result["splits"]]))


def reference_row(scores: cw.OptionScores, answers: np.ndarray) -> str:
    """Return how well the reference itself is calibrated on a set."""
    own = measured(scores, answers)
    return f"accuracy {own['accuracy']:.3f}, confidence {own['confidence']:.3f}, ECE {own['ece']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("label-free-work"))
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--families", nargs="+", choices=tuple(READINGS), default=tuple(READINGS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sets = {name: load_questions(name, limit=arguments.questions, seed=0) for name in arguments.sets}
    readouts = [readout for family in arguments.families for readout in READINGS[family]]
    scores = read(arguments.work, sets, readouts, arguments.threads)
    found: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    for family in arguments.families:
        found[family] = {}
        for name, questions in sets.items():
            answers, other = np.array(answers_of(questions)), scores[name, "reference"]
            rows = {row.name: over_splits(row, scores[name, row.readout], answers, other) for row in rows_of(family)}
            found[family][name] = rows
            lines += [*table(rows, family, name), "", f"The reference itself: {reference_row(other, answers)}.", ""]
        lines += [*against_labels(found[family], family), ""]
    told = f"{arguments.questions} questions a set, {SPLITS} splits, {MODEL} after {REFERENCE}."
    text = "\n".join([told, "", *lines])
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
