"""The checks that all metrics share: arrays in, arrays out, or an `InputError` that names the culprit.

A probability may leave [0, 1] by at most 1e-9, which is rounding and is clipped; more than that is an error.
Correctness is bool, 0/1 integers, or, where a metric says that it takes soft correctness, real numbers in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.errors import InputError
from calibwrap.real_numbers import real_number
from calibwrap.scores import Bools, Floats, Ints, checked_logits, logsumexp

ROUNDING = 1e-9
ROW_SUM_TOLERANCE = 1e-3


def as_array(name: str, values: ArrayLike, *, kinds: str, dimensions: int, allow_empty: bool = False) -> NDArray[Any]:
    """Return `values` as an array of one of the numpy `kinds` and the given number of dimensions, without a copy.

    Raises:
        InputError: ragged or non-numeric, another number of dimensions, or empty.

    >>> as_array("confidence", [0.5, 1.0], kinds="f", dimensions=1).shape
    (2,)
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"'{name}' must be an array of numbers. Got {type(values).__name__}: {error}.") from error
    wanted = "(N,)" if dimensions == 1 else "(N, K)"
    if array.ndim != dimensions:
        raise InputError(f"'{name}' must have shape {wanted}. Got shape {array.shape}.")
    if array.size == 0 and allow_empty:
        return np.empty(array.shape)
    if array.size == 0:
        raise InputError(f"'{name}' must have at least one row. Got shape {array.shape}.")
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    if array.dtype.kind not in kinds:
        words = {"b": "bool", "i": "integers", "u": "unsigned integers", "f": "real numbers"}
        raise InputError(f"'{name}' must hold {' or '.join(words[kind] for kind in kinds)}. Got dtype {array.dtype}.")
    return array


def within_unit(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` with rounding outside [0, 1] clipped; the same object when there is none.

    Raises:
        InputError: NaN, or a value outside [0, 1] by more than 1e-9; the message gives the first such place.

    >>> within_unit("confidence", np.array([0.0, 1.0 + 1e-12])).tolist()
    [0.0, 1.0]
    """
    if array.size == 0:
        return array
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1:
        return array
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return np.clip(array, 0, 1)
    outside = ~((array >= -ROUNDING) & (array <= 1 + ROUNDING))
    place = tuple(int(index) for index in np.argwhere(outside)[0])
    raise InputError(
        f"'{name}' must lie in [0, 1] and not be NaN. Got {array[place]} at {list(place)}. "
        "If these are logits or log-probabilities, turn them into probabilities first."
    )


def checked_correct(correct: ArrayLike, *, soft: bool = True, allow_empty: bool = False) -> Bools | Floats:
    """Return correctness as (N,) bool, or as (N,) real numbers in [0, 1] where it is soft.

    Raises:
        InputError: another shape or kind, NaN, outside [0, 1], empty, or soft where the metric needs 0/1.

    >>> checked_correct([1, 0]).tolist()
    [True, False]
    """
    array = as_array("correct", correct, kinds="biuf", dimensions=1, allow_empty=allow_empty)
    if array.dtype.kind == "b":
        return array
    array = within_unit("correct", array)
    if array.dtype.kind in "iu":
        return array.astype(np.bool_)
    if soft:
        return array
    hard = (array == 0) | (array == 1)
    if not hard.all():
        row = int(np.argmin(hard))
        raise InputError(
            f"'correct' must be 0 or 1 for this metric. Got {array[row]} in row {row}; choose a threshold."
        )
    return array.astype(np.bool_)


def checked_pair(
    confidence: ArrayLike, correct: ArrayLike, *, soft: bool = True, allow_empty: bool = False
) -> tuple[NDArray[Any], Bools | Floats]:
    """Return confidences (N,) within [0, 1], in their own precision, and correctness (N,) of the same rows.

    Raises:
        InputError: either one is malformed, or their lengths differ.

    >>> [part.tolist() for part in checked_pair([0.5, 1.0], [0, 1])]
    [[0.5, 1.0], [False, True]]
    """
    chances = as_array("confidence", confidence, kinds="fiu", dimensions=1, allow_empty=allow_empty)
    hits = checked_correct(correct, soft=soft, allow_empty=allow_empty)
    if len(chances) != len(hits):
        raise InputError(
            f"'confidence' and 'correct' must have the same number of rows. Got {len(chances)} and {len(hits)}."
        )
    return within_unit("confidence", chances), hits


def checked_answers(answers: ArrayLike, shape: tuple[int, int]) -> Ints:
    """Return the answers (N,) as option indices in [0, K) of scores of the given (N, K) shape.

    Raises:
        InputError: not integers, another number of rows, or an index that is not an option's.

    >>> checked_answers([1, 0], (2, 2)).tolist()
    [1, 0]
    """
    array = as_array("answers", answers, kinds="iu", dimensions=1)
    rows, options = shape
    if len(array) != rows:
        raise InputError(f"'answers' must have one index for each of the {rows} rows. Got {len(array)}.")
    outside = (array < 0) | (array >= options)
    if outside.any():
        row = int(np.argmax(outside))
        raise InputError(
            f"'answers' must be option indices from 0 to {options - 1}. Got {array[row]} in row {row}; "
            "leave out rows without a known answer."
        )
    return array.astype(np.int64)


def checked_probabilities(probabilities: ArrayLike, answers: ArrayLike) -> tuple[Floats, Ints]:
    """Return probabilities (N, K), each row summing to 1 within 1e-3, and answers (N,).

    Raises:
        InputError: a value outside [0, 1], NaN, a row that does not sum to 1, or malformed answers.

    >>> checked_probabilities([[0.5, 0.5]], [1])[0].tolist()
    [[0.5, 0.5]]
    """
    array = as_array("probabilities", probabilities, kinds="fiu", dimensions=2)
    array = within_unit("probabilities", array.astype(np.float64, copy=False))
    check_total("probabilities", array.sum(axis=1))
    return array, checked_answers(answers, array.shape)


def checked_logprobs(logprobs: ArrayLike, answers: ArrayLike) -> tuple[Floats, Ints]:
    """Return log-probabilities (N, K), each row summing to 1 within 1e-3 after exp, and answers (N,).

    Raises:
        InputError: NaN, +inf, a row that is not normalised (logits, say), or malformed answers.

    >>> checked_logprobs([[0.0, -np.inf]], [0])[1].tolist()
    [0]
    """
    array, _ = checked_logits("logprobs", logprobs)
    with np.errstate(over="ignore"):
        check_total("exp(logprobs)", np.exp(logsumexp(array)))
    return array, checked_answers(answers, array.shape)


def check_total(name: str, totals: Floats) -> None:
    """Return nothing when the sums (N,) of the rows of a table of probabilities are 1 within 1e-3.

    Raises:
        InputError: a row's is not.

    >>> check_total("probabilities", np.array([1.0, 0.9999]))
    """
    wrong = np.abs(totals - 1) > ROW_SUM_TOLERANCE
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"Each row of '{name}' must sum to 1 within {ROW_SUM_TOLERANCE}. Row {row} sums to {totals[row]:.6g}; "
            "normalise logits with calibwrap.scores.log_softmax first."
        )


MOST = 2**53
"""Largest count: beyond it not every whole number is a float."""
MOST_BINS = 1_000_000
"""Most bins; more would only cost memory."""


def checked_count(name: str, value: int, *, least: int = 1, most: int = MOST) -> int:
    """Return `value` when it is a whole number from `least` to `most`.

    Raises:
        InputError: it is not.

    >>> checked_count("n_bins", 15)
    15
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"'{name}' must be a whole number of at least {least}. Got {value!r}.")
    if value > most:
        raise InputError(f"'{name}' must be a whole number of at most {most}. Got {float(min(value, 1e300)):g}.")
    return int(value)


def checked_level(level: float) -> float:
    """Return the confidence level of an interval, strictly between 0 and 1.

    Raises:
        InputError: it is not.

    >>> checked_level(0.95)
    0.95
    """
    number = real_number(level)
    if not 0 < number < 1:
        raise InputError(f"'level' must lie strictly between 0 and 1, such as 0.95. Got {level!r}.")
    return number


def checked_share(name: str, value: float) -> float:
    """Return `value` when it is a number in [0, 1].

    Raises:
        InputError: it is not.

    >>> checked_share("risk", 0.05)
    0.05
    """
    number = real_number(value)
    if not 0 <= number <= 1:
        raise InputError(f"'{name}' must lie in [0, 1], such as 0.05. Got {value!r}.")
    return number


def checked_choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` when it is one of `allowed`.

    Raises:
        InputError: it is not.

    >>> checked_choice("norm", "l1", ("l1", "l2"))
    'l1'
    """
    if value not in allowed:
        raise InputError(f"'{name}' must be one of {', '.join(map(repr, allowed))}. Got {value!r}.")
    return value
