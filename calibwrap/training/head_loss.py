"""CATTO's token loss on recorded rows, as a function of each row's temperature, with its derivative.

With a = 1/T a row's entries have probabilities q_i proportional to p_i ** a. Confidence c is the largest q, the margin
m is the chosen entry's q less the largest other one's. The target s is sigmoid(kappa m), whose derivative counts (the
surrogate of Parikh et al., "CATTO", 2026), or whether the chosen entry is the largest (hard).

Of the three losses only two are proper for a hard target: l2 is the Brier score and bce the log score, least where c is
the share of rows that are right. |c - s| of a hard target is linear in c and least at 0 or 1: early stopping alone
keeps it honest.
"""

from dataclasses import dataclass

import numpy as np

from calibwrap.scores import Floats, logsumexp
from calibwrap.training.catto import Loss, Target
from calibwrap.training.head_positions import Positions

_LEAST = 1e-12  # keeps log(c) and log(1 - c) finite


@dataclass(frozen=True)
class Tempered:
    """Confidence and margin of N rows at given powers, with their derivatives by the power."""

    confidence: Floats
    margin: Floats
    confidence_slope: Floats
    margin_slope: Floats
    log_partition: Floats
    """(N,) log of the sum of p ** a over all entries."""


def tempered(positions: Positions, powers: Floats) -> Tempered:
    """Return confidence and margin (N,) of rows whose log-probabilities are multiplied by `powers` (N,)."""
    entries = np.concatenate([positions.logprobs, positions.groups], axis=1)
    counts = np.concatenate([np.zeros(positions.logprobs.shape[1]), np.log(positions.sizes)])
    finite = np.where(entries > -np.inf, entries, 0.0)
    logits = np.where(entries > -np.inf, powers[:, None] * finite + counts, -np.inf)
    log_partition = logsumexp(logits)
    mean = (np.exp(logits - log_partition[:, None]) * finite).sum(axis=1)

    def probability(logprobs: Floats) -> tuple[Floats, Floats]:
        known = np.where(logprobs > -np.inf, logprobs, 0.0)
        value = np.where(logprobs > -np.inf, np.exp(powers * known - log_partition), 0.0)
        return value, value * (known - mean)

    first, first_slope = probability(entries[:, 0])
    chosen, chosen_slope = probability(positions.chosen_logprob)
    second, second_slope = probability(entries[:, 1]) if entries.shape[1] > 1 else (first * 0.0, first * 0.0)
    rival = np.where(positions.is_top, second, first)
    rival_slope = np.where(positions.is_top, second_slope, first_slope)
    return Tempered(first, chosen - rival, first_slope, chosen_slope - rival_slope, log_partition)


def head_loss(
    positions: Positions, powers: Floats, *, target: Target = "hard", margin_scale: float = 1.0, loss: Loss = "l1"
) -> tuple[float, Floats]:
    """Return the mean loss and its derivative (N,) by each row's power a = 1/T.

    >>> one = np.zeros((1, 0))
    >>> rows = Positions(np.log([[0.8, 0.2]]), one, one[0], np.log([0.8]), np.array([True]), *[np.array([0])] * 2,
    ...     is_right=np.array([True]))
    >>> round(head_loss(rows, np.ones(1), loss="l2")[0], 4)  # (0.8 - 1) ** 2
    0.04
    >>> round(head_loss(rows, np.ones(1), target="surrogate")[0], 4)  # 0.8 - sigmoid(0.6)
    0.1543
    """
    at = tempered(positions, powers)
    if target == "hard":
        wanted, wanted_slope = positions.is_top.astype(np.float64), np.zeros(len(positions))
    else:
        wanted = 1.0 / (1.0 + np.exp(-margin_scale * at.margin))
        wanted_slope = margin_scale * wanted * (1.0 - wanted) * at.margin_slope
    value, by_confidence, by_target = _pointwise(at.confidence, wanted, loss)
    slope = by_confidence * at.confidence_slope + by_target * wanted_slope
    return float(value.mean()), slope / len(positions)


def _pointwise(c: Floats, s: Floats, loss: Loss) -> tuple[Floats, Floats, Floats]:
    """Return the loss of each row and its derivatives by confidence and by target."""
    if loss == "l1":
        return np.abs(c - s), np.sign(c - s), -np.sign(c - s)
    if loss == "l2":
        return (c - s) ** 2, 2.0 * (c - s), -2.0 * (c - s)
    sure, unsure = np.maximum(c, _LEAST), np.maximum(1.0 - c, _LEAST)
    value = -s * np.log(sure) - (1.0 - s) * np.log(unsure)
    return value, (1.0 - s) / unsure - s / sure, np.log(unsure) - np.log(sure)
