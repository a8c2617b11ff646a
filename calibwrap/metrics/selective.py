"""Answering only when sure enough: points on the risk-coverage curve, and how far its area is from the best one."""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.metrics._checks import checked_pair, checked_share
from calibwrap.metrics.ranking import aurc, risk_coverage_curve


def excess_aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return `aurc` less that of the best ranking of the same answers: what the ranking itself loses, in [0, 1].

    The best ranking puts all errors last. Its area is computed exactly for these N answers; the closed form
    r + (1 - r) ln(1 - r) of Geifman et al., for an error rate r, is its limit for many. Unlike `aurc` it does not
    grow with the error rate alone, so models of different accuracy can be compared. Ties count as in `aurc`: with the
    mean over all their orders, so a tie of right and wrong answers costs something.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Geifman, Uziel, El-Yaniv: Bias-reduced uncertainty estimation for deep neural classifiers (2019).

    >>> round(excess_aurc([0.9, 0.8, 0.3], [1, 0, 1]), 6)  # (0 + 1/2 + 1/3) / 3 - (0 + 0 + 1/3) / 3
    0.166667
    """
    chances, hits = checked_pair(confidence, correct)
    losses = np.sort(1.0 - hits)
    best = np.mean(np.cumsum(losses) / np.arange(1, len(losses) + 1))
    return float(max(aurc(chances, hits) - best, 0.0))


def coverage_at_risk(confidence: ArrayLike, correct: ArrayLike, risk: float) -> float:
    """Return the largest share of these answers that a threshold can keep at an error rate of at most `risk`.

    It is 0 when no threshold does. It looks for the best threshold on these very answers, so it describes them and
    promises nothing for others. Answers of equal confidence are kept or dropped together.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        risk: largest mean of 1 - correctness among the answers kept, in [0, 1].

    Raises:
        InputError: malformed arrays, or a risk outside [0, 1].

    References:
        Geifman, El-Yaniv: Selective classification for deep neural networks (2017).

    >>> coverage_at_risk([0.9, 0.8, 0.8, 0.3], [1, 1, 0, 1], risk=0.25)  # risks 0, 1/3, 1/4 at 1/4, 3/4, 1
    1.0
    """
    risk = checked_share("risk", risk)
    curve = risk_coverage_curve(confidence, correct)
    return float(np.max(curve.coverage, initial=0.0, where=curve.risk <= risk))


def risk_at_coverage(confidence: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Return the error rate among the most confident answers, when at least the share `coverage` is kept.

    Answers of equal confidence are kept or dropped together, so more than that share may be kept; nothing is
    interpolated. At coverage 0 it is the risk of the strictest threshold.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        coverage: smallest share of the answers to keep, in [0, 1].

    Raises:
        InputError: malformed arrays, or a coverage outside [0, 1].

    References:
        El-Yaniv, Wiener: On the foundations of noise-free selective classification (2010).

    >>> round(risk_at_coverage([0.9, 0.8, 0.8, 0.3], [1, 1, 0, 1], coverage=0.5), 6)  # keeps three of four
    0.333333
    """
    coverage = checked_share("coverage", coverage)
    curve = risk_coverage_curve(confidence, correct)
    return float(curve.risk[np.searchsorted(curve.coverage, coverage, side="left")])
