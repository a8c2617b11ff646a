"""The further sums of a state: what the debiased error, the Brier decomposition and Spiegelhalter's test need."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from calibwrap.metrics._bins import BinSums, chunks, uniform_sums
from calibwrap.metrics.significance import promised_error
from calibwrap.scores import Bools, Floats, _Record


@dataclass(frozen=True, eq=False)
class Moments(_Record):
    """Sums over the rows seen; they add up like the other sums of a state.

    >>> (Moments([1.0], 0.25, 0.0) + Moments([0.0], 0.125, 0.0)).variance
    0.375
    """

    correct_square: Floats
    """(B,) sum of squared correctness in each bin; the sum of correctness where that is 0/1."""
    variance: float
    """Sum of c (1 - c): the squared error that answers of exactly right confidence c are expected to have."""
    brier_variance: float
    """Sum of (1 - 2 c)^2 c (1 - c): the variance of that squared error."""

    def __post_init__(self) -> None:
        """Check the shape and lock the array."""
        self._lock("correct_square", np.float64, (None,))

    def __add__(self, other: Self) -> Self:
        """Return the sums over the rows of both."""
        return type(self)(
            self.correct_square + other.correct_square,
            self.variance + other.variance,
            self.brier_variance + other.brier_variance,
        )


def moments_of(confidence: NDArray[Any], correct: Bools | Floats, sums: BinSums) -> Moments:
    """Return the further sums of checked rows, whose sums over bins of equal width are given.

    >>> moments_of(np.array([0.5]), np.array([True]), BinSums(np.array([1]), np.array([0.5]), np.array([1.0]))).variance
    0.25
    """
    squares = sums.correct
    if correct.dtype != np.bool_:
        squares = uniform_sums(confidence, np.square(correct, dtype=np.float64), len(sums.rows)).correct
    variance = brier_variance = 0.0
    for part in chunks(len(confidence)):
        promised = promised_error(confidence[part].astype(np.float64, copy=False))
        variance += promised[0]
        brier_variance += promised[1]
    return Moments(squares, variance, brier_variance)
