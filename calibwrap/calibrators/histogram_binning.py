"""Histogram binning of one confidence: each bin's confidences become the share of right answers in it.

Zadrozny, Elkan, "Obtaining calibrated probability estimates from decision trees and naive Bayesian classifiers", 2001;
bins of equal mass: Gupta, Ramdas, "Distribution-free calibration guarantees for histogram binning without sample
splitting", 2021.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import checked_parameters
from calibwrap.calibrators._confidence import CLIP, ConfidenceCalibrator, alike_answers, checked_pairs, cross_entropy
from calibwrap.calibrators._inputs import today
from calibwrap.errors import FitError, InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats

FEW = 50
"""Rows in a bin below which a note says that its share is a rough one: its standard error is up to 0.07."""


@dataclass(frozen=True, eq=False)
class HistogramBinning(ConfidenceCalibrator):
    """Maps every confidence of a bin to one value. Bins are [lo, hi), the last one closed.

    Raises:
        InputError: `edges` does not rise strictly from 0 to 1, `values` leaves [0, 1], or is not one a bin.

    >>> HistogramBinning(edges=[0.0, 0.5, 1.0], values=[0.25, 0.75])([0.1, 0.5, 1.0]).tolist()
    [0.25, 0.75, 0.75]
    """

    kind: ClassVar[str] = "histogram-binning"
    edges: Floats
    """(B + 1,) edges of the bins, rising from 0 to 1."""
    values: Floats
    """(B,) probability of being right in each bin."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check and lock the arrays."""
        edges = checked_parameters("HistogramBinning", "edges", self.edges, None)
        if len(edges) < 2 or edges[0] != 0.0 or edges[-1] != 1.0 or (np.diff(edges) <= 0.0).any():
            raise InputError(f"'edges' of HistogramBinning must rise from 0 to 1. Got {edges.tolist()}.")
        values = checked_parameters("HistogramBinning", "values", self.values, (len(edges) - 1,))
        if values.min() < 0.0 or values.max() > 1.0:
            raise InputError(f"'values' of HistogramBinning must lie in [0, 1]. Got {values.tolist()}.")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "values", values)

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are equal."""
        if not isinstance(other, HistogramBinning):
            return NotImplemented
        return np.array_equal(self.edges, other.edges) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.edges.tobytes(), self.values.tobytes()))

    @property
    def is_one_way(self) -> bool:
        """Whether the values never fall, or never rise, from bin to bin."""
        steps = np.diff(self.values)
        return bool((steps >= 0.0).all() or (steps <= 0.0).all())

    def mapped(self, confidence: Floats) -> Floats:
        """Return the value of each confidence's bin."""
        return np.asarray(self.values[np.searchsorted(self.edges[1:-1], confidence, side="right")])


def fit_histogram_binning(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, strategy: str = "quantile", monotone: bool = True
) -> HistogramBinning:
    """Return the mean of `correct` in each bin of confidences.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]: 1 for a right answer, 0 for a wrong one, between for partly right.
        n_bins: number of bins; equal confidences are never parted, so that there can be fewer of equal mass.
        strategy: "quantile", bins of about equally many rows, or "uniform", bins of equal width.
        monotone: whether neighbouring bins whose shares are in the wrong order become one value, so that more
            confidence never means less. Without, bounds of a confidence that a backend cut off do not map to bounds.

    A bin of equal width without rows keeps its middle, and a note counts them.

    Raises:
        InputError: wrong shapes, numbers outside [0, 1], or fewer than one bin.
        FitError: fewer rows than bins of equal mass.

    >>> fitted = fit_histogram_binning([0.6, 0.6, 0.9, 0.9], [1, 0, 1, 1], n_bins=2)
    >>> fitted.edges.tolist(), fitted.values.tolist()
    ([0.0, 0.75, 1.0], [0.5, 1.0])
    """
    from calibwrap.metrics._checks import MOST_BINS, checked_choice, checked_count  # metrics are loaded on demand

    said, right = checked_pairs(confidence, correct)
    edges = _edges(
        said,
        checked_count("n_bins", n_bins, most=MOST_BINS),
        checked_choice("strategy", strategy, ("uniform", "quantile")),
    )
    which = np.searchsorted(edges[1:-1], said, side="right")
    rows = np.bincount(which, minlength=len(edges) - 1).astype(np.float64)
    sums = np.bincount(which, weights=right, minlength=len(rows)).astype(np.float64)
    values = sums / np.maximum(rows, 1.0)
    values = np.where(rows > 0, np.minimum(values, 1.0), (edges[1:] + edges[:-1]) / 2.0)
    shares = _in_order(values, rows) if monotone else values
    report = FitReport(
        method="histogram",
        rows=len(said),
        rows_used=len(said),
        objective_before=cross_entropy(said, right),
        objective_after=_loss(shares, rows, sums),
        notes=(*_notes(rows, int((shares != values).sum())), *alike_answers(right)),
        date=today(),
    )
    return HistogramBinning(edges, shares, report=report)


def _edges(confidence: Floats, n_bins: int, strategy: str) -> Floats:
    """Return strictly rising edges from 0 to 1: those of `calibwrap.metrics`, the outer ones moved to 0 and 1."""
    from calibwrap.metrics import _bins

    if strategy == "uniform":
        return _bins.uniform_edges(n_bins)
    if len(confidence) < n_bins:
        raise FitError(
            f"{n_bins} bins of equal mass need at least {n_bins} rows. Got {len(confidence)}: ask for fewer bins, or "
            "use fit_platt, which has two numbers."
        )
    inner = np.minimum(_bins.quantile_edges(confidence, n_bins)[1:-1], np.nextafter(1.0, 0.0))
    below, first = np.unique(np.searchsorted(np.sort(confidence), inner, side="left"), return_index=True)
    return np.concatenate([[0.0], inner[first[below > 0]], [1.0]])  # ties: edges with no rows between them are one


def _loss(shares: Floats, rows: Floats, sums: Floats) -> float:
    """Return the mean cross-entropy of all rows, worked out from what their bins hold."""
    inside = np.clip(shares, CLIP, 1.0 - CLIP)
    return float(-(sums @ np.log(inside) + (rows - sums) @ np.log1p(-inside)) / rows.sum())


def _in_order(values: Floats, rows: Floats) -> Floats:
    """Return `values` with neighbours in the wrong order pooled by their rows; bins without rows hardly count.

    >>> _in_order(np.array([0.5, 0.2, 0.9]), np.array([1.0, 2.0, 1.0])).round(4).tolist()
    [0.3, 0.3, 0.9]
    """
    from scipy.optimize import isotonic_regression

    pooled = isotonic_regression(values, weights=np.maximum(rows, 1e-9)).x
    return np.asarray(np.clip(np.maximum.accumulate(pooled), 0.0, 1.0))


def _notes(rows: Floats, n_pooled: int) -> tuple[str, ...]:
    """Return what a reader should know."""
    filled = rows[rows > 0]
    notes = []
    if len(filled) < len(rows):
        notes.append(f"{len(rows) - len(filled)} of {len(rows)} bins have no rows and keep their middle.")
    if filled.min() < FEW:
        notes.append(f"The smallest bin has {int(filled.min())} rows: its share is a rough one below {FEW}.")
    if n_pooled:
        notes.append(f"{n_pooled} bins were in the wrong order and took their neighbours' common value.")
    return tuple(notes)
