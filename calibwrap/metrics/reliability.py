"""The reliability curve: accuracy against confidence, bin by bin, with an interval for the accuracy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.metrics._bins import BinSums, Strategy, binned
from calibwrap.metrics._checks import checked_level, checked_pair
from calibwrap.scores import Floats, Ints, _Record


@dataclass(frozen=True, eq=False)
class ReliabilityCurve(_Record):
    """Mean confidence and accuracy of B bins; a perfectly calibrated model lies on the diagonal.

    >>> curve = ReliabilityCurve(edges=[0.0, 0.5, 1.0], count=[0, 4], confidence=[np.nan, 0.75], accuracy=[np.nan, 0.5])
    >>> curve.gap.tolist()
    [nan, -0.25]
    """

    edges: Floats
    """(B + 1,) edges; bins are [lo, hi), the last one closed."""
    count: Ints
    """(B,) rows in the bin."""
    confidence: Floats
    """(B,) mean confidence of the rows in the bin, NaN where it is empty."""
    accuracy: Floats
    """(B,) mean correctness of the rows in the bin, NaN where it is empty."""

    def __post_init__(self) -> None:
        """Check shapes and lock the arrays."""
        self._lock("count", np.int64, (None,))
        self._lock("edges", np.float64, (len(self.count) + 1,))
        for name in ("confidence", "accuracy"):
            self._lock(name, np.float64, (len(self.count),))

    @property
    def gap(self) -> Floats:
        """(B,) accuracy minus confidence: negative where the model is over-confident, NaN where the bin is empty."""
        return self.accuracy - self.confidence

    def accuracy_interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the lower and upper ends (B,) of each bin's Wilson score interval; NaN where the bin is empty.

        For soft correctness, whose variance is at most that of 0/1 values with the same mean, it is conservative.

        Raises:
            InputError: `level` is not strictly between 0 and 1.

        References:
            Wilson: Probable inference, the law of succession, and statistical inference (1927).

        >>> low, high = ReliabilityCurve([0.0, 1.0], [10], [0.9], [1.0]).accuracy_interval()
        >>> low.round(4).tolist(), high.round(4).tolist()
        ([0.7225], [1.0])
        """
        from statistics import NormalDist

        squared = NormalDist().inv_cdf((1 + checked_level(level)) / 2) ** 2
        count = np.where(self.count > 0, self.count, np.nan)
        middle = (count * self.accuracy + squared / 2) / (count + squared)
        spread = count * self.accuracy * (1 - self.accuracy) + squared / 4
        half = np.sqrt(squared * spread) / (count + squared)
        return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def curve_of(edges: Floats, sums: BinSums) -> ReliabilityCurve:
    """Return the curve of binned sums, with NaN for empty bins.

    >>> curve_of(np.array([0.0, 1.0]), BinSums(np.array([4]), np.array([3.0]), np.array([2.0]))).accuracy.tolist()
    [0.5]
    """
    count = np.where(sums.rows > 0, sums.rows, np.nan)
    return ReliabilityCurve(edges, sums.rows, sums.confidence / count, sums.correct / count)


def reliability_curve(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = 15, strategy: Strategy = "uniform"
) -> ReliabilityCurve:
    """Return mean confidence and accuracy, bin by bin; the bins are those of `ece`.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        n_bins: number of bins B.
        strategy: "uniform" (equal width) or "quantile" (about equally many rows).

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        DeGroot, Fienberg: The comparison and evaluation of forecasters (1983).

    >>> curve = reliability_curve([0.2, 0.9, 0.7], [0, 1, 0], n_bins=2)
    >>> curve.count.tolist(), curve.confidence.round(3).tolist(), curve.accuracy.tolist()
    ([1, 2], [0.2, 0.8], [0.0, 0.5])
    """
    chances, hits = checked_pair(confidence, correct)
    return curve_of(*binned(chances, hits, n_bins, strategy))
