r"""CATTO's calibration loss, as pure functions: on logits, and on the two probabilities that it really depends on.

At a position with logits z over V tokens and target token y, let p = softmax(z), w the most probable token other than
y, and (Parikh, Sai, Shivaswamy, Panchal, Lan, CATTO: Balancing Preferences and Confidence in Language Models, 2026)

    confidence     c = max_v p_v            = max(p_y, p_w)
    margin         m = p_y - p_w            in [-1, 1]
    correctness    s = sigmoid(kappa * m)   a soft label, kappa = 1 in the paper
    token's loss   |c - s|

So a token's loss and its gradient are known from p_y, p_w and which token w is; nothing else of the vocabulary enters.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.errors import InputError
from calibwrap.scores import Ints

Loss = Literal["l1", "l2", "bce"]
Target = Literal["surrogate", "hard"]

CHUNK = 1 << 22
"""Numbers of the vocabulary's width that are worked on at a time, so that memory does not grow with the batch."""
_EDGE = 1e-6
"""How near to 0 and 1 a confidence counts in "bce", whose logarithm has no value there."""
_STEEPEST = 60.0
"""Largest kappa * m that is told from infinity; exp of it is still a 32-bit number."""

Terms = tuple[Any, Any, Any]
"""Losses, and their derivatives by two of the numbers that they are made of."""


def _l1(xp: Any, c: Any, s: Any) -> Terms:
    sign = xp.sign(c - s)
    return xp.abs(c - s), sign, -sign


def _l2(xp: Any, c: Any, s: Any) -> Terms:
    return (c - s) ** 2, 2.0 * (c - s), 2.0 * (s - c)


def _bce(xp: Any, c: Any, s: Any) -> Terms:
    c = xp.clip(c, _EDGE, 1.0 - _EDGE)
    yes, no = xp.log(c), xp.log(1.0 - c)
    return -(s * yes + (1.0 - s) * no), (c - s) / (c * (1.0 - c)), no - yes


_LOSSES: dict[str, Callable[[Any, Any, Any], Terms]] = {"l1": _l1, "l2": _l2, "bce": _bce}
"""Each returns the losses of (confidence, correctness), and the derivatives by both."""


@dataclass(frozen=True)
class TokenLoss:
    """The loss of one token as a function of two probabilities; NumPy arrays and torch tensors alike.

    Raises:
        InputError: an unknown loss or target, or a margin scale that is not positive.

    >>> value, by_target, by_other = TokenLoss()(np.array([0.0]), np.array([1.0]))  # sure, and wrong
    >>> value.round(4).tolist()
    [0.7311]
    """

    loss: Loss = "l1"
    """Distance between confidence and correctness; the paper's is "l1"."""
    margin_scale: float = 1.0
    """Kappa, the slope of the surrogate; the paper has none, so 1."""
    target: Target = "surrogate"
    """Correctness: sigmoid of the margin, or "hard": 1 where the target is the most probable token (ties count)."""
    detach_target: bool = False
    """Whether the correctness is held constant in the gradient."""
    invert: bool = False
    """Whether 1 - s stands in place of s."""

    def __post_init__(self) -> None:
        """Check the fields once."""
        for name, value, known in (("loss", self.loss, get_args(Loss)), ("target", self.target, get_args(Target))):
            if value not in known:
                raise InputError(f"{name!r} must be one of {', '.join(map(repr, known))}. Got {value!r}.")
        if not isinstance(self.margin_scale, (int, float)) or not 0.0 < self.margin_scale < float("inf"):
            raise InputError(f"'margin_scale' must be finite and above 0. Got {self.margin_scale!r}.")

    def __call__(self, p_target: Any, p_other: Any) -> Terms:
        """Return losses (n,) and their derivatives by `p_target` and by `p_other`, each (n,).

        `p_other` is the probability of the best token that is not the target. Derivatives are returned, so give
        tensors that need no gradient of their own.
        """
        xp = namespace(p_target)
        right = p_target >= p_other
        confidence = xp.maximum(p_target, p_other)
        correctness, slope = self._correctness(xp, p_target - p_other, right)
        value, by_confidence, by_correctness = _LOSSES[self.loss](xp, confidence, correctness)
        through_margin = by_correctness * slope
        zero = 0.0 * confidence
        by_target = xp.where(right, by_confidence, zero) + through_margin
        by_other = xp.where(right, zero, by_confidence) - through_margin
        return value, by_target, by_other

    def _correctness(self, xp: Any, margin: Any, right: Any) -> tuple[Any, Any]:
        """Return the soft label and its derivative by the margin."""
        zero = 0.0 * margin
        if self.target == "hard":
            label, slope = xp.where(right, zero + 1.0, zero), zero
        else:
            label = 1.0 / (1.0 + xp.exp(-xp.clip(self.margin_scale * margin, -_STEEPEST, _STEEPEST)))
            slope = self.margin_scale * label * (1.0 - label)
        if self.invert:
            label, slope = 1.0 - label, -slope
        return label, zero if self.detach_target else slope


def namespace(array: Any) -> Any:
    """Return the library that `array` belongs to, NumPy or torch, without importing what nobody uses.

    >>> namespace(np.zeros(1)).__name__
    'numpy'
    """
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else np


def catto_loss(
    logits: Any,
    targets: Any,
    mask: Any,
    *,
    loss: Loss = "l1",
    margin_scale: float = 1.0,
    target: Target = "surrogate",
    detach_target: bool = False,
    invert: bool = False,
) -> Any:
    """Return CATTO's calibration loss: the mean over each sequence's response tokens, then the mean over sequences.

    So a long answer counts as much as a short one, as in the sequence terms of the paper's objective; CATTO's whole
    loss is the preference loss plus lambda times the sum of this loss of the preferred and of the dispreferred
    sequences. Not pinned by the paper, and so an option: the slope `margin_scale`, whether gradient flows through the
    target (`detach_target`), and whether a dispreferred sequence has the target 1 - s (`invert`).

    The loss is at most sigmoid(1) = 0.7311 with "l1" and kappa = 1, and is 0 only where c = s: even a certain and right
    token is drawn down to 0.731. A large weight therefore makes a model under-confident.

    Args:
        logits: (B, T, V); `logits[b, t]` predict `targets[b, t]`, so they are already shifted. NumPy or torch.
        targets: (B, T) token ids; where the mask is 0 they may be anything, such as -100.
        mask: (B, T), true at the response tokens. Whatever the logits elsewhere, even NaN, they have no influence.
        loss: "l1" (the paper), "l2", or "bce".
        margin_scale: kappa; with kappa = 1 no entry of a token's "l1" gradient exceeds 3/8, else 1/4 + kappa / 8.
        target: "surrogate" or "hard", as `TokenLoss` says.
        detach_target: hold s constant in the gradient; the bound above is then 1/4.
        invert: take 1 - s.

    Returns:
        a float for NumPy arrays, a differentiable scalar for torch tensors; softmax in 32 bits, or 64 for float64.

    Raises:
        InputError: shapes that do not fit, targets that are no integers or outside the vocabulary, a mask of other
            values than 0 and 1, or a sequence without response tokens.

    >>> from math import log
    >>> sure_and_wrong, sure_and_right = [[[9.0, 0.0]]], [[[0.0, 9.0]]]
    >>> [round(catto_loss(z, [[1]], [[1]]), 2) for z in (sure_and_wrong, sure_and_right)]
    [0.73, 0.27]
    >>> round(catto_loss([[[0.0, 0.0]]], [[1]], [[1]]), 2)  # a tie of two: confidence 0.5, margin 0
    0.0
    """
    terms = TokenLoss(loss, margin_scale, target, detach_target, invert)
    if namespace(logits) is not np:
        from calibwrap.training.catto_autograd import torch_catto_loss

        return torch_catto_loss(logits, targets, mask, terms)
    return _computed(logits, targets, mask, terms, gradient=False)[0]


def catto_loss_and_gradient(
    logits: ArrayLike,
    targets: ArrayLike,
    mask: ArrayLike,
    *,
    loss: Loss = "l1",
    margin_scale: float = 1.0,
    target: Target = "surrogate",
    detach_target: bool = False,
    invert: bool = False,
) -> tuple[float, NDArray[Any]]:
    """Return `catto_loss` and its gradient by the logits, (B, T, V), both in closed form and without torch.

    At a position, with a and b the loss's derivatives by p_y and p_w, the gradient by z_j is
    a p_y (1[j = y] - p_j) + b p_w (1[j = w] - p_j). At c = s and at ties it is one of the subgradients.

    Raises:
        InputError: as `catto_loss`.

    >>> value, gradient = catto_loss_and_gradient([[[2.0, 0.0]]], [[1]], [[1]])  # leans to the wrong token
    >>> round(value, 3), gradient.round(3).tolist()  # down with token 0, up with token 1
    (0.562, [[[0.151, -0.151]]])
    """
    terms = TokenLoss(loss, margin_scale, target, detach_target, invert)
    value, slope = _computed(logits, targets, mask, terms, gradient=True)
    return value, slope


def _computed(
    logits: ArrayLike, targets: ArrayLike, mask: ArrayLike, terms: TokenLoss, *, gradient: bool
) -> tuple[float, NDArray[Any]]:
    z, ids, shown = (_array(*named) for named in (("logits", logits), ("targets", targets), ("mask", mask)))
    z = z if z.dtype == np.float64 or z.dtype == np.float32 else z.astype(np.float64 if z.dtype == int else np.float32)
    check_shapes(z.shape, ids.shape, shown.shape)
    keep = shown == 1
    check_kinds(ids.dtype, is_whole=ids.dtype.kind in "iu", is_mask=bool((keep | (shown == 0)).all()))
    sequences, positions = np.nonzero(keep)
    chosen = ids[sequences, positions].astype(np.int64)
    counts = keep.sum(axis=1)
    check_tokens(counts.tolist(), chosen.min(initial=0), chosen.max(initial=0), z.shape[2])
    shares = (1.0 / (counts * len(keep)))[sequences]
    total, slope = 0.0, np.zeros_like(z) if gradient else z[:0]
    for part in chunks(len(chosen), z.shape[2]):
        at = (sequences[part], positions[part])
        value, by_logits = _rows(z[at], chosen[part], terms, gradient=gradient)
        total += float(shares[part] @ value)
        if gradient:
            slope[at] = shares[part, None] * by_logits
    return total, slope


def _array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return an array of real numbers or truth values.

    Raises:
        InputError: it is ragged, or holds something else.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"'{name}' must be an array, all rows of one length: {error}.") from error
    if array.dtype.kind in "OUScmM":
        raise InputError(f"'{name}' must hold real numbers. Got {array.dtype}.")
    return array


def _rows(z: NDArray[Any], targets: Ints, terms: TokenLoss, *, gradient: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the losses (n,) of rows of logits (n, V) and, if wanted, their gradients (n, V)."""
    rows = np.arange(len(z))
    others = z.copy()
    others[rows, targets] = -np.inf
    other = others.argmax(axis=1)
    with np.errstate(invalid="ignore"):  # a NaN or an infinite logit makes the loss NaN, as torch has it
        shifted = np.exp(z - z.max(axis=1, keepdims=True))
    p = shifted / shifted.sum(axis=1, keepdims=True)
    value, by_target, by_other = terms(p[rows, targets], p[rows, other])
    if not gradient:
        return value, p
    a, b = by_target * p[rows, targets], by_other * p[rows, other]
    slope = -(a + b)[:, None] * p
    slope[rows, targets] += a
    slope[rows, other] += b
    return value, slope


def chunks(count: int, width: int) -> Iterator[slice]:
    """Yield slices over `count` rows of `width` numbers, each of about `CHUNK` numbers, at least one row.

    >>> list(chunks(3, CHUNK // 2))
    [slice(0, 2, None), slice(2, 4, None)]
    """
    size = max(1, CHUNK // width)
    for start in range(0, count, size):
        yield slice(start, start + size)


def check_shapes(logits: tuple[int, ...], targets: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Return nothing when the shapes are (B, T, V), (B, T) and (B, T), with V at least 2.

    Raises:
        InputError: they are not.
    """
    if len(logits) != 3 or logits[:2] != targets or targets != mask or logits[2] < 2 or 0 in logits:
        raise InputError(
            "Expected 'logits' (B, T, V) with V at least 2, 'targets' (B, T) and 'mask' (B, T), none of them empty. "
            f"Got {tuple(logits)}, {tuple(targets)} and {tuple(mask)}."
        )


def check_kinds(targets: object, *, is_whole: bool, is_mask: bool) -> None:
    """Return nothing when targets are integers and the mask holds 0 and 1 alone.

    Raises:
        InputError: they are not; `targets` is the type that is told.
    """
    if not is_whole:
        raise InputError(f"'targets' must be integers, the ids of tokens. Got {targets}.")
    if not is_mask:
        raise InputError("'mask' must hold true and false, or 1 and 0, alone. It holds something else.")


def check_tokens(counts: list[int], least: int, most: int, vocabulary: int) -> None:
    """Return nothing when every sequence has a response token and the targets of all are tokens.

    Raises:
        InputError: a sequence of zero `counts`, whose mean is not defined, or a target outside the vocabulary.
    """
    if 0 in counts:
        raise InputError(
            f"Sequence {counts.index(0)} of the batch has no response token (its mask is all zero), so its mean loss "
            "is not defined: leave it out of the batch."
        )
    if least < 0 or most >= vocabulary:
        raise InputError(
            f"'targets' must be token ids from 0 to {vocabulary - 1} where the mask is 1. Got {least} to {most}."
        )
