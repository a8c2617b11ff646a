"""The one solver for a temperature: soft or hard targets, convex in beta = 1/T, safeguarded Newton in float64.

For logits z, targets p (each row sums to 1) and gaps g = z - max(z) <= 0, the mean cross-entropy is

    f(beta)  = mean_n [ log sum_k exp(beta g_nk) - beta sum_k p_nk g_nk ]
    f'(beta) = mean_n [ m_n(beta) - sum_k p_nk g_nk ],    m_n = mean of g_n under softmax(beta g_n)
    f"(beta) = mean_n [ variance of g_n under softmax(beta g_n) ] >= 0

Targets enter through one number a row only, sum_k p g, so that hard and soft labels cost the same. Memory
traffic decides the speed: gaps are stored options first, (K, N), and swept in chunks that stay in the cache, one exp
a step. This file knows nothing of scores, reports or warnings.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibwrap.scores import Bools, Floats, checked_logits

ABSENT = -1e300
"""Gap of an option with probability 0: finite, so that 0 * gap is 0 and not NaN, and exp(beta * gap) is still 0."""
_CHUNK = 32_768  # entries: two float64 buffers of 256 KiB fit a second-level cache
_WARM_ROWS = 16_384  # a start from this many rows is within about 1 % of the optimum; Newton then needs three passes
_CLOSE = 1e-7  # relative Newton step after which the next error is of the order of its square
_FLAT = 1e-12  # nats: an objective that changes by less over the whole interval does not determine a temperature
_MOST_STEPS = 200


@dataclass(frozen=True)
class Solution:
    """Where the mean cross-entropy is least."""

    beta: float
    """Inverse temperature 1/T."""
    before: float
    """Mean cross-entropy in nats at beta = 1."""
    after: float
    """The same at `beta`."""
    at_bound: str
    """Bound of the TEMPERATURE that was hit: "lower", "upper" or ""."""
    converged: bool
    """Whether the derivative vanishes at `beta`, or points out of the interval."""
    flat: bool
    """Whether the objective does not depend on the temperature; `beta` is then 1."""


def gaps_of(name: str, logits: Floats) -> Floats:
    """Return `logits` (N, K) less each row's maximum, as (K, N) float64; `ABSENT` for -inf.

    Raises:
        InputError: wrong shape, NaN or +inf inside, or a row without any option.

    >>> gaps_of("logits", np.array([[1.0, 3.0]])).tolist()
    [[-2.0], [0.0]]
    """
    if logits.ndim != 2 or 0 in logits.shape or logits.dtype.kind not in "fiu":
        logits, _ = checked_logits(name, logits)
    n, k = logits.shape
    gaps = np.empty((k, n))
    for part in _chunks(k, n):
        block = gaps[:, part]
        block[...] = logits[part].T
        top = block.max(axis=0)
        if not np.isfinite(top).all():
            checked_logits(name, logits)  # raises, and says where
        with np.errstate(over="ignore"):
            block -= top
        np.maximum(block, ABSENT, out=block)
    return gaps


def tied_tops(first: Floats, second: Floats) -> Bools:
    """Return (N,) whether two gaps (K, N) have a most probable option in common.

    Without ties that is equality of both argmaxes; with ties it does not depend on the order of the options.
    """
    return np.asarray(((first == 0.0) & (second == 0.0)).any(axis=0))


def mean_gap(gaps: Floats, beta: float) -> Floats:
    """Return (N,) the mean gap m_n of each row under softmax(beta * gaps)."""
    k, n = gaps.shape
    means = np.empty(n)
    work = np.empty((k, min(n, _chunk_rows(k))))
    for part in _chunks(k, n):
        block = gaps[:, part]
        weights = work[:, : block.shape[1]]
        total = _weigh(block, beta, weights)
        np.multiply(weights, block, out=weights)
        np.divide(weights.sum(axis=0), total, out=means[part])
    return means


def sweep(gaps: Floats, beta: float) -> tuple[float, float, float]:
    """Return the means over rows of log sum exp(beta g), of m_n and of the variance: one exp pass."""
    k, n = gaps.shape
    log_sums = means = variances = 0.0
    work = np.empty((k, min(n, _chunk_rows(k))))
    for part in _chunks(k, n):
        block = gaps[:, part]
        weights = work[:, : block.shape[1]]
        total = _weigh(block, beta, weights)
        weights *= block
        first = weights.sum(axis=0) / total
        weights *= block
        second = weights.sum(axis=0) / total
        log_sums += float(np.log(total).sum())
        means += float(first.sum())
        variances += float(second.sum() - first @ first)
    return log_sums / n, means / n, max(variances, 0.0) / n


def solve(gaps: Floats, targets: Floats, bounds: tuple[float, float]) -> Solution:
    """Return the beta of least mean cross-entropy with T = 1/beta inside `bounds`.

    `targets` (N,) holds sum_k p_k g_k of each row. The result is never worse than beta = 1 where 1 lies inside.

    >>> gaps = gaps_of("logits", np.array([[4.0, 0.0]] * 4))  # right 3 times of 4: softmax(4 beta) must be 3/4
    >>> round(solve(gaps, np.array([0.0, 0.0, 0.0, -4.0]), (0.01, 100.0)).beta, 6) == round(math.log(3) / 4, 6)
    True
    """
    low, high = 1.0 / bounds[1], 1.0 / bounds[0]
    search = _Search(gaps, float(targets.mean()), low, high)
    before = search.visit(1.0)
    if abs(search.slope) * (high - low) < _FLAT and search.is_flat():
        return Solution(1.0, before, before, "", True, True)
    beta = search.newton(1.0) if low <= 1.0 <= high else min(max(1.0, low), high)
    if len(targets) > 4 * _WARM_ROWS:
        beta = _warm_start(gaps, targets, bounds, beta)
    for _ in range(_MOST_STEPS):
        after = search.visit(beta)
        if (beta == low and search.slope >= 0.0) or (beta == high and search.slope <= 0.0):
            return Solution(beta, before, after, "upper" if beta == low else "lower", True, False)
        following = search.newton(beta)
        if abs(math.log(following / beta)) < _CLOSE:
            kept = after > before and low <= 1.0 <= high
            return Solution(*((1.0, before, before) if kept else (following, before, after)), "", True, False)
        beta = following
    return Solution(beta, before, after, "", False, False)


class _Search:
    """A bracket of the root of f', in log beta, and the last point that was visited."""

    def __init__(self, gaps: Floats, target: float, low: float, high: float) -> None:
        self.gaps, self.target, self.low, self.high = gaps, target, low, high
        self.left: float | None = None  # greatest visited beta with f' < 0
        self.right: float | None = None  # least visited beta with f' > 0
        self.slope = self.curvature = 0.0
        self.last_step = math.inf

    def visit(self, beta: float) -> float:
        """Return f(beta), and remember f', f" and the bracket."""
        log_sum, mean, self.curvature = sweep(self.gaps, beta)
        self.slope = mean - self.target
        if self.low <= beta <= self.high:
            if self.slope < 0.0:
                self.left = beta
            elif self.slope > 0.0:
                self.right = beta
        return log_sum - beta * self.target

    def is_flat(self) -> bool:
        """Return whether f changes by less than `_FLAT` between the bounds; f' is monotone, so its ends decide."""
        ends = [abs(sweep(self.gaps, beta)[1] - self.target) for beta in (self.low, self.high)]
        return max(ends) * (self.high - self.low) < _FLAT

    def newton(self, beta: float) -> float:
        """Return the next point: a Newton step in log beta while steps halve and stay inside, else a safe one.

        In log beta a step can never leave the positive numbers, and f' is close to linear in log beta from either
        end: it is linear in beta near 0, and like -c/beta for large beta.
        """
        step = self.slope / (beta * self.curvature) if self.curvature > 0.0 else math.copysign(math.inf, self.slope)
        shrinks = abs(step) <= 0.5 * self.last_step
        self.last_step = abs(step)
        following = beta * math.exp(-step) if abs(step) < 700.0 else (0.0 if step > 0 else math.inf)
        left, right = self.left or self.low, self.right or self.high
        if shrinks and left <= following <= right:
            return following
        self.last_step = math.inf
        if self.slope <= 0.0 and self.right is None:
            return self.high
        if self.slope >= 0.0 and self.left is None:
            return self.low
        return math.sqrt(left * right)


def _warm_start(gaps: Floats, targets: Floats, bounds: tuple[float, float], beta: float) -> float:
    """Return the optimum of every so-many-th row; `beta` where that has none inside the bounds."""
    every = len(targets) // _WARM_ROWS
    start = solve(np.ascontiguousarray(gaps[:, ::every]), targets[::every], bounds)
    return beta if start.at_bound or start.flat else start.beta


def _weigh(block: Floats, beta: float, out: Floats) -> Floats:
    """Fill `out` with exp(beta * block) and return its sum over the options."""
    np.multiply(block, beta, out=out)
    np.exp(out, out=out)
    return np.asarray(out.sum(axis=0))


def _chunk_rows(k: int) -> int:
    return max(256, _CHUNK // k)


def _chunks(k: int, n: int) -> Iterator[slice]:
    rows = _chunk_rows(k)
    return (slice(start, start + rows) for start in range(0, n, rows))
