"""From rows of raw logits to TokenScores, one row in memory at a time unless the whole vocabulary is asked for."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibwrap.adapters._shared import with_cut
from calibwrap.scores import Floats, Ints, TokenScores, logsumexp

Logits = NDArray[np.float32]
"""(V,) raw logits of one position."""


def token_scores(rows: Iterable[Logits], chosen: Sequence[int] | None, top: int | None) -> TokenScores:
    """Return the scores of T positions from their logits: the chosen token, the `top` most probable, or all.

    Args:
        rows: (V,) raw logits of each position, taken one after the other.
        chosen: id of the token at each position, or None when nothing was chosen.
        top: entries to list; 0 lists the chosen token only, None the whole vocabulary.

    >>> s = token_scores([np.log(np.array([1, 2, 1], dtype=np.float32))], chosen=[1], top=0)
    >>> s.ids.tolist(), s.logprobs.round(4).tolist(), s.log_z.round(4).tolist()
    ([[1]], [[-0.6931]], [1.3863])
    """
    listed: list[Floats] = []
    ids: list[Ints] = []
    log_z: list[float] = []
    values: list[float] = []
    for position, row in enumerate(rows):
        log_z.append(log_partition(row) if top == 0 else float(logsumexp(row)))  # lists sum to 1 in 64 bits
        if chosen is not None:
            values.append(float(row[chosen[position]]) - log_z[-1])
        if top is not None:
            entries = np.array([chosen[position]]) if top == 0 and chosen is not None else _most_probable(row, top)
            ids.append(entries)
            row = row[entries]
        listed.append(row.astype(np.float64) - log_z[-1])
    scores = TokenScores(
        np.array(listed),
        ids=None if top is None else np.array(ids),
        chosen=None if chosen is None else np.array(chosen, dtype=np.int64),
        chosen_logprob=None if chosen is None else np.array(values),
        log_z=np.array(log_z),
    )
    return with_cut(scores, top)


def given_scores(row: Logits, ids: Sequence[int]) -> TokenScores:
    """Return the scores of the given ids at one position, in their order.

    >>> given_scores(np.zeros(4, dtype=np.float32), [3, 1]).log_tail.round(4).tolist()
    [-0.6931]
    """
    log_z = logsumexp(row)
    wanted = np.array(ids, dtype=np.int64)
    return TokenScores(row[wanted].astype(np.float64)[None] - log_z, ids=wanted[None], log_z=log_z[None])


def joined(positions: Sequence[TokenScores]) -> TokenScores:
    """Return the scores of single positions, all listed alike, as one record of T positions.

    >>> one = token_scores([np.zeros(2, dtype=np.float32)], chosen=[1], top=None)
    >>> joined([one, one]).chosen_logprob.round(4).tolist()
    [-0.6931, -0.6931]
    """

    def field(name: str) -> Any:
        parts = [getattr(position, name) for position in positions]
        return None if parts[0] is None else np.concatenate(parts)

    names = ("logprobs", "ids", "chosen", "chosen_logprob", "log_z", "log_cut")
    return TokenScores(**{name: field(name) for name in names})


def log_partition(row: Logits) -> float:
    """Return log(sum(exp(row))) in 32 bits, as the logits are; numpy sums in pairs, so its error is that of one number.

    >>> round(log_partition(np.log(np.array([1, 2, 1], dtype=np.float32))), 4)
    1.3863
    """
    top = row.max()
    below = row - top
    return float(top) + float(np.log(np.exp(below, out=below).sum()))


def _most_probable(row: Logits, count: int) -> Ints:
    """Return the ids of the `count` most probable tokens, the lowest id first among equals."""
    size = len(row)
    some = np.arange(size) if count >= size else np.argpartition(-row, count - 1)[:count] if count else np.arange(0)
    return np.asarray(some[np.lexsort((some, -row[some]))])
