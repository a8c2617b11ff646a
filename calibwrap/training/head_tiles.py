"""The best other token of every position, seen in the very tiles of logits that TRL's fused output head works out.

TRL's head goes over the vocabulary in tiles and folds each into a few numbers a position; it never says which token
was best beside the target. Looking at each tile once more before it is overwritten costs one pass over memory instead
of another product with the head. The two functions that fold are private to TRL, so `tiles_are_shown` says whether the
installed TRL still has them; where it has not, the trainer asks the head again and gets the same tokens, only later.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_FOLDS = ("_forward_tile", "_forward_kernel")
"""In torch, and in Triton; both are called with the tile first, its stride, its targets, and so on."""
_START = 10
"""Which argument says the first token of a tile."""


class BestOthers:
    """The most probable token beside the target, position by position, over all tiles seen."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self._best: list[Tensor] = []
        self._ids: list[Tensor] = []

    def see(self, tile: Tensor, targets: Tensor, start: int) -> None:
        """Take in the logits (n, w) of tokens `start` to `start + w` at n positions; the tile is written to.

        A tile that begins with token 0 opens the next n positions.

        >>> found = BestOthers()
        >>> found.see(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), 0)
        >>> found.see(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), 2)
        >>> found.ids.tolist()
        [2]
        """
        local = targets - start
        inside = ((local >= 0) & (local < tile.shape[1])).nonzero()[:, 0]
        tile[inside, local[inside]] = -torch.inf
        best, ids = tile.max(dim=1)
        ids = ids + start
        if start:
            better = best > self._best[-1]
            self._best[-1] = torch.where(better, best, self._best[-1])
            self._ids[-1] = torch.where(better, ids, self._ids[-1])
        else:
            self._best.append(best)
            self._ids.append(ids)

    @property
    def ids(self) -> Tensor:
        """Ids (n,) at all positions, in the order in which they were scored."""
        return torch.cat(self._ids)


class _Tapped:
    """A fold of TRL's that shows each tile when it is done with it."""

    def __init__(self, fold: Any, found: BestOthers) -> None:
        self._fold, self._found = fold, found

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self._fold(*arguments, **options)
        self._found.see(arguments[0], arguments[2], arguments[_START])

    def __getitem__(self, grid: Any) -> "_Tapped":
        return _Tapped(self._fold[grid], self._found)


def tiles_are_shown() -> bool:
    """Return whether the installed TRL folds tiles in the way that is known here (1.16 does)."""
    try:
        from trl.kernels import chunked_logprob

        known = list(inspect.signature(chunked_logprob._forward_tile).parameters)
    except (ImportError, AttributeError):
        return False
    return known[:3] == ["tile", "tile_stride", "targets"] and known[_START] == "vocab_start"


@contextmanager
def tiles_watched() -> Iterator[BestOthers]:
    """Give the best other tokens of all positions that TRL's output head scores meanwhile, in this process."""
    from trl.kernels import chunked_logprob

    found = BestOthers()
    folds = {name: getattr(chunked_logprob, name) for name in _FOLDS}
    for name, fold in folds.items():
        setattr(chunked_logprob, name, _Tapped(fold, found))
    try:
        yield found
    finally:
        for name, fold in folds.items():
            setattr(chunked_logprob, name, fold)
