"""Exact bounds of tempered probabilities where a backend's list was cut off.

Let s_i be what a list showed of option i, h_i the most that it may hide of it (in forms that are not listed), and W_i
the most that it may hide of all other options together. `OptionScores` keeps point values and bounds normalised over
the options, out of which everything comes back in units of S, the sum of all s_i; a normalised result can depend on no
more than that:

    s_i / S = p_i / (sum of p over shown options)
    upper_i = (s_i + h_i) / (S + h_i),   so   h_i / S = (upper_i - s_i / S) / (1 - upper_i)
    lower_i = s_i / (S + W_i),           so   W_i / S = (s_i / S) / lower_i - 1

With a = 1/T, option i has at most the weight (s_i + h_i)^a beside the others' sum of s_j^a, and at least s_i^a beside
the largest sum of (s_j + x_j)^a over 0 <= x_j <= h_j with sum x <= W_i. That one is found exactly for a <= 1, a concave
power, by raising the lowest to a common level. For a > 1, a convex power, the sum of the k largest s_j + x_j is at most
P_k, the smaller of "the k largest s_j + h_j" and "W_i and the k largest s_j", so that the differences of P majorise
every s + x; the sum of their powers is a bound, and it is attained where all that hide anything are shown alike, as
options of which nothing is shown are (Hardy, Littlewood, Polya, "Inequalities", 1934). The results are bounds of the
same form, so that temperatures chain.
"""

from dataclasses import dataclass

import numpy as np

from calibwrap.scores import Bools, Floats, OptionScores

_SLACK = 4e-16  # differences of numbers near 1 are known to about this; it keeps a small h or W from coming out too low
_MOST = 1e300  # stands for "no limit known"; a power of it may be infinite, and the bounds are then 0 and 1
_NEXT_TO_NOTHING = 1e-9  # of what is shown: such a hidden part is granted in full


@dataclass(frozen=True)
class Hidden:
    """What N lists show and may hide of K options, in units of each row's largest shown option."""

    shown: Floats
    """(N, K) s_i; 0 where nothing is shown."""
    own: Floats
    """(N, K) h_i, the most that is hidden of the option."""
    others: Floats
    """(N, K) W_i, the most that is hidden of all others together."""
    blind: Bools
    """(N,) True where no option is shown; the other fields are then 0."""


def tempered_bounds(scores: OptionScores, temperature: float) -> tuple[Floats, Floats]:
    """Return lower and upper bounds (N, K) of softmax(log p / temperature) for truncated `scores`.

    >>> s = OptionScores.from_lists([[0.6, 0.0]], [[0, 1]], tail=[0.3], cut=[0.2], readout="label")
    >>> [b.round(4).tolist() for b in tempered_bounds(s, 0.5)]  # 0.36 beside at most 0.04
    [[[0.9, 0.0]], [[1.0, 0.1]]]
    """
    power = 1.0 / temperature
    hidden = hidden_in(scores)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        weights = hidden.shown**power
        upper = 1.0 / (1.0 + _sum_of_others(weights) / (hidden.shown + hidden.own) ** power)
        lower = weights / (weights + _most_of_others(hidden, power))
    nothing = hidden.blind[:, None] | ~scores.mask
    return np.where(nothing | scores.missing, 0.0, lower), np.where(nothing, scores.mask, upper)


def ends(scores: OptionScores) -> tuple[Floats, Floats]:
    """Return log-weights (N, K) with all that is hidden at the lower, and at the upper end of its bounds.

    At the lower end nothing is hidden, and a missing option has probability 0, so -inf. At the upper end each option
    has the same share of the most that it may hide, the largest that all can have at once. Rows that show nothing keep
    their point values.
    """
    hidden = hidden_in(scores)
    wanted = hidden.own.sum(axis=1, keepdims=True)
    together = np.max(np.where(hidden.shown > 0.0, hidden.others, 0.0), axis=1, keepdims=True)
    share = np.minimum(1.0, together / np.where(wanted > 0.0, wanted, 1.0))
    with np.errstate(divide="ignore"):
        low, high = np.log(hidden.shown), np.log(hidden.shown + hidden.own * share)
    keep = hidden.blind[:, None]
    return np.where(keep, scores.logprobs, low), np.where(keep, scores.logprobs, high)


def hidden_in(scores: OptionScores) -> Hidden:
    """Return what is shown and hidden, worked out from point values and bounds, each rounded up where in doubt."""
    missing = scores.mask & scores.missing
    shown = np.where(missing, 0.0, scores.probabilities)
    total = shown.sum(axis=1, keepdims=True)
    blind = total[:, 0] == 0.0
    shown = shown / np.where(total > 0.0, total, 1.0)
    cut = (scores.is_cut & ~blind)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        spare = np.maximum(1.0 - scores.upper - _SLACK, 0.0)
        own = np.fmin(np.maximum(scores.upper - shown + np.where(missing, 0.0, _SLACK), 0.0) / spare, _MOST)
        others = np.fmin(shown / scores.lower - 1.0 + _SLACK * (1.0 - np.log(shown)), _MOST)
    others[shown == 0.0] = _MOST
    own = np.where(cut & scores.mask, np.minimum(own, _least_of_others(np.where(shown > 0.0, others, np.inf))), 0.0)
    # the largest h <= W <= the sum of all h holds for every true list, and repairs what cancellation did
    others = np.clip(others, _largest_of_others(own), _sum_of_others(own))
    largest = np.where(blind, 1.0, shown.max(axis=1))[:, None]
    return Hidden(shown / largest, own / largest, others / largest, blind)


def _sum_of_others(values: Floats) -> Floats:
    """Return (N, K) the sum of each row without entry i: added up, since a difference would cancel."""
    return np.asarray(values @ (1.0 - np.eye(values.shape[1])))


def _largest_of_others(values: Floats) -> Floats:
    """Return (N, K) the largest of each row without entry i; 0 where there is no other."""
    return np.stack([_without(values, i).max(axis=1, initial=0.0) for i in range(values.shape[1])], axis=1)


def _least_of_others(values: Floats) -> Floats:
    """Return (N, K) the least of each row without entry i; 0 where no other is finite: what i hides then is all one."""
    least = [_without(values, i).min(axis=1, initial=np.inf) for i in range(values.shape[1])]
    return np.stack([np.where(np.isfinite(one), one, 0.0) for one in least], axis=1)


def _without(values: Floats, column: int) -> Floats:
    return np.delete(values, column, axis=1)


def _most_of_others(hidden: Hidden, power: float) -> Floats:
    """Return (N, K) the most that all options but i can weigh together, what they hide included."""
    most = _levelled if power <= 1.0 else _piled
    parts = range(hidden.shown.shape[1])
    return np.stack(
        [most(_without(hidden.shown, i), _without(hidden.own, i), hidden.others[:, i], power) for i in parts], axis=1
    )


def _levelled(shown: Floats, room: Floats, budget: Floats, power: float) -> Floats:
    """Return (N,) the largest sum of (shown + x) ** power for a concave power: the lowest are raised to one level.

    Raising the level costs as much as there are options on it, which changes only where one joins (at what it shows)
    or is full.
    """
    if shown.shape[1] == 0:
        return np.zeros(len(shown))
    edges = np.concatenate([shown, shown + room], axis=1)
    order = np.argsort(edges, axis=1, kind="stable")
    edges = np.take_along_axis(edges, order, axis=1)
    rate = np.cumsum(np.where(order < shown.shape[1], 1.0, -1.0), axis=1)
    spent = np.cumsum(np.diff(edges, axis=1, prepend=edges[:, :1]) * np.roll(rate, 1, axis=1), axis=1)
    last = np.maximum((spent <= budget[:, None]).sum(axis=1, keepdims=True) - 1, 0)
    at, cost, used = (np.take_along_axis(values, last, axis=1) for values in (edges, rate, spent))
    level = at + np.where(cost > 0.0, (budget[:, None] - used) / np.maximum(cost, 1.0), 0.0)
    return np.asarray((np.clip(level, shown, shown + room) ** power).sum(axis=1))


def _piled(shown: Floats, room: Floats, budget: Floats, power: float) -> Floats:
    """Return (N,) a bound on the sum of (shown + x) ** power for a convex power: as few as possible have most.

    Options that hide next to nothing have it in full, at no cost to the others.
    """
    settled = room <= _NEXT_TO_NOTHING * shown
    total = np.where(settled, shown + room, 0.0) ** power
    shown, full = (np.where(settled, 0.0, values) for values in (shown, shown + room))
    sums = [np.cumsum(-np.sort(-values, axis=1), axis=1) for values in (full, shown)]
    most = np.diff(np.minimum(sums[0], sums[1] + budget[:, None]), axis=1, prepend=0.0)
    return np.asarray((total + np.maximum(most, 0.0) ** power).sum(axis=1))
