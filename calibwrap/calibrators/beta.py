"""Beta calibration of one confidence: like Platt's line, with a slope of its own at either end.

Kull, Silva Filho, Flach, "Beta calibration: a well-founded and easily implemented improvement on logistic calibration
for binary classifiers", 2017.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._confidence import CLIP, ConfidenceCalibrator, checked_pairs, few_rows, separation
from calibwrap.calibrators._inputs import today
from calibwrap.calibrators._logistic import Minimum, mean_loss, minimum
from calibwrap.calibrators.platt import checked_clip, smoothed
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.provenance import FitReport
from calibwrap.real_numbers import real_number
from calibwrap.scores import Floats

FEW = 30
"""Rows below which a note says that they are few: ten for each number."""
_PULL = 1e-7
"""How far the gradient of a slope that is held at 0 may point to better numbers above 0, by rounding."""


@dataclass(frozen=True)
class Beta(ConfidenceCalibrator):
    """Maps a confidence c to the probability whose log-odds are `a log c - b log(1 - c) + intercept`.

    a = b = 1 and intercept 0 change nothing but confidences beyond `clip`; a = b is Platt scaling. The slope `a` rules
    low confidences and `b` high ones, so that a model can be over-confident at one end alone. Both are at least 0: more
    confidence never means less.

    Raises:
        InputError: a number is not finite, `a` or `b` is below 0, or `clip` is not between 0 and 0.5.

    >>> Beta(a=1.0, b=0.5, intercept=0.0)([0.5, 0.99]).round(4).tolist()  # 0.5 / sqrt(0.5), 0.99 / sqrt(0.01): odds
    [0.4142, 0.9083]
    """

    kind: ClassVar[str] = "beta"
    a: float
    """Slope by log c, at least 0."""
    b: float
    """Slope by -log(1 - c), at least 0."""
    intercept: float
    """Added to the log-odds, in nats; the paper's c."""
    clip: float = CLIP
    """Confidences are taken as at least this and at most 1 - this, so that 0 and 1 have logarithms."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("a", "b", "intercept", "clip"):
            given = getattr(self, name)
            value = real_number(given)
            if not math.isfinite(value) or (name in ("a", "b") and value < 0.0):
                raise InputError(f"'{name}' of Beta must be a finite number, a and b at least 0. Got {given!r}.")
            object.__setattr__(self, name, value)
        checked_clip(self.clip)

    def mapped(self, confidence: Floats) -> Floats:
        """Return the logistic function of the line through log c and -log(1 - c)."""
        rising, falling = _logarithms(confidence, self.clip)
        with np.errstate(over="ignore"):  # a line may leave the range of floats; its probability is then 0 or 1
            return np.asarray(np.exp(-np.logaddexp(0.0, -(self.a * rising + self.b * falling + self.intercept))))


def fit_beta(confidence: ArrayLike, correct: ArrayLike, *, clip: float = CLIP) -> Beta:
    """Return the beta map of greatest likelihood of `correct`.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]: 1 for a right answer, 0 for a wrong one, between for partly right.
        clip: confidences are taken as at least this and at most 1 - this.

    A convex problem under two bounds: the least of the free optimum and those with a, b or both at 0 is exact, and the
    certificate is that no free slope can fall and none held at 0 would rise. With two different confidences a = b is
    asked for, with one a = b = 1. Where a threshold parts right from wrong, or all are right, or all wrong, no finite
    numbers are best: Platt's smoothed targets are used, a note says so, and a `CalibrationWarning` is given.

    Raises:
        InputError: wrong shapes, or numbers outside [0, 1].

    >>> fitted = fit_beta([0.2] * 4 + [0.5] * 4 + [0.8] * 4, [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    >>> fitted([0.2, 0.5, 0.8]).round(4).tolist()  # three places, three numbers: each place's share
    [0.25, 0.5, 0.75]
    """
    said, right = checked_pairs(confidence, correct)
    rising, falling = _logarithms(said, checked_clip(clip))
    different = min(len(np.unique(rising)), 3)
    forced = separation(rising + falling, right) == "separable"
    targets = smoothed(right) if forced else right
    found = _under_bounds(rising, falling, targets, different)
    a, b, intercept = (float(value) for value in found.at)
    return Beta(
        a,
        b,
        intercept,
        clip,
        report=FitReport(
            method="beta",
            rows=len(said),
            rows_used=len(said),
            objective_before=mean_loss(_features(rising, falling), targets, np.array([1.0, 1.0, 0.0])),
            objective_after=found.value,
            at_bound="lower" if min(a, b) == 0.0 else "",
            converged=found.converged,
            notes=(*_notes(a, b, different, is_forced=forced, converged=found.converged), *few_rows(len(said), FEW)),
            date=today(),
        ),
    )


def _logarithms(confidence: Floats, clip: float) -> tuple[Floats, Floats]:
    """Return log c and -log(1 - c) of confidences that are first brought into [clip, 1 - clip]."""
    inside = np.clip(confidence, clip, 1.0 - clip)
    return np.asarray(np.log(inside)), np.asarray(-np.log1p(-inside))


def _features(rising: Floats, falling: Floats) -> Floats:
    return np.stack([rising, falling, np.ones_like(rising)], axis=1)


def _under_bounds(rising: Floats, falling: Floats, targets: Floats, different: int) -> Minimum:
    """Return the least mean cross-entropy over a >= 0, b >= 0 and the intercept, in that order.

    Where fewer than three confidences differ, a = b, which is 1 where all are equal.
    """
    scale = float(max(np.abs(rising).max(), np.abs(falling).max()))
    if different < 3:
        return _line(rising + falling, targets, scale, is_free=different == 2)
    inputs = _features(rising / scale, falling / scale)
    free = minimum(inputs, targets, np.array([scale, scale, 0.0]), [0, 1, 2])
    if free.at[:2].min() >= 0.0:
        return _unscaled(free, scale)
    faces = [
        minimum(inputs, targets, np.array(start), which)
        for start, which in (([0.0, scale, 0.0], [1, 2]), ([scale, 0.0, 0.0], [0, 2]), ([0.0, 0.0, 0.0], [2]))
    ]
    best = min((face for face in faces if face.at[:2].min() >= 0.0), key=lambda face: face.value)
    pulls = best.gradient[:2][best.at[:2] == 0.0]
    certified = best.converged and bool((pulls > -_PULL).all())
    return _unscaled(Minimum(best.at, best.value, best.gradient, certified), scale)


def _line(log_odds: Floats, targets: Floats, scale: float, *, is_free: bool) -> Minimum:
    """Return the optimum with a = b >= 0."""
    inputs = np.stack([log_odds / scale, np.ones_like(log_odds)], axis=1)
    found = minimum(inputs, targets, np.array([scale, 0.0]), [0, 1] if is_free else [1])
    if found.at[0] < 0.0:
        found = minimum(inputs, targets, np.zeros(2), [1])
    slope, intercept = found.at
    return Minimum(np.array([slope / scale, slope / scale, intercept]), found.value, found.gradient, found.converged)


def _unscaled(found: Minimum, scale: float) -> Minimum:
    return Minimum(found.at / np.array([scale, scale, 1.0]), found.value, found.gradient, found.converged)


def _notes(a: float, b: float, different: int, *, is_forced: bool, converged: bool) -> tuple[str, ...]:
    """Return what a reader should know, and warn of it."""
    notes = []
    if is_forced:
        notes.append("Confidence parts right from wrong answers on these rows, or all are alike: smoothed targets.")
    if different < 3:
        notes.append(
            "All confidences are equal, so that a = b = 1."
            if different == 1
            else "Only two confidences differ, so that a = b."
        )
    if max(a, b) == 0.0:
        notes.append("More confidence does not go with more correctness on these rows: a = b = 0.")
    if not converged:
        notes.append("The search did not converge.")
    if notes:
        advice = "Fit on more rows, or on another confidence."
        warnings.warn(" ".join([*notes, advice]), CalibrationWarning, stacklevel=3)
    return tuple(notes)
