"""Isotonic calibration of one confidence: the best map that never turns more confidence into less.

Zadrozny, Elkan, "Transforming classifier scores into accurate multiclass probability estimates", 2002.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import checked_parameters
from calibwrap.calibrators._confidence import ConfidenceCalibrator, alike_answers, checked_pairs, cross_entropy
from calibwrap.calibrators._inputs import today
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Bools, Floats

FEW = 100
"""Rows below which a note says that the steps follow the noise."""


@dataclass(frozen=True, eq=False)
class Isotonic(ConfidenceCalibrator):
    """Maps a confidence by straight lines between the knots (x, y), and by the end values beyond them.

    Raises:
        InputError: `x` does not rise strictly, `y` falls somewhere, or either leaves [0, 1].

    >>> Isotonic(x=[0.25, 0.75], y=[0.0, 0.5])([0.1, 0.5, 1.0]).tolist()
    [0.0, 0.25, 0.5]
    """

    kind: ClassVar[str] = "isotonic"
    x: Floats
    """(M,) confidences of the knots, rising."""
    y: Floats
    """(M,) probability of being right there, never falling."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check and lock the arrays."""
        for name in ("x", "y"):
            shape = None if name == "x" else self.x.shape
            values = checked_parameters("Isotonic", name, getattr(self, name), shape)
            if values.min() < 0.0 or values.max() > 1.0:
                raise InputError(f"'{name}' of Isotonic must lie in [0, 1]. Got {values.tolist()}.")
            object.__setattr__(self, name, values)
        if (np.diff(self.x) <= 0.0).any() or (np.diff(self.y) < 0.0).any():
            raise InputError(
                f"'x' of Isotonic must rise and 'y' must not fall. Got {self.x.tolist()}, {self.y.tolist()}."
            )

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are equal."""
        if not isinstance(other, Isotonic):
            return NotImplemented
        return np.array_equal(self.x, other.x) and np.array_equal(self.y, other.y)

    def __hash__(self) -> int:
        return hash((self.x.tobytes(), self.y.tobytes()))

    def mapped(self, confidence: Floats) -> Floats:
        """Return values between the knots' by linear interpolation."""
        return np.asarray(np.interp(confidence, self.x, self.y))


def fit_isotonic(confidence: ArrayLike, correct: ArrayLike) -> Isotonic:
    """Return the map of greatest likelihood of `correct` among those that never fall.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]: 1 for a right answer, 0 for a wrong one, between for partly right.

    Pools adjacent violators (the same map has least squares and greatest likelihood); rows of equal confidence are one.
    It is never worse on these rows than the confidence itself, and it follows their noise: with fewer than 100 rows a
    note says so. Its lowest value may be 0 and its highest 1.

    Raises:
        InputError: wrong shapes, or numbers outside [0, 1].

    >>> fitted = fit_isotonic([0.1, 0.3, 0.6, 0.9], [0, 1, 0, 1])
    >>> fitted.x.tolist(), fitted.y.tolist()  # 1 and 0 in the middle are in the wrong order: half each
    ([0.1, 0.3, 0.6, 0.9], [0.0, 0.5, 0.5, 1.0])
    """
    from scipy.optimize import isotonic_regression

    said, right = checked_pairs(confidence, correct)
    places, which, weights = np.unique(said, return_inverse=True, return_counts=True)
    means = np.bincount(which, weights=right) / weights
    steps = np.clip(isotonic_regression(means, weights=weights.astype(np.float64)).x, 0.0, 1.0)
    kept = _corners(steps)
    knots = np.maximum.accumulate(steps[kept])  # pooled means that are equal may differ in their last bit
    few = (f"{len(said)} rows are few for a map of steps: fit_platt has two numbers.",) if len(said) < FEW else ()
    report = FitReport(
        method="isotonic",
        rows=len(said),
        rows_used=len(said),
        objective_before=cross_entropy(said, right),
        objective_after=cross_entropy(steps[which], right),
        notes=(*few, *alike_answers(right)),
        date=today(),
    )
    return Isotonic(places[kept], knots, report=report)


def _corners(values: Floats) -> Bools:
    """Return which of never-falling `values` (M,) are ends of a level stretch: straight lines between them give all.

    >>> _corners(np.array([0.1, 0.5, 0.5, 0.5, 0.9])).tolist()
    [True, True, False, True, True]
    """
    inner = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    return np.concatenate([[True], ~inner, [True]]) if len(values) > 1 else np.ones(len(values), dtype=np.bool_)
