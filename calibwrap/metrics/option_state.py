"""A state for the metrics that need the probabilities of all options: it grows with a stream and merges."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics._bins import BinSums, calibration_error, uniform_sums
from calibwrap.metrics._checks import MOST_BINS, checked_count, checked_logprobs
from calibwrap.scores import Floats, Ints, _Record


@dataclass(frozen=True, eq=False)
class OptionState(_Record):
    """All that `brier`, `nll` and `classwise_ece` need to know of the rows seen so far: K options, B bins each.

    Updating and merging return new states. Merging is commutative, and associative up to the rounding of sums; the
    counts are exact.

    >>> state = OptionState.empty(2, n_bins=1)
    >>> for logprobs, answers in [(np.log([[0.8, 0.2]]), [0]), (np.log([[0.6, 0.4]]), [1])]:
    ...     state = state.update(logprobs, answers)
    >>> state.n, round(state.brier, 6), round(state.nll, 6), round(state.classwise_ece(), 6)
    (2, 0.4, 0.569717, 0.2)
    """

    count: Ints
    """(K, B) rows in each bin of each option's own probability."""
    probability_sum: Floats
    """(K, B) sum of that probability in each bin."""
    answer_sum: Floats
    """(K, B) how often the option was the answer in each bin."""
    squared_error_sum: float
    """Sum over rows and options of (probability - [it is the answer])^2."""
    log_loss_sum: float
    """Sum over rows of minus the log-probability of the answer, in nats."""

    def __post_init__(self) -> None:
        """Check shapes and lock the arrays."""
        self._lock("count", np.int64, (None, None))
        for name in ("probability_sum", "answer_sum"):
            self._lock(name, np.float64, self.count.shape)

    @classmethod
    def empty(cls, n_options: int, n_bins: int = 15) -> Self:
        """Return the state of no rows.

        Args:
            n_options: columns K of all rows to come; rows of fewer options have -inf in the columns that are left.
            n_bins: bins of equal width for each option.

        Raises:
            InputError: either is not a whole number of at least 1.

        >>> OptionState.empty(4).count.shape
        (4, 15)
        """
        options = checked_count("n_options", n_options, most=MOST_BINS)
        shape = options, checked_count("n_bins", n_bins, most=MOST_BINS // options)
        return cls(np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape), 0.0, 0.0)

    def update(self, logprobs: ArrayLike, answers: ArrayLike) -> Self:
        """Return the state with more rows seen.

        Args:
            logprobs: (N, K) natural-log probabilities, each row summing to 1 within 1e-3 after exp.
            answers: (N,) indices of the right options.

        Raises:
            InputError: another number of options, NaN, rows that are not normalised, or malformed answers.

        >>> OptionState.empty(2).update(np.log([[0.5, 0.5]]), [1]).n
        1
        """
        logs, truth = checked_logprobs(logprobs, answers)
        options, bins = self.count.shape
        if logs.shape[1] != options:
            raise InputError(
                f"'logprobs' must have the {options} columns of this state. Got {logs.shape[1]}: fill columns of "
                "options that do not exist with -inf."
            )
        chances = np.minimum(np.exp(logs), 1.0)
        each = [uniform_sums(chances[:, option], truth == option, bins) for option in range(options)]
        own = chances[np.arange(len(truth)), truth]
        squares = float(np.vdot(chances, chances)) + float((1.0 - 2.0 * own).sum())
        count, probability, answer = (np.array(sums) for sums in zip(*each, strict=True))
        loss = -float(logs[np.arange(len(truth)), truth].sum())
        return self.merge(type(self)(count, probability, answer, squares, loss))

    def merge(self, other: Self) -> Self:
        """Return the state of the rows of both; also written `self + other`.

        Raises:
            InputError: the numbers of options or of bins differ.

        >>> one = OptionState.empty(2).update(np.log([[0.5, 0.5]]), [1])
        >>> (one + one).n
        2
        """
        if self.count.shape != other.count.shape:
            raise InputError(
                "States to merge must have equally many options and bins. Got (options, bins) "
                f"{self.count.shape} and {other.count.shape}."
            )
        return type(self)(
            self.count + other.count,
            self.probability_sum + other.probability_sum,
            self.answer_sum + other.answer_sum,
            self.squared_error_sum + other.squared_error_sum,
            self.log_loss_sum + other.log_loss_sum,
        )

    __add__ = merge

    @property
    def n(self) -> int:
        """Number of rows seen."""
        return int(self.count[0].sum())

    @property
    def brier(self) -> float:
        """Brier score by the same formula as `metrics.brier`; InputError when there are no rows."""
        return self.squared_error_sum / self._rows()

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood in nats, as `metrics.nll`; InputError when there are no rows."""
        return self.log_loss_sum / self._rows()

    def classwise_ece(self) -> float:
        """Return the mean over the options of the l1 calibration error, by the same formula as `metrics.classwise_ece`.

        Raises:
            InputError: no rows.

        >>> OptionState.empty(2, n_bins=1).update(np.log([[0.75, 0.25], [0.75, 0.25]]), [0, 1]).classwise_ece()
        0.25
        """
        self._rows()
        rows = zip(self.count, self.probability_sum, self.answer_sum, strict=True)
        return float(np.mean([calibration_error(BinSums(*sums), "l1") for sums in rows]))

    def _rows(self) -> int:
        if self.n == 0:
            raise InputError("This metric is not defined for no rows. Got an empty OptionState; update it first.")
        return self.n
