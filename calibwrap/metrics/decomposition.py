"""The Brier score of the answers given, taken apart: calibration, sharpness, difficulty, and what binning hides."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.metrics._bins import BinSums, Strategy, binned
from calibwrap.metrics._checks import checked_pair
from calibwrap.metrics.scoring import squared_error_sum, squared_sum


@dataclass(frozen=True)
class BrierDecomposition:
    """Five terms whose signed sum is the Brier score of the answers given, over the bins of `ece`.

    >>> BrierDecomposition(0.04, 0.01, 0.25, 0.0, 0.0).brier
    0.28
    """

    reliability: float
    """Mean over rows of (accuracy of the row's bin - mean confidence of that bin)^2; 0 is perfect calibration."""
    resolution: float
    """Mean over rows of (accuracy of the row's bin - accuracy of all)^2: more is better."""
    uncertainty: float
    """Variance of correctness, a (1 - a) for an accuracy a: the difficulty, which no confidence changes."""
    within_bin_variance: float
    """Mean squared distance of confidence from the mean of its bin; 0 where each bin holds one confidence."""
    within_bin_covariance: float
    """Twice the mean product of the in-bin distances of confidence and correctness from their bin's means."""

    @property
    def generalised_resolution(self) -> float:
        """Resolution less the in-bin variance plus the in-bin covariance: it depends little on the number of bins."""
        return self.resolution - self.within_bin_variance + self.within_bin_covariance

    @property
    def brier(self) -> float:
        """Reliability - generalised resolution + uncertainty, which is `top_label_brier`."""
        return self.reliability - self.generalised_resolution + self.uncertainty


def brier_decomposition(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = 15, strategy: Strategy = "uniform"
) -> BrierDecomposition:
    """Return the terms of the Brier score: `top_label_brier` = reliability - resolution + uncertainty + within-bin.

    The within-bin part is variance - covariance; it is 0 when every bin holds a single confidence, and then these are
    Murphy's three terms. Reliability is the square of `ece(..., norm="l2")` over the same bins. For `brier`, the sum
    over options, decompose each option's own probability and add up.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        n_bins: number of bins B.
        strategy: "uniform" or "quantile".

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Murphy: A new vector partition of the probability score (1973).
        Stephenson, Coelho, Jolliffe: Two extra components in the Brier score decomposition (2008).

    >>> parts = brier_decomposition([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1])
    >>> round(parts.reliability, 6), round(parts.resolution, 6), round(parts.uncertainty, 6)
    (0.16, 0.0625, 0.1875)
    >>> round(parts.brier, 6)
    0.285
    """
    chances, hits = checked_pair(confidence, correct)
    sums = binned(chances, hits, n_bins, strategy)[1]
    return decompose(sums, squared_sum(chances), squared_sum(hits), squared_error_sum(chances, hits))


def decompose(
    sums: BinSums, confidence_square: float, correct_square: float, squared_error: float
) -> BrierDecomposition:
    """Return the terms, from the bins' sums and three sums over all rows: of c^2, of a^2 and of (c - a)^2.

    >>> sums = BinSums(np.array([2]), np.array([1.0]), np.array([1.0]))  # confidences 0.25 and 0.75, wrong and right
    >>> parts = decompose(sums, 0.625, 1.0, 0.125)
    >>> parts.uncertainty, parts.within_bin_variance, parts.within_bin_covariance
    (0.25, 0.0625, 0.25)
    """
    filled = sums.rows > 0
    rows, total = sums.rows[filled], int(sums.rows.sum())
    confidence, accuracy = sums.confidence[filled] / rows, sums.correct[filled] / rows
    overall = float(sums.correct.sum()) / total

    product = (confidence_square + correct_square - squared_error) / 2
    return BrierDecomposition(
        reliability=float(np.average((accuracy - confidence) ** 2, weights=rows)),
        resolution=float(np.average((accuracy - overall) ** 2, weights=rows)),
        uncertainty=max(correct_square / total - overall**2, 0.0),
        within_bin_variance=max(confidence_square / total - float(np.average(confidence**2, weights=rows)), 0.0),
        within_bin_covariance=2 * (product / total - float(np.average(confidence * accuracy, weights=rows))),
    )
