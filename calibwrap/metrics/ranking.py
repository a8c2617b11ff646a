"""Does a higher confidence mean a right answer? Area under the ROC curve, and risk against coverage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics._checks import checked_pair
from calibwrap.scores import Floats, Ints, _Record


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the probability that a right answer has a higher confidence than a wrong one; a tie counts one half.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1; soft correctness has no such ranking and is refused.

    Raises:
        InputError: malformed arrays, or all answers right, or all wrong: then there is no pair to rank.

    References:
        Hanley, McNeil: The meaning and use of the area under a receiver operating characteristic (ROC) curve (1982).

    >>> auroc([0.9, 0.8, 0.8, 0.3], [1, 1, 0, 0])  # 3 of 4 pairs in order, one tied
    0.875
    """
    chances, hits = checked_pair(confidence, correct, soft=False)
    right, wrong = np.sort(chances[hits]), np.sort(chances[np.logical_not(hits)])
    if not len(right) or not len(wrong):
        raise InputError(
            f"AUROC needs at least one right and one wrong answer. Got {len(right)} right and {len(wrong)} wrong; "
            "leave it out for this set."
        )
    below = np.searchsorted(wrong, right, side="left").sum()
    below_or_tied = np.searchsorted(wrong, right, side="right").sum()
    return float((below + below_or_tied) / (2 * len(right) * len(wrong)))


@dataclass(frozen=True, eq=False)
class RiskCoverageCurve(_Record):
    """Error rate among the answers kept, for every threshold on confidence; from the strictest on.

    >>> RiskCoverageCurve(threshold=[0.5], coverage=[1.0], risk=[0.25]).risk.tolist()
    [0.25]
    """

    threshold: Floats
    """(G,) distinct confidences, falling; answers with at least this confidence are kept."""
    coverage: Floats
    """(G,) share of the answers that are kept; the last one is 1."""
    risk: Floats
    """(G,) mean of 1 - correctness among those."""

    def __post_init__(self) -> None:
        """Check shapes and lock the arrays."""
        self._lock("threshold", np.float64, (None,))
        for name in ("coverage", "risk"):
            self._lock(name, np.float64, (len(self.threshold),))


def _tie_groups(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Ints, Floats]:
    """Return the distinct confidences, falling, with the number of answers and the errors at each."""
    chances, hits = checked_pair(confidence, correct)
    values, group, size = np.unique(chances, return_inverse=True, return_counts=True)
    errors = size - np.bincount(group, weights=hits, minlength=len(values))
    return values[::-1].astype(np.float64), size[::-1], errors[::-1].astype(np.float64)


def risk_coverage_curve(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverageCurve:
    """Return selective risk against coverage, one point for each distinct confidence.

    Equal confidences are kept or dropped together, since no threshold can part them.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        El-Yaniv, Wiener: On the foundations of noise-free selective classification (2010).

    >>> curve = risk_coverage_curve([0.9, 0.8, 0.8, 0.3], [1, 1, 0, 0])
    >>> curve.coverage.tolist(), curve.risk.round(3).tolist()
    ([0.25, 0.75, 1.0], [0.0, 0.333, 0.5])
    """
    threshold, size, errors = _tie_groups(confidence, correct)
    kept = np.cumsum(size)
    return RiskCoverageCurve(threshold, kept / kept[-1], np.cumsum(errors) / kept)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve: the mean of the selective risk at coverage 1/N, 2/N, ..., 1.

    Lower is better; 0 only when every answer is right. Where confidences tie, each tied answer counts with the mean
    error of its tie, which is the exact expectation over all orders of the tied answers: the order of the rows cannot
    matter.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Geifman, Uziel, El-Yaniv: Bias-reduced uncertainty estimation for deep neural classifiers (2019).

    >>> round(aurc([0.9, 0.8, 0.3], [1, 0, 1]), 6)  # (0 + 1/2 + 1/3) / 3
    0.277778
    """
    _, size, errors = _tie_groups(confidence, correct)
    cumulative = np.cumsum(np.repeat(errors / size, size))
    return float(np.mean(cumulative / np.arange(1, len(cumulative) + 1)))
