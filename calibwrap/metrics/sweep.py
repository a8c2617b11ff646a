"""Calibration error whose number of bins follows from the data: the most for which accuracy rises with confidence."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.metrics._bins import BinSums, Norm, calibration_error, sums_at
from calibwrap.metrics._checks import checked_choice, checked_pair
from calibwrap.scores import Floats, Ints

FALL = 1e-12
"""A bin's accuracy counts as lower than its neighbour's beyond this; it is more than the rounding of a mean."""


def sweep_ece(confidence: ArrayLike, correct: ArrayLike, norm: Norm = "l1") -> float:
    """Return the calibration error over as many equal-mass bins as keep the bins' accuracies from falling.

    The number of bins grows from 1, and the last one before the first in which some bin is less accurate than the bin
    below it is used. Of B bins over N rows sorted by confidence, bin k begins at row ceil(k N / B). Equal confidences
    are never parted: a bin then begins at the first row of its tie, and empty bins are left out, so the order of the
    rows cannot matter. `norm` is that of `ece`; Roelofs et al. report "l2".

    It costs a sort, and then for each number of bins tried as many steps as there are bins, or runs of equal
    confidence less accurate than the run below, if these are fewer. Some tens of bins are usual; where confidence parts
    right from wrong but for a handful of rows, nearly every number up to N is tried.

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].
        norm: "l1", "l2" or "max".

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    References:
        Roelofs, Cain, Shlens, Mozer: Mitigating bias in calibration error estimation (2022).

    >>> round(sweep_ece([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1]), 6)  # 2 bins of accuracy 0.5; 3 are not monotone
    0.2
    """
    checked_choice("norm", norm, ("l1", "l2", "max"))
    chances, hits = checked_pair(confidence, correct)
    values, tie, size = np.unique(chances, return_inverse=True, return_counts=True)
    sums = BinSums(size, np.multiply(size, values, dtype=np.float64), sums_at(tie, hits, len(values)))
    ties = _ties(sums)
    starts = _starts(ties, _most_bins(ties))[:-1]
    return calibration_error(
        BinSums(
            np.add.reduceat(sums.rows, starts),
            np.add.reduceat(sums.confidence, starts),
            np.add.reduceat(sums.correct, starts),
        ),
        norm,
    )


class _Ties(NamedTuple):
    """G runs of equal confidence, rising, over N rows."""

    rows_before: Ints
    """(G + 1,) rows below each run, and N."""
    correct_before: Floats
    """(G + 1,) their summed correctness."""
    of_row: Ints
    """(N + 1,) the run of each row, and G."""

    def begin(self, bins: Ints, n_bins: int) -> Ints:
        """Return the run with which each of the given bins begins; G for bin `n_bins`."""
        return self.of_row[-(-bins * (len(self.of_row) - 1) // n_bins)]

    def bin_of(self, runs: Ints, n_bins: int) -> Ints:
        """Return the last bin that begins at or before the last row of each run."""
        return (self.rows_before[runs + 1] - 1) * n_bins // (len(self.of_row) - 1)

    def accuracy(self, starts: Ints, ends: Ints) -> Floats:
        """Return the mean correctness of the runs from each start up to its end."""
        correct = self.correct_before[ends] - self.correct_before[starts]
        return correct / (self.rows_before[ends] - self.rows_before[starts])


def _ties(sums: BinSums) -> _Ties:
    return _Ties(
        np.concatenate([[0], np.cumsum(sums.rows)]),
        np.concatenate([[0.0], np.cumsum(sums.correct)]),
        np.append(np.repeat(np.arange(len(sums.rows)), sums.rows), len(sums.rows)),
    )


def _most_bins(ties: _Ties) -> int:
    """Return the largest number of bins up to which no number of bins has an accuracy that falls."""
    runs = np.arange(len(ties.rows_before))
    falls = 1 + np.flatnonzero(np.diff(ties.accuracy(runs[:-1], runs[1:])) < -FALL)
    n_rows = len(ties.of_row) - 1
    if not len(falls):  # then no union of neighbours falls
        return n_rows
    n_bins = 2
    while _rises_around(ties, falls, n_bins) if n_bins > len(falls) else _rises(ties, n_bins):
        n_bins += 1  # ends at N at the latest, which parts all runs
    return n_bins - 1


def _starts(ties: _Ties, n_bins: int) -> Ints:
    """Return the runs with which the bins that are not empty begin, and G."""
    starts = ties.begin(np.arange(n_bins + 1), n_bins)
    return starts[np.flatnonzero(np.diff(starts, prepend=-1))]


def _rises(ties: _Ties, n_bins: int) -> bool:
    starts = _starts(ties, n_bins)
    return bool((np.diff(ties.accuracy(starts[:-1], starts[1:])) >= -FALL).all())


def _rises_around(ties: _Ties, falls: Ints, n_bins: int) -> bool:
    """Return the same, looking only at the bins with a run less accurate than the last, and at their neighbours.

    Two neighbouring bins in which no run falls cannot fall either.
    """
    bins = ties.bin_of(falls, n_bins)
    starts, ends = ties.begin(bins, n_bins), ties.begin(bins + 1, n_bins)
    middle = ties.accuracy(starts, ends)
    left, right = starts > 0, ends < ties.of_row[-1]
    below = ties.begin(ties.bin_of(starts[left] - 1, n_bins), n_bins)
    above = ties.begin(ties.bin_of(ends[right], n_bins) + 1, n_bins)
    falls_from = ties.accuracy(below, starts[left]) - middle[left]
    falls_to = middle[right] - ties.accuracy(ends[right], above)
    return bool((falls_from <= FALL).all() and (falls_to <= FALL).all())
