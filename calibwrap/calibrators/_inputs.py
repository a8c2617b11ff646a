"""What every fit does with what it is handed: scores to rows, answers to indices, bounds to two numbers."""

import datetime
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError
from calibwrap.real_numbers import real_number
from calibwrap.scores import Bools, Floats, Ints, OptionScores, checked_logits

WIDEST = 1e50
"""Largest gap between logits that a fit of weights or means takes."""


def _are_probabilities(rows: Floats) -> bool:
    """Return whether rows (N, K) can hardly be anything else: two and more, not all of them certain.

    >>> _are_probabilities(np.array([[0.7, 0.3], [0.2, 0.8]])), _are_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]))
    (True, False)
    """

    def are(some: Floats) -> bool:
        return bool(some.min() >= 0.0 and (np.abs(some.sum(axis=1) - 1.0) < 1e-6).all())

    return len(rows) > 1 and are(rows[:2]) and are(rows) and bool(((rows > 0.0) & (rows < 1.0)).any())


@dataclass(frozen=True)
class FitRows:
    """The rows of one side of a fit."""

    logits: Floats
    """(N, K) log-probabilities or logits, any number type; -inf where there is no option or its probability is 0."""
    usable: Bools
    """(N,) False where truncation leaves the first choice open."""
    scores: OptionScores | None
    """The scores that they came from, if they came as scores."""

    @property
    def readout(self) -> str:
        """Readout and template, where known."""
        return "" if self.scores is None else self.scores.readout

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence each on the rows that truncation touched."""
        if self.scores is None or self.scores.is_exact:
            return ()
        cut = int((self.scores.is_cut & self.usable).sum())
        lost = int((~self.usable).sum())
        notes = [f"{cut} rows were truncated and fitted with each option at its point value."] if cut else []
        if lost:
            notes.append(f"{lost} rows were left out because truncation leaves their first choice open.")
        return tuple(notes)


def fit_rows(name: str, scores: OptionScores | ArrayLike) -> FitRows:
    """Return the rows of `scores`; values are checked later, where they are first read."""
    if isinstance(scores, OptionScores):
        return FitRows(scores.logprobs, scores.argmax_certified, scores)
    try:
        array: Any = np.asarray(scores)
    except ValueError:
        array = np.empty(0)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        array, _ = checked_logits(name, scores)
    if _are_probabilities(array):
        warnings.warn(
            f"The rows of '{name}' lie in [0, 1] and sum to 1, as probabilities do; log-probabilities or logits are "
            "expected, and are what these are taken for. Hand over their logarithm.",
            CalibrationWarning,
            stacklevel=3,
        )
    return FitRows(array, np.ones(len(array), dtype=np.bool_), None)


def check_spread(logprobs: Floats) -> None:
    """Return nothing when squares of finite log-probabilities stay far inside the range of floats.

    Raises:
        InputError: one is further below 0 than `WIDEST`.
    """
    least = np.min(logprobs, initial=0.0, where=np.isfinite(logprobs))
    if least < -WIDEST:
        raise InputError(
            f"'logprobs' of one row must not be further apart than {WIDEST:g}. Got {-least:g}: fit a temperature, "
            "which takes any, or look where such numbers come from."
        )


def checked_answers(answers: ArrayLike, n: int, k: int) -> Ints:
    """Return `answers` as (N,) option indices.

    Raises:
        InputError: not N whole numbers from 0 to K - 1; True and False are refused, since they are no indices.

    >>> checked_answers([0.0, 2.0], 2, 3).tolist()
    [0, 2]
    """
    wanted = f"'answers' must be {n} whole numbers from 0 to {k - 1}, the index of each row's right option."
    try:
        array = np.asarray(answers)
    except ValueError as error:
        raise InputError(f"{wanted} Got {type(answers).__name__}: {error}.") from error
    if array.dtype.kind not in "iuf" or array.shape != (n,):
        raise InputError(f"{wanted} Got {array.dtype} of shape {array.shape}.")
    if array.dtype.kind == "f" and not (array == np.floor(array)).all():
        row = int(np.argmin(array == np.floor(array)))
        raise InputError(f"{wanted} Got {array[row]} in row {row}.")
    if array.min() < 0 or array.max() >= k:
        row = int(np.argmax((array < 0) | (array >= k)))
        raise InputError(f"{wanted} Got {array[row]} in row {row}.")
    return array.astype(np.int64, copy=False)


def checked_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of temperatures that a fit searches.

    Raises:
        InputError: not two finite numbers with 0 < low < high.

    >>> checked_bounds((0.1, 10))
    (0.1, 10.0)
    """
    try:
        low, high = (real_number(bound) for bound in bounds)
    except (TypeError, ValueError) as error:
        raise InputError(f"'bounds' must be two temperatures (low, high). Got {bounds!r}.") from error
    if not 0.0 < low < high < math.inf or 1.0 / low == math.inf:
        raise InputError(f"'bounds' must be finite temperatures with 0 < low < high. Got {bounds!r}.")
    return low, high


def labelled_rows(rows: FitRows, right: Ints, possible: Bools) -> tuple[Bools, tuple[str, ...]]:
    """Return (N,) which rows a fit with labels uses, and notes on the others.

    `possible` says where the right option's probability is above 0. Where it is not, the likelihood is 0 whatever the
    calibrator: an option that exists leaves its row out, one that does not is a mistake in `answers`.

    Raises:
        InputError: an answer names an option that does not exist.
        FitError: no row is left.
    """
    notes = rows.notes
    if not possible.all():
        exists = possible if rows.scores is None else rows.scores.mask[np.arange(len(right)), right]
        if not exists.all():
            row = int(np.argmin(exists))
            raise InputError(
                f"'answers' must name options that exist. Row {row} names option {right[row]}, which is -inf."
            )
        notes = (*notes, f"{int((~possible).sum())} rows were left out because their answer has probability 0.")
    used = rows.usable & possible
    check_some(used, notes)
    return used, notes


def check_uncut(method: str, rows: FitRows) -> None:
    """Return nothing when every row has each option's exact probability.

    Raises:
        CapabilityError: some were cut off. No bounds of `method` would be honest, so that what is fitted on a backend
            that cuts lists off could never be used on it.
    """
    if rows.scores is not None and not rows.scores.is_exact:
        raise CapabilityError(
            f"Method {method!r} needs each option's exact probability, and {int(rows.scores.is_cut.sum())} of "
            f"{len(rows.scores)} rows were cut off by the backend: use a temperature, or a backend that scores given "
            "tokens."
        )


def check_some(used: Bools, notes: tuple[str, ...]) -> None:
    """Return nothing when rows are left to fit.

    Raises:
        FitError: none are; `notes` say what was left out.
    """
    if not used.any():
        raise FitError(
            f"None of the {len(used)} rows can be fitted. {' '.join(notes)} Ask the backend for a longer list, or for "
            "the options' own tokens."
        )


def today() -> str:
    """Return the day, ISO 8601."""
    return datetime.date.today().isoformat()
