"""The one fit of z -> W z + b (W full or diagonal) to soft or hard targets.

Newton's method for few options, L-BFGS-B with exact gradients for many.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine_newton import Problem, newton
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.real_numbers import real_array, real_number
from calibwrap.scores import Bools, Floats

RIDGE = 1e-6
"""Weight of half the squared distance from the identity: see `fit_affine`."""
STRONGEST = 1e100
"""Largest strength of a penalty; it is squared and summed, which must not leave the range of floats."""
MOST_FULL, MOST_DIAGONAL = 12, 64
"""Most options for which the whole curvature is worked out."""


@dataclass(frozen=True)
class Penalty:
    """What is added to the mean cross-entropy of weights W and biases b, so that few rows cannot send them far.

    `ridge` / 2 times the squared distance from the identity, `off_diagonal` times the mean square of W's entries off
    the diagonal, and `intercept` times the mean square of b. The last two are the off-diagonal and intercept
    regularisation of Kull et al., "Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with
    Dirichlet calibration", 2019.
    """

    ridge: float = RIDGE
    off_diagonal: float = 0.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        """Check the strengths."""
        for name in ("ridge", "off_diagonal", "intercept"):
            object.__setattr__(self, name, checked_strength(name, getattr(self, name)))

    def weights(self, k: int, *, full: bool) -> Floats:
        """Return twice the factor of each squared parameter (W, then b)."""
        off = np.zeros((k, k)) if full else np.zeros(k)
        if full and k > 1:
            off += 2.0 * self.off_diagonal / (k * (k - 1)) * (1.0 - np.eye(k))
        return np.asarray(np.concatenate([off.ravel(), np.full(k, 2.0 * self.intercept / k)]) + self.ridge)


@dataclass(frozen=True)
class Affine:
    """The optimum, and the mean cross-entropy in nats (without the ridge) before and after."""

    weights: Floats
    biases: Floats
    before: float
    after: float
    converged: bool

    def apply(self, logprobs: Floats) -> Floats:
        """Return the mapped logits (N, K); -inf stays -inf."""
        inputs = np.where(logprobs > -np.inf, logprobs, 0.0)
        mapped = inputs @ self.weights.T if self.weights.ndim == 2 else inputs * self.weights
        return np.where(logprobs > -np.inf, mapped + self.biases, -np.inf)


def fit_affine(logprobs: Floats, targets: Floats, *, full: bool, ridge: float = RIDGE) -> Affine:
    """Return the optimum of `fit_penalised` with a ridge alone."""
    return fit_penalised(logprobs, targets, full=full, penalty=Penalty(ridge))


def fit_penalised(logprobs: Floats, targets: Floats, *, full: bool, penalty: Penalty) -> Affine:
    """Return weights (K, K) if `full`, else (K,), and biases (K,) of least mean cross-entropy plus penalty.

    `logprobs` (N, K) is -inf where there is no option; `targets` (N, K), whose rows sum to 1, is 0 there. A constant
    added to all biases (or one row added to all rows of W) changes no probability, so that the data alone leave these
    directions open, and separable data would send weights to infinity; a tiny ridge towards the identity settles both.
    Starting at the identity, where the penalty is 0, the result is never worse than it.
    """
    k = logprobs.shape[1]
    mask = logprobs > -np.inf
    inputs = np.where(mask, logprobs, 0.0)
    start = np.eye(k) if full else np.ones(k)
    identity = np.concatenate([start.ravel(), np.zeros(k)])
    entropy_and_gradient = _cross_entropy(inputs, mask, targets, full)
    strengths = penalty.weights(k, full=full)
    if k <= (MOST_FULL if full else MOST_DIAGONAL):
        columns = [_as_table(values, k) for values in (identity, strengths)]
        table, converged = newton(Problem(inputs, mask, targets, *columns))
        found = np.concatenate([table[:, :-1].ravel(), table[:, -1]])
    else:
        found, converged = _quasi_newton(entropy_and_gradient, identity, strengths, inputs.mean(axis=0))
    before, after = (entropy_and_gradient(at)[0] for at in (identity, found))
    return Affine(found[:-k].reshape(start.shape), found[-k:], before, after, converged)


def _as_table(flat: Floats, k: int) -> Floats:
    """Return flat parameters (W, then b) as a table with a row for each option, the bias last."""
    return np.concatenate([flat[:-k].reshape(k, -1), flat[-k:, None]], axis=1)


def _quasi_newton(
    entropy_and_gradient: Callable[[Floats], tuple[float, Floats]], identity: Floats, strengths: Floats, mean: Floats
) -> tuple[Floats, bool]:
    """Return flat parameters by L-BFGS-B, where the curvature of all of them at once would be too large.

    It searches over (W, b + W m), m the inputs' mean (K,): log-probabilities lie far below 0, so that a change of W is
    nearly the same change of b, and along such valleys the search would crawl.
    """
    from scipy.optimize import minimize

    k = len(mean)

    def shifted(parameters: Floats, sign: float) -> Floats:
        """Return (W, b + sign W m)."""
        weights = parameters[:-k].reshape(-1, k)
        own = weights @ mean if len(weights) > 1 else weights[0] * mean
        return np.concatenate([parameters[:-k], parameters[-k:] + sign * own])

    def penalised(searched: Floats) -> tuple[float, Floats]:
        parameters = shifted(searched, -1.0)
        value, gradient = entropy_and_gradient(parameters)
        away = parameters - identity
        gradient = gradient + strengths * away
        by_bias = gradient[-k:]
        gradient[:-k] -= (np.outer(by_bias, mean) if len(gradient) > 2 * k else by_bias * mean).ravel()
        return value + 0.5 * float(strengths @ (away * away)), gradient

    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-13, "gtol": 1e-8, "maxcor": 20}
    found = minimize(penalised, shifted(identity, 1.0), jac=True, method="L-BFGS-B", options=options)
    return shifted(np.asarray(found.x), -1.0), bool(found.success)


def _cross_entropy(
    inputs: Floats, mask: Bools, targets: Floats, full: bool
) -> Callable[[Floats], tuple[float, Floats]]:
    """Return the function that gives mean cross-entropy and its gradient at flat parameters (W, then b)."""
    n, k = inputs.shape
    absent = None if mask.all() else ~mask
    # sum of targets times logits is linear in the parameters, so one look at the rows is enough for it
    of_weights = (targets.T @ inputs).ravel() if full else np.einsum("nk,nk->k", targets, inputs)
    of_biases = targets.sum(axis=0)

    def at(parameters: Floats) -> tuple[float, Floats]:
        weights, biases = parameters[:-k], parameters[-k:]
        logits = inputs @ weights.reshape(k, k).T if full else inputs * weights
        logits += biases
        if absent is not None:
            logits[absent] = -np.inf
        top = logits.max(axis=1, keepdims=True)
        logits -= top
        chances = np.exp(logits, out=logits)
        total = chances.sum(axis=1, keepdims=True)
        chances /= total
        by_weight = (chances.T @ inputs).ravel() if full else np.einsum("nk,nk->k", chances, inputs)
        value = float((top + np.log(total)).sum() - of_weights @ weights - of_biases @ biases) / n
        gradient = np.concatenate([by_weight - of_weights, chances.sum(axis=0) - of_biases]) / n
        return value, gradient

    return at


def check_full(exists: Bools) -> None:
    """Return nothing when all options of all rows `exists` (N, K), as a full matrix needs.

    Raises:
        InputError: names the first row where one does not.
    """
    if not exists.all():
        row = int(np.argmin(exists.all(axis=1)))
        raise InputError(
            f"Matrix scaling needs the same number of options in every row, each above probability 0. Row {row} has "
            f"{int(exists[row].sum())} of {exists.shape[1]}: use vector scaling or temperature."
        )


def convergence_notes(found: Affine) -> tuple[str, ...]:
    """Return a note where the search stopped before its optimum, and warn."""
    if found.converged:
        return ()
    note = "The search stopped before its optimum."
    warnings.warn(f"{note} The numbers are better than none; a larger 'ridge' helps.", CalibrationWarning, stacklevel=4)
    return (note,)


def checked_ridge(ridge: float) -> float:
    """Return `ridge`.

    Raises:
        InputError: not a number from 0 to `STRONGEST`.
    """
    return checked_strength("ridge", ridge)


def checked_strength(name: str, value: float) -> float:
    """Return the strength of a penalty.

    Raises:
        InputError: not a number from 0 to `STRONGEST`.
    """
    strength = real_number(value)
    if not 0.0 <= strength <= STRONGEST:
        raise InputError(f"'{name}' must be a finite number of at least 0, and at most {STRONGEST:g}. Got {value!r}.")
    return strength


def checked_parameters(who: str, name: str, values: ArrayLike, shape: tuple[int, ...] | None) -> Floats:
    """Return `values` as a locked float64 array of `shape`; None asks for any one-dimensional shape.

    Raises:
        InputError: another shape, no numbers, or NaN or infinity inside.
    """
    try:
        array = real_array(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"'{name}' of {who} must be an array of numbers. Got {type(values).__name__}.") from error
    if (array.ndim != 1 or array.size == 0) if shape is None else array.shape != shape:
        raise InputError(f"'{name}' of {who} must have shape {'(K,)' if shape is None else shape}. Got {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError(f"'{name}' of {who} must be finite. Got {array.tolist()}.")
    array.flags.writeable = False
    return array
