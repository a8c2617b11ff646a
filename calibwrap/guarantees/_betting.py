"""A stake on many bets at once, each of which may begin at any step: a test martingale against a change at any time."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from calibwrap.scores import Floats


@dataclass(frozen=True, eq=False)
class Stake:
    """What bets against a hypothesis have made of a capital of 1; under the hypothesis its mean stays 1.

    Each of B bets gets a B-th of the capital. At step t it puts the share 1 / (t (t + 1)) of that into play and keeps
    the rest, 1 / (t + 1), aside, so that a change after t steps costs a factor of about t^2 and no more. A mixture of
    martingales is one. Sums are kept as logarithms, since capital may grow without bound.

    References:
        Ville, "Étude critique de la notion de collectif", 1939. Shafer, Shen, Vereshchagin, Vovk, "Test martingales,
        Bayes factors and p-values", 2011. Mixing over the time of the change: Herbster, Warmuth, "Tracking the best
        expert", 1998.

    >>> stake = Stake.on(1)
    >>> stake = stake.after(np.log([2.0]))  # half in play, doubled, and half aside
    >>> round(math.exp(stake.log_value), 6), stake.steps
    (1.5, 1)
    """

    log_bets: Floats
    """(B,) log of what each bet has in play, per unit of its share."""
    steps: int = 0
    """Steps so far."""
    log_peak: float = 0.0
    """Log of the largest value so far; 0 at the start."""

    @classmethod
    def on(cls, bets: int) -> Self:
        """Return the capital of 1, nothing of it in play."""
        return cls(np.full(bets, -np.inf))

    @property
    def log_value(self) -> float:
        """Log of the capital now, what is aside included."""
        if self.steps == 0:
            return 0.0
        played = float(np.logaddexp.reduce(self.log_bets)) - math.log(len(self.log_bets))
        return float(np.logaddexp(played, -math.log(self.steps + 1.0)))

    def after(self, log_factors: Floats) -> Self:
        """Return the stake one step later; bet b was multiplied by exp(log_factors[b])."""
        step = self.steps + 1
        log_bets = np.logaddexp(self.log_bets, -math.log(step) - math.log(step + 1)) + log_factors
        moved = type(self)(log_bets, step, self.log_peak)
        return type(self)(log_bets, step, max(self.log_peak, moved.log_value))
