"""Calibration error without the part that chance alone puts into every bin."""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics._bins import BinSums, Strategy, binned
from calibwrap.metrics._checks import checked_pair
from calibwrap.scores import Floats


def debiased_ece(confidence: ArrayLike, correct: ArrayLike, n_bins: int = 15, strategy: Strategy = "uniform") -> float:
    """Return the l2 calibration error over bins with its upward bias subtracted, in [0, 1].

    A bin of n rows with accuracy a adds n / N * (gap^2 - a (1 - a) / (n - 1)): its squared gap less the sampling
    variance of its accuracy. The result is the square root of the sum, and 0 where chance explains all of it (a sum
    below 0). Compare it with `ece(..., norm="l2")`, which it never exceeds. Bins are those of `ece`; Kumar et al. use
    "quantile". A bin of one row has no variance to estimate and adds 0. For soft correctness a (1 - a) / (n - 1) is
    the sample variance over n. Where confidences differ inside a bin the paper's form, used here, subtracts too much,
    by about their variance in the bin over n.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        n_bins: number of bins B.
        strategy: "uniform" or "quantile".

    Raises:
        InputError: malformed arrays, or no bin holds two rows, so that no bias can be estimated.

    References:
        Bröcker: Estimating reliability and resolution of probability forecasts through decomposition of the empirical
        score (2012); Ferro, Fricker: A bias-corrected decomposition of the Brier score (2012): the same correction.
        Kumar, Liang, Ma: Verified uncertainty calibration (2019).

    >>> round(debiased_ece([0.9, 0.9, 0.9, 0.9], [1, 0, 0, 1]), 6)  # sqrt(0.4^2 - 0.25 / 3); plug-in 0.4
    0.276887
    """
    chances, hits = checked_pair(confidence, correct)
    sums = binned(chances, hits, n_bins, strategy)[1]
    if hits.dtype == np.bool_:
        return debiased_error(sums, sums.correct)
    return debiased_error(sums, binned(chances, np.square(hits, dtype=np.float64), n_bins, strategy)[1].correct)


def debiased_error(sums: BinSums, correct_square: Floats) -> float:
    """Return the debiased l2 error of binned sums and of the sums (B,) of squared correctness.

    Raises:
        InputError: no bin holds two rows.

    >>> round(debiased_error(BinSums(np.array([4]), np.array([3.6]), np.array([2.0])), np.array([2.0])), 6)
    0.276887
    """
    several = sums.rows > 1
    if not several.any():
        raise InputError(
            f"The bias of a calibration error needs a bin with at least 2 rows. Got {int(sums.rows.sum())} rows, no "
            "two of them in one bin; use fewer bins or more rows."
        )
    rows = sums.rows[several]
    accuracy = sums.correct[several] / rows
    gap = accuracy - sums.confidence[several] / rows
    noise = np.maximum(correct_square[several] / rows - accuracy**2, 0.0) / (rows - 1)
    excess = (rows * (gap**2 - noise)).sum() / sums.rows.sum()
    return float(np.sqrt(max(excess, 0.0)))
