"""A calibration state of O(bins) memory that grows with a stream and merges across machines."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics._bins import BinSums, Norm, calibration_error, empty_sums, uniform_edges, uniform_sums
from calibwrap.metrics._checks import MOST_BINS, checked_count, checked_pair
from calibwrap.metrics._moments import Moments, moments_of
from calibwrap.metrics.debiased import debiased_error
from calibwrap.metrics.decomposition import BrierDecomposition, decompose
from calibwrap.metrics.reliability import ReliabilityCurve, curve_of
from calibwrap.metrics.scoring import squared_error_sum
from calibwrap.metrics.significance import CalibrationTest, spiegelhalter_of
from calibwrap.metrics.smooth import GRID, residual_sums, smooth_error
from calibwrap.scores import Floats, Ints, _Record


@dataclass(frozen=True, eq=False)
class CalibrationState(_Record):
    """All that the binned metrics need to know of the rows seen so far, over B bins of equal width.

    Updating and merging return new states. Merging is commutative, and associative up to the rounding of sums; the
    counts, and the sums of 0/1 correctness, are exact.

    >>> state = CalibrationState.empty(15)
    >>> for confidence, correct in [([0.9, 0.9], [1, 0]), ([0.6, 0.6], [1, 1])]:
    ...     state = state.update(confidence, correct)
    >>> state.n, round(state.ece(), 6), state.accuracy
    (4, 0.4, 0.75)
    """

    count: Ints
    """(B,) rows in each bin."""
    confidence_sum: Floats
    """(B,) sum of confidence in each bin."""
    correct_sum: Floats
    """(B,) sum of correctness in each bin."""
    squared_error_sum: float
    """Sum of (confidence - correctness)^2 over all rows."""
    moments: Moments | None = None
    """Further sums, for `debiased_ece`, `brier_decomposition` and `spiegelhalter_test`; None: they are not known."""
    residual_sums: Floats | None = None
    """(8193,) sum of correctness - confidence at each node of `smooth_ece`'s grid; None: they are not kept."""

    def __post_init__(self) -> None:
        """Check shapes and lock the arrays."""
        self._lock("count", np.int64, (None,))
        for name in ("confidence_sum", "correct_sum"):
            self._lock(name, np.float64, (len(self.count),))
        if self.residual_sums is not None:
            self._lock("residual_sums", np.float64, (GRID + 1,))
        if self.moments is not None and len(self.moments.correct_square) != len(self.count):
            raise InputError(
                f"'moments' must have as many bins as 'count', {len(self.count)}. "
                f"Got {len(self.moments.correct_square)}."
            )

    @classmethod
    def empty(cls, n_bins: int = 15, *, smooth: bool = False) -> Self:
        """Return the state of no rows.

        Args:
            n_bins: number of bins B.
            smooth: whether to keep the residuals for `smooth_ece` too, 64 KiB of them.

        Raises:
            InputError: `n_bins` is not a whole number of at least 1.

        >>> CalibrationState.empty(10).n
        0
        """
        sums = empty_sums(checked_count("n_bins", n_bins, most=MOST_BINS))
        residuals = np.zeros(GRID + 1) if smooth else None
        return cls(*sums, squared_error_sum=0.0, moments=Moments(sums.correct, 0.0, 0.0), residual_sums=residuals)

    def update(self, confidence: ArrayLike, correct: ArrayLike) -> Self:
        """Return the state with more rows seen; an empty batch changes nothing.

        Args:
            confidence: (N,) probabilities of the answers given.
            correct: (N,) bool or 0/1, or soft correctness in [0, 1].

        Raises:
            InputError: shapes differ, NaN, or values outside [0, 1].

        >>> CalibrationState.empty(2).update([0.5], [True]).count.tolist()
        [0, 1]
        """
        chances, hits = checked_pair(confidence, correct, allow_empty=True)
        seen = uniform_sums(chances, hits, self.n_bins)
        moments = moments_of(chances, hits, seen)
        residuals = None if self.residual_sums is None else residual_sums(chances, hits)
        return self.merge(type(self)(*seen, squared_error_sum(chances, hits), moments, residuals))

    def merge(self, other: Self) -> Self:
        """Return the state of the rows of both; also written `self + other`.

        Moments, and residuals, are known if both know them.

        Raises:
            InputError: the numbers of bins differ.

        >>> one = CalibrationState.empty(2).update([0.5], [True])
        >>> (one + one).n
        2
        """
        if self.n_bins != other.n_bins:
            raise InputError(f"States to merge must have equally many bins. Got {self.n_bins} and {other.n_bins}.")
        known = self.moments is not None and other.moments is not None
        smooth = self.residual_sums is not None and other.residual_sums is not None
        return type(self)(
            self.count + other.count,
            self.confidence_sum + other.confidence_sum,
            self.correct_sum + other.correct_sum,
            self.squared_error_sum + other.squared_error_sum,
            self._moments() + other._moments() if known else None,
            self._residuals() + other._residuals() if smooth else None,
        )

    __add__ = merge

    @property
    def n_bins(self) -> int:
        """Number of bins B."""
        return len(self.count)

    @property
    def n(self) -> int:
        """Number of rows seen."""
        return int(self.count.sum())

    @property
    def accuracy(self) -> float:
        """Mean correctness of all rows; InputError when there are none."""
        return float(self.correct_sum.sum() / self._rows())

    @property
    def mean_confidence(self) -> float:
        """Mean confidence of all rows; InputError when there are none."""
        return float(self.confidence_sum.sum() / self._rows())

    @property
    def gap(self) -> float:
        """Accuracy minus mean confidence: negative for an over-confident model; InputError when there are no rows."""
        return self.accuracy - self.mean_confidence

    @property
    def top_label_brier(self) -> float:
        """Mean (confidence - correctness)^2; InputError when there are no rows."""
        return self.squared_error_sum / self._rows()

    def ece(self, norm: Norm = "l1") -> float:
        """Return the calibration error over the bins, by the same formula as `metrics.ece`.

        Raises:
            InputError: no rows, or an unknown norm.

        >>> CalibrationState.empty(1).update([0.75, 0.75], [0, 1]).ece("max")
        0.25
        """
        return calibration_error(self._sums(), norm)

    def smooth_ece(self) -> float:
        """Return the smooth calibration error, by the same formula as `metrics.smooth_ece`.

        Raises:
            InputError: no rows, or a state that was not begun with `empty(smooth=True)`.

        >>> round(CalibrationState.empty(smooth=True).update([0.5, 0.5], [1, 1]).smooth_ece(), 6)
        0.5
        """
        return smooth_error(self._residuals() / self._rows())

    def debiased_ece(self) -> float:
        """Return the l2 calibration error less its bias, by the same formula as `metrics.debiased_ece`.

        Raises:
            InputError: no bin holds two rows, or the moments are not known.

        >>> round(CalibrationState.empty(15).update([0.9] * 4, [1, 0, 0, 1]).debiased_ece(), 6)
        0.276887
        """
        return debiased_error(self._sums(), self._moments().correct_square)

    def brier_decomposition(self) -> BrierDecomposition:
        """Return the terms of `top_label_brier`, by the same formula as `metrics.brier_decomposition`.

        Raises:
            InputError: no rows, or the moments are not known.

        >>> parts = CalibrationState.empty(15).update([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1]).brier_decomposition()
        >>> round(parts.reliability, 6), round(parts.resolution, 6)
        (0.16, 0.0625)
        """
        self._rows()
        moments = self._moments()
        confidence_square = float(self.confidence_sum.sum()) - moments.variance  # c^2 = c - c (1 - c)
        return decompose(self._sums(), confidence_square, float(moments.correct_square.sum()), self.squared_error_sum)

    def spiegelhalter_test(self) -> CalibrationTest:
        """Return the same test as `metrics.spiegelhalter_test`.

        Raises:
            InputError: soft correctness was seen, every confidence is 0, 0.5 or 1, or the moments are not known.

        >>> state = CalibrationState.empty(15).update([0.1, 0.9, 0.21, 0.9, 0.5], [0, 1, 0, 1, 0])
        >>> round(state.spiegelhalter_test().statistic, 3)
        -0.757
        """
        self._rows()
        moments = self._moments()
        if not np.array_equal(moments.correct_square, self.correct_sum):  # they agree for 0/1 only
            raise InputError(
                "Spiegelhalter's test needs correctness of 0 or 1. Got soft correctness; choose a threshold."
            )
        return spiegelhalter_of(self.squared_error_sum - moments.variance, moments.brier_variance)

    def reliability_curve(self) -> ReliabilityCurve:
        """Return mean confidence and accuracy of each bin, NaN where it is empty.

        >>> CalibrationState.empty(2).update([0.75, 0.75], [0, 1]).reliability_curve().accuracy.tolist()
        [nan, 0.5]
        """
        return curve_of(uniform_edges(self.n_bins), self._sums())

    def _sums(self) -> BinSums:
        return BinSums(self.count, self.confidence_sum, self.correct_sum)

    def _moments(self) -> Moments:
        if self.moments is None:
            raise InputError(
                "This metric needs the state's 'moments'. Got a state without them; build it with "
                "CalibrationState.empty() and update()."
            )
        return self.moments

    def _residuals(self) -> Floats:
        if self.residual_sums is None:
            raise InputError(
                "'smooth_ece' needs the residuals of all rows. Got a state without them; begin it with "
                "CalibrationState.empty(smooth=True)."
            )
        return self.residual_sums

    def _rows(self) -> int:
        if self.n == 0:
            raise InputError("This metric is not defined for no rows. Got an empty CalibrationState; update it first.")
        return self.n
