"""Hostile inputs: sound ones that something was done to, so that they get past the first check or just not."""

import datetime
import decimal
import fractions
import json
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

PLAIN = st.one_of(
    st.floats(),
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-12, -1e-12, 5e-324, 1e-308, 1e308, -1e308, 2.0, -1.0]),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.booleans(),
)
ODD = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.sampled_from(
        [
            decimal.Decimal("0.5"),
            decimal.Decimal("sNaN"),
            fractions.Fraction(1, 3),
            datetime.date(2026, 1, 1),
            np.float16(0.5),
            np.longdouble(0.5),
            np.datetime64("NaT"),
            {},
            [],
            (0.5,),
            {0.5},
            object,
        ]
    ),
)
DTYPES = ["?", "i1", "u1", "i4", "u8", "f2", "f4", ">f8", "g", "c16", "O", "U4", "S4", "m8[s]", "M8[s]"]


def _put(value: list[Any], at: int, other: Any) -> list[Any]:
    """Return a list with one of its entries replaced."""
    return value if not value else [*value[: at % len(value)], other, *value[at % len(value) + 1 :]]


def _inside(value: list[Any], at: int, change: Callable[[list[Any]], Any]) -> list[Any]:
    """Return a table with one row changed, or a row changed."""
    if value and isinstance(value[0], list):
        row = value[at % len(value)]
        return _put(value, at, change(row) if isinstance(row, list) else row)
    return change(value)


def _as(value: Any, dtype: str) -> Any:
    """Return an array of another type of numbers, or the value where it cannot become one."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array(value).astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return value


SHAPES: list[Callable[[Any], Any]] = [
    tuple,
    np.array,
    lambda value: np.array(value)[::-1],
    lambda value: np.asfortranarray(value),
    lambda value: np.array(value)[None],
    lambda value: np.array(value)[..., None],
    lambda value: np.array(value)[:0],
    lambda value: np.array(value)[..., :1],
    lambda value: np.array(0.5),
    lambda value: np.ma.masked_equal(np.array(value), 0.0),
    lambda value: np.array(value, dtype=object),
    lambda value: value[:1],
    lambda value: value * 40,
    lambda value: [],
    lambda value: [[]],
    lambda value: None,
    lambda value: 0.5,
    lambda value: "0.5",
    lambda value: b"0.5",
    lambda value: {},
    lambda value: {0.1, 0.5},
    lambda value: iter(value),
    lambda value: (one for one in value),
    lambda value: range(len(value)),
    lambda value: object(),
]


@st.composite
def spoilt(draw: st.DrawFn, value: list[Any]) -> Any:
    """Return the value after none, one or two changes."""
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        way, at = draw(st.integers(0, 5)), draw(st.integers(0, 30))
        if not isinstance(value, list):
            return value
        if way <= 1:
            other = draw(PLAIN)
            value = _inside(value, at, partial(_put, at=at, other=other))
        elif way == 2:
            other = draw(ODD)
            value = _inside(value, at, partial(_put, at=at, other=other))
        elif way == 3:
            value = _inside(value, at, lambda row: row[:-1])
        elif way == 4:
            value = _as(value, draw(st.sampled_from(DTYPES)))
        else:
            value = _reshaped(value, draw(st.sampled_from(SHAPES)))
    return value


def _reshaped(value: list[Any], shape: Callable[[Any], Any]) -> Any:
    try:
        return shape(value)
    except (TypeError, ValueError, IndexError, OverflowError):  # ragged by now, so no array
        return value


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """Return confidences and correctness."""
    n = draw(st.integers(0, 12))
    value = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    confidence = draw(st.lists(value, min_size=n, max_size=n))
    correct = draw(st.lists(st.one_of(st.sampled_from([0, 1]), st.floats(0.0, 1.0)), min_size=n, max_size=n))
    hard = [round(one) for one in correct] if draw(st.booleans()) else correct
    return draw(spoilt(confidence)), draw(spoilt(hard))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, Any]:
    """Return logits of options and the right ones."""
    n, k = draw(st.sampled_from([0, *range(1, 11)])), draw(st.integers(1, 4))
    size = draw(st.sampled_from([1.0, 30.0, 1e4, 1e300]))
    values = [st.floats(-size, size), st.floats(-1.0, 1.0), st.just(0.0)]
    value = st.one_of(*values, st.just(-np.inf)) if draw(st.booleans()) else st.one_of(*values)
    rows = draw(st.lists(st.lists(value, min_size=k, max_size=k), min_size=n, max_size=n))
    answers = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return draw(spoilt(rows)), draw(spoilt(answers))


SETTINGS = st.one_of(PLAIN, ODD, st.sampled_from([10**6, 10**12, 1e12, "uniform", "l1", "lac", (0.1, 10.0)]))
"""What a number or a name in a call can be instead."""
JUNK: list[Any] = [None, True, -1, 0, 1, 2**70, 0.5, "1e999", "NaN", "-Infinity", "", "x" * 50, [], [[]], {}, [None],
                   {"array": "weights"}, {"dtype": "float64", "values": [[1e999]]}, [0.5] * 3]  # fmt: skip
"""What a value in a JSON file can be instead."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON value."""
    inner: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        inner = [place for key, one in value.items() for place in _places(one, (*path, key))]
    elif isinstance(value, list):
        inner = [place for index, one in enumerate(value) for place in _places(one, (*path, index))]
    return [path, *inner] if path else inner


def changed(value: Any, at: int, how: int, junk: Any) -> Any:
    """Return a JSON value with one of the values inside replaced, taken out, doubled or renamed."""
    places = _places(value)
    if not places:
        return junk
    whole = json.loads(json.dumps(value))
    *way, last = places[at % len(places)]
    holder = whole
    for key in way:
        holder = holder[key]
    if how == 0:
        holder[last] = junk
    elif how == 1:
        del holder[last]
    elif how == 2 and isinstance(holder, dict):
        holder[f"{last}s"] = holder.pop(last)
    elif isinstance(holder, list):
        holder.extend(holder)
    else:
        holder[last] = [holder[last]]
    return whole


@st.composite
def bytes_of(draw: st.DrawFn, data: bytes) -> bytes:
    """Return the bytes with some flipped, cut off, put in or overwritten."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.integers(0, 3))
        if how == 0:
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        elif how == 1:
            data = data[:at]
        elif how == 2:
            data = data[:at] + draw(st.binary(max_size=6)) + data[at:]
        else:
            data = (
                data[:at]
                + draw(st.sampled_from([b"9" * 20, b"NaN", b"-1", b"1e999", b"[[", b"\\ud800", b"\0"]))
                + data[at + 3 :]
            )
    return data


@st.composite
def json_of(draw: st.DrawFn, value: Any) -> bytes:
    """Return JSON with one or two values changed."""
    for _ in range(draw(st.integers(1, 2))):
        value = changed(value, draw(st.integers(0, 400)), draw(st.integers(0, 3)), draw(st.sampled_from(JUNK)))
    return json.dumps(value).replace('"1e999"', "1e999").replace('"NaN"', "NaN").encode()
