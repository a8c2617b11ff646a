"""Answering only above a confidence, with a promise on the risk: how many of the answers given are wrong."""

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Answer
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.guarantees.conformal import check_open_share, check_threshold
from calibwrap.metrics._checks import checked_count, checked_pair
from calibwrap.scores import Bools, Floats, Ints

MAX_THRESHOLDS = 200
"""Most thresholds that are looked at; more would only be finer than the data."""
DESIGN_SHARE = 0.25
"""Share of the rows that choose where testing begins; the promise comes from the others alone."""


@dataclass(frozen=True)
class Abstention:
    """Says that no answer was given. It has no text and no confidence of its own, and it is false in an `if`.

    >>> bool(Abstention("not sure enough", Answer("Paris", 0.4, (0.4, 0.4))))
    False
    """

    reason: str
    """Why, in one sentence."""
    withheld: Answer
    """What would have been answered; nothing is promised of it."""

    def __bool__(self) -> bool:
        """Return False, so that `if answer:` keeps abstentions out."""
        return False


@dataclass(frozen=True)
class Guard:
    """Lets answers through whose confidence is at least `threshold`, and turns the others into abstentions.

    With a chance of at least 1 - `delta` over the rows that it was fitted on, at most the share `risk` of the answers
    let through is wrong, where answers come from the same distribution. It is the share over all of them; it is not
    promised for each subject or each confidence.

    Raises:
        InputError: a field is out of range.

    >>> guard = Guard(risk=0.1, delta=0.05, threshold=0.8, rows=400, tested=300, answered=120, errors=3)
    >>> guard(Answer("Paris", 0.9, (0.9, 0.9))).text, bool(guard(Answer("Rome", 0.7, (0.7, 0.7))))
    ('Paris', False)
    >>> round(guard.bound, 4)
    0.0633
    """

    kind: ClassVar[str] = "guard"
    risk: float
    """Largest share of wrong answers among those given, strictly between 0 and 1."""
    delta: float
    """Chance that the promise fails, strictly between 0 and 1."""
    threshold: float | None
    """Least confidence that is answered; None: nothing can be promised, and nothing is answered."""
    rows: int
    """Rows it was fitted on."""
    tested: int
    """Rows that the promise comes from."""
    answered: int
    """How many of those are at or above the threshold."""
    errors: int
    """How many of these are wrong."""

    def __post_init__(self) -> None:
        """Check the fields."""
        check_open_share("risk", self.risk)
        check_open_share("delta", self.delta)
        check_threshold(self.threshold)
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"'threshold' is a confidence from 0 to 1. Got {self.threshold!r}.")
        object.__setattr__(self, "rows", checked_count("rows", self.rows))
        counts = (self.errors, self.answered, self.tested, self.rows)
        if any(isinstance(count, bool) or not isinstance(count, int) for count in counts) or not (
            0 <= self.errors <= self.answered <= self.tested <= self.rows
        ):
            raise InputError(f"'errors' <= 'answered' <= 'tested' <= 'rows' must be whole numbers. Got {counts}.")
        bound = self.bound
        if bound is not None and bound > self.risk * (1.0 + 1e-9):  # which tests and bounds may differ by
            raise InputError(
                f"{self.errors} errors in {self.answered} answers bound the risk at {bound:.4g}, which is above "
                f"the promised {self.risk:g}: such a guard keeps no promise."
            )

    def __call__(self, answer: Answer) -> Answer | Abstention:
        """Return the answer itself, or an abstention where its confidence is too low.

        Raises:
            InputError: the confidence is NaN.
        """
        if math.isnan(answer.confidence):
            raise InputError("'answer' must have a confidence, and its is NaN: leave such answers out.")
        if self.threshold is None:
            return Abstention(f"No threshold has a risk of at most {self.risk:g} for certain enough.", answer)
        if answer.confidence >= self.threshold:
            return answer
        return Abstention(
            f"The confidence {answer.confidence:.4g} is below {self.threshold:.4g}, the least that keeps the risk at "
            f"{self.risk:g}.",
            answer,
        )

    @property
    def bound(self) -> float | None:
        """Upper bound of the risk at the threshold, at level 1 - `delta`; None where nothing is answered."""
        return None if self.threshold is None else risk_bound(self.errors, self.answered, self.delta)


def fit_guard(
    confidence: ArrayLike, correct: ArrayLike, *, risk: float = 0.1, delta: float = 0.05, seed: int = 0
) -> Guard:
    """Return the lowest threshold whose risk is shown to be at most `risk`, by testing thresholds in a fixed order.

    Args:
        confidence: (N,) calibrated confidences of answers to questions that the calibrator was not fitted on.
        correct: (N,) bool or 0/1; soft correctness is refused, since the test counts errors.
        risk: largest share of wrong answers among those given.
        delta: chance, over the draw of these rows, that the promise fails.
        seed: which quarter of the rows, drawn at random, chooses the thresholds and where testing begins.

    That quarter's confidences are the thresholds; its errors say at which of them the others are most likely to pass.
    From there down each threshold is tested on the other rows: among n answers with e errors, the p-value of
    "the risk is above r" is the chance of at most e errors in n at rate r. The first one above `delta` ends it, and
    the last one that passed is taken. Since the order does not depend on the rows tested, the chance that a threshold
    passes whose risk is too high is at most `delta`, whatever the confidences are worth: no assumption on their
    calibration, nor that the risk falls with confidence.

    When none passes, the guard never answers, and a `CalibrationWarning` says so.

    Raises:
        InputError: malformed arrays or settings.
        FitError: fewer rows than a flawless record needs to show that risk: log(delta) / log(1 - risk) of the tested.

    References:
        Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then test: calibrating predictive algorithms to achieve risk
        control", 2021 (fixed-sequence testing, and its split form). Clopper, Pearson, "The use of confidence or
        fiducial limits illustrated in the case of the binomial", 1934. Geifman, El-Yaniv, "Selective classification
        for deep neural networks", 2017 (the problem).

    >>> confidence = np.linspace(0.5, 1.0, 400)
    >>> guard = fit_guard(confidence, confidence > 0.7, risk=0.1, delta=0.05)  # the sure ones are right
    >>> round(guard.threshold, 3), guard.answered, guard.errors, bool(guard.bound <= 0.1)
    (0.677, 191, 12, True)
    """
    check_open_share("risk", risk)
    check_open_share("delta", delta)
    risk, delta, seed = float(risk), float(delta), checked_count("seed", seed, least=0)
    chances, hits = checked_pair(confidence, correct, soft=False)
    check_enough(len(hits), risk, delta)
    design, test = _split(len(hits), seed)
    thresholds = _candidates(chances[design])
    planned = _counts(chances[design], hits[design], thresholds)
    answered, errors = _counts(chances[test], hits[test], thresholds)
    start = _start(*planned, scale=len(test) / len(design), risk=risk, delta=delta)
    passed = binomial_p_value(errors, answered, risk)[start:] <= delta
    last = start + (int(np.argmin(passed)) if not passed.all() else len(passed)) - 1
    if last < start:
        warnings.warn(
            f"No threshold can be shown to have a risk of at most {risk:g} with chance {1 - delta:g} on {len(hits)} "
            "rows: the guard never answers. Bring more rows, a better model, or allow more risk.",
            CalibrationWarning,
            stacklevel=2,
        )
        return Guard(float(risk), float(delta), None, len(hits), len(test), 0, 0)
    counts = (len(hits), len(test), int(answered[last]), int(errors[last]))
    return Guard(float(risk), float(delta), float(thresholds[last]), *counts)


def check_enough(rows: int, risk: float, delta: float) -> None:
    """Return nothing when so many rows might show the risk; may be asked before a model is.

    Raises:
        InputError: `risk` or `delta` is not strictly between 0 and 1.
        FitError: even without an error they could not.

    >>> check_enough(39, risk=0.1, delta=0.05)
    """
    check_open_share("risk", risk)
    check_open_share("delta", delta)
    least = math.ceil(min(math.log(delta) / math.log1p(-risk), 1e15))  # infinite for the smallest risks
    if len(_split(rows, 0)[1]) < least:
        raise FitError(
            f"{rows} rows cannot show a risk of at most {risk:g} with chance {1 - delta:g}, even without an error:"
            f" bring at least {math.ceil(least / (1 - DESIGN_SHARE))}, better twice as many, or ask for less."
        )


def risk_bound(errors: int, answered: int, delta: float) -> float:
    """Return the Clopper-Pearson upper bound of an error rate: at or below it with chance at least 1 - `delta`.

    It is the rate at which so few errors have the chance `delta`; 1 when nothing was answered.

    Raises:
        InputError: counts that are not 0 <= errors <= answered, or a delta outside (0, 1).

    References:
        Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934.

    >>> round(risk_bound(0, 29, 0.05), 4)  # 1 - 0.05 ** (1 / 29)
    0.0981
    """
    check_open_share("delta", delta)
    errors, answered = checked_count("errors", errors, least=0), checked_count("answered", answered, least=0)
    if errors > answered:
        raise InputError(f"'errors' must be from 0 to 'answered'. Got {errors} of {answered}.")
    if errors == answered:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(errors + 1, answered - errors, 1.0 - delta))


def binomial_p_value(errors: ArrayLike, answered: ArrayLike, risk: float) -> Floats:
    """Return the chance of at most `errors` wrong ones among `answered` at an error rate of `risk`, element by element.

    Under any rate above `risk` it is at most delta with a chance of at most delta: a valid p-value.

    >>> binomial_p_value([0, 1], [2, 2], 0.5).tolist()
    [0.25, 0.75]
    """
    from scipy.special import bdtr

    return np.asarray(bdtr(np.asarray(errors, dtype=np.float64), np.asarray(answered, dtype=np.int64), risk))


def _split(n: int, seed: int) -> tuple[Ints, Ints]:
    """Return the rows that choose the thresholds, at least one, and those that test them."""
    order = np.random.default_rng(seed).permutation(n)
    size = max(1, round(n * DESIGN_SHARE))
    return order[:size], order[size:]


def _candidates(confidence: Floats) -> Floats:
    """Return different confidences from high to low, the last one 0, which answers everything."""
    found = np.unique(np.append(confidence.astype(np.float64), 0.0))[::-1]
    places = np.unique(np.linspace(0, len(found) - 1, min(len(found), MAX_THRESHOLDS)).round().astype(np.int64))
    return np.asarray(found[places])


def _counts(confidence: Floats, correct: Bools | Floats, thresholds: Floats) -> tuple[Ints, Ints]:
    """Return how many are at or above each threshold, and how many of those are wrong."""
    order = np.argsort(-confidence, kind="stable")
    answered = np.searchsorted(-confidence[order], -thresholds, side="right")
    wrong = np.concatenate([[0], np.cumsum(~np.asarray(correct, dtype=np.bool_)[order])])
    return answered, wrong[answered]


def _start(answered: Ints, errors: Ints, *, scale: float, risk: float, delta: float) -> int:
    """Return the place of the threshold that is most likely to pass, by the rows that choose: the first of the best.

    The error rate of few rows is drawn towards one half by half an error of each kind. What passes with n rows is at
    most the largest number of errors whose p-value is at most `delta`.
    """
    from scipy.special import bdtr
    from scipy.stats import binom

    size = np.floor(answered * scale).astype(np.int64)
    rate = (errors + 0.5) / (answered + 1.0)
    allowed = binom.ppf(delta, size, risk)
    allowed = np.where(bdtr(np.maximum(allowed, 0), size, risk) <= delta, allowed, allowed - 1)
    power = np.where(allowed >= 0, bdtr(np.maximum(allowed, 0), size, rate), 0.0)
    return int(np.argmax(power))
