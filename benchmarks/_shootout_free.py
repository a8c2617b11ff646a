"""Answers in free text in the shoot-out: one confidence an answer, mapped with labels or by a reference's word.

A model answers greedily and says of each answer whether it is right. The reference says the same of it ("P(True)"), and
gives the mean probability of its tokens ("re-evaluation"). Answers are right when they are an alias of the reference
answer, normalised. Answers that say nothing are left out, and counted.
"""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _shootout_judge import N_BINS, SPLITS
from _shootout_scores import REFERENCE, Reading, teller
from _shootout_tables import plain

import calibwrap as cw
from calibwrap import metrics
from calibwrap.calibrators import fit_isotonic, fit_platt
from calibwrap.data import packaged_model
from calibwrap.decoders.judgement import fit_daca_judged, judgements
from calibwrap.errors import CalibrationWarning, CalibwrapError
from calibwrap.evaluate_free_answers import collect_answers, default_free_stops
from calibwrap.files import replacing
from calibwrap.freetext.fitting import free_template
from calibwrap.freetext.judging import graded
from calibwrap.freetext.reevaluation import reevaluated

FREE_SETS = ("triviaqa", "nq_open")
FREE_MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct")
FREE = "free"
"""What stands in a reading's name in place of a readout."""
LONGEST = 24
"""Most tokens of an answer."""
MEASURES = ("ece", "smooth_ece", "brier", "nll", "auroc")


@dataclass(frozen=True)
class Free:
    """N answers in free text."""

    confidence: np.ndarray
    """(N,) geometric mean of the probabilities of its tokens."""
    own: np.ndarray
    """(N, 2) log-probabilities of "right" and "wrong", asked of the model."""
    other: np.ndarray
    """(N, 2) the same, asked of the reference."""
    word: np.ndarray
    """(N,) mean probability of the answer's tokens under the reference."""
    correct: np.ndarray
    """(N,) 1 where the answer is right, 0 where not."""
    asked: int
    """Questions, with those that were answered by nothing."""

    def take(self, rows: np.ndarray) -> "Free":
        """Return some of the answers."""
        arrays = {name: array[rows] for name, array in vars(self).items() if name != "asked"}
        return Free(asked=self.asked, **arrays)


@dataclass(frozen=True)
class Row:
    """One method: which confidence it maps, and how it is fitted; no fit is the confidence as it comes."""

    name: str
    uses: str
    of: Callable[[Free], np.ndarray]
    fit: Callable[[Free], Any] | None = None


def rows() -> list[Row]:
    """Return the methods in the order of the table."""

    def tokens(read: Free) -> np.ndarray:
        return read.confidence

    def p_true(read: Free) -> np.ndarray:
        return np.exp(read.own[:, 0])

    return [
        Row("tokens", "nothing", tokens),
        Row("tokens, platt", "labels", tokens, lambda read: fit_platt(read.confidence, read.correct)),
        Row("tokens, BaseCal by platt", "reference", tokens, lambda read: fit_platt(read.confidence, read.word)),
        Row("tokens, BaseCal by isotonic", "reference", tokens, lambda read: fit_isotonic(read.confidence, read.word)),
        Row("re-evaluation by the reference", "reference", lambda read: read.word),
        Row("P(True)", "nothing", p_true),
        Row("P(True), platt", "labels", p_true, lambda read: fit_platt(p_true(read), read.correct)),
        Row("P(True), DACA", "reference", p_true, daca),
    ]


def daca(read: Free) -> cw.Calibrator:
    """Return DACA between the two judges."""
    return fit_daca_judged(*(cw.OptionScores(verdict, "verdict") for verdict in (read.own, read.other)))


def read_free(readings: Sequence[Reading], work: Path, threads: int) -> None:
    """Read what is not kept yet: first what the models say, then what the reference makes of it."""
    for model in dict.fromkeys(one.model for one in readings):
        left = [one for one in readings if one.model == model and not one.path(work).exists()]
        if left:
            with opened(model, threads) as lm:
                for reading in left:
                    write(reading.path(work), answered(lm, reading, work))
    left = [one for one in readings if not by_reference(one).path(work).exists()]
    if left:
        with opened(REFERENCE, threads) as lm:
            for reading in left:
                write(by_reference(reading).path(work), judged(lm, reading, work))


def by_reference(reading: Reading) -> Reading:
    """Return what the reference makes of a reading's answers."""
    return replace(reading, readout=f"{FREE}-{REFERENCE}")


def opened(model: str, threads: int) -> cw.CalibratedLM:
    """Return a packaged model."""
    return cw.wrap(
        f"llama-cpp:{packaged_model(model)}", n_threads=threads, n_threads_batch=threads, n_ctx=1024, verbose=False
    )


def answered(lm: cw.CalibratedLM, reading: Reading, work: Path) -> dict[str, np.ndarray]:
    """Return the answers of a model that say anything, with its own verdict on each; answers are journalled."""
    template = free_template(None, lm.adapter.provides)
    decoder = cw.FreeText(max_tokens=LONGEST, stop=default_free_stops(template, cw.FreeText))
    journal = reading.path(work).with_suffix(".jsonl")
    asked = collect_answers(
        lm, reading.questions, decoder, template, journal, resume=True, progress=teller(str(reading))
    )
    answers = [answer for answer, _ in asked]
    said = [at for at, answer in enumerate(answers) if answer.text]
    right = graded([answers[at] for at in said], [reading.questions[at] for at in said])
    texts = [answers[at].text for at in said]
    return {
        "rows": np.array(said),
        "texts": np.array(texts),
        "confidence": np.array([answers[at].confidence for at in said]),
        "correct": (right == 1.0).astype(float),
        "own": judgements(lm.adapter, [reading.questions[at] for at in said], texts).logprobs,
    }


def judged(lm: cw.CalibratedLM, reading: Reading, work: Path) -> dict[str, np.ndarray]:
    """Return what the reference makes of the answers that are kept."""
    with np.load(reading.path(work), allow_pickle=False) as file:
        questions, texts = [reading.questions[at] for at in file["rows"]], [str(one) for one in file["texts"]]
    print(f"{REFERENCE} on the answers of {reading}", file=sys.stderr, flush=True)
    return {
        "other": judgements(lm.adapter, questions, texts).logprobs,
        "word": reevaluated(lm.adapter, questions, texts),
    }


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays; the file appears whole or not at all."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def kept_free(reading: Reading, work: Path) -> Free | None:
    """Return what was read, or None where that is not whole."""
    paths = [one.path(work) for one in (reading, by_reference(reading))]
    if not all(path.exists() for path in paths):
        return None
    arrays: dict[str, np.ndarray] = {}
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            arrays |= {name: file[name] for name in file.files if name not in ("rows", "texts")}
    return Free(asked=len(reading.questions), **arrays)


def judge_free(row: Row, read: Free) -> dict[str, Any]:
    """Return each measure on the held-out half of every split, or why there is none."""
    splits = []
    for seed in range(SPLITS):
        fit, rest = np.array_split(np.random.default_rng(seed).permutation(len(read.correct)), 2)
        held = read.take(rest)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CalibrationWarning)  # what comes of it is in the table
                said = row.of(held) if row.fit is None else row.fit(read.take(fit))(row.of(held))
        except CalibwrapError as error:
            return {"uses": row.uses, "failed": f"split {seed}: {error}"}
        splits.append(measured(said, held.correct))
    return {"uses": row.uses, "splits": splits}


def measured(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    """Return the figures of N answers; there is no AUROC where all are right or all are wrong."""
    with np.errstate(divide="ignore"):
        both = np.log(np.stack([confidence, 1.0 - confidence], axis=1))
    return {
        "ece": metrics.ece(confidence, correct, n_bins=N_BINS),
        "smooth_ece": metrics.smooth_ece(confidence, correct),
        "brier": metrics.top_label_brier(confidence, correct),
        "nll": metrics.nll(both, (correct == 0.0).astype(int)),
        "auroc": metrics.auroc(confidence, correct) if 0.0 < correct.mean() < 1.0 else float("nan"),
    }


def free_table(name: str, read: Free) -> tuple[list[str], dict[str, Any]]:
    """Return the Markdown table of one model on one set, means over splits and their range, and the plain data."""
    found = {row.name: judge_free(row, read) for row in rows()}
    silent = read.asked - len(read.correct)
    head = f"{name}, free text: {read.correct.mean():.3f} right of {len(read.correct)}, {silent} silent"
    lines = [f"| {head} | uses | {' | '.join(MEASURES)} |", "|---" * (2 + len(MEASURES)) + "|"]
    for method, result in found.items():
        if "failed" in result:
            lines.append(f"| {method} | {result['uses']} | {plain(result['failed'])}" + " |" * len(MEASURES))
            continue
        cells = [cell([split[measure] for split in result["splits"]]) for measure in MEASURES]
        lines.append(f"| {method} | {result['uses']} | {' | '.join(cells)} |")
    return lines, {"accuracy": float(read.correct.mean()), "silent": silent, "methods": found}


def cell(values: Sequence[float]) -> str:
    """Return a mean over splits with its range; nothing where a split has no figure."""
    return "" if np.isnan(values).any() else f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
