"""Logits at the ends of a batch of rows, with gradient; what all rows begin with is computed once."""

from collections.abc import Sequence
from typing import Any

import torch


def shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all rows begin with.

    >>> shared_length([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    columns = enumerate(zip(*rows, strict=False))
    return next((index for index, tokens in columns if len(set(tokens)) > 1), min(map(len, rows)))


def last_logits(model: Any, rows: Sequence[Sequence[int]], keep: int, *, share: bool = True) -> torch.Tensor:
    """Return (B, keep, V) logits of a causal language model at the last positions of rows of tokens.

    Rows are padded on the left; where `keep` is longer than a row, the logits before it mean nothing.

    Args:
        model: a Transformers model, or one with a PEFT adapter.
        rows: (B,) of tokens.
        keep: positions whose logits are computed; the others' cost nothing but their hidden states.
        share: whether the tokens that all rows begin with run once, and the rows go on from their keys and values. The
            gradient is the same. Not with gradient checkpointing, which has no keys and values to go on from.
    """
    device = next(model.parameters()).device
    begun = max(0, min(shared_length(rows), min(map(len, rows)) - keep)) if share and len(rows) > 1 else 0
    options: dict[str, Any] = {"use_cache": False}
    if begun:
        prefix = torch.tensor([rows[0][:begun]], device=device)
        cache = model(input_ids=prefix, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(rows))
        options = {"past_key_values": cache, "use_cache": True}
    width = max(map(len, rows)) - begun
    pads = [width - len(row) + begun for row in rows]
    ids = torch.tensor([[0] * pad + list(row[begun:]) for pad, row in zip(pads, rows, strict=True)], device=device)
    mask = torch.tensor([[1] * begun + [0] * pad + [1] * (width - pad) for pad in pads], device=device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, begun:]
    logits: torch.Tensor = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=keep, **options
    ).logits
    return logits
