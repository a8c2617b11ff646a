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
from calibwrap.scores import Bools, Floats, log_softmax

RIDGE = 1e-6
"""Weight of half the squared distance from the identity: see `fit_affine`."""
STRONGEST = 1e100
"""Largest strength of a penalty, weight or bias; they are multiplied and summed, which must not leave the range."""
MOST_FULL, MOST_DIAGONAL = 12, 64
"""Most options for which the whole curvature is worked out."""
EXACT = 1e-13
"""Nats that a fit may leave to gain."""
Objective = Callable[[Floats], tuple[float, Floats]]
"""Gives a value and its gradient at flat parameters (W, then b)."""


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


def fit_penalised(
    logprobs: Floats,
    targets: Floats,
    *,
    full: bool,
    penalty: Penalty,
    begin: Affine | None = None,
    tolerance: float = EXACT,
) -> Affine:
    """Return weights (K, K) if `full`, else (K,), and biases (K,) of least mean cross-entropy plus penalty.

    `logprobs` (N, K) is -inf where there is no option; `targets` (N, K), whose rows sum to 1, is 0 there. A constant
    added to all biases (or one row added to all rows of W) changes no probability, so that the data alone leave these
    directions open, and separable data would send weights to infinity; a tiny ridge towards the identity settles both.
    Starting at the identity, where the penalty is 0, the result is never worse than it; `begin` is another start, from
    which the way may be shorter. `tolerance` is how many nats may be left to gain.
    """
    k = logprobs.shape[1]
    mask = logprobs > -np.inf
    inputs = np.where(mask, logprobs, 0.0)
    start = np.eye(k) if full else np.ones(k)
    identity = np.concatenate([start.ravel(), np.zeros(k)])
    first = identity if begin is None else np.concatenate([begin.weights.ravel(), begin.biases])
    entropy_and_gradient = _cross_entropy(inputs, mask, targets, full)
    strengths = penalty.weights(k, full=full)
    if k <= (MOST_FULL if full else MOST_DIAGONAL):
        columns = [_as_table(values, k) for values in (identity, strengths)]
        table, converged = newton(Problem(inputs, mask, targets, *columns), _as_table(first, k), tolerance)
        found = np.concatenate([table[:, :-1].ravel(), table[:, -1]])
    else:
        objective = _penalised(entropy_and_gradient, identity, strengths)
        found, converged = _quasi_newton(objective, first, _Units.of(inputs, mask, strengths), tolerance)
    before, after = (entropy_and_gradient(at)[0] for at in (identity, found))
    return Affine(found[:-k].reshape(start.shape), found[-k:], before, after, converged)


def _as_table(flat: Floats, k: int) -> Floats:
    """Return flat parameters (W, then b) as a table with a row for each option, the bias last."""
    return np.concatenate([flat[:-k].reshape(k, -1), flat[-k:, None]], axis=1)


def _penalised(entropy_and_gradient: Objective, identity: Floats, strengths: Floats) -> Objective:
    """Return the function that gives the penalised mean cross-entropy and its gradient at flat parameters."""

    def at(parameters: Floats) -> tuple[float, Floats]:
        value, gradient = entropy_and_gradient(parameters)
        away = parameters - identity
        return value + 0.5 * float(strengths @ (away * away)), gradient + strengths * away

    return at


@dataclass(frozen=True)
class _Units:
    """The numbers in which a search over (W, b) is round: about the same curvature along each of them, and no valley.

    Log-probabilities lie far below 0, so that a change of W is nearly the same change of b. Where the penalty leaves
    biases free, the search is therefore over (W, b + W m), m the inputs' mean.
    """

    mean: Floats
    """(K,) by which a change of W is a change of b."""
    scale: Floats
    """(P,) of each parameter."""

    @classmethod
    def of(cls, inputs: Floats, mask: Bools, strengths: Floats) -> "_Units":
        """Return those of rows (N, K), whose curvature is that of an average option."""
        k = inputs.shape[1]
        chances = np.exp(log_softmax(np.where(mask, inputs, -np.inf)))
        curvature = float((chances * (1.0 - chances)).mean()) + 1e-12
        free = curvature / (curvature + float(strengths[-k:].mean()))
        mean = inputs.mean(axis=0)
        spread = np.maximum((inputs**2).mean(axis=0) - free * mean**2, 1e-12)
        of_weights = np.tile(spread, (len(strengths) - k) // k)
        return cls(free * mean, 1.0 / np.sqrt(curvature * np.append(of_weights, np.ones(k)) + strengths))

    def enter(self, parameters: Floats) -> Floats:
        """Return flat parameters (W, then b) in these units."""
        return self._shifted(parameters, 1.0) / self.scale

    def leave(self, searched: Floats) -> Floats:
        """Return flat parameters (W, then b)."""
        return self._shifted(searched * self.scale, -1.0)

    def gradient(self, by_parameters: Floats) -> Floats:
        """Return the gradient in these units."""
        by_bias = by_parameters[-len(self.mean) :]
        by_weights = by_parameters[: -len(self.mean)]
        is_full = len(by_weights) > len(by_bias)
        change = np.outer(by_bias, self.mean).ravel() if is_full else by_bias * self.mean
        return np.asarray(np.concatenate([by_weights - change, by_bias]) * self.scale)

    def _shifted(self, parameters: Floats, sign: float) -> Floats:
        k = len(self.mean)
        weights = parameters[:-k].reshape(-1, k)
        own = weights @ self.mean if len(weights) > 1 else weights[0] * self.mean
        return np.concatenate([parameters[:-k], parameters[-k:] + sign * own])


def _quasi_newton(objective: Objective, first: Floats, units: _Units, tolerance: float) -> tuple[Floats, bool]:
    """Return flat parameters by L-BFGS-B, where the curvature of all of them at once would be too large."""
    from scipy.optimize import minimize

    def searched(at: Floats) -> tuple[float, Floats]:
        value, gradient = objective(units.leave(at))
        return value, units.gradient(gradient)

    options = {"maxiter": 3000, "maxfun": 6000, "ftol": tolerance, "gtol": 1e5 * tolerance, "maxcor": 20}
    found = minimize(searched, units.enter(first), jac=True, method="L-BFGS-B", options=options)
    return units.leave(np.asarray(found.x)), bool(found.success)


def _cross_entropy(inputs: Floats, mask: Bools, targets: Floats, full: bool) -> Objective:
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
    if not (np.abs(array) <= STRONGEST).all():
        raise InputError(f"'{name}' of {who} must be finite, and at most {STRONGEST:g} in size. Got {array.tolist()}.")
    array.flags.writeable = False
    return array
