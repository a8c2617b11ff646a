"""The partition function of a tempered position of which only a list of tokens is known, as an interval.

Of n tokens that are not listed the mass t is known, and that none has more than c. The sum of their p ** a, a = 1/T,
is extreme at the two ends of how t can be spread: evenly, n (t/n) ** a, and heaped, as many tokens of c as t allows
and one with the rest. For a < 1, a concave power, evenly is the most; for a > 1 it is the least (Hardy, Littlewood,
Polya, "Inequalities", 1934). Both ends are attained.
"""

import numpy as np

from calibwrap.errors import InputError
from calibwrap.scores import Floats, TokenScores


def log_partition_bounds(scores: TokenScores, powers: Floats, vocabulary: int | None) -> tuple[Floats, Floats]:
    """Return lower and upper bounds (T,) of log(sum over all tokens of p ** a), with a power a for each position.

    Where the size of the vocabulary is not known, what is spread evenly has no end: the upper bound is then infinite
    for a < 1, and the lower one counts the list alone for a > 1.

    Raises:
        InputError: `vocabulary` is smaller than the list.

    >>> s = TokenScores(np.log([[0.5, 0.25]]), ids=[[7, 9]])  # 0.25 is unlisted; at T = 2 the list has 0.707 + 0.5
    >>> [np.exp(b).round(4).tolist() for b in log_partition_bounds(s, np.array([0.5]), vocabulary=6)]
    [[1.7071], [2.2071]]
    """
    listed = np.exp(powers[:, None] * scores.logprobs).sum(axis=1)
    if scores.is_full:
        return np.log(listed), np.log(listed)
    size = scores.logprobs.shape[1]
    if vocabulary is not None and vocabulary < size:
        raise InputError(f"'vocabulary' must be at least the list's {size} tokens. Got {vocabulary}.")
    even, heaped = _evenly(scores, powers, vocabulary), _heaped(scores, powers)
    with np.errstate(divide="ignore"):
        return np.log(listed + np.minimum(even, heaped)), np.log(listed + np.maximum(even, heaped))


def _evenly(scores: TokenScores, powers: Floats, vocabulary: int | None) -> Floats:
    tail = np.exp(scores.log_tail)
    if vocabulary is None:
        return np.where(powers < 1.0, np.inf, np.where(powers > 1.0, 0.0, tail))
    count = vocabulary - scores.logprobs.shape[1]
    return np.asarray(count * (tail / max(count, 1)) ** powers)


def _heaped(scores: TokenScores, powers: Floats) -> Floats:
    tail, most = np.exp(scores.log_tail), np.exp(scores.log_cut)
    most = np.where(most > 0.0, most, tail)
    whole = np.floor(tail / most)
    return np.asarray(whole * most**powers + np.maximum(tail - whole * most, 0.0) ** powers)
