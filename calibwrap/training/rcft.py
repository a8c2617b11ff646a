"""The ECE regulariser of RCFT: what the options' probabilities should be, and how far they are from it.

An E-step bins the training questions by confidence and measures each bin's accuracy A_m. The M-step pulls the most
probable option of every question to the accuracy of its bin and spreads the rest so that its order is kept (Xiao et
al., Restoring Calibration for Aligned Large Language Models: A Calibration-Aware Fine-Tuning Approach, 2025). What the
paper does not pin, and what its released code gets wrong, is told in docs/cft.md.
"""

import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.scores import Bools, Floats, Ints

RankBreak = Literal["uniform", "allow"]


@dataclass(frozen=True, eq=False)
class BinAccuracies:
    """What an E-step found: M bins of confidence, [lo, hi) with the last one closed, none of them empty.

    >>> bins = BinAccuracies(np.array([0.0, 0.5, 1.0]), np.array([0.25, 0.75]), np.array([4, 8]))
    >>> bins.index([0.2, 0.5, 1.0]).tolist()
    [0, 1, 1]
    """

    edges: Floats
    """(M + 1,) edges, from 0 to 1."""
    accuracy: Floats
    """(M,) share of right answers in each bin: A_m."""
    rows: Ints
    """(M,) questions in each bin: N_m."""

    def index(self, confidence: ArrayLike) -> Ints:
        """Return the bin of each confidence, shape (N,)."""
        return np.asarray(np.searchsorted(self.edges[1:-1], np.asarray(confidence), side="right"), dtype=np.int64)


def bin_accuracies(confidence: ArrayLike, correct: ArrayLike, n_bins: int = 10, least_in_bin: int = 5) -> BinAccuracies:
    """Return the bins of an E-step and their accuracies: equal widths, sparse bins merged into their neighbours.

    While a bin holds fewer than `least_in_bin` questions, the sparsest one joins the neighbour that holds fewer, the
    lower one among equals; so one bin of everything is left of fewer questions than that.

    Args:
        confidence: (N,) probability of each question's most probable option.
        correct: (N,) bool or 0/1.
        n_bins: bins of equal width before any merging.
        least_in_bin: fewest questions that a bin keeps.

    Raises:
        InputError: shapes differ, no rows, values outside [0, 1], or a count below 1.

    References:
        Xiao et al.: Restoring Calibration for Aligned Large Language Models (2025), the E-step; merging is ours.

    >>> bins = bin_accuracies([0.3, 0.35, 0.95, 1.0], [1, 0, 1, 1], n_bins=10, least_in_bin=2)
    >>> bins.edges.tolist(), bins.accuracy.tolist(), bins.rows.tolist()
    ([0.0, 0.9, 1.0], [0.5, 1.0], [2, 2])
    """
    from calibwrap.metrics._bins import sums_between, uniform_edges
    from calibwrap.metrics._checks import checked_count, checked_pair

    chances, hits = checked_pair(confidence, correct)
    edges = uniform_edges(checked_count("n_bins", n_bins))
    least = checked_count("least_in_bin", least_in_bin)
    sums = sums_between(chances, hits, edges)
    starts = np.arange(n_bins)
    rows = sums.rows
    while len(rows) > 1 and rows.min() < least:
        starts = np.delete(starts, _lower_of_pair(rows) + 1)
        rows = np.add.reduceat(sums.rows, starts)
    return BinAccuracies(np.append(edges[starts], 1.0), np.add.reduceat(sums.correct, starts) / rows, rows)


def _lower_of_pair(rows: Ints) -> int:
    """Return the lower of two neighbours to merge: the sparsest bin and its sparser neighbour."""
    sparsest = int(np.argmin(rows))
    if sparsest == 0:
        return 0
    if sparsest == len(rows) - 1 or rows[sparsest - 1] <= rows[sparsest + 1]:
        return sparsest - 1
    return sparsest


def rcft_targets(probabilities: Any, bin_accuracy: Any, *, rank_break: RankBreak = "uniform", mask: Any = None) -> Any:
    r"""Return what the options' probabilities should be, shape (N, K): arrays of numpy, or detached tensors of torch.

    With p_(1) >= p_(2) >= ... the sorted probabilities of one question and A the accuracy of its bin, the most
    probable option gets A and the others::

        gamma = ln(K - 1) / (p_(2) (1 - A))        S = sum of tanh(gamma p_(j)) over j >= 2
        alpha = (1 - A) / (S + K - 1)              t_(j) = alpha (1 + tanh(gamma p_(j)))

    They sum to 1 - A and keep the order of the probabilities. K is each question's own number of options: two options
    get (A, 1 - A), one gets 1. With A = 1 the target is one-hot.

    Where A is small, t_(2) may exceed A (with four options below about 0.26 to 0.32): the target would then break the
    rank of the top option by more than A asks for. "uniform" shares the rest evenly in such a row; the top option
    stays first unless A < 1 / K, where no target that gives it A can keep it first. "allow" takes the formula as it is.

    Args:
        probabilities: (N, K), each row summing to 1 over its options.
        bin_accuracy: (N,) accuracy of the bin that each question is in.
        rank_break: what to do where t_(2) > A.
        mask: (N, K) True where the option exists; all by default. There is no target elsewhere: 0.

    Raises:
        InputError: shapes that do not fit, NaN, values outside [0, 1], rows that do not sum to 1, or an unknown
            `rank_break`.

    References:
        Xiao et al.: Restoring Calibration for Aligned Large Language Models (2025); the formula is its released code's,
        with ln(K - 1) for ln 3.

    >>> rcft_targets(np.array([[0.05, 0.9, 0.05]]), np.array([0.6])).round(3).tolist()
    [[0.2, 0.6, 0.2]]
    >>> rcft_targets(np.array([[0.9, 0.05, 0.03, 0.02]]), np.array([0.25])).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    chances = _plain(probabilities)
    exists = np.ones(chances.shape, dtype=np.bool_) if mask is None else _plain(mask).astype(np.bool_)
    accuracy = _plain(bin_accuracy)
    _check(chances, accuracy, exists, rank_break)
    targets = _targets(np.where(exists, chances, 0.0), accuracy[:, None], exists, rank_break)
    return probabilities.new_tensor(targets) if _is_tensor(probabilities) else targets


def _targets(chances: Floats, accuracy: Floats, exists: Bools, rank_break: RankBreak) -> Floats:
    """Return the targets (N, K) of checked float64 arrays; `accuracy` is a column (N, 1)."""
    rows = np.arange(len(chances))
    top = np.argmax(chances, axis=1)
    others = exists.copy()
    others[rows, top] = False
    count = others.sum(axis=1, keepdims=True)
    second = np.where(others, chances, 0.0).max(axis=1, keepdims=True)
    rest = np.where(count > 0, 1.0 - accuracy, 0.0)
    # gamma p_(j) by way of p_(j) / p_(2), which neither overflows nor divides 0 by 0: equal runners-up stay equal
    ratio = np.divide(chances, second, out=np.ones_like(chances), where=others & (second > 0.0))
    room = np.maximum(1.0 - accuracy, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        bent = np.where(others, np.tanh(np.log(np.maximum(count, 1)) * ratio / room), 0.0)
    alpha = rest / np.maximum(bent.sum(axis=1, keepdims=True) + count, 1.0)
    targets = np.where(others, alpha * (1.0 + bent), 0.0)
    if rank_break == "uniform":
        broken = targets.max(axis=1, keepdims=True) > accuracy
        targets = np.where(others & broken, rest / np.maximum(count, 1), targets)
    targets[rows, top] = 1.0 - rest[:, 0]
    return targets


def _plain(values: Any) -> Any:
    """Return a numpy array of what may be a tensor on any device.

    Raises:
        InputError: it is ragged, or holds no numbers.
    """
    try:
        return np.asarray(values.detach().cpu().double() if _is_tensor(values) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        raise InputError(f"Expected an array of numbers, all rows of one length. Got {kind}: {error}.") from error


def _is_tensor(values: Any) -> bool:
    """Return whether `values` is a tensor of torch, which is then loaded already."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def _check(chances: Floats, accuracy: Floats, exists: Bools, rank_break: str) -> None:
    """Return nothing when the arguments of `rcft_targets` fit together.

    Raises:
        InputError: they do not.
    """
    from calibwrap.metrics._checks import checked_choice

    checked_choice("rank_break", rank_break, ("uniform", "allow"))
    if chances.ndim != 2 or exists.shape != chances.shape or accuracy.shape != (len(chances),):
        raise InputError(
            "'probabilities' and 'mask' must have shape (N, K), 'bin_accuracy' shape (N,). Got "
            f"{chances.shape}, {exists.shape}, {accuracy.shape}."
        )
    inside = np.where(exists, chances, 0.0)
    if not ((inside >= 0.0).all() and np.allclose(inside.sum(axis=1), 1.0, atol=1e-3)):
        raise InputError("'probabilities' must be at least 0, not NaN, and sum to 1 over the options of each row.")
    if not ((accuracy >= 0.0) & (accuracy <= 1.0)).all():
        raise InputError(f"'bin_accuracy' must be in [0, 1] and not NaN. Got {accuracy.tolist()[:5]}.")


def ece_regulariser(
    logprobs: Any,
    bins: BinAccuracies,
    members: Any = None,
    *,
    rank_break: RankBreak = "uniform",
    sampled: bool = False,
) -> Any:
    """Return L_ECE: the squared distance to the targets, a mean in each bin, summed; of tensors differentiable.

    With d_i the sum over the options of (p - t)^2 of question i, it is the sum over all bins, the last one included, of
    the mean of d_i over the questions of the bin. No gradient flows through the targets.

    Args:
        logprobs: (N, K) scores of the options, normalised or not; -inf where there is no option. A torch tensor gives a
            differentiable scalar, anything else a float.
        bins: what the E-step found.
        members: (N,) bin of each question, as the E-step saw it; by default the bin of its confidence now.
        rank_break: as in `rcft_targets`.
        sampled: the questions are a random part of those that `bins` counts. The value is then the unbiased estimate
            of that whole set's: (N_all / N) times the sum of d_i / N_m. Otherwise N_m is counted in the rows given.

    Raises:
        InputError: no rows, NaN, shapes that do not fit together, or a bin that does not exist.

    References:
        Xiao et al.: Restoring Calibration for Aligned Large Language Models (2025), L_ECE.

    >>> import torch
    >>> bins = BinAccuracies(np.array([0.0, 1.0]), np.array([0.6]), np.array([2]))
    >>> round(float(ece_regulariser(torch.log(torch.tensor([[0.9, 0.1], [0.6, 0.4]])), bins)), 4)
    0.09
    """
    import torch

    if not _is_tensor(logprobs):
        rows = torch.from_numpy(_plain(logprobs))
        return float(ece_regulariser(rows, bins, members, rank_break=rank_break, sampled=sampled))
    _check_scores(logprobs, bins)
    exists = logprobs.detach() > -np.inf
    chances = torch.softmax(logprobs, dim=-1, dtype=torch.promote_types(logprobs.dtype, torch.float32))
    own = bins.index(_plain(chances).max(axis=1)) if members is None else _members(members, len(chances), bins)
    targets = rcft_targets(chances, bins.accuracy[own], rank_break=rank_break, mask=exists)
    distance = ((chances - targets) ** 2).sum(dim=-1)
    counted = bins.rows if sampled else np.bincount(own, minlength=len(bins.rows))
    scale = bins.rows.sum() / len(own) if sampled else 1.0
    return (distance * distance.new_tensor(scale / counted[own])).sum()


def _check_scores(logprobs: Any, bins: Any) -> None:
    """Return nothing when there are rows of options, each with one that has a score, and bins.

    Raises:
        InputError: there are not.
    """
    if not isinstance(bins, BinAccuracies):
        raise InputError(f"'bins' must be a BinAccuracies, as bin_accuracies gives it. Got {type(bins).__name__}.")
    if logprobs.ndim != 2 or 0 in logprobs.shape:
        raise InputError(f"'logprobs' must have shape (N, K), neither of them 0. Got {tuple(logprobs.shape)}.")
    best = logprobs.detach().amax(dim=1)
    if not bool(best.isfinite().all()):
        raise InputError("'logprobs' must be no NaN and not +inf, and every row must have an option that is not -inf.")


def _members(members: Any, count: int, bins: BinAccuracies) -> Ints:
    """Return the bin (N,) of each question.

    Raises:
        InputError: they are not as many, or no bins.
    """
    own = _plain(members)
    if own.shape != (count,):
        raise InputError(f"'members' must be the bins of {count} questions. Got shape {own.shape}.")
    if not np.isin(own, np.arange(len(bins.rows))).all():
        raise InputError(f"'members' must be bins from 0 to {len(bins.rows) - 1}. Got {own.tolist()[:5]}.")
    return np.asarray(own, dtype=np.int64)
