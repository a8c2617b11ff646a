"""Monitors of deployed confidences: capital that stays near 1 while nothing changes, and grows when something does.

Both are test martingales: under their hypothesis the chance that the capital EVER reaches `at` is at most 1 / at
(Ville, 1939), however often and whenever one looks. Updating returns a new monitor.
"""

import bisect
import copy
import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.guarantees._betting import Stake
from calibwrap.metrics._checks import as_array, checked_count, checked_pair, within_unit
from calibwrap.real_numbers import real_number
from calibwrap.scores import Floats

LAMBDAS = (0.1, 0.25, 0.5, 1.0)
"""Sizes of the bets on correctness, as shares of the capital for an error of 1."""
POWERS = (0.25, 0.5, 0.75, 0.9)
"""Exponents of the bets on p-values: the bet e pays e p^(e - 1), and its mean over uniform p is 1."""

FINEST = 2.0**-53
"""P-values below this are rounding: they count as this, so that no accident of rounding is paid for."""


class _Monitor:
    """What both monitors say of their capital."""

    stake: Stake

    @property
    def n(self) -> int:
        """Answers seen so far."""
        return self.stake.steps

    @property
    def value(self) -> float:
        """The capital now; it began at 1. Infinite where it is too large for a number: see `log_value`."""
        return math.exp(self.log_value) if self.log_value < 709.0 else math.inf

    @property
    def log_value(self) -> float:
        """Natural log of the capital now."""
        return self.stake.log_value

    def alarm(self, at: float = 100.0) -> bool:
        """Return whether the capital has ever reached `at`: without a change, the chance of that is at most 1 / at.

        Raises:
            InputError: `at` is not a finite number above 1.
        """
        if not 1.0 < real_number(at) < math.inf:
            raise InputError(f"'at' must be a finite number above 1, such as 100. Got {at!r}.")
        return self.stake.log_peak >= math.log(at)


@dataclass(frozen=True, eq=False)
class CalibrationMonitor(_Monitor):
    """Bets that answers are right more, or less, often than their confidence says.

    The hypothesis: given everything before, an answer of confidence c is right with a chance within `tolerance` of c.
    An alarm says that the calibrator is off by more than that, and is to be fitted again.

    References:
        Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", 2024.

    >>> monitor = CalibrationMonitor(tolerance=0.0).update([0.9] * 200, [True, False] * 100)  # right half the time
    >>> monitor.alarm(at=100), CalibrationMonitor().update([0.5] * 200, [True, False] * 100).alarm(at=100)
    (True, False)
    """

    kind: ClassVar[str] = "calibration-monitor"
    tolerance: float = 0.02
    """Bias of the confidence that is not yet a change, in [0, 1)."""
    stake: Stake = field(default_factory=lambda: Stake.on(2 * len(LAMBDAS)))

    def __post_init__(self) -> None:
        """Check the tolerance."""
        if not 0.0 <= real_number(self.tolerance) < 1.0:
            raise InputError(f"'tolerance' must be at least 0 and below 1. Got {self.tolerance!r}.")

    def update(self, confidence: ArrayLike, correct: ArrayLike) -> Self:
        """Return the monitor after N more answers, in the order in which they came.

        Args:
            confidence: (N,) calibrated confidences.
            correct: (N,) bool or 0/1, or soft correctness in [0, 1].

        Raises:
            InputError: malformed arrays.
        """
        chances, hits = checked_pair(confidence, correct, allow_empty=True)
        sizes, stake = np.array(LAMBDAS) / (1.0 + self.tolerance), self.stake
        for gain in hits.astype(np.float64) - chances:
            with np.errstate(divide="ignore"):
                rises = np.log1p(sizes * (gain - self.tolerance))
                falls = np.log1p(sizes * (-gain - self.tolerance))
            stake = stake.after(np.concatenate([rises, falls]))
        return replace(self, stake=stake)


@dataclass(frozen=True, eq=False)
class DriftMonitor(_Monitor):
    """Bets that confidences no longer come as they did at calibration time; it needs no labels.

    The hypothesis: calibration confidences and deployed ones are exchangeable. Each new confidence is ranked among all
    before it, ties broken at random, which gives p-values that are independent and uniform; the bets are on p-values
    near 0, near 1, near either end and near the middle. An alarm says that the questions or the model have changed; it
    does not say that the calibrator is now wrong, nor does silence say that it is right.

    It keeps every confidence it has seen (8 bytes each): the ranks are exact only so.

    References:
        Vovk, Nouretdinov, Gammerman, "Testing exchangeability on-line", 2003 (power martingales on conformal p-values).

    >>> monitor = DriftMonitor.from_calibration(np.linspace(0.5, 1.0, 200))
    >>> monitor.update(np.linspace(0.3, 0.6, 60)).alarm(at=100), monitor.update(np.linspace(0.5, 1, 60)).alarm(at=100)
    (True, False)
    """

    kind: ClassVar[str] = "drift-monitor"
    seen: tuple[float, ...]
    """All confidences so far from low to high, those of the calibration included."""
    seed: int = 0
    """Breaks ties; the same seed and stream give the same capital."""
    stake: Stake = field(default_factory=lambda: Stake.on(4 * len(POWERS)))

    def __post_init__(self) -> None:
        """Check the record of confidences."""
        array = np.asarray(self.seen, dtype=np.float64)
        is_sound = array.ndim == 1 and len(array) > 0 and ((array >= 0.0) & (array <= 1.0)).all()
        if not is_sound or (np.diff(array) < 0.0).any():
            raise InputError("'seen' must be at least one confidence in [0, 1], sorted from low to high.")
        object.__setattr__(self, "seed", checked_count("seed", self.seed, least=0))

    @classmethod
    def from_calibration(cls, confidence: ArrayLike, seed: int = 0) -> Self:
        """Return the monitor at deployment, with the confidences (N,) of questions like those it will see.

        Take questions that the calibrator was not fitted on, such as those of a guard.

        Raises:
            InputError: malformed confidences.
        """
        return cls(tuple(np.sort(_confidences(confidence)).tolist()), seed)

    def update(self, confidence: ArrayLike) -> Self:
        """Return the monitor after N more confidences, in the order in which they came.

        Raises:
            InputError: malformed confidences.
        """
        pool, stake = list(self.seen), self.stake
        for chance in _confidences(confidence, allow_empty=True).tolist():
            low, high = bisect.bisect_left(pool, chance), bisect.bisect_right(pool, chance)
            tie = np.random.default_rng((self.seed, stake.steps)).random()
            stake = stake.after(_power_bets((low + (high - low + 1) * tie) / (len(pool) + 1)))
            pool.insert(high, chance)
        return self._moved(tuple(pool), stake)

    def _moved(self, seen: tuple[float, ...], stake: Stake) -> Self:
        """Return the monitor with this record; it is sorted by construction, and checking all of it again is slow."""
        moved = copy.copy(self)
        object.__setattr__(moved, "seen", seen)
        object.__setattr__(moved, "stake", stake)
        return moved


def _confidences(values: ArrayLike, allow_empty: bool = False) -> Floats:
    array = as_array("confidence", values, kinds="fiu", dimensions=1, allow_empty=allow_empty)
    return within_unit("confidence", array.astype(np.float64))


def _power_bets(p_value: float) -> Floats:
    """Return the log of what each bet pays at a p-value in [0, 1): on 0, on 1, on both ends, on the middle."""
    spread = 1.0 - abs(2.0 * p_value - 1.0)
    places = np.maximum([p_value, 1.0 - p_value, spread, 1.0 - spread], FINEST)
    powers = np.array(POWERS)
    return np.asarray((np.log(powers) + (powers - 1.0) * np.log(places)[:, None]).ravel())
