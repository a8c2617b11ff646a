"""Newton's method for z -> W z + b with few options, W full or diagonal: exact curvature, about ten passes.

Option k has the coefficients P_k and the features x_k: the whole row and 1 where W is full, its own log-probability and
1 where W is diagonal. With p the softmax of u_k = P_k x_k and targets t, the mean cross-entropy plus penalty has

    gradient   (k)     mean[(p_k - t_k) x_k]                      + strength (P - start)
    curvature  (k, l)  mean[(p_k [k = l] - p_k p_l) x_k x_l']     + strength

It is convex; steps are halved until they bring at least a little of what the gradient promises. This file knows nothing
of reports or warnings.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calibwrap.scores import Bools, Floats

_CHUNK = 32_768  # numbers: they fit a second-level cache
_MOST_STEPS = 200
_MOST_HALVINGS = 60
_PROMISED = 1e-4


@dataclass(frozen=True)
class Problem:
    """Rows, targets and penalty."""

    inputs: Floats
    """(N, K) log-probabilities, 0 where there is no option."""
    mask: Bools
    """(N, K) whether there is one; everywhere, where W is full."""
    targets: Floats
    """(N, K), rows that sum to 1."""
    start: Floats
    """(K, M) coefficients of the identity: M is K + 1 where W is full, else 2; the last ones are biases."""
    strengths: Floats
    """(K, M) twice the factor of each squared distance from the start."""

    @property
    def full(self) -> bool:
        """Whether W is full."""
        k, columns = self.start.shape
        return bool(columns == k + 1)

    def swept(self, at: Floats) -> tuple[float, Floats, Floats]:
        """Return the mean cross-entropy plus penalty, its gradient (K M,) and curvature (K M, K M)."""
        k, m = at.shape
        total, gradient, curvature = 0.0, np.zeros((k, m)), np.zeros((k * m, k * m))
        for part in self._chunks():
            features, targets = self._features(part), self.targets[part]
            loss, shares = _softmax(self._mapped(features, at, part), targets)
            total += loss
            excess = shares - targets
            gradient += excess.T @ features[:, 0] if self.full else np.einsum("nk,nkm->km", excess, features)
            weighed = shares[:, :, None] * features
            for one in range(k):
                block = slice(one * m, (one + 1) * m)
                curvature[block, block] += weighed[:, one].T @ features[:, one]
            flat = weighed.reshape(len(shares), k * m)
            curvature -= flat.T @ flat
        n, away = len(self.inputs), at - self.start
        value = total / n + 0.5 * float((self.strengths * away**2).sum())
        gradient = gradient / n + self.strengths * away
        return value, gradient.ravel(), curvature / n + np.diag(self.strengths.ravel())

    def _chunks(self) -> list[slice]:
        size = max(256, _CHUNK // self.start.size)
        return [slice(start, start + size) for start in range(0, len(self.inputs), size)]

    def _features(self, part: slice) -> Floats:
        """Return (n, K, M)."""
        inputs = self.inputs[part]
        n, k = inputs.shape
        if not self.full:
            return np.stack([inputs, np.ones_like(inputs)], axis=2)
        return np.broadcast_to(self._rows[part][:, None, :], (n, k, k + 1))

    @cached_property
    def _rows(self) -> Floats:
        """(N, K + 1) the inputs and 1, which every option has where W is full."""
        return np.concatenate([self.inputs, np.ones((len(self.inputs), 1))], axis=1)

    def _mapped(self, features: Floats, at: Floats, part: slice) -> Floats:
        if self.full:
            return np.asarray(features[:, 0] @ at.T)
        return np.where(self.mask[part], features[:, :, 0] * at[:, 0] + at[:, 1], -np.inf)


def newton(problem: Problem, first: Floats, tolerance: float) -> tuple[Floats, bool]:
    """Return the coefficients (K, M) of least mean cross-entropy plus penalty, and whether they are certified.

    Never above `first`. Certified is what a quadratic says has less than `tolerance` nats left to gain.
    """
    at, (value, gradient, curvature) = first, problem.swept(first)
    for _ in range(_MOST_STEPS):
        step = _solved(curvature, gradient)
        promised = float(gradient @ step)
        if 0.5 * promised < tolerance:
            return at, True
        for halvings in range(_MOST_HALVINGS):
            share = 0.5**halvings
            following = at - share * step.reshape(at.shape)
            reached = problem.swept(following)
            if reached[0] <= value - _PROMISED * share * promised:
                break
        else:
            return at, 0.5 * promised < 1e3 * tolerance
        at, (value, gradient, curvature) = following, reached
    return at, False


def _softmax(mapped: Floats, targets: Floats) -> tuple[float, Floats]:
    """Return the summed cross-entropy and the probabilities (n, K); options of target 0 may be -inf."""
    mapped = np.asfortranarray(mapped)  # short rows: numpy reduces along columns several times as fast
    top = mapped.max(axis=1, keepdims=True)
    shares = np.exp(mapped - top)
    total = shares.sum(axis=1, keepdims=True)
    wanted = (targets * np.where(targets > 0.0, mapped, 0.0)).sum()
    return float(top.sum() + np.log(total).sum() - wanted), shares / total


def _solved(curvature: Floats, gradient: Floats) -> Floats:
    """Return Newton's step in units in which every coefficient has curvature 1, so that large inputs do no harm."""
    units = 1.0 / np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    scaled = curvature * units * units[:, None]
    least = 1e-13 * np.eye(len(units))  # a direction that neither data nor penalty settle
    return np.asarray(units * np.linalg.solve(scaled + least, units * gradient))
