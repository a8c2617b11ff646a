"""Temperature scaling: one number that spreads or sharpens, and never changes the first choice.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017. `Temperature.value` calibrates; it is
not the sampling temperature of `Sampling`.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator, Level
from calibwrap.calibrators._inputs import checked_answers, checked_bounds, fit_rows, labelled_rows, today
from calibwrap.calibrators._newton import ABSENT, Solution, gaps_of, solve
from calibwrap.calibrators._truncated import tempered_bounds
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.provenance import FitReport
from calibwrap.real_numbers import real_number
from calibwrap.scores import Floats, OptionScores


@dataclass(frozen=True)
class Temperature(Calibrator):
    """Divides log-probabilities by `value`: above 1 it takes confidence away, below 1 it adds confidence.

    Raises:
        InputError: `value` is not a finite number above 0, or `level` is neither "option" nor "token".

    >>> np.exp(Temperature(2.0)(np.log([[0.8, 0.2]]))).round(4).tolist()  # sqrt(0.8) : sqrt(0.2) = 2 : 1
    [[0.6667, 0.3333]]
    """

    kind: ClassVar[str] = "temperature"
    keeps_argmax: ClassVar[bool] = True
    value: float
    """Temperature, finite and above 0."""
    level: Level = "option"
    """"option", or "token" for the whole vocabulary at each position."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check both fields."""
        value = real_number(self.value)
        if not 0.0 < value < math.inf:
            raise InputError(f"'value' of Temperature must be a finite number above 0. Got {self.value!r}.")
        if self.level not in ("option", "token"):
            raise InputError(f"'level' of Temperature must be 'option' or 'token'. Got {self.level!r}.")
        object.__setattr__(self, "value", value)

    def logits(self, logprobs: Floats) -> Floats:
        """Return `logprobs / value`, shifted so that each row's largest is 0: no tiny `value` can overflow it."""
        with np.errstate(over="ignore"):
            return np.asarray((logprobs - np.max(logprobs, axis=-1, keepdims=True)) / self.value)

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return lower and upper bounds (N, K) of the calibrated probabilities of truncated `scores`.

        A row where the backend showed no option at all keeps the bounds 0 and 1.

        >>> s = OptionScores(np.log([[0.8, 0.2]]), "label", missing=[[False, True]], lower=[[0.6, 0]], upper=[[1, 0.4]])
        >>> [b.round(4).tolist() for b in Temperature(2.0).bounds(s)]
        [[[0.5505, 0.0]], [[1.0, 0.4495]]]
        """
        return tempered_bounds(scores, self.value)


def fit_temperature(
    logprobs: OptionScores | ArrayLike, answers: ArrayLike, *, bounds: tuple[float, float] = (0.01, 100.0)
) -> Temperature:
    """Return the temperature of greatest likelihood of the right `answers`.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), -inf where there is no option; or
            `OptionScores`, of which truncated rows are used when their first choice is certain.
        answers: (N,) index of each row's right option.
        bounds: Lowest and highest temperature to consider. When the optimum lies outside, the bound is the result,
            `report.at_bound` says which, and a `CalibrationWarning` is given.

    The mean negative log-likelihood is convex in 1/T; a safeguarded Newton search ends with a certificate. The result
    is never worse on these rows than T = 1. Where no temperature makes a difference, as with constant logits, it is 1.

    Raises:
        InputError: wrong shapes, NaN, or an answer that is no index of an existing option.
        FitError: truncation leaves no row to fit.

    >>> fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]).value.__round__(4)  # softmax(4 / T) = 3/4 at T = 4 / log(3)
    3.641
    """
    interval = checked_bounds(bounds)
    rows = fit_rows("logprobs", logprobs)
    gaps = gaps_of("logprobs", rows.logits)
    right = checked_answers(answers, gaps.shape[1], gaps.shape[0])
    targets = gaps[right, np.arange(len(right))]
    used, notes = labelled_rows(rows, right, targets > ABSENT)
    if not used.all():
        gaps, targets = np.compress(used, gaps, axis=1), targets[used]
    solution = solve(gaps, targets, interval)
    value, more = settle(solution, interval)
    return Temperature(
        value,
        report=FitReport(
            method="temperature",
            rows=len(used),
            rows_used=len(targets),
            objective_before=solution.before,
            objective_after=solution.after,
            at_bound=solution.at_bound,
            converged=solution.converged,
            notes=(*notes, *more),
            readout=rows.readout,
            date=today(),
        ),
    )


def settle(solution: Solution, bounds: tuple[float, float]) -> tuple[float, list[str]]:
    """Return the temperature of `solution` and notes on it; warn where a bound was hit."""
    if solution.flat:
        return 1.0, ["The objective does not depend on the temperature on these rows; 1 was kept."]
    if not solution.at_bound:
        return 1.0 / solution.beta, [] if solution.converged else ["The search did not converge."]
    value = bounds[0] if solution.at_bound == "lower" else bounds[1]
    note = f"The optimum lies outside the bounds, and T = {value:g} is the {solution.at_bound} one: the rows are " + (
        "all but separable." if solution.at_bound == "lower" else "as good as unrelated to the targets."
    )
    warnings.warn(f"{note} Fit on more rows, or choose other 'bounds'.", CalibrationWarning, stacklevel=4)
    return value, [note]
