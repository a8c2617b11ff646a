"""Surface forms of a label, and what a list of the most probable tokens shows of them."""

from collections.abc import Hashable, Sequence

import numpy as np

from calibwrap.base import Adapter
from calibwrap.capabilities import Provides
from calibwrap.scores import OptionScores, TokenScores

LONGEST_LIST = 100
"""Tokens asked for where a backend sets no limit to its lists."""

Keys = Sequence[Sequence[Hashable]]
"""For each option of one question the ids, or the bytes, of its surface forms."""


def surface_forms(separator: str, label: str) -> list[str]:
    """Return how an answer may begin that means `label`; the template's own form comes first.

    With and without a space before it, with and without a full stop after it: no other case, bracket or longer word,
    which may begin an answer that means something else.

    >>> surface_forms(" ", "A")
    [' A', 'A', 'A.', ' A.']
    """
    return list(dict.fromkeys((separator + label, label, " " + label, label + ".", " " + label + ".")))


def reads_ids(provides: Provides, options: Sequence[Sequence[Sequence[int]]]) -> bool:
    """Return whether the backend scores all tokens of each question at once, exactly, if asked for them."""
    widest = max(sum(map(len, forms)) for forms in options)
    return provides.given_ids is None or provides.given_ids >= widest


def longest_list(provides: Provides) -> int:
    """Return how many of the most probable tokens to ask for."""
    return LONGEST_LIST if provides.top is None else provides.top


def listed_ids(scores: TokenScores) -> Sequence[int]:
    """Return the ids that one position lists; all of the vocabulary where it is whole."""
    return range(scores.logprobs.shape[1]) if scores.ids is None else [int(token) for token in scores.ids[0]]


def listed_bytes(adapter: Adapter, rows: Sequence[TokenScores]) -> list[list[bytes]]:
    """Return the bytes of the tokens that each position lists; each token is asked for once."""
    listed = [listed_ids(scores) for scores in rows]
    every = list(dict.fromkeys(token for tokens in listed for token in tokens))
    known = dict(zip(every, adapter.token_bytes(every), strict=True))
    return [[known[token] for token in tokens] for tokens in listed]


def scores_of_lists(
    options: Sequence[Keys], listed: Sequence[Sequence[Hashable]], rows: Sequence[TokenScores], readout: str
) -> OptionScores:
    """Return the scores of N questions, each read off one position's list whose entries are named by `listed`."""
    width = max(map(len, options))
    shown, unlisted = np.zeros((2, len(rows), width))
    for row, (keys, names, scores) in enumerate(zip(options, listed, rows, strict=True)):
        shown[row, : len(keys)], unlisted[row, : len(keys)] = _looked_up(keys, names, np.exp(scores.logprobs[0]))
    mask = np.arange(width) < np.array([len(keys) for keys in options])[:, None]
    tail, cut = (np.exp([getattr(scores, name)[0] for scores in rows]) for name in ("log_tail", "log_cut"))
    return OptionScores.from_lists(shown, unlisted, tail, cut, readout, mask)


def _looked_up(keys: Keys, names: Sequence[Hashable], probabilities: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return for each option the probability of its forms that are listed, and how many are not.

    >>> _looked_up([["A", " A"], ["B"]], ["A", "x", "A"], [0.5, 0.2, 0.1])  # two tokens may spell the same
    ([0.6, 0], [1, 1])
    """
    found: dict[Hashable, float] = {}
    for name, probability in zip(names, probabilities, strict=True):
        found[name] = found.get(name, 0.0) + float(probability)
    shown = [sum(found[form] for form in forms if form in found) for forms in keys]
    return shown, [sum(form not in found for form in forms) for forms in keys]
