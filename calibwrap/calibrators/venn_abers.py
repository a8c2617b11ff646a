"""Venn-Abers calibration of one confidence: two isotonic fits, one for each way the next answer can turn out.

Vovk, Petej, "Venn-Abers predictors", 2014; the algorithm that fits all places in one pass each: Vovk, Petej, Fedorova,
"Large-scale probabilistic predictors with and without guarantees of validity", 2015.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import checked_parameters
from calibwrap.calibrators._confidence import ConfidenceCalibrator, checked_confidence, checked_pairs, cross_entropy
from calibwrap.calibrators._inputs import today
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats

FEW = 100
"""Rows below which a note gives the mean width of the interval."""
DECIMALS = 12
"""Confidences are compared to so many decimals: one place is not to be taken for two because of rounding."""
Point = tuple[float, float]
"""Rows, and right answers among them, up to a place."""


@dataclass(frozen=True, eq=False)
class VennAbers(ConfidenceCalibrator):
    """Maps a confidence to p1 / (1 - p0 + p1), where p0 <= p1 are two step functions of it.

    p0 is what isotonic regression says of the confidence when it is added to the fitted rows as a wrong answer, p1
    when as a right one. One of the two is a calibrated probability in finite samples, on exchangeable rows; the number
    between them is the one of least regret in log loss. `interval` gives both.

    Raises:
        InputError: places do not rise strictly inside [0, 1], values fall or leave [0, 1], or lengths do not fit.

    >>> one_right_one_wrong = VennAbers(x0=[0.75], p0=[0.0, 0.5], x1=[0.25], p1=[0.5, 1.0])
    >>> one_right_one_wrong([0.5]).round(4).tolist(), [p.tolist() for p in one_right_one_wrong.interval([0.5])]
    ([0.5], [[0.0], [1.0]])
    """

    kind: ClassVar[str] = "venn-abers"
    x0: Floats
    """(M,) places where p0 steps up; at such a place it has done so."""
    p0: Floats
    """(M + 1,) values of p0 before, between and after them."""
    x1: Floats
    """(L,) places where p1 steps up; at such a place it has not yet done so."""
    p1: Floats
    """(L + 1,) values of p1 before, between and after them."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check and lock the arrays."""
        for place, value in (("x0", "p0"), ("x1", "p1")):
            x = checked_parameters("VennAbers", place, getattr(self, place), None)
            p = checked_parameters("VennAbers", value, getattr(self, value), (len(x) + 1,))
            is_inside = min(x.min(), p.min()) >= 0.0 and max(x.max(), p.max()) <= 1.0
            if not is_inside or (np.diff(x) <= 0.0).any() or (np.diff(p) < 0.0).any():
                raise InputError(
                    f"'{place}' of VennAbers must rise and '{value}' must not fall, both inside [0, 1]. "
                    f"Got {x.tolist()}, {p.tolist()}."
                )
            object.__setattr__(self, place, x)
            object.__setattr__(self, value, p)
        places = np.concatenate([[0.0, 1.0], self.x0, self.x1, self.x0 - 0.1**DECIMALS, self.x1 + 0.1**DECIMALS])
        low, high = self._both(np.clip(places, 0.0, 1.0))
        if (low > high).any():
            raise InputError("'p0' of VennAbers must nowhere be above 'p1'. Fit it again with fit_venn_abers.")

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are equal."""
        if not isinstance(other, VennAbers):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("x0", "p0", "x1", "p1"))

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name).tobytes() for name in ("x0", "p0", "x1", "p1")))

    def mapped(self, confidence: Floats) -> Floats:
        """Return p1 / (1 - p0 + p1)."""
        low, high = self._both(confidence)
        return np.asarray(high / (1.0 - low + high))

    def interval(self, confidence: ArrayLike) -> tuple[Floats, Floats]:
        """Return p0 and p1, each of the shape of `confidence`: wide where few rows are near.

        Raises:
            InputError: a confidence is not a number in [0, 1].
        """
        return self._both(checked_confidence("confidence", confidence))

    def _both(self, confidence: Floats) -> tuple[Floats, Floats]:
        places = np.round(confidence, DECIMALS)
        low = self.p0[np.searchsorted(self.x0, places, side="right")]
        return np.asarray(low), np.asarray(self.p1[np.searchsorted(self.x1, places, side="left")])


def fit_venn_abers(confidence: ArrayLike, correct: ArrayLike) -> VennAbers:
    """Return the inductive Venn-Abers predictor of the rows.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]: 1 for a right answer, 0 for a wrong one, between for partly right. The guarantee of
            one of the two probabilities is for right and wrong answers; for shares between it is a smoothing.

    The rows must not be those that the model was trained on. Nothing is searched: the result is exact, and defined for
    one row, all right or all wrong, which isotonic regression would take for certainty.

    Raises:
        InputError: wrong shapes, or numbers outside [0, 1].

    >>> fitted = fit_venn_abers([0.4, 0.6, 0.8], [0, 1, 1])
    >>> [p.round(4).tolist() for p in fitted.interval([0.6, 0.9])]  # a third answer at 0.6, wrong: 1 of 2 right there
    [[0.5, 0.6667], [1.0, 1.0]]
    >>> fitted([0.6, 0.9]).round(4).tolist()
    [0.6667, 0.75]
    """
    said, right = checked_pairs(confidence, correct)
    places, which, counts = np.unique(np.round(said, DECIMALS), return_inverse=True, return_counts=True)
    weights = counts.astype(np.float64)
    sums = np.minimum(np.bincount(which, weights=right), weights)
    upper = np.append(_with_one_right(weights, sums), 1.0)
    lower = np.insert(1.0 - _with_one_right(weights[::-1], (weights - sums)[::-1])[::-1], 0, 0.0)
    (x0, p0), (x1, p1) = _steps(places, np.minimum(lower, 1.0)), _steps(places, upper)
    made = VennAbers(x0, p0, x1, p1)
    report = FitReport(
        method="venn-abers",
        rows=len(said),
        rows_used=len(said),
        objective_before=cross_entropy(said, right),
        objective_after=cross_entropy(made.mapped(said), right),
        notes=_notes(made, said),
        date=today(),
    )
    return VennAbers(x0, p0, x1, p1, report=report)


def _with_one_right(weights: Floats, sums: Floats) -> Floats:
    """Return (M,) the isotonic value at each place when one right answer is added there.

    With P_j the rows and right answers of the first j places, the value at place i is the slope, over it, of the
    greatest convex minorant of P_0 - (1, 1), ..., P_i - (1, 1), P_(i + 1), ..., P_M. From one place to the next one
    point moves, and the corners right of the place are a stack that each point leaves once.

    >>> _with_one_right(np.array([1.0, 1.0]), np.array([0.0, 1.0])).tolist()  # 0 and 1 at the first place; then 1, 1
    [0.5, 1.0]
    """
    xs, ys = np.cumsum(weights).tolist(), np.cumsum(sums).tolist()
    corners = _minorant(xs, ys)
    x, y = corners.pop()  # the corner left of the place; those right of it stay, the nearest one last
    values = np.empty(len(xs))
    for i, (next_x, next_y) in enumerate(zip(xs, ys, strict=True)):
        slope = (corners[-1][1] - y) / (corners[-1][0] - x)
        values[i] = slope
        moved_x, moved_y = next_x - 1.0, next_y - 1.0
        if moved_y - y >= slope * (moved_x - x):
            continue  # on or above the minorant, which stays as it is
        x, y = moved_x, moved_y
        while len(corners) > 1 and (corners[-1][0] <= next_x or _is_no_corner((x, y), corners[-1], corners[-2])):
            corners.pop()
    return values


def _minorant(xs: list[float], ys: list[float]) -> list[Point]:
    """Return the corners of the greatest convex minorant of (-1, -1) and the points, the first one last."""
    corners: list[Point] = [(-1.0, -1.0)]
    for point in zip(xs, ys, strict=True):
        while len(corners) > 1 and _is_no_corner(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return corners[::-1]


def _is_no_corner(left: Point, middle: Point, right: Point) -> bool:
    """Return whether `middle` lies on or above the line from `left` to `right`."""
    rise, run = middle[1] - left[1], middle[0] - left[0]
    return rise * (right[0] - left[0]) >= (right[1] - left[1]) * run


def _steps(places: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the places where `values` (M + 1,) change, at least one, and the values before, between and after."""
    level = np.clip(np.maximum.accumulate(values), 0.0, 1.0)
    changes = np.flatnonzero(np.diff(level) > 0.0)
    kept = changes if len(changes) else np.array([0])
    return places[kept], level[np.append(kept, len(places))]


def _notes(made: VennAbers, confidence: Floats) -> tuple[str, ...]:
    """Return what a reader should know."""
    if len(confidence) >= FEW:
        return ()
    low, high = made.interval(confidence)
    return (f"{len(confidence)} rows are few: on them the two probabilities are {(high - low).mean():.2f} apart.",)
