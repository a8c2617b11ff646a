"""Smooth calibration error: no bins, a kernel whose width follows from the data."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.metrics._bins import chunks, sums_at
from calibwrap.metrics._checks import checked_pair
from calibwrap.scores import Bools, Floats

GRID = 8192
"""Cells on [0, 1]; a kernel is told from its neighbours down to a width of about 1 / GRID."""
HALVINGS = 40


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
    spectrum = np.fft.rfft(_mirrored(_residuals(chances, hits)))
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        width = (low + high) / 2
        low, high = (width, high) if _smoothed_error(spectrum, width) > width else (low, width)
    return (low + high) / 2


def _residuals(confidence: NDArray[Any], correct: Bools | Floats) -> Floats:
    """Return the mean residual that falls to each of the GRID + 1 nodes, each row shared between its two nodes."""
    total = np.zeros(GRID + 2)
    for part in chunks(len(confidence)):
        values = confidence[part].astype(np.float64, copy=False)
        residual = np.subtract(correct[part], values, dtype=np.float64)
        place = values * GRID
        node = place.astype(np.intp)
        share = (place - node) * residual
        total += sums_at(node, residual - share, GRID + 2)
        total += sums_at(node + 1, share, GRID + 2)
    return np.asarray(total[: GRID + 1] / len(confidence))


def _mirrored(nodes: Floats) -> Floats:
    """Return the even, periodic extension: an end node meets its own mirror image and counts twice."""
    extended = np.concatenate([nodes, nodes[-2:0:-1]])
    extended[[0, GRID]] *= 2
    return np.asarray(extended)


def _smoothed_error(spectrum: NDArray[np.complex128], width: float) -> float:
    frequency = np.pi * np.arange(GRID + 1)
    smoothed = np.fft.irfft(spectrum * np.exp(-0.5 * (frequency * width) ** 2))[: GRID + 1]
    sizes = np.abs(smoothed)
    return float(sizes.sum() - (sizes[0] + sizes[-1]) / 2)
