"""Exact bounds of tempered probabilities where a backend's list was cut off.

Let M be the mass of the options that the list showed, u the most that one missing option can have, U the most that all
missing ones of a row can have together. `OptionScores` keeps bounds normalised over the options, out of which
everything comes back in units of M, which is all that a normalised result can depend on:

    shown option i:    upper_i = p_i / M         and lower_i = p_i / (M + U),  so   U / M = upper_i / lower_i - 1
    missing option j:  upper_j = u / (M + u),                                   so   u / M = upper_j / (1 - upper_j)

With a = 1/T, the tempered weight of the missing ones together is largest, over all 0 <= q_j <= u with sum q_j <= U:
for a <= 1 (a concave power) when they share evenly, m min(u, U/m)^a; for a > 1 (a convex power) when as many as
possible are full, n u^a + (U - n u)^a with n = floor(U / u) < m. A shown option is then between w_i / (W_shown + W)
and w_i / W_shown, a missing one between 0 and u^a / (W_shown + u^a). The results are bounds of the same form, so that
temperatures chain.
"""

import numpy as np

from calibwrap.scores import Bools, Floats, Ints, OptionScores

_SLACK = 4e-16  # U/M = upper/lower - 1 cancels to about this; adding it keeps a tiny U from coming out too small


def tempered_bounds(scores: OptionScores, temperature: float) -> tuple[Floats, Floats]:
    """Return lower and upper bounds (N, K) of softmax(log p / temperature) for truncated `scores`.

    >>> s = OptionScores(np.log([[0.8, 0.2]]), "label", missing=[[False, True]], lower=[[0.6, 0]], upper=[[1, 0.4]])
    >>> tempered_bounds(s, 1.0)[0].round(4).tolist()  # T = 1 changes nothing
    [[0.6, 0.0]]
    """
    power = 1.0 / temperature
    missing = scores.mask & scores.missing
    blind = np.asarray(~(scores.mask & ~missing).any(axis=1))
    shown, one, together = _in_units_of_the_largest(scores, missing & ~blind[:, None])
    weights = shown**power
    total = np.where(blind[:, None], 1.0, weights.sum(axis=1, keepdims=True))
    most = _most_together(one, together, missing.sum(axis=1), power)
    with np.errstate(divide="ignore"):  # u = 0 has the upper bound 1 / inf = 0
        upper = np.where(missing, 1.0 / (1.0 + total / one**power), weights / total)
    lower = weights / (total + most[:, None])
    lower[blind] = 0.0
    upper[blind] = scores.mask[blind]
    return lower, upper


def ends(scores: OptionScores) -> tuple[Floats, Floats]:
    """Return log-weights (N, K) with the missing options at the lower, and at the upper end of their bounds.

    The lower end of a missing option is probability 0, so -inf. At the upper end each has the most that all of them
    can have at once, min(u, U / m). Rows that show nothing keep their point values.
    """
    missing = scores.mask & scores.missing
    blind = np.asarray(~(scores.mask & ~missing).any(axis=1))
    shown, one, together = _in_units_of_the_largest(scores, missing & ~blind[:, None])
    share = np.minimum(one, (together / np.maximum(missing.sum(axis=1), 1))[:, None])
    with np.errstate(divide="ignore"):
        low = np.log(shown)
        high = np.where(missing, np.log(share), low)
    low[blind] = high[blind] = scores.logprobs[blind]
    return low, high


def _in_units_of_the_largest(scores: OptionScores, missing: Bools) -> tuple[Floats, Floats, Floats]:
    """Return p_i (N, K; 0 where not shown), u (N, K; 0 where not missing) and U (N,), in units of the largest p_i.

    In a row that shows nothing the unit is 1 and no p_i is above 0; the caller's `missing` leaves such rows out.
    """
    shown = np.where(scores.mask & ~scores.missing, scores.upper, 0.0)
    top = np.argmax(shown, axis=1)[:, None]
    largest, least = (np.take_along_axis(part, top, axis=1) for part in (shown, scores.lower))
    largest = np.where(largest > 0.0, largest, 1.0)
    with np.errstate(divide="ignore"):
        one = np.where(missing, scores.upper / (1.0 - scores.upper), 0.0)
        together = np.where(missing.any(axis=1, keepdims=True), largest / least - 1.0 + _SLACK, 0.0)
    # u <= U <= the sum of all u holds for every true list, and repairs what cancellation did
    together = np.clip(together, one.max(axis=1, keepdims=True), one.sum(axis=1, keepdims=True))
    return shown / largest, one / largest, (together / largest)[:, 0]


def _most_together(one: Floats, together: Floats, count: Ints, power: float) -> Floats:
    """Return (N,) the largest total of q_j ** power over the missing options of each row."""
    most_one = one.max(axis=1)
    count = np.maximum(count, 1)
    if power <= 1.0:
        return np.asarray(count * np.minimum(most_one, together / count) ** power)
    with np.errstate(invalid="ignore"):
        full = np.minimum(count, np.floor(together / np.where(most_one > 0.0, most_one, 1.0)))
        rest = np.where(full < count, np.maximum(together - full * most_one, 0.0), 0.0)
        # no limit known: infinity, which makes the lower bounds 0
        return np.asarray(np.nan_to_num(full * most_one**power + rest**power, nan=np.inf))
