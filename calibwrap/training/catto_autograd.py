"""CATTO's loss in torch: the closed-form gradient as an autograd function, so that no copy of the logits is kept."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from calibwrap.errors import InputError
from calibwrap.training.catto import TokenLoss, check_kinds, check_shapes, check_tokens, chunks


class _OnLogits(torch.autograd.Function):  # type: ignore[misc]
    """Sum of shares times token losses; keeps the logits themselves and a few numbers a position."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, places: Tensor, targets: Tensor, shares: Tensor, terms: TokenLoss) -> Tensor:
        losses, kept = [], []
        for part in chunks(len(targets), logits.shape[2]):
            z = _rows(logits, places[part])
            value, *numbers = _measured(z, targets[part], shares[part].to(z.dtype), terms)
            losses.append(value)
            kept.append(numbers)
        ctx.save_for_backward(logits, places, targets, *(torch.cat(numbers) for numbers in zip(*kept, strict=True)))
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, places, targets, others, log_z, by_target, by_other = ctx.saved_tensors
        slope = torch.zeros_like(logits)
        for part in chunks(len(targets), logits.shape[2]):
            a, b = by_target[part, None] * upstream, by_other[part, None] * upstream
            rows = _rows(logits, places[part]).sub_(log_z[part, None]).exp_().mul_(-(a + b))
            rows.scatter_add_(1, targets[part, None], a).scatter_add_(1, others[part, None], b)
            slope[places[part, 0], places[part, 1]] = rows.to(slope.dtype)
        return slope, None, None, None, None


def _rows(logits: Tensor, places: Tensor) -> Tensor:
    """Return a fresh copy of the logits at some (sequence, position) pairs, in at least 32 bits."""
    rows = logits[places[:, 0], places[:, 1]]
    return rows if rows.dtype == torch.float64 else rows.float()


def _measured(z: Tensor, targets: Tensor, shares: Tensor, terms: TokenLoss) -> tuple[Tensor, ...]:
    """Return the rows' summed loss, and of each row the best other token, log Z and two derivatives by log p."""
    log_z = torch.logsumexp(z, dim=1)
    p_target = (z.gather(1, targets[:, None])[:, 0] - log_z).exp()
    best, others = z.scatter_(1, targets[:, None], -torch.inf).max(dim=1)
    p_other = (best - log_z).exp()
    value, by_target, by_other = terms(p_target, p_other)
    return (shares * value).sum(), others, log_z, shares * by_target * p_target, shares * by_other * p_other


class _OnLogProbabilities(torch.autograd.Function):  # type: ignore[misc]
    """Token losses of two log-probabilities."""

    @staticmethod
    def forward(ctx: Any, of_target: Tensor, of_other: Tensor, terms: TokenLoss) -> Tensor:
        p_target, p_other = of_target.exp(), of_other.exp()
        value, by_target, by_other = terms(p_target, p_other)
        ctx.save_for_backward(by_target * p_target, by_other * p_other)
        return value

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        by_target, by_other = ctx.saved_tensors
        return upstream * by_target, upstream * by_other, None


def token_losses(logprob_target: Tensor, logprob_other: Tensor, terms: TokenLoss) -> Tensor:
    """Return differentiable losses (n,) of n tokens from two log-probabilities each.

    Args:
        logprob_target: (n,) log-probabilities of the target tokens.
        logprob_other: (n,) log-probabilities of the best token that is not the target.
        terms: which loss.

    >>> token_losses(torch.tensor([-1e9]), torch.tensor([0.0]), TokenLoss()).tolist()
    [0.7310585975646973]
    """
    losses: Tensor = _OnLogProbabilities.apply(logprob_target, logprob_other, terms)
    return losses


def sequence_mean(losses: Tensor, sequences: Tensor, count: int) -> Tensor:
    """Return the mean over `count` sequences of each one's mean token loss.

    Args:
        losses: (n,) losses of the tokens of all sequences.
        sequences: (n,) which sequence, counted from 0, each token belongs to; each has at least one.
        count: how many sequences there are.

    >>> sequence_mean(torch.tensor([1.0, 3.0, 4.0]), torch.tensor([0, 0, 1]), 2).item()
    3.0
    """
    tokens = torch.bincount(sequences, minlength=count).to(losses.dtype)
    return (losses / tokens[sequences]).sum() / count


def torch_catto_loss(logits: Tensor, targets: Any, mask: Any, terms: TokenLoss) -> Tensor:
    """Return `calibwrap.training.catto_loss` of torch tensors, a scalar with a gradient.

    Raises:
        InputError: as `catto_loss`.

    >>> torch_catto_loss(torch.zeros(1, 1, 2), [[1]], [[1]], TokenLoss()).item()
    0.0
    """
    ids = torch.as_tensor(targets, device=logits.device)
    shown = torch.as_tensor(mask, device=logits.device)
    check_shapes(tuple(logits.shape), tuple(ids.shape), tuple(shown.shape))
    keep = shown == 1
    is_whole = not ids.is_floating_point() and ids.dtype != torch.bool
    check_kinds(ids.dtype, is_whole=is_whole, is_mask=bool((keep | (shown == 0)).all()))
    if not logits.is_floating_point():
        raise InputError(f"'logits' must be floating-point numbers. Got {logits.dtype}.")
    places, counts = keep.nonzero(), keep.sum(dim=1)
    chosen = ids[keep].long()
    ends = (int(chosen.min()), int(chosen.max())) if len(chosen) else (0, 0)
    check_tokens(counts.tolist(), *ends, logits.shape[2])
    shares = 1.0 / (counts[places[:, 0]] * len(keep)).double()
    value: Tensor = _OnLogits.apply(logits, places, chosen, shares, terms)
    return value
