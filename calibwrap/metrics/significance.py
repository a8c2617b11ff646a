"""Tests of the hypothesis that every confidence is exactly right: each answer is right with just that probability."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics._checks import checked_pair
from calibwrap.metrics.cumulative import ks_error
from calibwrap.scores import Floats


@dataclass(frozen=True)
class CalibrationTest:
    """The result of a test of calibration; a small p-value speaks against it, a large one is no proof of it.

    >>> CalibrationTest(statistic=-2.5, p_value=0.0124).p_value < 0.05
    True
    """

    statistic: float
    """The test's statistic; its sign and scale are those of the test."""
    p_value: float
    """How probable a statistic at least as extreme is when every confidence is exactly right, for many answers."""


def spiegelhalter_test(confidence: ArrayLike, correct: ArrayLike) -> CalibrationTest:
    """Return Spiegelhalter's Z and its two-sided p-value: is the Brier score the one that these confidences promise?

    Z = sum((a - c) (1 - 2 c)) / sqrt(sum((1 - 2 c)^2 c (1 - c))): the Brier score less its expectation, over its
    standard deviation. Positive: worse than promised (over-confident above 0.5); negative: better. The normal
    distribution of Z needs many answers. It is blind to errors that leave the expected Brier score as it is.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1; soft correctness is not an outcome and is refused.

    Raises:
        InputError: malformed arrays, or every confidence is 0, 0.5 or 1, where the variance is 0.

    References:
        Spiegelhalter: Probabilistic prediction in patient management and clinical trials (1986).

    >>> test = spiegelhalter_test([0.1, 0.9, 0.21, 0.9, 0.5], [0, 1, 0, 1, 0])
    >>> round(test.statistic, 3), round(test.p_value, 3)
    (-0.757, 0.449)
    """
    chances, hits = checked_pair(confidence, correct, soft=False)
    chances = chances.astype(np.float64, copy=False)
    return spiegelhalter_of(float(np.dot(hits - chances, 1 - 2 * chances)), promised_error(chances)[1])


def promised_error(confidence: Floats) -> tuple[float, float]:
    """Return the expectation and the variance of the summed squared error, if every confidence is right.

    They are sum c (1 - c) and sum (1 - 2 c)^2 c (1 - c), without a difference of large sums.

    >>> [round(value, 6) for value in promised_error(np.array([0.9, 0.5]))]  # 0.09 + 0.25; 0.64 * 0.09 + 0
    [0.34, 0.0576]
    """
    spread = 1 - confidence
    spread *= confidence
    slope = -2 * confidence
    slope += 1
    slope *= slope
    return float(spread.sum()), float(np.dot(slope, spread))


def spiegelhalter_of(excess: float, variance: float) -> CalibrationTest:
    """Return the test of a summed squared error that exceeds its expectation by `excess`.

    Raises:
        InputError: the variance is 0.

    >>> round(spiegelhalter_of(1.96, 1.0).p_value, 3)
    0.05
    """
    if variance <= 0:
        raise InputError(
            "Spiegelhalter's test needs a confidence other than 0, 0.5 and 1. Got none, so its variance is 0; "
            "use ks_test if some confidence is 0.5."
        )
    statistic = excess / math.sqrt(variance)
    return CalibrationTest(statistic, math.erfc(abs(statistic) / math.sqrt(2)))


def ks_test(confidence: ArrayLike, correct: ArrayLike) -> CalibrationTest:
    """Return the Kolmogorov-Smirnov test of calibration: `ks_error` in units of its own chance, and its p-value.

    The statistic is N * ks_error / sqrt(sum(c (1 - c))). When every confidence is right, the running sums behave like
    a Brownian motion for many answers, and the p-value is the probability that |Brownian motion| on [0, 1] gets as
    far. Few answers, or few distinct confidences, make the p-value larger than it need be.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1; soft correctness is not an outcome and is refused.

    Raises:
        InputError: malformed arrays, or every confidence is 0 or 1, where the variance is 0.

    References:
        Arrieta-Ibarra, Gujral, Tannen, Tygert, Xu: Metrics of calibration for probabilistic predictions (2022).

    >>> test = ks_test([0.1, 0.9, 0.21, 0.9, 0.5], [0, 1, 0, 1, 0])
    >>> round(test.statistic, 3), round(test.p_value, 3)
    (0.978, 0.649)
    """
    chances, hits = checked_pair(confidence, correct, soft=False)
    chances = chances.astype(np.float64, copy=False)
    variance = promised_error(chances)[0]
    if variance <= 0:
        raise InputError(
            "The Kolmogorov-Smirnov test needs a confidence strictly between 0 and 1. Got none, so its variance is 0; "
            "a single miss already refutes such confidences."
        )
    statistic = ks_error(chances, hits) * len(chances) / math.sqrt(variance)
    return CalibrationTest(statistic, brownian_tail(statistic))


def brownian_tail(distance: float) -> float:
    """Return the probability that |Brownian motion| reaches `distance` at some time in [0, 1].

    Two series for the same number: by reflection at the two bounds, whose terms vanish for large distances, and by
    the modes of the heat equation between them, whose terms vanish for small ones. At 1, five terms of either are
    exact to double precision.

    References:
        Feller: An introduction to probability theory and its applications, volume 2 (1971), chapter X.

    >>> round(brownian_tail(1.0), 4)
    0.6292
    """
    if distance <= 0.03:  # the first mode is 0 in double precision, and the square of a tiny distance would be too
        return 1.0
    odd = 2 * np.arange(5) + 1
    sign = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    if distance >= 1:
        reflected = [math.erfc(step * distance / math.sqrt(2)) for step in odd]
        return float(min(2 * np.dot(sign, reflected), 1.0))
    modes = np.exp(-((odd * math.pi / distance) ** 2) / 8) / odd
    return float(1 - 4 / math.pi * np.dot(sign, modes))
