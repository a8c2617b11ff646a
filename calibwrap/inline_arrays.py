"""Arrays of numbers as JSON can hold them; they come back bit for bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibwrap.errors import SavedFileError

INLINE = {"dtype", "values"}
"""The fields of an array in JSON."""
_KINDS = "fiub"
"""Kinds of numbers that an array in a file may hold: floats, whole numbers, truth values."""


def inline(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array of numbers as JSON can hold it; what is not finite becomes a text.

    >>> inline(np.array([[0.5, -np.inf]]))
    {'dtype': 'float64', 'values': [[0.5, '-inf']]}
    """
    return {"dtype": array.dtype.name, "values": _told(array.tolist())}


def from_inline(told: Mapping[str, Any]) -> NDArray[Any]:
    """Return what `inline` was given.

    Raises:
        SavedFileError: not an array of numbers.

    >>> from_inline({"dtype": "float64", "values": [0.5, "-inf"]})
    array([ 0.5, -inf])
    """
    try:
        dtype = np.dtype(str(told["dtype"]))
        if dtype.kind not in _KINDS:
            raise SavedFileError(f"an array of numbers was expected, and one of {dtype.name!r} came")
        return np.array(told["values"], dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise SavedFileError(f"an array that is none: {error}") from error


def _told(value: Any) -> Any:
    if isinstance(value, list):
        return [_told(one) for one in value]
    return value if np.isfinite(value) else str(value)
