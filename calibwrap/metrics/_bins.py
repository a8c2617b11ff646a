"""Bins and the one formula of the calibration error, shared by the functions and the mergeable state.

Bins are [lo, hi), the last one closed, so confidence 1.0 is in the last bin. The uniform edge k of B is the double
nearest to k / B, so that 0.3 opens bin 3 of 10.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibwrap.errors import InputError
from calibwrap.metrics._checks import MOST_BINS, checked_choice, checked_count
from calibwrap.scores import Bools, Floats, Ints

Strategy = Literal["uniform", "quantile"]
Norm = Literal["l1", "l2", "max"]
Codes = NDArray[np.integer[Any]]

CHUNK = 65536
"""Rows handled at once: the work arrays of a chunk fit the second-level cache."""


class BinSums(NamedTuple):
    """What the calibration errors need to know of B bins."""

    rows: Ints
    """(B,) rows in the bin."""
    confidence: Floats
    """(B,) sum of their confidences."""
    correct: Floats
    """(B,) sum of their correctness; a whole number where correctness is 0/1."""


def uniform_edges(n_bins: int) -> Floats:
    """Return the B + 1 edges of bins of equal width on [0, 1].

    >>> uniform_edges(4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return np.arange(n_bins + 1) / n_bins


def quantile_edges(confidence: NDArray[Any], n_bins: int) -> Floats:
    """Return B + 1 edges with about equally many rows between them: the k / B quantiles, linearly interpolated.

    Equal confidences are never parted, so ties make bins uneven or empty.

    >>> quantile_edges(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 2).tolist()
    [0.1, 0.3, 0.5]
    """
    return np.asarray(np.quantile(confidence.astype(np.float64, copy=False), uniform_edges(n_bins)))


def chunks(n_rows: int) -> Iterator[slice]:
    """Yield slices that cover the rows in cache-sized pieces.

    >>> [part.stop for part in chunks(100000)]
    [65536, 100000]
    """
    for start in range(0, n_rows, CHUNK):
        yield slice(start, min(start + CHUNK, n_rows))


def uniform_index(confidence: Floats, n_bins: int, edges: Floats) -> Codes:
    """Return the bin of each confidence in [0, 1], exact at every edge without a search.

    Two products, rounded to either side by more than any error of B * confidence, bracket the bin; only where they
    disagree, which is at most a few ulp from an edge, is the edge itself asked. The result has the smallest integer
    type that holds 2 B, because narrow integers are what makes this fast.

    >>> uniform_index(np.array([0.0, 0.3, np.nextafter(0.3, 0), 1.0]), 10, uniform_edges(10)).tolist()
    [0, 3, 2, 9]
    """
    code_type = np.min_scalar_type(2 * n_bins)
    index: Codes = (confidence * (n_bins * (1 - 2.0**-50))).astype(code_type)
    upper: Codes = (confidence * (n_bins * (1 + 2.0**-50))).astype(code_type)
    unsure = index != upper
    if unsure.any():
        rows = np.flatnonzero(unsure)
        index[rows] = np.minimum(upper[rows] - (confidence[rows] < edges[upper[rows]]), n_bins - 1)
    return index


def sums_at(index: Codes, values: NDArray[Any], size: int) -> Floats:
    """Return the sum of the values that fall to each index, shape (size,).

    >>> sums_at(np.array([0, 2, 2]), np.array([0.5, 1.0, 1.0]), 3).tolist()
    [0.5, 0.0, 2.0]
    """
    return np.asarray(np.bincount(index, weights=values, minlength=size), dtype=np.float64)


def _sums(index: Codes, confidence: Floats, correct: Bools | Floats, n_bins: int) -> BinSums:
    if correct.dtype == np.bool_:  # bin and correctness in one code: two counting passes instead of three
        code = (index + correct.view(np.uint8) * index.dtype.type(n_bins)).astype(np.intp)
        rows = np.bincount(code, minlength=2 * n_bins).reshape(2, n_bins)
        total = sums_at(code, confidence, 2 * n_bins).reshape(2, n_bins)
        return BinSums(rows.sum(axis=0), total.sum(axis=0), rows[1].astype(np.float64))
    return BinSums(
        np.bincount(index, minlength=n_bins),
        sums_at(index, confidence, n_bins),
        sums_at(index, correct, n_bins),
    )


def _add(left: BinSums, right: BinSums) -> BinSums:
    return BinSums(left.rows + right.rows, left.confidence + right.confidence, left.correct + right.correct)


def empty_sums(n_bins: int) -> BinSums:
    """Return the sums of no rows.

    >>> empty_sums(2).rows.tolist()
    [0, 0]
    """
    return BinSums(np.zeros(n_bins, dtype=np.int64), np.zeros(n_bins), np.zeros(n_bins))


def uniform_sums(confidence: NDArray[Any], correct: Bools | Floats, n_bins: int) -> BinSums:
    """Return the sums over bins of equal width; checked arrays of any length, working memory of one chunk.

    >>> uniform_sums(np.array([0.1, 0.9]), np.array([False, True]), 2).rows.tolist()
    [1, 1]
    """
    edges = uniform_edges(n_bins)
    total = empty_sums(n_bins)
    for part in chunks(len(confidence)):
        values = confidence[part].astype(np.float64, copy=False)
        total = _add(total, _sums(uniform_index(values, n_bins, edges), values, correct[part], n_bins))
    return total


def sums_between(confidence: NDArray[Any], correct: Bools | Floats, edges: Floats) -> BinSums:
    """Return the sums over the bins between arbitrary non-decreasing edges.

    >>> sums_between(np.array([0.1, 0.9]), np.array([False, True]), np.array([0.1, 0.5, 0.9])).rows.tolist()
    [1, 1]
    """
    index = np.searchsorted(edges[1:-1], confidence, side="right")
    return _sums(index, confidence.astype(np.float64, copy=False), correct, len(edges) - 1)


def binned(confidence: NDArray[Any], correct: Bools | Floats, n_bins: int, strategy: str) -> tuple[Floats, BinSums]:
    """Return the edges (B + 1,) that the strategy asks for, and the sums over its bins.

    Raises:
        InputError: an unknown strategy, or a number of bins below 1.

    >>> binned(np.array([0.1, 0.9]), np.array([False, True]), 1, "quantile")[0].tolist()
    [0.1, 0.9]
    """
    n_bins = checked_count("n_bins", n_bins, most=MOST_BINS)
    if checked_choice("strategy", strategy, ("uniform", "quantile")) == "uniform":
        return uniform_edges(n_bins), uniform_sums(confidence, correct, n_bins)
    edges = quantile_edges(confidence, n_bins)
    return edges, sums_between(confidence, correct, edges)


def calibration_error(sums: BinSums, norm: str) -> float:
    """Return the calibration error of the bins: the formula behind `ece`, `classwise_ece` and `CalibrationState`.

    With weight w_b = n_b / N and gap g_b = |mean correctness - mean confidence| of bin b: "l1" is sum(w g), "l2" is
    sqrt(sum(w g^2)), "max" is the largest g of a bin that is not empty.

    Raises:
        InputError: an unknown norm, or no rows at all.

    >>> calibration_error(BinSums(np.array([1, 3]), np.array([0.5, 3.0]), np.array([0.0, 3.0])), "l1")
    0.125
    """
    checked_choice("norm", norm, ("l1", "l2", "max"))
    total = sums.rows.sum()
    if total == 0:
        raise InputError("The calibration error of no rows is not defined. Got 0 rows; add some first.")
    difference = np.abs(sums.correct - sums.confidence)
    if norm == "l1":
        return float(difference.sum() / total)
    filled = sums.rows > 0
    gap = difference[filled] / sums.rows[filled]
    if norm == "max":
        return float(gap.max())
    return float(np.sqrt((sums.rows[filled] * gap**2).sum() / total))
