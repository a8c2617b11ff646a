"""The one solver for a line through log-odds: soft or hard targets, convex, damped Newton in float64.

For positions x, targets y in [0, 1] and parameters (a, b) the mean cross-entropy is

    f(a, b) = mean_n [ log(1 + exp(u_n)) - y_n u_n ],   u_n = a x_n + b

with gradient mean[(s(u) - y)(x, 1)] and Hessian mean[s(u)(1 - s(u))(x, 1)(x, 1)'], s the logistic function. Newton's
step is halved until f falls, so that it can never end above its start. This file knows nothing of reports or warnings.
"""

from dataclasses import dataclass

import numpy as np

from calibwrap.scores import Floats

_MOST_STEPS = 200
_MOST_HALVINGS = 60
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


def fit_line(positions: Floats, targets: Floats, *, slope_is_free: bool = True) -> Line:
    """Return the line of least mean cross-entropy, slope 1 unless it is free; the optimum must be finite.

    >>> line = fit_line(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
    >>> round(line.intercept, 6) == round(float(np.log(1 / 3)), 6), round(line.slope, 6)  # odds 1 : 3, then 1 : 1
    (True, 1.098612)
    """
    scale = float(np.abs(positions).max()) or 1.0
    inputs = np.stack([positions / scale, np.ones_like(positions)], axis=1)  # (N, 2), entries within [-1, 1]
    free = [0, 1] if slope_is_free else [1]
    at = np.array([scale, 0.0])
    value = before = _value(inputs, targets, at)
    for _ in range(_MOST_STEPS):
        gradient, curvature = _derivatives(inputs, targets, at)
        if np.abs(gradient[free]).max() < _CERTIFIED:
            return Line(float(at[0] / scale), float(at[1]), before, value, True)
        step = np.zeros(2)
        step[free] = _solved(curvature[np.ix_(free, free)], gradient[free])
        following = _halved(inputs, targets, at, value, step)
        if following is None:
            break
        at, value = following
    steepest = float(np.abs(_derivatives(inputs, targets, at)[0][free]).max())
    return Line(float(at[0] / scale), float(at[1]), before, value, steepest < 100.0 * _CERTIFIED)


def _value(inputs: Floats, targets: Floats, at: Floats) -> float:
    logits = inputs @ at
    return float((np.logaddexp(0.0, logits) - targets * logits).mean())


def _derivatives(inputs: Floats, targets: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Return the gradient (2,) and the Hessian (2, 2)."""
    logits = inputs @ at
    probabilities = np.exp(-np.logaddexp(0.0, -logits))
    weights = probabilities * np.exp(-np.logaddexp(0.0, logits))
    n = len(targets)
    return inputs.T @ (probabilities - targets) / n, (inputs * weights[:, None]).T @ inputs / n


def _solved(curvature: Floats, gradient: Floats) -> Floats:
    """Return Newton's step; a Hessian that has all but vanished far from the optimum gets a little identity."""
    least = 1e-12 * max(float(np.trace(curvature)), 1e-12)
    return np.asarray(np.linalg.solve(curvature + least * np.eye(len(gradient)), gradient))


def _halved(inputs: Floats, targets: Floats, at: Floats, value: float, step: Floats) -> tuple[Floats, float] | None:
    """Return the first of `at - step`, `at - step / 2`, ... that is no worse, and its value; None where none is."""
    for _ in range(_MOST_HALVINGS):
        following = _value(inputs, targets, at - step)
        if following < value:
            return at - step, following
        step = step / 2.0
    return None
