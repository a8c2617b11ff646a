"""The anchor of Rewarding Doubt: the answers stay those of the first model while confidences are learned.

Confidence and answer come from the same weights. The reward has no gradient on the answer's tokens, and moves them all
the same, through what the layers share. The anchor is what holds them: the divergence of the answer's tokens from the
model as it was before its adapter.
"""

from collections.abc import Sequence

import torch

from calibwrap.base import Adapter
from calibwrap.training.doubt_answers import Row


def answer_span(adapter: Adapter, row: Row, tokens: Sequence[int]) -> tuple[int, int]:
    """Return where in `tokens`, those of the row's "prompt", the tokens of its "answer" begin and end.

    A last token that reaches into the words after the answer is left out.
    """
    before, own = adapter.tokenize(row["asked"], f" {row['answer']}")
    alone = [*before, *own]
    differs = (index for index, pair in enumerate(zip(alone, tokens, strict=False)) if pair[0] != pair[1])
    return len(before), max(len(before), next(differs, len(alone)))


def predicting(lengths: Sequence[int], spans: Sequence[tuple[int, int]], at_least: int) -> torch.Tensor:
    """Return (B, P) which of the last P columns of left-padded rows predict a token of the row's span.

    Args:
        lengths: (B,) tokens of each row, without padding.
        spans: (B,) where in its row each answer begins and ends.
        at_least: smallest P; it is as large as the longest way from an answer to the end of its row.

    >>> predicting([5, 4], [(2, 4), (2, 3)], at_least=1).int().tolist()
    [[1, 1, 0, 0], [0, 1, 0, 0]]
    """
    ways = [length - start + 1 for length, (start, _) in zip(lengths, spans, strict=True)]
    width = max(at_least, *ways)
    found = torch.zeros((len(spans), width), dtype=torch.bool)
    for row, way, (start, end) in zip(found, ways, spans, strict=True):
        row[width - way : width - way + end - start] = True
    return found


def answer_divergence(first: torch.Tensor, now: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
    """Return the mean over rows of the KL divergence (nats) of an answer's tokens, of the first model from the present.

    Args:
        first: (B, P, V) logits of the first model, without gradient.
        now: (B, P, V) logits of the present model.
        predicts: (B, P) the positions that predict an answer's tokens.

    Summed over its tokens it is, along the answers drawn, the divergence of whole answers.

    >>> first, now = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    >>> round(float(answer_divergence(first, now, torch.tensor([[True]]))), 4)  # 0.5 log 2 + 0.5 log(2 / 3)
    0.1438
    """
    wanted = torch.log_softmax(first[predicts].float(), dim=-1)  # (M, V)
    found = torch.log_softmax(now[predicts].float(), dim=-1)
    return (wanted.exp() * (wanted - found)).sum() / len(predicts)
