"""Guards: binomial tails by hand, the promise over 1 000 resamplings, and what is said when nothing can be promised."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

import calibwrap as cw
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.guarantees import Abstention, Guard, fit_guard, risk_bound
from calibwrap.guarantees.selective import binomial_p_value

GUARD = Guard(risk=0.1, delta=0.05, threshold=0.8, rows=400, tested=300, answered=120, errors=3)


def answer(confidence: float) -> cw.Answer:
    return cw.Answer("Paris", confidence, (confidence, confidence))


def world(random: np.random.Generator, n: int, rises: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, and the chance of being right of each; where `rises` is off, the surest fifth are the worst."""
    confidence = random.random(n)
    chance = 0.5 + 0.5 * confidence if rises else np.where(confidence > 0.8, 0.7, 0.97)
    return confidence, random.random(n) < chance, chance


def true_risk(threshold: float, rises: bool = True) -> float:
    grid = np.linspace(threshold, 1.0, 4001)
    chance = 0.5 + 0.5 * grid if rises else np.where(grid > 0.8, 0.7, 0.97)
    return float(1.0 - chance.mean())


@pytest.mark.parametrize(("errors", "answered", "risk"), [(0, 29, 0.1), (3, 50, 0.2), (7, 7, 0.3), (0, 0, 0.5)])
def test_p_values_are_binomial_tails(errors: int, answered: int, risk: float) -> None:
    rate = Fraction(str(risk))
    exact = sum(math.comb(answered, i) * rate**i * (1 - rate) ** (answered - i) for i in range(errors + 1))
    assert binomial_p_value([errors], [answered], risk)[0] == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize(("errors", "answered"), [(0, 29), (3, 50), (49, 50), (7, 7)])
def test_the_bound_is_that_of_clopper_and_pearson(errors: int, answered: int) -> None:
    found = risk_bound(errors, answered, 0.05)
    oracle = binomtest(errors, answered, alternative="less").proportion_ci(0.95, method="exact").high
    assert found == pytest.approx(oracle, rel=1e-9)
    if errors < answered:
        assert found == pytest.approx(beta.ppf(0.95, errors + 1, answered - errors), rel=1e-9)
        assert binom.cdf(errors, answered, found) == pytest.approx(0.05, rel=1e-6)


def test_an_abstention_is_not_an_answer() -> None:
    kept, withheld = GUARD(answer(0.8)), GUARD(answer(0.7999))
    assert kept == answer(0.8)
    assert isinstance(withheld, Abstention)
    assert not isinstance(withheld, cw.Answer)
    assert not withheld
    for name in ("text", "confidence", "probabilities"):
        assert not hasattr(withheld, name)
    assert withheld.withheld == answer(0.7999)
    assert "below 0.8" in withheld.reason
    with pytest.raises(InputError, match="NaN"):
        GUARD(answer(float("nan")))


@pytest.mark.parametrize(
    ("rises", "risk", "least_answering"),
    [(True, 0.12, 900), (False, 0.08, 0)],
    ids=["risk falls with confidence", "the surest are the worst"],
)
def test_the_risk_over_1000_resamplings_keeps_the_promise(rises: bool, risk: float, least_answering: int) -> None:
    """The true risk at each fitted threshold is known; it may be too high in at most a share `delta` of the fits.

    Where the surest are the worst the least risk is 0.084, of answering everything: whoever answers breaks the promise.
    """
    random, broken, answering = np.random.default_rng(3), 0, 0
    for seed in range(1000):
        confidence, correct, _ = world(random, 1000, rises)
        with np.testing.suppress_warnings() as quiet:
            quiet.filter(CalibrationWarning)
            guard = fit_guard(confidence, correct, risk=risk, delta=0.1, seed=seed)
        if guard.threshold is not None:
            answering += 1
            broken += true_risk(guard.threshold, rises) > risk
    assert broken <= binom.ppf(0.999, 1000, 0.1)
    assert answering >= least_answering


def test_the_guard_answers_much_of_what_it_could() -> None:
    """With 4 000 rows the threshold is near the best one, where 0.5 + 0.5 c averages to 0.88 above it: c = 0.52."""
    random = np.random.default_rng(4)
    confidence, correct, _ = world(random, 4000)
    guard = fit_guard(confidence, correct, risk=0.12)
    assert 0.52 < guard.threshold < 0.65
    assert guard.bound <= 0.12
    assert guard.answered == pytest.approx(guard.tested * (1 - guard.threshold), rel=0.1)


def test_the_counts_of_the_report_are_those_of_the_rows_tested() -> None:
    confidence, correct, _ = world(np.random.default_rng(5), 800)
    guard = fit_guard(confidence, correct, risk=0.15, seed=9)
    tested = np.random.default_rng(9).permutation(800)[200:]
    kept = tested[confidence[tested] >= guard.threshold]
    assert (guard.rows, guard.tested) == (800, 600)
    assert (guard.answered, guard.errors) == (len(kept), int((~correct[kept]).sum()))
    assert binom.cdf(guard.errors, guard.answered, 0.15) <= 0.05


def test_a_flawless_record_answers_everything() -> None:
    guard = fit_guard(np.linspace(0.2, 0.9, 60), [True] * 60, risk=0.1)
    assert (guard.threshold, guard.answered, guard.errors) == (0.0, 45, 0)


def test_when_nothing_can_be_promised_it_says_so_and_never_answers() -> None:
    with pytest.warns(CalibrationWarning, match="never answers"):
        guard = fit_guard(np.linspace(0.5, 1.0, 100), [True, False] * 50, risk=0.1)
    assert guard.threshold is None
    assert guard.bound is None
    assert isinstance(guard(answer(1.0)), Abstention)


def test_too_few_rows_for_even_a_flawless_record_are_an_error() -> None:
    with pytest.raises(FitError, match="bring at least 39"):  # 29 = log(0.05) / log(0.9), and 29 / 0.75
        fit_guard([0.9] * 37, [True] * 37, risk=0.1)
    assert fit_guard([0.9] * 39, [True] * 39, risk=0.1).threshold == 0.0


def test_the_same_seed_gives_the_same_guard() -> None:
    confidence, correct, _ = world(np.random.default_rng(6), 500)
    assert fit_guard(confidence, correct, seed=1) == fit_guard(confidence, correct, seed=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"risk": 0.0}, "'risk'"),
        ({"delta": 1.0}, "'delta'"),
        ({"correct": [0.5] * 60}, "must be 0 or 1"),
        ({"correct": [1]}, "same number of rows"),
        ({"confidence": [1.5] * 60}, r"must lie in \[0, 1\]"),
        ({"confidence": [float("nan")] * 60}, "not be NaN"),
        ({"confidence": []}, "at least one row"),
    ],
)
def test_what_is_malformed_is_refused(change, words) -> None:
    with pytest.raises(InputError, match=words):
        fit_guard(**{"confidence": [0.9] * 60, "correct": [1] * 60, **change})


@pytest.mark.parametrize(
    "change",
    [{"risk": "0.1"}, {"threshold": math.inf}, {"threshold": "0.8"}, {"errors": 200}, {"rows": 0}, {"tested": 1.5}],
)
def test_a_guard_of_unsound_numbers_is_refused(change) -> None:
    fields = {"risk": 0.1, "delta": 0.05, "threshold": 0.8, "rows": 400, "tested": 300, "answered": 120, "errors": 3}
    with pytest.raises(InputError):
        Guard(**{**fields, **change})
    with pytest.raises(InputError, match="'errors'"):
        risk_bound(3, 2, 0.1)


def test_a_guard_that_contradicts_its_own_counts_is_refused():
    fields = {"delta": 0.05, "rows": 400, "tested": 300, "answered": 120}
    with pytest.raises(InputError, match="bound the risk at"):
        Guard(risk=0.01, threshold=0.5, errors=38, **fields)
    with pytest.raises(InputError, match="confidence from 0 to 1"):
        Guard(risk=0.5, threshold=-5.0, errors=3, **fields)
