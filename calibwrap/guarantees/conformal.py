"""Sets of options that hold the right one with a promised chance, by split conformal prediction."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.guarantees.nonconformity import SetMethod, check_method, nonconformity
from calibwrap.metrics._checks import checked_answers, checked_count
from calibwrap.real_numbers import array_of, real_number
from calibwrap.scores import Bools, Ints, OptionScores


@dataclass(frozen=True)
class AnswerSet:
    """Options of one question, the most probable first, that hold the right one with the promised chance."""

    options: tuple[str, ...]
    """The options' texts; at least one."""
    probabilities: Mapping[str, float]
    """Calibrated probability of every option of the question, those outside the set included."""
    coverage: float
    """The share of questions, over many, whose set holds the right option: at least this."""


@dataclass(frozen=True)
class ConformalSets:
    """Cuts the options of new questions off where enough of the right ones are in.

    Over questions that are exchangeable with the `rows` it was fitted on, the set holds the right option with a chance
    of at least `coverage`. That is an average over questions and over fits; it is not promised for each subject, each
    confidence or each question.

    Raises:
        InputError: a field is out of range.

    >>> sets = ConformalSets("lac", coverage=0.8, threshold=0.75, rows=9)
    >>> sets(OptionScores(np.log([[0.6, 0.3, 0.1], [0.9, 0.06, 0.04]]), readout="label")).tolist()
    [[True, True, False], [True, False, False]]
    """

    kind: ClassVar[str] = "sets"
    method: SetMethod
    """Nonconformity score: "lac", "aps" or "raps"."""
    coverage: float
    """Promised share of questions whose set holds the right option, strictly between 0 and 1."""
    threshold: float | None
    """Largest score that is let in; None lets every option in, since the rows were too few for the coverage."""
    rows: int
    """Questions it was fitted on."""
    penalty: float = 0.01
    """Of "raps": what each rank below `free_ranks` adds to the score."""
    free_ranks: int = 2
    """Of "raps": how many options go free."""

    def __post_init__(self) -> None:
        """Check the fields."""
        check_method(self.method, self.penalty, self.free_ranks)
        check_open_share("coverage", self.coverage)
        check_threshold(self.threshold)
        object.__setattr__(self, "rows", checked_count("rows", self.rows))

    def __call__(self, scores: OptionScores | ArrayLike) -> Bools:
        """Return which options of N questions are in their set, (N, K); the first choice always is.

        Scores are calibrated ones, as `fit_sets` takes them. Where a backend cut its list off, an option is in if it
        might be: the set holds the one that exact scores would give.
        """
        known = _known(scores)
        least, _ = nonconformity(known, self.method, penalty=self.penalty, free_ranks=self.free_ranks)
        inside = known.mask & (least <= (math.inf if self.threshold is None else self.threshold))
        inside[np.arange(len(known)), known.choice] = True
        return np.asarray(inside)


def fit_sets(
    scores: OptionScores | ArrayLike,
    answers: ArrayLike,
    *,
    coverage: float = 0.9,
    method: SetMethod = "lac",
    penalty: float = 0.01,
    free_ranks: int = 2,
) -> ConformalSets:
    """Return the cut at the ceil((n + 1) coverage)-th smallest score of the right options of n questions.

    Args:
        scores: N questions with calibrated scores: `OptionScores`, or (N, K) log-probabilities or logits with -inf
            where there is no option. The questions must be others than those that the calibrator was fitted on.
        answers: (N,) index of each right option.
        coverage: promised share of sets that hold the right option.
        method: "lac" gives the smallest sets on average, "aps" sets that grow with doubt, "raps" the same without
            long tails of improbable options.
        penalty: of "raps".
        free_ranks: of "raps".

    With fewer than coverage / (1 - coverage) rows only the set of all options keeps the promise; that is what comes,
    with a `CalibrationWarning`. On truncated rows each right option counts with the most that its score can be.

    Raises:
        InputError: malformed scores, answers or settings.

    References:
        Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005. Lei, G'Sell, Rinaldo, Tibshirani,
        Wasserman, "Distribution-free predictive inference for regression", 2018 (the quantile).

    >>> rows = np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])  # scores of the right: .1 .2 .3 .6
    >>> fit_sets(rows, [0, 0, 0, 1], coverage=0.6).threshold.__round__(6)  # the 3rd smallest: ceil(5 * 0.6) = 3
    0.3
    """
    known = _known(scores)
    check_open_share("coverage", coverage)
    right = right_options(known, answers)
    _, most = nonconformity(known, method, penalty=penalty, free_ranks=free_ranks)
    threshold = conformal_quantile(most[np.arange(len(right)), right], coverage)
    if threshold == math.inf:
        warnings.warn(
            f"{len(right)} rows are too few for a coverage of {coverage:g}: every set holds all options. Bring at "
            f"least {math.ceil(coverage / (1.0 - coverage) - 1e-9)} rows, or promise less.",
            CalibrationWarning,
            stacklevel=2,
        )
    found = None if threshold == math.inf else threshold
    return ConformalSets(method, float(coverage), found, len(right), float(penalty), int(free_ranks))


def _known(scores: OptionScores | ArrayLike) -> OptionScores:
    """Return scores, made of (N, K) log-probabilities or logits where they are none yet."""
    return scores if isinstance(scores, OptionScores) else OptionScores(scores, readout="")  # type: ignore[arg-type]  # an array is made of it


def conformal_quantile(values: ArrayLike, coverage: float) -> float:
    """Return the ceil((n + 1) coverage)-th smallest of n values, infinite where there are not that many.

    A new value, exchangeable with these, is at most that with a chance of at least `coverage`; without ties of less
    than `coverage` + 1 / (n + 1).

    Raises:
        InputError: no values, NaN, or a coverage outside (0, 1).

    >>> conformal_quantile([0.4, 0.1, 0.3, 0.2], 0.8), conformal_quantile([0.4, 0.1, 0.3, 0.2], 0.9)
    (0.4, inf)
    """
    check_open_share("coverage", coverage)
    array = array_of("'values'", values, np.float64)
    if array.ndim != 1 or not len(array) or np.isnan(array).any():
        raise InputError(f"'values' must be at least one number and none NaN, shape (n,). Got shape {array.shape}.")
    rank = max(math.ceil((len(array) + 1) * coverage - 1e-9), 1)  # 10 * 0.9 must not be a hair above 9
    return math.inf if rank > len(array) else float(np.sort(array)[rank - 1])


def right_options(scores: OptionScores, answers: ArrayLike) -> Ints:
    """Return `answers` as indices (N,) of options that exist.

    Raises:
        InputError: another number of them, not whole numbers, or an option that does not exist.

    >>> right_options(OptionScores(np.log([[0.8, 0.2]]), readout="label"), [1]).tolist()
    [1]
    """
    n, k = scores.mask.shape
    array = checked_answers(answers, (n, k))
    exists = scores.mask[np.arange(n), array]
    if not exists.all():
        row = int(np.argmin(exists))
        raise InputError(f"'answers' must name options that exist. Row {row} names option {array[row]}.")
    return array


def check_open_share(name: str, value: float) -> None:
    """Return nothing when `value` is a number strictly between 0 and 1.

    Raises:
        InputError: it is not.
    """
    if not 0.0 < real_number(value) < 1.0:
        raise InputError(f"'{name}' must lie strictly between 0 and 1, such as 0.1. Got {value!r}.")


def check_threshold(value: float | None) -> None:
    """Return nothing when `value` is a finite number, or None.

    Raises:
        InputError: it is not.
    """
    if value is not None and not math.isfinite(real_number(value)):
        raise InputError(f"'threshold' must be a finite number or None. Got {value!r}.")
