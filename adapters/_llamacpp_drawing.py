"""One token out of a row of raw logits: calibrated or not, from the whole softmax, in a few cheap passes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calibwrap.adapters._llamacpp_steering import calibrated_logits
from calibwrap.base import Calibrator, Sampling
from calibwrap.scores import Floats

Logits = NDArray[np.float32]
"""(V,) raw logits of one position."""

_BLOCK = 256
"""Tokens whose weights are added up together, so that only one block's running sum is worked out."""


def drawer(sampling: Sampling, steer: Calibrator | None, index: int) -> Callable[[Logits], int]:
    """Return a function that draws the next token from raw logits (V,), for completion number `index`.

    It inverts the cumulative distribution of softmax(calibrated log-probabilities / temperature), nothing cut off;
    temperature 0 takes the most probable token.
    """
    random = np.random.default_rng(None if sampling.seed is None else [sampling.seed, index])

    def draw(row: Logits) -> int:
        logits = row if steer is None else calibrated_logits(steer, row)
        if sampling.temperature == 0.0:
            return int(np.argmax(logits))
        return picked(weights_of(logits, sampling.temperature), random.random())

    return draw


def weights_of(logits: Logits | Floats, temperature: float) -> NDArray[np.float32]:
    """Return (V,) numbers in the ratios of softmax(logits / temperature), the largest 1.

    >>> weights_of(np.array([0.0, -np.inf, np.log(4.0)]), temperature=2.0).tolist()
    [0.5, 0.0, 1.0]
    """
    below = logits - logits.max()
    if temperature != 1.0:
        with np.errstate(over="ignore"):  # beyond the range is -inf, which is probability 0
            below = below.astype(np.float64) / temperature
    with np.errstate(over="ignore"):
        weights: NDArray[np.float32] = below.astype(np.float32, copy=False)
    return np.exp(weights, out=weights)


def picked(weights: NDArray[np.float32], point: float) -> int:
    """Return the index at which the running sum of `weights` passes `point` (0 <= point < 1) of the whole sum.

    >>> picked(np.array([1, 0, 3], dtype=np.float32), 0.25)
    2
    """
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)), dtype=np.float64)
    target = point * sums[-1]
    block = int(np.searchsorted(sums, target, side="right"))
    part = weights[block * _BLOCK : (block + 1) * _BLOCK]
    before = sums[block - 1] if block else 0.0
    place = int(np.searchsorted(np.cumsum(part, dtype=np.float64), target - before, side="right"))
    return block * _BLOCK + min(place, int(np.flatnonzero(part)[-1]))  # rounding may leave the block's last step open
