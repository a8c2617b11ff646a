"""A question and all its options in one row: an option sees the question and itself, as it would in a row of its own.

So the question runs through the model once, whatever the number of its options. It needs a model that takes positions
and a mask of pairs, and keeps nothing but keys and values of what it read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibwrap.adapters._hf_forward import engine_of

QUESTION, PADDING = 0, -1
"""Which part of a row a token belongs to; the options are 1, 2, ... in the order in which they stand."""


@dataclass(frozen=True)
class Packed:
    """One row."""

    ids: list[int]
    """The question's tokens, then those of each option."""
    positions: list[int]
    """Of each token in the text that it is from."""
    parts: list[int]
    """Part that each token belongs to."""
    starts: list[int]
    """Where the tokens of each option begin, in the options' own order."""


def packed(prompt: Sequence[int], options: Sequence[Sequence[int]], first: int) -> Packed:
    """Return the row of a question, option number `first` standing before the others.

    >>> row = packed([5, 6], [[7], [8, 9]], first=1)
    >>> row.ids, row.positions, row.parts, row.starts
    ([5, 6, 8, 9, 7], [0, 1, 2, 3, 2], [0, 0, 1, 1, 2], [4, 2])
    """
    ids, positions, parts = list(prompt), list(range(len(prompt))), [QUESTION] * len(prompt)
    starts = [0] * len(options)
    for part, option in enumerate([first, *(place for place in range(len(options)) if place != first)], 1):
        starts[option] = len(ids)
        ids += options[option]
        positions += range(len(prompt), len(prompt) + len(options[option]))
        parts += [part] * len(options[option])
    return Packed(ids, positions, parts, starts)


def sees(parts: Tensor) -> Tensor:
    """Return (R, 1, L, L), True where token i of a row sees token j: earlier ones of the question and of its own part.

    Args:
        parts: (R, L) part of each token, -1 where the row is filled up; such a token sees what it likes, for an empty
            row of a mask has no meaning, and none sees it.

    >>> sees(torch.tensor([[0, 1, 2]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    """
    by_question, same = parts[:, None, :] == QUESTION, parts[:, :, None] == parts[:, None, :]
    earlier = torch.ones(parts.shape[1], parts.shape[1], dtype=torch.bool).tril()
    return ((by_question | same) & earlier)[:, None]


def can_pack(model: Any, longest: int) -> bool:
    """Return whether a Transformers model reads a packed row as it reads the rows apart, texts of `longest` tokens."""
    engine = engine_of(model, batch_size=1, float32_head=False)
    has_pairs = model.config.get_text_config()._attn_implementation == "sdpa"  # others take masks of other kinds
    forgets = engine.window is not None and engine.window < longest
    return has_pairs and engine.takes_positions and engine.can_repeat and not forgets
