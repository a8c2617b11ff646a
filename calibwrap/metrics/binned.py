"""Expected calibration error over bins: of the top label, and class by class."""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.metrics._bins import Norm, Strategy, binned, calibration_error
from calibwrap.metrics._checks import checked_pair, checked_probabilities


def ece(
    confidence: ArrayLike,
    correct: ArrayLike,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    norm: Norm = "l1",
) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart, bin by bin.

    Bins are [lo, hi), the last one closed. "uniform" bins have equal width on [0, 1]; "quantile" bins hold about
    equally many rows (equal confidences are never parted). With weight w = n_b / N and gap g = |accuracy - mean
    confidence| of a bin, the norm "l1" is sum(w g), "l2" is sqrt(sum(w g^2)), and "max" is the largest gap of a bin
    that is not empty, also called MCE. The plug-in estimate is biased upwards when bins hold few rows: give it with
    `bootstrap_ci`, and compare models at equal N and equal `n_bins`.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        n_bins: number of bins B.
        strategy: "uniform" or "quantile".
        norm: "l1", "l2" or "max".

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Naeini, Cooper, Hauskrecht: Obtaining well calibrated probabilities using Bayesian binning (2015).
        Nguyen, O'Connor: Posterior calibration and exploratory analysis for NLP models (2015), for equal mass.
        Kumar, Liang, Ma: Verified uncertainty calibration (2019), for the l2 form.

    >>> round(ece([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1]), 6)  # two bins, each 0.4 off
    0.4
    """
    chances, hits = checked_pair(confidence, correct)
    return calibration_error(binned(chances, hits, n_bins, strategy)[1], norm)


def classwise_ece(
    probabilities: ArrayLike, answers: ArrayLike, n_bins: int = 15, strategy: Strategy = "uniform"
) -> float:
    """Return the mean over the K options of the l1 calibration error of that option's own probability.

    Option k's probability is compared, bin by bin, with how often k is the answer. An option that does not exist in a
    row has probability 0 there: it is a row with a gap of exactly 0, so it changes no bin's gap sum; it still counts
    in N, and K is the number of columns. With "quantile" these zeros take part in placing the edges.

    Args:
        probabilities: (N, K) probabilities, each row summing to 1 within 1e-3.
        answers: (N,) indices of the right options.
        n_bins: number of bins for each option.
        strategy: "uniform" or "quantile".

    Raises:
        InputError: malformed probabilities or answers.

    References:
        Kull et al.: Beyond temperature scaling: obtaining well-calibrated multi-class probabilities with Dirichlet
        calibration (2019).

    >>> round(classwise_ece([[0.8, 0.2], [0.6, 0.4]], [0, 1], n_bins=1), 6)  # |1.4 - 1| / 2 for both options
    0.2
    """
    chances, truth = checked_probabilities(probabilities, answers)
    errors = [
        calibration_error(binned(chances[:, option], truth == option, n_bins, strategy)[1], "l1")
        for option in range(chances.shape[1])
    ]
    return float(np.mean(errors))
