"""Platt scaling of one confidence: a line through its log-odds.

Platt, "Probabilistic outputs for support vector machines", 1999, with log-odds in place of the machine's output.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._confidence import CLIP, ConfidenceCalibrator, checked_pairs, few_rows, log_odds, separation
from calibwrap.calibrators._inputs import today
from calibwrap.calibrators._logistic import Line, fit_line
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.provenance import FitReport
from calibwrap.real_numbers import real_number
from calibwrap.scores import Floats

FEW = 20
"""Rows below which a note says that they are few: ten for each number."""
_LEVEL = 1e-6
"""Nats by which the log-odds of a line must change over all rows for it to rise or fall; the fit rounds by less."""

LEAST_CLIP = 1e-15
"""Smallest clip: 1 less anything smaller is 1, or hardly differs from it, and has no log-odds."""


@dataclass(frozen=True)
class Platt(ConfidenceCalibrator):
    """Maps a confidence c to the probability whose log-odds are `slope * log(c / (1 - c)) + intercept`.

    Slope 1 and intercept 0 change nothing but confidences beyond `clip`. A slope below 1 takes confidence away at both
    ends, an intercept below 0 takes it away everywhere. With a slope below 0 more confidence means less.

    Raises:
        InputError: a number is not finite, or `clip` is not between 0 and 0.5.

    >>> Platt(slope=1.0, intercept=-math.log(3.0))([0.5, 0.75]).round(4).tolist()  # odds 1 : 1 and 3 : 1, a third each
    [0.25, 0.5]
    """

    kind: ClassVar[str] = "platt"
    slope: float
    """Factor of the log-odds."""
    intercept: float
    """Added to them, in nats."""
    clip: float = CLIP
    """Confidences are taken as at least this and at most 1 - this, so that 0 and 1 have log-odds."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("slope", "intercept", "clip"):
            value = real_number(getattr(self, name))
            if not math.isfinite(value):
                raise InputError(f"'{name}' of Platt must be a finite number. Got {getattr(self, name)!r}.")
            object.__setattr__(self, name, value)
        checked_clip(self.clip)

    def mapped(self, confidence: Floats) -> Floats:
        """Return the logistic function of the line through the log-odds."""
        with np.errstate(over="ignore"):  # a line may leave the range of floats; its probability is then 0 or 1
            return np.asarray(
                np.exp(-np.logaddexp(0.0, -(self.slope * log_odds(confidence, self.clip) + self.intercept)))
            )


def fit_platt(confidence: ArrayLike, correct: ArrayLike, *, clip: float = CLIP, smoothing: bool = False) -> Platt:
    """Return the line through the log-odds of greatest likelihood of `correct`.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]: 1 for a right answer, 0 for a wrong one, between for partly right.
        clip: confidences are taken as at least this and at most 1 - this. Of a share among k draws, 1 / (2 k) says
            that k equal draws are no proof.
        smoothing: whether to aim at (R + 1) / (R + 2) for a right answer and 1 / (W + 2) for a wrong one, with R right
            and W wrong answers in all, as Platt advised against over-fitting few rows.

    The objective is convex; a damped Newton search ends with a certificate and never above slope 1, intercept 0. Where
    a threshold parts right from wrong, or all are right, or all wrong, the best line is infinitely steep or high: then
    `smoothing` is used though it was not asked for, a note says so, and a `CalibrationWarning` is given. Where all
    confidences are equal the slope is left at 1.

    Raises:
        InputError: wrong shapes, or numbers outside [0, 1].

    >>> fit_platt([0.9] * 4 + [0.5] * 4, [1, 1, 1, 0, 1, 0, 0, 0]).intercept.__round__(4)  # 1 : 3 at log-odds 0
    -1.0986
    """
    said, right = checked_pairs(confidence, correct)
    positions = log_odds(said, checked_clip(clip))
    found = separation(positions, right)
    smooth = smoothing or found == "separable"
    is_spread = bool(positions.min() < positions.max())
    line = fit_line(positions, smoothed(right) if smooth else right, slope_is_free=is_spread)
    return Platt(
        line.slope,
        line.intercept,
        clip,
        report=FitReport(
            method="platt",
            rows=len(said),
            rows_used=len(said),
            objective_before=line.before,
            objective_after=line.after,
            converged=line.converged,
            notes=(
                *_notes(line, _falls(line, positions, right), is_spread, is_forced=smooth and not smoothing),
                *few_rows(len(said), FEW),
            ),
            date=today(),
        ),
    )


def checked_clip(clip: float) -> float:
    """Return `clip`.

    Raises:
        InputError: not below 0.5, or so small that 1 less it is 1.
    """
    number = real_number(clip)
    if not LEAST_CLIP <= number < 0.5:
        raise InputError(f"'clip' must lie between {LEAST_CLIP:.2g} and 0.5. Got {clip!r}.")
    return number


def smoothed(correct: Floats) -> Floats:
    """Return Platt's targets (N,): a right answer counts (R + 1) / (R + 2), a wrong one 1 / (W + 2).

    >>> smoothed(np.array([1.0, 1.0, 0.0])).round(4).tolist()
    [0.75, 0.75, 0.3333]
    """
    right, wrong = float(correct.sum()), float((1.0 - correct).sum())
    return correct * (right + 1.0) / (right + 2.0) + (1.0 - correct) / (wrong + 2.0)


def _falls(line: Line, positions: Floats, right: Floats) -> bool:
    """Return whether more confidence goes with less correctness; what rounding does to a level line is no fall."""
    is_known = bool(right.min() < right.max())  # answers that are all alike say nothing of it
    return is_known and line.slope * float(np.ptp(positions)) < -_LEVEL


def _notes(line: Line, falls: bool, is_spread: bool, *, is_forced: bool) -> tuple[str, ...]:
    """Return what a reader should know, and warn of it."""
    notes = []
    if is_forced:
        notes.append("Confidence parts right from wrong answers on these rows, or all are alike: smoothed targets.")
    if not is_spread:
        notes.append("All confidences are equal, so that the slope was left at 1.")
    if falls:
        notes.append("More confidence goes with less correctness on these rows: the slope is below 0.")
    if not line.converged:
        notes.append("The search did not converge.")
    if notes:
        advice = "Fit on more rows, or on another confidence."
        warnings.warn(" ".join([*notes, advice]), CalibrationWarning, stacklevel=3)
    return tuple(notes)
