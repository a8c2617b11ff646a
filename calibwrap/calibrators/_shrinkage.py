"""How far the temperatures of groups differ beyond chance, and each group's temperature under that prior.

Everything is in theta = log beta = -log T. For a row with gaps g = z - max(z), t the right option's gap, m and v mean
and variance of g under softmax(beta g), the negative log-likelihood has the slope beta (m - t), and beta^2 v stands for
its curvature: that is its expected value, and never below 0. This file knows nothing of reports or warnings.
"""

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
        scaled = np.where(self.exists, np.exp(theta) * self.gaps, -np.inf)
        return float((logsumexp(scaled) - np.exp(theta) * self.targets).sum())

    def slopes(self, theta: float) -> tuple[Floats, Floats]:
        """Return (n,) the slope of each row's negative log-likelihood in theta, and (n,) its expected curvature."""
        beta = np.exp(theta)
        weights = np.where(self.exists, np.exp(beta * self.gaps), 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * self.gaps).sum(axis=1)
        variance = (weights * (self.gaps - mean[:, None]) ** 2).sum(axis=1)
        return np.asarray(beta * (mean - self.targets)), np.asarray(beta**2 * variance)


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

    With s_g and I_g the sums of a group's slopes and curvatures, Q = sum s_g^2 / I_g has the expectation
    c (G - 1) + variance (sum I_g - sum I_g^2 / sum I_g).
    """
    slopes = [group.slopes(theta) for group in groups]
    total = np.array([float(slope.sum()) for slope, _ in slopes])
    curvature = np.array([float(curved.sum()) for _, curved in slopes])
    if curvature.sum() <= 0.0:
        return 0.0, 1.0
    dispersion = sum(float(slope @ slope) for slope, _ in slopes) / float(curvature.sum())
    curved = curvature > 0.0
    excess = float((total[curved] ** 2 / curvature[curved]).sum()) - dispersion * (int(curved.sum()) - 1)
    room = float(curvature.sum() - (curvature**2).sum() / curvature.sum())
    return (max(0.0, excess / room) if room > 0.0 else 0.0), dispersion


def posterior_mode(group: Group, theta: float, variance: float, dispersion: float) -> float:
    """Return the theta of least loss / dispersion + (theta - prior mean)^2 / (2 variance); the prior mean at no spread.

    Fisher scoring: where the curvature hardly changes, its first step is the closed form, a weighted mean of the
    group's own optimum and the common one.
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
            following = objective(at - step)
            if following <= value or abs(step) < _CLOSE:
                break
            step /= 2.0
        at, value = at - step, following
        if abs(step) < _CLOSE:
            break
    return at
