"""Numbers as they come from users and files, as float64; what is no real number is told apart, nothing is dropped."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.errors import InputError

_NO_NUMBERS = {"c": "complex numbers", "m": "durations", "M": "dates", "U": "texts", "S": "bytes", "V": "records"}
"""What numpy would turn into float64 by dropping or reading a part of it, by its kind."""


def real_number(value: object) -> float:
    """Return a real number of Python or numpy as a float, and NaN for all else, so that no comparison with it holds.

    A whole number beyond the range of floats is infinite. True and False are no numbers.

    >>> real_number(2), real_number(10**400), real_number("2"), real_number(True)
    (2.0, inf, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def real_array(values: ArrayLike) -> NDArray[np.float64]:
    """Return a float64 copy of an array of real numbers; truth values count as 0 and 1.

    Raises:
        TypeError: it holds what is no real number.
        ValueError: it is ragged, or holds a whole number beyond the range of floats.

    >>> real_array([[1, 2.5]]).tolist()
    [[1.0, 2.5]]
    """
    array = np.asarray(values)
    if array.dtype.kind in _NO_NUMBERS:
        raise TypeError(f"real numbers were expected, not {_NO_NUMBERS[array.dtype.kind]}")
    try:
        with np.errstate(over="ignore"):  # longer floats beyond the range are infinite, and said to be
            return array.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f"a number beyond the range of floats: {error}") from error


def array_of(name: str, values: ArrayLike, dtype: type) -> NDArray[Any]:
    """Return a copy of `values` as an array of float64, int64 or bool.

    Raises:
        InputError: they are none; the message begins with `name`.

    >>> array_of("'ids'", [1, 2], np.int64).tolist()
    [1, 2]
    """
    try:
        return real_array(values) if dtype is np.float64 else np.array(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be an array of numbers. Got {type(values).__name__}: {error}.") from error
