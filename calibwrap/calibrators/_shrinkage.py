"""How far the temperatures of groups differ beyond chance, and each group's temperature under that prior.

Everything is in theta = log beta = -log T. For a row with gaps g = z - max(z), t the right option's gap, m and v mean
and variance of g under softmax(beta g), the negative log-likelihood has the slope beta (m - t), and beta^2 v stands for
its curvature: that is its expected value, and never below 0. This file knows nothing of reports or warnings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibwrap.calibrators._newton import ABSENT
from calibwrap.scores import Floats, logsumexp

_MOST_STEPS = 100
_MOST_HALVINGS = 60
_CLOSE = 1e-10
"""Step in log T below which the search has ended."""
_FARTHEST = -1e100
"""Least beta times gap that is told apart: its option's weight is 0, and sums of its square are still finite."""


@dataclass(frozen=True)
class Group:
    """The rows of one group."""

    gaps: Floats
    """(n, K) logits less each row's largest; 0 where there is no option."""
    exists: NDArray[np.bool_]
    """(n, K) whether there is."""
    targets: Floats
    """(n,) gap of the right option."""

    def loss(self, theta: float) -> float:
        """Return the summed negative log-likelihood in nats."""
        scaled = np.where(self.exists, _scaled(theta, self.gaps), -np.inf)
        return float((logsumexp(scaled) - _scaled(theta, self.targets)).sum())

    def slopes(self, theta: float) -> tuple[Floats, Floats]:
        """Return (n,) the slope of each row's negative log-likelihood in theta, and (n,) its expected curvature."""
        scaled = _scaled(theta, self.gaps)
        weights = np.where(self.exists, np.exp(scaled), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * scaled).sum(axis=1)
        curvature = (weights * (scaled - mean[:, None]) ** 2).sum(axis=1)
        return np.asarray(mean - _scaled(theta, self.targets)), np.asarray(curvature)


def split(names: NDArray[np.str_], gaps: Floats, targets: Floats) -> dict[str, Group]:
    """Return the rows of each group, by name in alphabetical order; `gaps` are (K, N), as the solver stores them.

    >>> list(split(np.array(["b", "a"]), np.array([[0.0, 0.0], [-1.0, -2.0]]), np.zeros(2)))
    ['a', 'b']
    """
    different, which = np.unique(names, return_inverse=True)
    rows = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    found = {}
    for name, mine in zip(different, rows, strict=True):
        own = np.ascontiguousarray(gaps[:, mine].T)
        exists = own > ABSENT
        found[str(name)] = Group(np.where(exists, own, 0.0), exists, targets[mine])
    return found


def between_groups(groups: Sequence[Group], theta: float) -> tuple[float, float]:
    """Return the variance of theta between groups, and the dispersion c of rows within them; at the common optimum.

    Let s_g and I_g be the sums of a group's slopes and curvatures, and S_k the sum of all I_g^k. A group whose own
    theta differs by u has the slope -I_g u plus noise of variance c I_g, and the common optimum takes I_g / S_1 of all
    slopes away from each, so that the sum of s_g^2 has the expectation

        c (S_1 - S_2 / S_1) + variance (S_2 - 2 S_3 / S_1 + (S_2 / S_1)^2).

    Each group counts by I_g^2: one that is all but certain, with I_g near 0, says nothing, and it must not be divided
    by. Of the sums with any weights in DerSimonian, Kacker, "Random-effects model for meta-analysis of clinical trials:
    an update", 2007, it is this one.
    """
    slopes = [group.slopes(theta) for group in groups]
    total = np.array([float(slope.sum()) for slope, _ in slopes])
    curvature = np.array([float(curved.sum()) for _, curved in slopes])
    if curvature.sum() <= 0.0:
        return 0.0, 1.0
    dispersion = sum(float(slope @ slope) for slope, _ in slopes) / float(curvature.sum())
    first, second, third = (float((curvature**power).sum()) for power in (1, 2, 3))
    excess = float((total**2).sum()) - dispersion * (first - second / first)
    room = second - 2.0 * third / first + (second / first) ** 2
    return (max(0.0, excess / room) if room > 0.0 else 0.0), dispersion


def posterior_mode(
    group: Group, theta: float, variance: float, dispersion: float, limits: tuple[float, float] = (-math.inf, math.inf)
) -> float:
    """Return the theta of least loss / dispersion + (theta - prior mean)^2 / (2 variance); the prior mean at no spread.

    Fisher scoring, within `limits`: where the curvature hardly changes, its first step is the closed form, a weighted
    mean of the group's own optimum and the common one.
    """
    if variance == 0.0 or dispersion == 0.0:
        return theta

    def objective(at: float) -> float:
        return group.loss(at) / dispersion + (at - theta) ** 2 / (2.0 * variance)

    at, value = theta, objective(theta)
    for _ in range(_MOST_STEPS):
        slope, curvature = (float(part.sum()) / dispersion for part in group.slopes(at))
        step = (slope + (at - theta) / variance) / (curvature + 1.0 / variance)
        for _ in range(_MOST_HALVINGS):
            following = objective(_within(at - step, limits))
            if following <= value or abs(step) < _CLOSE:
                break
            step /= 2.0
        last, at, value = at, _within(at - step, limits), following
        if abs(at - last) < _CLOSE:
            break
    return at


def _within(theta: float, limits: tuple[float, float]) -> float:
    return min(max(theta, limits[0]), limits[1])


def _scaled(theta: float, gaps: Floats) -> Floats:
    """Return beta times `gaps`, no further below 0 than `_FARTHEST`."""
    with np.errstate(over="ignore"):
        return np.asarray(np.maximum(np.exp(theta) * gaps, _FARTHEST))
