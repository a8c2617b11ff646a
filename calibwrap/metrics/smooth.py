"""Smooth calibration error: no bins, a kernel whose width follows from the data."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.metrics._bins import chunks, sums_at
from calibwrap.metrics._checks import checked_pair
from calibwrap.scores import Bools, Floats

GRID = 8192
"""Cells on [0, 1]; a kernel is told from its neighbours down to a width of about 1 / GRID."""
PRECISION = 1e-12
"""Largest distance of the result from the root of smECE_s = s on the grid."""
STEPS = 100
"""Most widths that are tried; about ten are enough."""
ERASED = 3.0
"""Product of width and frequency from which a kernel leaves less than 1e-19 of a wave."""


def smooth_ece(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the smooth expected calibration error (smECE) in [0, 1].

    The residuals (correctness - confidence) are smoothed along confidence by a Gaussian kernel of width s, reflected
    at 0 and 1; smECE_s is the integral of the absolute value of the smoothed residual. It falls as s grows, and smECE
    is the one value with smECE_s = s. There is no bin to choose, and a small change of the confidences changes it
    little. The kernel works on a grid of 8192 cells with linear weights, as multiplication in the cosine basis.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Błasiok, Nakkiran: Smooth ECE: principled reliability diagrams via kernel smoothing (2023).

    >>> round(smooth_ece([0.5, 0.5], [1, 1]), 6)  # all residuals are 0.5, at any width
    0.5
    """
    chances, hits = checked_pair(confidence, correct)
    return smooth_error(residual_sums(chances, hits) / len(chances))


def residual_sums(confidence: NDArray[Any], correct: Bools | Floats, cells: int = GRID) -> Floats:
    """Return the residual that falls to each of the cells + 1 nodes, each row shared between its two; checked arrays.

    >>> residual_sums(np.array([0.25, 0.5]), np.array([True, False]), cells=2).tolist()  # 0.75 halved, and -0.5
    [0.375, -0.125, 0.0]
    """
    total = np.zeros(cells + 2)
    for part in chunks(len(confidence)):
        values = confidence[part].astype(np.float64, copy=False)
        residual = np.subtract(correct[part], values, dtype=np.float64)
        place = values * cells
        node = place.astype(np.intp)
        share = (place - node) * residual
        total += sums_at(node, residual - share, cells + 2)
        total += sums_at(node + 1, share, cells + 2)
    return np.asarray(total[: cells + 1])


def smooth_error(residuals: Floats) -> float:
    """Return smECE of the mean residuals at evenly spaced nodes of [0, 1]: the width that equals its own error.

    The error less the width falls by at least as much as the width grows, so that a value of it within `PRECISION`
    bounds the distance to the root. The root is bracketed and found by the Illinois form of false position. No kernel
    makes the error larger than without one; of those narrower than a cell the grid would say so, and is not believed.

    References:
        Dowell, Jarratt: A modified regula falsi method for computing the root of an equation (1971).

    >>> smooth_error(np.array([0.0, 0.5, 0.0]))
    0.5
    """
    cells = len(residuals) - 1
    spectrum = np.fft.rfft(_mirrored(residuals))
    ends = [0.0, 1.0]
    most = _smoothed_error(spectrum, cells, 0.0)
    excess = [most, _smoothed_error(spectrum, cells, 1.0) - 1.0]
    if most <= PRECISION:
        return most
    last = None
    for _ in range(STEPS):
        width = (ends[0] * excess[1] - ends[1] * excess[0]) / (excess[1] - excess[0])
        found = min(_smoothed_error(spectrum, cells, width), most) - width
        if abs(found) <= PRECISION:
            break
        side = int(found < 0.0)
        ends[side], excess[side] = width, found
        if side == last:  # the other end has stayed: pull the next width towards it
            excess[1 - side] /= 2
        last = side
    return float(width)


def _mirrored(nodes: Floats) -> Floats:
    """Return the even, periodic extension: an end node meets its own mirror image and counts twice."""
    extended = np.concatenate([nodes, nodes[-2:0:-1]])
    extended[[0, len(nodes) - 1]] *= 2
    return np.asarray(extended)


def _smoothed_error(spectrum: NDArray[np.complex128], cells: int, width: float) -> float:
    """Return the integral of the absolute residual, smoothed at one width; frequencies that it erases are left out."""
    kept = cells + 1 if width * cells <= ERASED else int(ERASED / width) + 1
    damping = np.exp(-0.5 * (np.pi * width * np.arange(kept)) ** 2)
    sizes = np.abs(np.fft.irfft(spectrum[:kept] * damping, n=2 * cells)[: cells + 1])
    return float(sizes.sum() - (sizes[0] + sizes[-1]) / 2)
