"""The headline figures of a question set, put together in one place for the evaluation, the study and the report.

Conventions: a confidence is the probability of the first choice; the calibration error (ECE) has 15 bins of equal width
and the l1 norm, the smooth one no bins; the Brier score is the sum over a question's options; the negative
log-likelihood is in nats. Intervals are bootstrap intervals of 95 % over questions, and the same questions are drawn
for every state, so that changes are paired.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.metrics.smooth import residual_sums, smooth_error
from calibwrap.scores import OptionScores

BINS = 15
"""Bins of equal width in every calibration error and reliability diagram of a summary."""

FIGURES = ("accuracy", "mean_confidence", "ece", "smooth_ece", "brier", "nll", "auroc", "aurc")
"""Names of the figures, in the order in which they are shown."""

Array = NDArray[Any]
Measure = Callable[..., float]

COARSE = 1024
"""Cells of the grid on which the smooth error of a resample is worked out; the figure itself has the full one."""
FEWEST = 200
"""Least bootstrap samples of an interval, and all that the smooth error has: each of them searches for a root."""


@dataclass(frozen=True)
class Figure:
    """One number with its interval; `value` is None where it is not defined, and `reason` says why.

    >>> Figure(0.5, 0.4, 0.6).value
    0.5
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""


def figures(scores: OptionScores, answers: ArrayLike, *, seed: int = 0) -> dict[str, Figure]:
    """Return accuracy, mean confidence, ECE, smooth ECE, Brier score, NLL, AUROC and AURC with their 95 % intervals.

    Args:
        scores: N questions.
        answers: (N,) indices of the right options.
        seed: same seed, same intervals.

    Raises:
        InputError: an answer that is not the index of an existing option, or not one for each question.

    >>> scores = OptionScores(np.log([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]]), readout="label")
    >>> found = figures(scores, [0, 1, 1])
    >>> round(found["accuracy"].value, 3), round(found["mean_confidence"].value, 3)
    (0.667, 0.667)
    """
    parts = _parts(scores, _checked_answers(scores, answers))
    return {name: _figure(name, *parts[name], seed) for name in FIGURES}


def difference(before: OptionScores, after: OptionScores, answers: ArrayLike, *, seed: int = 0) -> dict[str, Figure]:
    """Return how much each figure changes from `before` to `after` on the same questions, with paired intervals.

    Raises:
        InputError: other answers than questions, or states of different numbers of questions.

    >>> before = OptionScores(np.log([[0.9, 0.1], [0.9, 0.1]]), readout="label")
    >>> after = OptionScores(np.log([[0.6, 0.4], [0.6, 0.4]]), readout="label")
    >>> round(difference(before, after, [0, 1])["ece"].value, 3)
    -0.3
    """
    if len(before) != len(after):
        raise InputError(f"'before' and 'after' must be scores of the same questions. Got {len(before)}, {len(after)}.")
    first = _parts(before, _checked_answers(before, answers))
    second = _parts(after, _checked_answers(after, answers))
    return {name: _difference(name, *first[name], second[name][1], seed) for name in FIGURES}


def chance_ece(scores: OptionScores, *, draws: int = 200, seed: int = 0) -> Figure:
    """Return the ECE that exactly right confidences would show by luck on so few questions: mean and central 95 %.

    Answers are drawn with the stated confidence as their probability of being right; an ECE inside the range is no
    sign of miscalibration (Bröcker and Smith, Increasing the Reliability of Reliability Diagrams, 2007).

    >>> few, many = (OptionScores(np.log(np.tile([[0.7, 0.3]], (n, 1))), readout="label") for n in (20, 2000))
    >>> chance_ece(few).value > 3 * chance_ece(many).value
    True
    """
    random = np.random.default_rng(seed)
    confidence = np.minimum(scores.confidence, 1.0)
    errors = [_ece(confidence, random.random(len(confidence)) < confidence) for _ in range(draws)]
    low, high = np.quantile(errors, [0.025, 0.975])
    return Figure(float(np.mean(errors)), float(low), float(high))


def _checked_answers(scores: OptionScores, answers: ArrayLike) -> NDArray[np.int64]:
    """Return `answers` as integers, each the index of an option that exists."""
    array = np.asarray(answers)
    if array.shape != (len(scores),) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"'answers' must be {len(scores)} indices, one a question. Got {array.dtype} {array.shape}.")
    inside = (array >= 0) & (array < scores.mask.shape[1])
    exists = inside & scores.mask[np.arange(len(scores)), np.where(inside, array, 0)]
    if not exists.all():
        row = int(np.argmin(exists))
        raise InputError(f"'answers[{row}]' must be the index of an option that exists. Got {array[row]}.")
    return array.astype(np.int64)


def _parts(scores: OptionScores, answers: NDArray[np.int64]) -> dict[str, tuple[Measure, tuple[Array, ...]]]:
    """Return for each figure the function that measures it and the arrays, one row a question, that it reads.

    Brier score and NLL are means of one loss a question (`metrics.brier` and `metrics.nll` give the same numbers); as
    such they are resampled in a fraction of the time.
    """
    rows = np.arange(len(answers))
    correct = scores.choice == answers
    confidence = np.minimum(scores.confidence, 1.0)  # exp of a rounded log may pass 1 by one unit in the last place
    miss = scores.probabilities
    miss[rows, answers] -= 1.0
    return {
        "accuracy": (_mean, (correct,)),
        "mean_confidence": (_mean, (confidence,)),
        "ece": (_ece, (confidence, correct)),
        "smooth_ece": (metrics.smooth_ece, (confidence, correct)),
        "brier": (_mean, (np.square(miss).sum(axis=1),)),
        "nll": (_mean, (-scores.logprobs[rows, answers],)),
        "auroc": (metrics.auroc, (confidence, correct)),
        "aurc": (metrics.aurc, (confidence, correct)),
    }


def _mean(values: ArrayLike) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def _ece(confidence: ArrayLike, correct: ArrayLike) -> float:
    return metrics.ece(confidence, correct, n_bins=BINS)


def _coarse_smooth_ece(confidence: Array, correct: Array) -> float:
    return smooth_error(residual_sums(confidence, correct, COARSE) / len(confidence))


def _resampled(measure: Measure, rows: int) -> tuple[Measure, int]:
    """Return what is measured on how many bootstrap samples: near it, and fewer, where the measure is slow.

    There are 1000, fewer for large sets, where each costs more and tells more.
    """
    if measure is metrics.smooth_ece:
        return _coarse_smooth_ece, FEWEST
    return measure, int(np.clip(2_000_000 // rows, FEWEST, 1000))


def _undefined(name: str, arrays: tuple[Array, ...]) -> str:
    """Return why the figure `name` has no value on these arrays; empty where it has one."""
    if name == "auroc" and len(np.unique(arrays[1])) < 2:
        return "not defined: all answers are right" if arrays[1].all() else "not defined: all answers are wrong"
    if name == "nll" and np.isinf(arrays[0]).any():
        return "infinite: a right answer was given probability 0"
    return ""


def _with_interval(value: float, rows: int, ends: Callable[[], tuple[float, float]]) -> Figure:
    """Return a figure with the ends of its interval, or why it has no interval."""
    if rows < 2:
        return Figure(value, None, None, "one question has no spread")
    try:
        low, high = ends()
    except InputError:  # the value itself is defined, so only some resample is not
        return Figure(value, None, None, "too few right or too few wrong answers")
    return Figure(value, low, high)


def _figure(name: str, measure: Measure, arrays: tuple[Array, ...], seed: int) -> Figure:
    """Return a measure with its interval, or why it has none."""
    if reason := _undefined(name, arrays):
        return Figure(None, None, None, reason)
    rows = len(arrays[0])
    quick, samples = _resampled(measure, rows)
    return _with_interval(
        float(measure(*arrays)),
        rows,
        lambda: metrics.bootstrap_ci(quick, *arrays, n_resamples=samples, seed=seed),
    )


def _difference(name: str, measure: Measure, first: tuple[Array, ...], second: tuple[Array, ...], seed: int) -> Figure:
    """Return second minus first; both are measured on the same resampled questions."""
    if reason := _undefined(name, first) or _undefined(name, second):
        return Figure(None, None, None, reason)
    rows = len(first[0])
    quick, samples = _resampled(measure, rows)
    return _with_interval(
        float(measure(*second) - measure(*first)),
        rows,
        lambda: metrics.bootstrap_difference(quick, second, first, n_resamples=samples, seed=seed),
    )
