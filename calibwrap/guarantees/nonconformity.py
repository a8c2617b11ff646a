"""How badly each option fits a question: the scores that conformal sets are cut by, with bounds where lists were cut.

An option's score is a function of the model's answer and of that option only, never of the order of the options: equal
probabilities have equal scores. Where a backend cut its list off, the score lies in an interval.
"""

from typing import Literal, get_args

import numpy as np

from calibwrap.errors import InputError
from calibwrap.metrics._checks import checked_choice, checked_count
from calibwrap.real_numbers import real_number
from calibwrap.scores import Floats, Ints, OptionScores

SetMethod = Literal["lac", "aps", "raps"]
"""Names of the scores."""
_BLOCK = 4_000_000
"""Most pairs of options that are compared at once: 32 MB of float64."""


def nonconformity(
    scores: OptionScores, method: SetMethod = "lac", *, penalty: float = 0.01, free_ranks: int = 2
) -> tuple[Floats, Floats]:
    """Return the least and the most that each option's score can be, both (N, K); infinite where there is no option.

    Args:
        scores: N questions; both bounds are the same where nothing was cut off.
        method: "lac": 1 - p. "aps": the probability of all options at least as probable, its own included. "raps": as
            "aps", and `penalty` more for each rank below `free_ranks`.
        penalty: of "raps", at least 0.
        free_ranks: of "raps", how many options go free, at least 0.

    Ties count as if the option came last among its equals, and nothing is drawn at random: APS is the deterministic
    one, a little more cautious than the randomised form, and the same question always has the same scores.

    Raises:
        InputError: an unknown method, or a negative penalty or rank.

    References:
        LAC: Sadinle, Lei, Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", 2019.
        APS: Romano, Sesia, Candès, "Classification with valid and adaptive coverage", 2020.
        RAPS: Angelopoulos, Bates, Malik, Jordan, "Uncertainty sets for image classifiers using conformal
        prediction", 2021.

    >>> s = OptionScores(np.log([[0.5, 0.3, 0.2]]), readout="label")
    >>> nonconformity(s, "lac")[0].round(6).tolist(), nonconformity(s, "aps")[0].round(6).tolist()
    ([[0.5, 0.7, 0.8]], [[0.5, 0.8, 1.0]])
    """
    check_method(method, penalty, free_ranks)
    penalty = float(penalty)
    lower, upper = np.where(scores.mask, scores.lower, 0.0), np.where(scores.mask, scores.upper, 0.0)
    if method == "lac":
        least, most = 1.0 - upper, 1.0 - lower
    else:
        (least, best_rank), (most, worst_rank) = _ahead(lower, upper, lower), _ahead(upper, lower, upper)
        if method == "raps":
            least = least + penalty * np.maximum(best_rank - free_ranks, 0)
            most = most + penalty * np.maximum(worst_rank - free_ranks, 0)
    return np.where(scores.mask, least, np.inf), np.where(scores.mask, most, np.inf)


def check_method(method: str, penalty: float, free_ranks: int) -> None:
    """Return nothing when the three settings are sound.

    Raises:
        InputError: they are not.
    """
    checked_choice("method", method, get_args(SetMethod))
    if not 0.0 <= real_number(penalty) < np.inf:
        raise InputError(f"'penalty' must be a finite number of at least 0. Got {penalty!r}.")
    checked_count("free_ranks", free_ranks, least=0)


def _ahead(rivals: Floats, own: Floats, mass: Floats) -> tuple[Floats, Ints]:
    """Return, for each option, the mass of the options ahead of it and their number, both (N, K), itself included.

    Option j is ahead of i when `rivals[j] >= own[i]`. With lower bounds as rivals and upper ones as `own` this holds
    for certain; the other way round it may hold.
    """
    n, k = mass.shape
    total, rank = np.empty((n, k)), np.empty((n, k), dtype=np.int64)
    step = max(1, _BLOCK // (k * k))
    for start in range(0, n, step):
        part = slice(start, start + step)
        is_ahead = (rivals[part, None, :] >= own[part, :, None]) | np.eye(k, dtype=np.bool_)
        is_ahead &= (mass[part, None, :] > 0.0) | np.eye(k, dtype=np.bool_)
        total[part] = np.where(is_ahead, mass[part, None, :], 0.0).sum(axis=2)
        rank[part] = is_ahead.sum(axis=2)
    return np.minimum(total, 1.0), rank
