"""What a probe saw of a model, in sums: memory that does not grow with the events, and intervals all the same.

Events of one text are not independent, so texts are dealt into a fixed number of blocks by a hash of their names, the
same ones for every model, and each block has sums of its own. An interval resamples blocks (the cluster bootstrap with
the clusters put together at random: Davison, Hinkley, "Bootstrap methods and their application", 1997, 3.8), and a
difference between two models resamples the same blocks of both, which makes it paired.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics import CalibrationState, ReliabilityCurve
from calibwrap.scores import Floats, Ints, _Record

BLOCKS = 100
"""Blocks into which texts are dealt."""
BINS = 10
"""Bins of the calibration error, unless a study says otherwise."""
RANKS = 2000
"""Steps of confidence that the AUROC tells apart."""
RESAMPLES = 1000
"""Resamples of an interval."""
LEVEL = 0.95
"""Probability that an interval holds the true value."""
_SUMS = ("count", "confidence", "correct")


def block_of(name: str, blocks: int = BLOCKS) -> int:
    """Return the block of a text: a number that depends on its name alone.

    >>> block_of("page-1"), block_of("page-2")
    (81, 15)
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % blocks


@dataclass(frozen=True, eq=False)
class Tally(_Record):
    """Sums of N events over G blocks and B bins of confidence; updating and merging return new ones.

    >>> tally = Tally.empty(10).update("page-1", [0.9, 0.6], [True, False], [-0.1, -1.2])
    >>> tally.n, round(tally.figures()["ece"], 4), round(tally.figures()["nll"], 4)
    (2, 0.35, 0.65)
    """

    count: Ints
    """(G, B) events."""
    confidence: Floats
    """(G, B) sum of their confidences."""
    correct: Ints
    """(G, B) how many were right."""
    squared_error: Floats
    """(G,) sum of (confidence - correctness)^2."""
    loss: Floats
    """(G,) sum of the negative log-probability, in nats, of what was right."""
    ranks: Ints
    """(2, R) events by step of confidence: wrong ones, then right ones."""

    def __post_init__(self) -> None:
        """Check shapes and lock the arrays."""
        for name in _SUMS:
            self._lock(name, np.float64 if name == "confidence" else np.int64, (None, None))
        for name in ("squared_error", "loss"):
            self._lock(name, np.float64, (len(self.count),))
        self._lock("ranks", np.int64, (2, None))

    @classmethod
    def empty(cls, bins: int = BINS, blocks: int = BLOCKS) -> Self:
        """Return the tally of no events."""
        none = np.zeros((blocks, bins), dtype=np.int64)
        sums = np.zeros(blocks)
        return cls(none, none.astype(np.float64), none, sums, sums, np.zeros((2, RANKS), dtype=np.int64))

    @property
    def n(self) -> int:
        """Number of events N."""
        return int(self.count.sum())

    def update(self, name: str, confidence: ArrayLike, correct: ArrayLike, logprob: ArrayLike) -> Self:
        """Return the tally with the events of one text.

        Args:
            name: the text's name, which says its block.
            confidence: (n,) probability of what the model holds likeliest.
            correct: (n,) bool, whether that is right.
            logprob: (n,) log-probability, in nats, of what is right.

        Raises:
            InputError: shapes differ, NaN, a confidence outside [0, 1], or a log-probability above 0.
        """
        losses = -np.asarray(logprob, dtype=np.float64)
        state = CalibrationState.empty(self.count.shape[1]).update(confidence, correct)
        if losses.shape != np.shape(confidence) or not (losses >= 0.0).all():
            raise InputError(
                f"'logprob' must be {np.shape(confidence)} numbers of at most 0. Got {np.asarray(logprob)}."
            )
        block, zero = block_of(name, len(self.count)), type(self).empty(self.count.shape[1], len(self.count))
        step = np.minimum((np.asarray(confidence) * RANKS).astype(np.int64), RANKS - 1)
        hits = np.asarray(correct, dtype=np.bool_)

        def at(value: Any, like: Floats | Ints) -> Any:
            table = np.zeros(like.shape)
            table[block] = value
            return table

        return self.merge(
            type(self)(
                at(state.count, zero.count),
                at(state.confidence_sum, zero.confidence),
                at(state.correct_sum, zero.correct),
                at(state.squared_error_sum, zero.squared_error),
                at(losses.sum(), zero.loss),
                np.stack([np.bincount(step[hits == side], minlength=RANKS) for side in (False, True)]),
            )
        )

    def merge(self, other: Self) -> Self:
        """Return the tally of the events of both; also written `self + other`.

        Raises:
            InputError: other numbers of bins or blocks.
        """
        if self.count.shape != other.count.shape:
            raise InputError(
                f"Tallies must have equally many blocks and bins. Got {self.count.shape} and {other.count.shape}."
            )
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    __add__ = merge

    @property
    def curve(self) -> ReliabilityCurve:
        """Mean confidence and accuracy of each bin."""
        return self.state.reliability_curve()

    @property
    def state(self) -> CalibrationState:
        """The same without blocks."""
        count, confidence, correct = (getattr(self, name).sum(axis=0) for name in _SUMS)
        return CalibrationState(count, confidence, correct, float(self.squared_error.sum()))

    def figures(self, weights: Floats | None = None) -> dict[str, float]:
        """Return accuracy, mean confidence, ECE, signed gap, Brier score and negative log-likelihood by name.

        `gap` is mean confidence minus accuracy: above 0 for an over-confident model. The Brier score is the mean of
        (confidence - correctness)^2. `weights` (G,) count the blocks, once each by default.

        Raises:
            InputError: no events.
        """
        own = np.ones(len(self.count)) if weights is None else weights
        count, confidence, correct = (own @ getattr(self, name) for name in _SUMS)
        n = float(count.sum())
        if n == 0.0:
            raise InputError("There are no events to measure: no text was long enough, or no question has an answer.")
        accuracy, mean = float(correct.sum()) / n, float(confidence.sum()) / n
        return {
            "accuracy": accuracy,
            "confidence": mean,
            "ece": float(np.abs(confidence - correct).sum()) / n,
            "gap": mean - accuracy,
            "brier": float(own @ self.squared_error) / n,
            "nll": float(own @ self.loss) / n,
        }

    def auroc(self) -> float | None:
        """Return the probability that a right event has a higher confidence than a wrong one; None without both.

        Confidences within 1/2000 count as tied.
        """
        wrong, right = self.ranks.astype(np.float64)
        if not wrong.sum() or not right.sum():
            return None
        below = np.cumsum(wrong) - wrong
        return float((right * (below + wrong / 2.0)).sum() / (wrong.sum() * right.sum()))

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Return the ends of the 95 % interval of each figure, by resampling blocks."""
        return _ends(self.figures, self.count.sum(axis=1), seed)

    def difference(self, base: Self, seed: int = 0) -> dict[str, tuple[float, float, float]]:
        """Return for each figure this one's minus the base's, and the ends of its paired 95 % interval.

        Raises:
            InputError: they did not see as many events in each block, so that nothing pairs them.
        """
        if not np.array_equal(self.count.sum(axis=1), base.count.sum(axis=1)):
            raise InputError("The two models did not see the same events: their differences cannot be paired.")

        def less(weights: Floats | None = None) -> dict[str, float]:
            one, other = self.figures(weights), base.figures(weights)
            return {name: one[name] - other[name] for name in one}

        values, ends = less(), _ends(less, self.count.sum(axis=1), seed)
        return {name: (values[name], *ends[name]) for name in values}


def _ends(figures: Callable[[Floats], Mapping[str, float]], events: Ints, seed: int) -> dict[str, tuple[float, float]]:
    """Return the ends of each figure over resampled blocks; blocks without events are not drawn."""
    held = np.flatnonzero(events)
    random, drawn = np.random.default_rng(seed), np.zeros((RESAMPLES, len(events)))
    drawn[:, held] = random.multinomial(len(held), np.full(len(held), 1.0 / len(held)), RESAMPLES)
    found = [figures(weights) for weights in drawn]
    tails = ((1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0)
    return {
        name: tuple(float(end) for end in np.quantile([one[name] for one in found], tails))  # type: ignore[misc]
        for name in found[0]
    }
