"""Rewards for a stated confidence: proper scoring rules of a whole number from 0 to 10, framework-free.

Each takes what a model stated and whether its answer was right. A statement that cannot be read is malformed: it costs
more than the worst that can be read, and is never left out.
"""

import sys
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.freetext.stated import SCALE
from calibwrap.scores import Bools, Floats

Preset = Literal["paper", "official"]

MALFORMED = -3.0
"""What a malformed statement costs, in units of `scale`."""
BONUS = 0.25
"""What the official code adds for a right answer, before scaling; the paper's text does not have it."""
_SCALES = {"paper": 1.0, "official": 10.0}


@overload
def log_score_reward(
    confidence: float | None,
    correct: bool,
    *,
    preset: Preset = "paper",
    scale: float | None = None,
    epsilon: float = 1e-3,
) -> float: ...
@overload
def log_score_reward(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    preset: Preset = "paper",
    scale: float | None = None,
    epsilon: float = 1e-3,
) -> Floats: ...


def log_score_reward(
    confidence: ArrayLike | None,
    correct: ArrayLike,
    *,
    preset: Preset = "paper",
    scale: float | None = None,
    epsilon: float = 1e-3,
) -> float | Floats:
    r"""Return the logarithmic score of a stated confidence, as a number for one statement and an array for many.

    With p = clip(confidence / 10, ε, 1 - ε) the score is log p for a right answer and log(1 - p) for a wrong one. It is
    proper: the expected reward is largest at the level nearest, in this score, to the probability of being right.

    - "paper": mapped so that it runs from -1 (log ε) to +1 (log(1 - ε)), times `scale`, 1 by default.
    - "official", the published code: (score - log(ε) / 2) / (log(1 - ε) - log(ε) / 2), plus 0.25 for a right answer,
      times `scale`, 10 by default. Neither the bonus nor the map moves the best level.

    A statement that is None, no whole number, or outside 0 to 10 is malformed: -3 `scale`, below the worst that can be
    read. NaN is no statement but a sign of a mistake before, and is refused.

    Do not train the answer with it. What a model can reach at best, at scale 10 ("official"), against its probability
    of being right, is not increasing: it pays to answer wrongly on purpose and to say 0.

    ======  ====  ====  ====  ====  ====  =====  ====
    p       0     0.1   0.3   0.5   0.7   0.9    1
    reward  10.0  9.31  8.98  9.25  9.98  11.31  12.5
    ======  ====  ====  ====  ====  ====  =====  ====

    `brier_reward` has no such hole.

    Args:
        confidence: whole numbers from 0 to 10, any shape; None for a statement not understood.
        correct: whether the answer was right, True or False (1 or 0), of the same shape. Either may be one value for
            all; nothing else is broadcast.
        preset: "paper" or "official".
        scale: factor of the reward; None for the preset's own.
        epsilon: ε, in (0, 0.1]: 0 and 10 mean ε and 1 - ε.

    Raises:
        InputError: shapes that differ, NaN, a number that no float can hold, `correct` neither right nor wrong, or
            another argument out of range.

    References:
        Stangel, Bani-Harouni et al.: Rewarding doubt (2025).

    >>> log_score_reward(10, True), round(log_score_reward(9, False), 4), log_score_reward(None, True)
    (1.0, 0.3335, -3.0)
    >>> log_score_reward([0, 7, 11], [True, True, False], preset="official").round(3).tolist()
    [-7.503, 11.47, -30.0]
    """
    if preset not in _SCALES:
        raise InputError(f"'preset' must be 'paper' or 'official'. Got {preset!r}.")
    if not 0.0 < epsilon <= 0.1:
        raise InputError(f"'epsilon' must lie in (0, 0.1], below the first level. Got {epsilon!r}.")
    factor = _checked_scale(_SCALES[preset] if scale is None else scale)
    stated, right, malformed = _checked(confidence, correct)
    p = np.clip(stated / SCALE, epsilon, 1.0 - epsilon)
    score, best = np.where(right, np.log(p), np.log1p(-p)), np.log1p(-epsilon)
    if preset == "paper":
        reward = 2.0 * (score - np.log(epsilon)) / (best - np.log(epsilon)) - 1.0
    else:
        middle = np.log(epsilon) / 2.0
        reward = (score - middle) / (best - middle) + BONUS * right
    return _shaped(factor * np.where(malformed, MALFORMED, reward))


@overload
def brier_reward(confidence: float | None, correct: bool, *, scale: float = 1.0) -> float: ...
@overload
def brier_reward(confidence: ArrayLike, correct: ArrayLike, *, scale: float = 1.0) -> Floats: ...


def brier_reward(confidence: ArrayLike | None, correct: ArrayLike, *, scale: float = 1.0) -> float | Floats:
    """Return `correct` minus the squared error of the stated confidence, as a number or an array.

    With q = confidence / 10 the reward is a - (q - a)², a being 1 for a right answer and 0 for a wrong one: bounded and
    proper, with the expected value p² at the best q = p. That grows with p, so answers may be trained with it too: none
    gains by being wrong on purpose. A malformed statement, as in `log_score_reward`, gives -3 `scale`.

    Raises:
        InputError: shapes that differ, NaN, a number that no float can hold, `correct` neither right nor wrong, or
            `scale` not positive.

    References:
        Damani et al.: Beyond binary rewards, RLCR (2025).

    >>> [round(brier_reward(level, right), 2) for level, right in ((10, True), (5, True), (0, False), (10, False))]
    [1.0, 0.75, 0.0, -1.0]
    """
    factor = _checked_scale(scale)
    stated, right, malformed = _checked(confidence, correct)
    reward = right - (stated / SCALE - right) ** 2
    return _shaped(factor * np.where(malformed, MALFORMED, reward))


def reward_table(reward: Literal["log", "brier"] = "log", preset: Preset = "paper") -> Floats:
    """Return (12, 2) rewards: rows 0 to 10 are the levels, row 11 is malformed; column 1 is a right answer, 0 a wrong.

    >>> reward_table("brier")[[0, 5, 10, 11]].tolist()
    [[0.0, 0.0], [-0.25, 0.75], [-1.0, 1.0], [-3.0, -3.0]]
    """
    levels, right = [[level, level] for level in (*range(SCALE + 1), None)], [[False, True]] * (SCALE + 2)
    if reward == "brier":
        return np.asarray(brier_reward(levels, right))
    if reward == "log":
        return np.asarray(log_score_reward(levels, right, preset=preset))
    raise InputError(f"'reward' must be 'log' or 'brier'. Got {reward!r}.")


def _checked(confidence: ArrayLike | None, correct: ArrayLike) -> tuple[Floats, Bools, Bools]:
    """Return levels (0 where malformed), which answers are right, and which statements are malformed."""
    try:
        stated = np.asarray(confidence, dtype=np.float64)  # None becomes NaN
        right = np.asarray(correct, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"'confidence' must hold numbers or None, and 'correct' truth values: {error}.") from error
    given = np.asarray(confidence, dtype=object)
    if any(one is not None for one in given[np.isnan(stated)].flat):
        raise InputError("'confidence' holds NaN: give None for a statement that cannot be read.")
    if stated.ndim and right.ndim and stated.shape != right.shape:
        raise InputError(
            f"'confidence' and 'correct' must have one shape, or one of them be a single value. Got {stated.shape} and "
            f"{right.shape}."
        )
    stated, right = np.broadcast_arrays(stated, right)
    if not np.isin(right, (0.0, 1.0)).all():
        raise InputError(f"'correct' must be True or False, 1 or 0. Got {correct!r}.")
    sound = (stated >= 0.0) & (stated <= SCALE) & (stated == np.floor(stated))
    return np.where(sound, stated, 0.0), right == 1.0, ~sound


def _checked_scale(scale: float) -> float:
    if not 0.0 < scale <= sys.float_info.max:
        raise InputError(f"'scale' must be positive and finite. Got {scale!r}.")
    return scale


def _shaped(reward: Floats) -> float | Floats:
    return float(reward) if np.ndim(reward) == 0 else reward
