"""The one solver for a logistic regression on few features: soft or hard targets, convex, damped Newton in float64.

For features x (d,), targets y in [0, 1] and coefficients w the mean cross-entropy is

    f(w) = mean_n [ log(1 + exp(u_n)) - y_n u_n ],   u_n = w'x_n

with gradient mean[(s(u) - y) x] and Hessian mean[s(u)(1 - s(u)) x x'], s the logistic function. A line through
log-odds has the features (log-odds, 1). Newton's step is halved until f falls, so that it can never end above its
start. This file knows nothing of reports or warnings.
"""

from dataclasses import dataclass

import numpy as np

from calibwrap.scores import Floats

_CHUNK = 16_384
_MOST_STEPS = 200
_MOST_HALVINGS = 60
_LONGEST = 4.0  # change of a logit in the first step, then twice as much: a flat start makes Newton's far too long
_CERTIFIED = 1e-9  # largest gradient at an optimum, per unit of position: f is then within about 1e-16 of its minimum


@dataclass(frozen=True)
class Line:
    """Where the mean cross-entropy is least."""

    slope: float
    intercept: float
    before: float
    """Mean cross-entropy in nats at slope 1, intercept 0."""
    after: float
    """The same at the optimum."""
    converged: bool
    """Whether the gradient vanishes there."""


@dataclass(frozen=True)
class Minimum:
    """Where the mean cross-entropy of d features is least."""

    at: Floats
    """(d,) coefficients."""
    value: float
    """Mean cross-entropy in nats there."""
    gradient: Floats
    """(d,) its gradient there, which vanishes where coefficients are free."""
    converged: bool
    """Whether it does."""


def fit_line(positions: Floats, targets: Floats, *, slope_is_free: bool = True) -> Line:
    """Return the line of least mean cross-entropy, slope 1 unless it is free; the optimum must be finite.

    >>> line = fit_line(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
    >>> round(line.intercept, 6) == round(float(np.log(1 / 3)), 6), round(line.slope, 6)  # odds 1 : 3, then 1 : 1
    (True, 1.098612)
    """
    scale = float(np.abs(positions).max()) or 1.0
    inputs = np.stack([positions / scale, np.ones_like(positions)], axis=1)  # (N, 2), entries within [-1, 1]
    start = np.array([scale, 0.0])
    found = minimum(inputs, targets, start, [0, 1] if slope_is_free else [1])
    before = mean_loss(inputs, targets, start)
    return Line(float(found.at[0] / scale), float(found.at[1]), before, found.value, found.converged)


def minimum(inputs: Floats, targets: Floats, start: Floats, free: list[int]) -> Minimum:
    """Return the least mean cross-entropy over the `free` coefficients; the others stay at `start` (d,).

    `inputs` (N, d) should lie within [-1, 1], and the optimum must be finite. The result is never above the start.

    >>> found = minimum(np.ones((4, 1)), np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(1), [0])  # odds 1 : 3
    >>> round(float(found.at[0]), 6), round(found.value, 6), found.converged
    (-1.098612, 0.562335, True)
    """
    at, (value, gradient, curvature) = start, _swept(inputs, targets, start)
    for number in range(_MOST_STEPS):
        if np.abs(gradient[free]).max() < _CERTIFIED:
            return Minimum(at, value, gradient, True)
        step = np.zeros(len(at))
        step[free] = _solved(curvature[np.ix_(free, free)], gradient[free])
        step /= max(1.0, float(np.abs(inputs @ step).max()) / (_LONGEST * 2.0 ** min(number, 60)))
        for _ in range(_MOST_HALVINGS):
            following = _swept(inputs, targets, at - step)
            if following[0] < value:
                break
            step = step / 2.0
        else:
            break
        at, (value, gradient, curvature) = at - step, following
    return Minimum(at, value, gradient, float(np.abs(gradient[free]).max()) < 100.0 * _CERTIFIED)


def mean_loss(inputs: Floats, targets: Floats, at: Floats) -> float:
    """Return the mean cross-entropy in nats at coefficients `at` (d,)."""
    logits = inputs @ at
    return float((np.maximum(logits, 0.0) + np.log1p(np.exp(-np.abs(logits))) - targets * logits).mean())


def _swept(inputs: Floats, targets: Floats, at: Floats) -> tuple[float, Floats, Floats]:
    """Return the mean cross-entropy, its gradient (d,) and Hessian (d, d): one exp a row, in cached parts."""
    n, d = inputs.shape
    value, gradient, curvature = 0.0, np.zeros(d), np.zeros((d, d))
    for start in range(0, n, _CHUNK):
        part, wanted = inputs[start : start + _CHUNK], targets[start : start + _CHUNK]
        logits = part @ at
        small = np.exp(-np.abs(logits))  # of the less probable side
        less = small / (1.0 + small)
        value += float((np.maximum(logits, 0.0) + np.log1p(small)).sum() - wanted @ logits)
        gradient += (np.where(logits >= 0.0, 1.0 - less, less) - wanted) @ part
        curvature += (part * (less * (1.0 - less))[:, None]).T @ part
    return value / n, gradient / n, curvature / n


def _solved(curvature: Floats, gradient: Floats) -> Floats:
    """Return Newton's step; a Hessian that has all but vanished far from the optimum gets a little identity."""
    least = 1e-12 * max(float(np.trace(curvature)), 1e-12)
    return np.asarray(np.linalg.solve(curvature + least * np.eye(len(gradient)), gradient))
