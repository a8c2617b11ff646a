"""A temperature for each group of questions, drawn towards the one of all: for many groups of few rows each.

The between-group variance is one of those by moments in DerSimonian, Kacker, "Random-effects model for meta-analysis of
clinical trials: an update", 2007; drawing estimates towards their common mean by it is empirical Bayes: Efron, Morris,
"Data analysis using Stein's estimator and its generalizations", 1975.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._inputs import checked_answers, checked_bounds, fit_rows, labelled_rows, today
from calibwrap.calibrators._newton import ABSENT, gaps_of, solve
from calibwrap.calibrators._shrinkage import Group, between_groups, posterior_mode, split
from calibwrap.calibrators._truncated import tempered_bounds
from calibwrap.calibrators.temperature import Temperature, settle
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.provenance import FitReport
from calibwrap.questions import Question, check_questions
from calibwrap.scores import Floats, OptionScores, TokenScores, checked_logits, log_softmax

_UNNAMED = (
    "No groups were named, so that all rows get the temperature {value:.4g} of all {count} groups together: call "
    "calibrator(scores, groups=[...]), or answer the questions of one group by lm.with_calibrator(calibrator.of(NAME))."
)


@dataclass(frozen=True)
class GroupTemperature(Calibrator):
    """Divides log-probabilities by the temperature of their group, by `value` where the group is not known.

    Scores do not say which group their questions are of, so the call does: `calibrator(scores, groups=[...])`. Without
    `groups` every row counts as one of no known group, with a warning; a model that answers questions names none.
    `of(group)` is the plain `Temperature` of one group, for a model
    that answers questions of that group alone.

    Raises:
        InputError: a temperature is not a finite number above 0, or `groups` are not different texts, one a value.

    >>> by_subject = GroupTemperature(value=1.0, groups=("law", "maths"), values=(2.0, 0.5))
    >>> rows = np.log([[0.8, 0.2]] * 3)
    >>> np.exp(by_subject(rows, groups=["law", "maths", "art"])).round(4).tolist()
    [[0.6667, 0.3333], [0.9412, 0.0588], [0.8, 0.2]]
    """

    kind: ClassVar[str] = "group-temperature"
    keeps_argmax: ClassVar[bool] = True
    value: float
    """Temperature of all groups together, finite and above 0."""
    groups: tuple[str, ...]
    """Names of the groups."""
    values: tuple[float, ...]
    """Temperature of each."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        object.__setattr__(self, "value", Temperature(self.value).value)
        object.__setattr__(self, "values", tuple(Temperature(value).value for value in self.values))
        names = tuple(self.groups)
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise InputError(f"'groups' of GroupTemperature must be texts, each once. Got {names!r}.")
        if len(names) != len(self.values):
            raise InputError(
                f"'groups' and 'values' of GroupTemperature must be as many. Got {len(names)} and {len(self.values)}."
            )
        object.__setattr__(self, "groups", names)

    def of(self, group: str) -> Temperature:
        """Return the temperature of one group as a calibrator of its own; that of all for a group that is not known."""
        return Temperature(dict(zip(self.groups, self.values, strict=True)).get(group, self.value), report=self.report)

    def __call__(self, scores: Any, groups: Sequence[str] | None = None) -> Any:
        """Return calibrated scores of the same kind and shape; still log-normalised, bounds carried through.

        Args:
            scores: as for every calibrator of options.
            groups: (N,) name of each row's group; None: none is known, and a `CalibrationWarning` says so.

        Raises:
            InputError: NaN inside, a wrong shape, or not one group a row.
        """
        if groups is None:
            if self.groups:
                warnings.warn(
                    _UNNAMED.format(count=len(self.groups), value=self.value), CalibrationWarning, stacklevel=2
                )
            return super().__call__(scores)
        if isinstance(scores, TokenScores):
            raise InputError("'groups' are those of questions, and scores of tokens came: use of(group) on them.")
        is_record = isinstance(scores, OptionScores)
        logprobs = scores.logprobs if is_record else log_softmax(checked_logits("scores", scores)[0])
        temperatures = self._of_rows(groups, len(logprobs))
        mapped = log_softmax(_divided(logprobs, temperatures[:, None]))
        if not is_record:
            return mapped
        lower, upper = np.exp(mapped), np.exp(mapped)
        if not scores.is_exact:
            for value in np.unique(temperatures):
                rows = np.flatnonzero(temperatures == value)
                lower[rows], upper[rows] = tempered_bounds(scores.take(rows), float(value))
        return replace(scores, logprobs=mapped, lower=lower, upper=upper)

    def logits(self, logprobs: Floats) -> Floats:
        """Return `logprobs / value`, shifted so that each row's largest is 0."""
        return _divided(logprobs, np.asarray(self.value))

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return lower and upper bounds (N, K) at the temperature of all groups."""
        return tempered_bounds(scores, self.value)

    def _of_rows(self, groups: Sequence[str], n: int) -> Floats:
        known = dict(zip(self.groups, self.values, strict=True))
        return np.array([known.get(name, self.value) for name in checked_groups(groups, n)])


def fit_group_temperature(
    logprobs: OptionScores | ArrayLike,
    answers: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    bounds: tuple[float, float] = (0.01, 100.0),
) -> GroupTemperature:
    """Return one temperature a group, each drawn towards the one of all as its rows say too little.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), -inf where there is no option; or
            `OptionScores`, of which truncated rows are used when their first choice is certain.
        answers: (N,) index of each row's right option.
        groups: (N,) name of each row's group, such as its subject.
        bounds: lowest and highest temperature to consider.

    At the temperature T of all rows, let s_g be the slope of group g's log-likelihood in log T, I_g its curvature, and
    c the mean squared slope of a row over its mean curvature, 1 where a temperature describes the model. With S_k the
    sum of I_g^k over the groups,

        variance = max(0, [sum s_g^2 - c (S_1 - S_2 / S_1)] / [S_2 - 2 S_3 / S_1 + (S_2 / S_1)^2])

    is how far groups differ in log T beyond what their few rows make them. Each group's temperature is then the one of
    greatest posterior under a normal prior of that variance around T: close to T + weight (own - T) in logarithms, with
    weight = I_g / (I_g + c / variance). Where groups differ no more than chance makes them, and where T is one of the
    bounds, so that the slopes have no expectation to compare with, all have T. The report's notes give the spread and
    each group's rows.

    Raises:
        InputError: wrong shapes, NaN, no groups, or an answer that is no index of an existing option.
        FitError: truncation leaves no row to fit.

    >>> law, maths = [0, 0, 0, 1] * 20, [0, 0, 0, 0, 0, 0, 0, 1] * 10  # 3 of 4 right, and 7 of 8, at the same logits
    >>> fitted = fit_group_temperature([[4.0, 0.0]] * 160, law + maths, groups=["law"] * 80 + ["maths"] * 80)
    >>> round(fitted.value, 2), [round(value, 2) for value in fitted.values]  # alone they would have 3.64 and 2.06
    (2.73, [3.34, 2.18])
    """
    interval = checked_bounds(bounds)
    rows = fit_rows("logprobs", logprobs)
    gaps = gaps_of("logprobs", rows.logits)
    right = checked_answers(answers, gaps.shape[1], gaps.shape[0])
    names = checked_groups(groups, len(right))
    targets = gaps[right, np.arange(len(right))]
    used, notes = labelled_rows(rows, right, targets > ABSENT)
    gaps, targets = np.compress(used, gaps, axis=1), targets[used]
    solution = solve(gaps, targets, interval)
    common, more = settle(solution, interval)
    parts = split(np.asarray(names)[used], gaps, targets)
    theta = -math.log(common)
    spread, dispersion = (0.0, 1.0) if solution.at_bound else between_groups(list(parts.values()), theta)
    limits = -math.log(interval[1]), -math.log(interval[0])
    modes = {name: posterior_mode(part, theta, spread, dispersion, limits) for name, part in parts.items()}
    found = {name: min(max(common * math.exp(theta - mode), interval[0]), interval[1]) for name, mode in modes.items()}
    loss = sum(part.loss(-math.log(found[name])) for name, part in parts.items())
    return GroupTemperature(
        common,
        tuple(found),
        tuple(found.values()),
        report=FitReport(
            method="group-temperature",
            rows=len(used),
            rows_used=len(targets),
            objective_before=solution.before,
            objective_after=loss / len(targets),
            at_bound=solution.at_bound,
            converged=solution.converged,
            notes=(*notes, *more, *_notes(parts, spread, is_at_bound=bool(solution.at_bound))),
            readout=rows.readout,
            date=today(),
        ),
    )


def with_groups(calibrator: Calibrator, groups: Sequence[str], n: int) -> Callable[[Any], Any]:
    """Return the map of the scores of n questions whose groups are `groups`.

    Raises:
        InputError: `calibrator` is no `GroupTemperature`, or not one text a question.

    >>> by_subject = GroupTemperature(value=1.0, groups=("law",), values=(2.0,))
    >>> np.exp(with_groups(by_subject, ["law", "art"], 2)(np.log([[0.8, 0.2], [0.8, 0.2]]))).round(4).tolist()
    [[0.6667, 0.3333], [0.8, 0.2]]
    """
    if not isinstance(calibrator, GroupTemperature):
        raise InputError(
            "'groups' go with a calibrator of groups, lm.fit(questions, 'group-temperature', groups=[...]). "
            f"Got {calibrator.kind!r}."
        )
    return partial(calibrator, groups=checked_groups(groups, n))


def on_questions(
    calibrator: Calibrator, questions: Sequence[Question], groups: Sequence[str] | None = None
) -> Callable[[OptionScores], OptionScores]:
    """Return the map of the scores of `questions`, whose groups are `groups` or, without it, those that they name.

    Where neither says any, and for a calibrator that knows no groups and is told none, it is the calibrator itself.

    Raises:
        InputError: no questions; and as `with_groups`.

    >>> by_subject = GroupTemperature(value=1.0, groups=("law",), values=(2.0,))
    >>> asked = [Question("Who?", ["I", "you"], group="law")]
    >>> on_questions(by_subject, asked)(OptionScores(np.log([[0.8, 0.2]]), "label")).probabilities.round(4).tolist()
    [[0.6667, 0.3333]]
    """
    check_questions(questions)
    known = [question.group for question in questions]
    if groups is None and not (any(known) and isinstance(calibrator, GroupTemperature)):
        return calibrator
    return with_groups(calibrator, known if groups is None else groups, len(known))


def checked_groups(groups: Sequence[str] | None, n: int) -> list[str]:
    """Return the (N,) names of the rows' groups.

    Raises:
        InputError: not one text a row.

    >>> checked_groups(["law", "maths"], 2)
    ['law', 'maths']
    """
    wanted = f"'groups' must be {n} texts, the name of each row's group."
    if groups is None or isinstance(groups, str):
        raise InputError(f"{wanted} Got {groups!r}.")
    names = list(groups)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong or len(names) != n:
        raise InputError(f"{wanted} Got {repr(wrong[0]) if wrong else f'{len(names)} of them'}.")
    return [str(name) for name in names]


def _divided(logprobs: Floats, temperatures: Floats) -> Floats:
    """Return `logprobs` less each row's largest, over its temperature: no tiny one can overflow it."""
    with np.errstate(over="ignore"):
        return np.asarray((logprobs - np.max(logprobs, axis=-1, keepdims=True)) / temperatures)


def _notes(parts: Mapping[str, Group], spread: float, *, is_at_bound: bool) -> tuple[str, ...]:
    """Return how far groups differ, and how many rows each has."""
    rows = ", ".join(f"{name} {len(part.targets)}" for name, part in parts.items())
    if is_at_bound:
        differ = f"At a bound nothing tells how far the {len(parts)} groups differ: all have the common temperature."
    elif spread > 0.0:
        differ = f"The {len(parts)} groups' log T has a standard deviation of {math.sqrt(spread):.3f} beyond chance."
    else:
        differ = f"The {len(parts)} groups differ no more than chance makes them: all have the common temperature."
    return differ, f"Rows of each group: {rows}."
