"""Calibration without bins: how far confidence and correctness drift apart when summed from the least confident up."""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.metrics._checks import checked_pair


def ks_error(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the Kolmogorov-Smirnov calibration error, in [0, 1].

    Over the answers sorted by rising confidence it is the largest |sum of (correctness - confidence) so far| / N.
    There is no bin and no width to choose. Sums are compared at the end of each run of equal confidences, which no
    threshold can part, so the order of the rows cannot matter. It is at least |accuracy - mean confidence|, and equal
    to it when the model is over-confident (or under-confident) everywhere.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Gupta, Rahimi, Ajanthan, Mensink, Sminchisescu, Hartley: Calibration of neural networks using splines (2021).

    >>> round(ks_error([0.9, 0.6, 0.3], [1, 0, 1]), 6)  # running sums 0.7, 0.1, 0.2
    0.233333
    """
    chances, hits = checked_pair(confidence, correct)
    order = np.argsort(chances)
    chances = chances[order].astype(np.float64, copy=False)
    drift = np.cumsum(np.subtract(hits[order], chances, dtype=np.float64))
    ends = np.append(chances[1:] > chances[:-1], True)
    return float(np.abs(drift[ends]).max() / len(drift))
