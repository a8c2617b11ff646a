"""Temperature and its fit: hand-worked cases, an independent search, laws, and inputs that break other fits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

from calibwrap.calibrators import Temperature, fit_temperature
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.scores import OptionScores, TokenScores


def nll(logits, answers, temperature):
    return -log_softmax(np.asarray(logits) / temperature, axis=1)[np.arange(len(answers)), answers].mean()


def by_root_search(logits, answers, low=0.01, high=100.0):
    """The oracle: the derivative of the mean NLL in 1/T, written out, and scipy's bracketing root search."""
    logits = np.asarray(logits)

    def slope(beta):
        return (softmax(beta * logits, axis=1) * logits).sum(1).mean() - logits[np.arange(len(answers)), answers].mean()

    if slope(1 / high) >= 0:
        return high
    if slope(1 / low) <= 0:
        return low
    return 1 / brentq(slope, 1 / high, 1 / low, xtol=1e-15, rtol=1e-14)


def planted(seed, n, k, temperature, spread=2.0):
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(n, k))
    return temperature * logits, (logits + rng.gumbel(size=(n, k))).argmax(1)


def test_by_hand():
    # sqrt(0.81) : sqrt(0.09) : sqrt(0.09) = 0.9 : 0.3 : 0.3
    assert np.exp(Temperature(2.0)(np.log([[0.81, 0.09, 0.09]]))) == pytest.approx(np.array([[0.6, 0.2, 0.2]]))
    assert np.exp(Temperature(0.5)(np.log([[0.8, 0.2]]))) == pytest.approx(np.array([[16 / 17, 1 / 17]]))


def test_fit_by_hand():
    # right three times of four on equal margins of 4: softmax(4 / T) must be 3/4
    fitted = fit_temperature([[4.0, 0.0]] * 4, [0, 0, 1, 0])
    assert fitted.value == pytest.approx(4 / math.log(3), rel=1e-12)
    assert fitted.report.objective_before == pytest.approx(nll([[4.0, 0.0]] * 4, [0, 0, 1, 0], 1.0), rel=1e-12)
    assert fitted.report.objective_after == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-12)
    assert (fitted.report.rows, fitted.report.rows_used, fitted.report.method) == (4, 4, "temperature")
    assert fitted.report.converged
    assert fitted.report.at_bound == ""


@pytest.mark.parametrize("seed", range(60))
def test_the_optimum_is_that_of_an_independent_search(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.choice([3, 30, 500, 5000])), int(rng.choice([2, 4, 11]))
    logits, answers = planted(seed, n, k, math.exp(rng.uniform(-3, 3)), math.exp(rng.uniform(-1, 1.5)))
    if seed % 5 == 0:
        logits[rng.random(logits.shape) < 0.1] *= 50
    expected = by_root_search(logits, answers)
    if expected in (0.01, 100.0):
        with pytest.warns(CalibrationWarning, match="outside the bounds"):
            assert fit_temperature(logits, answers).value == expected
    else:
        assert fit_temperature(logits, answers).value == pytest.approx(expected, rel=1e-10)


def test_many_rows_take_the_warm_start_to_the_same_optimum():
    logits, answers = planted(0, 100_000, 3, 2.5)
    fitted = fit_temperature(logits, answers)
    assert fitted.value == pytest.approx(by_root_search(logits, answers), rel=1e-10)
    found = minimize_scalar(lambda t: nll(logits, answers, t), bounds=(0.01, 100), options={"xatol": 1e-12})
    assert fitted.value == pytest.approx(found.x, rel=1e-7)  # a search on values sees no more than sqrt(eps)
    assert fitted.report.objective_after <= found.fun + 1e-15


def test_rows_sorted_by_confidence_do_not_mislead_the_warm_start():
    logits, answers = planted(1, 80_000, 4, 3.0)
    order = np.argsort(logits.max(1))
    assert fit_temperature(logits[order], answers[order]).value == pytest.approx(
        by_root_search(logits, answers), rel=1e-10
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 3.0), st.floats(-50, 50))
def test_logits_and_log_probabilities_give_the_same(seed, temperature, shift):
    logits, answers = planted(seed, 200, 4, temperature)
    shifted = logits + shift * np.random.default_rng(seed).normal(size=(200, 1))
    value = fit_temperature(logits, answers).value
    assert fit_temperature(shifted, answers).value == pytest.approx(value, rel=1e-10)
    assert fit_temperature(log_softmax(logits, axis=1), answers).value == pytest.approx(value, rel=1e-10)
    assert fit_temperature(OptionScores(logits, "label"), answers).value == pytest.approx(value, rel=1e-10)


finite = st.floats(-1e4, 1e4, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(finite, min_size=3, max_size=3), st.integers(0, 2)), min_size=1, max_size=12))
@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
def test_a_fit_is_finite_inside_its_bounds_and_never_worsens_its_own_rows(rows):
    logits, answers = np.array([row for row, _ in rows]), np.array([answer for _, answer in rows])
    fitted = fit_temperature(logits, answers)
    assert 0.01 <= fitted.value <= 100.0
    assert fitted.report.converged
    before, after = nll(logits, answers, 1.0), nll(logits, answers, fitted.value)
    assert after <= before + 1e-12 * max(1.0, before)
    assert fitted.report.objective_before == pytest.approx(before, rel=1e-9, abs=1e-12)
    assert fitted.report.objective_after == pytest.approx(after, rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_permuting_the_options_changes_nothing(seed, order):
    logits, answers = planted(seed, 100, 4, 2.0)
    permuted = np.argsort(order)[answers]
    assert fit_temperature(logits[:, order], permuted).value == pytest.approx(
        fit_temperature(logits, answers).value, rel=1e-10
    )


@pytest.mark.parametrize(
    ("logits", "answers", "value", "at_bound"),
    [
        ([[3.0, 0.0], [0.0, 3.0]], [0, 1], 0.01, "lower"),  # separable
        ([[3.0, 0.0], [0.0, 3.0]], [1, 0], 100.0, "upper"),  # always wrong
        ([[2.0, 0.0, 0.0]], [0], 0.01, "lower"),  # one row
        ([[2.0, 0.0], [2.0, 0.0]], [0, 1], 100.0, "upper"),  # a coin
        ([[1.0, 0.0]] * 5, [0] * 5, 0.01, "lower"),  # one class
        ([[1e4, -1e4], [1e4, -1e4]], [0, 1], 100.0, "upper"),
    ],
)
def test_an_optimum_outside_the_bounds_is_the_bound_and_is_reported(logits, answers, value, at_bound):
    with pytest.warns(CalibrationWarning, match="outside the bounds"):
        fitted = fit_temperature(logits, answers)
    assert (fitted.value, fitted.report.at_bound) == (value, at_bound)
    assert fitted.report.converged
    assert "outside the bounds" in fitted.report.notes[0]


@pytest.mark.parametrize("logits", [np.full((4, 3), 7.3), np.zeros((1, 2)), np.arange(5.0)[:, None]])
def test_where_no_temperature_makes_a_difference_it_is_one(logits):
    fitted = fit_temperature(logits, np.zeros(len(logits)))
    assert fitted.value == 1.0
    assert "does not depend" in fitted.report.notes[0]


def test_bounds_are_kept_and_may_exclude_one():
    logits, answers = planted(2, 500, 4, 3.0)
    inside = fit_temperature(logits, answers).value
    assert 2.0 < inside < 10.0
    assert fit_temperature(logits, answers, bounds=(2.0, 10.0)).value == pytest.approx(inside, rel=1e-10)
    with pytest.warns(CalibrationWarning):
        assert fit_temperature(logits, answers, bounds=(0.5, 2.0)).value == 2.0


def test_absent_options_take_no_part():
    logits, answers = planted(3, 300, 3, 2.0)
    padded = np.hstack([logits, np.full((300, 2), -np.inf)])
    assert fit_temperature(padded, answers).value == pytest.approx(fit_temperature(logits, answers).value, rel=1e-12)


def test_ties_and_single_precision():
    logits = np.array([[1, 1, 0], [2, 2, 2], [0, 3, 3], [4, 0, 0]], dtype=np.float32)
    answers = [0, 1, 0, 0]
    assert fit_temperature(logits, answers).value == pytest.approx(by_root_search(logits.astype(float), answers))


@pytest.mark.parametrize(
    ("logits", "answers", "words"),
    [
        ([[0.0, 1.0]], [2], "from 0 to 1"),
        ([[0.0, 1.0]], [-1], "Got -1 in row 0"),
        ([[0.0, 1.0]], [0, 1], "must be 1 whole"),
        ([[0.0, 1.0]], [0.5], "Got 0.5"),
        ([[0.0, 1.0]], [math.nan], "Got nan"),
        ([[0.0, 1.0]], [True], "Got bool"),
        ([[0.0, 1.0]], ["A"], "whole numbers"),
        ([[0.0, 1.0]], [[0], [0, 1]], "whole numbers"),
        ([[0.0, -math.inf]], [1], "Row 0 names option 1"),
        ([[0.0, math.nan]], [0], "row 0, column 1"),
        ([[0.0, math.inf]], [0], "row 0, column 1"),
        ([[-math.inf, -math.inf]], [0], "at least one finite"),
        ([[0.0, 1.0], [0.0]], [0, 0], "'logprobs'"),
        ([0.0, 1.0], [0], "shape"),
        (np.empty((0, 2)), [], "at least 1"),
        ([["a", "b"]], [0], "'logprobs'"),
    ],
)
def test_wrong_input_is_named(logits, answers, words):
    with pytest.raises(InputError, match=words):
        fit_temperature(logits, answers)


@pytest.mark.parametrize(
    "bounds", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0), (1.0,), None, (-1.0, 2.0)]
)
def test_wrong_bounds_are_named(bounds):
    with pytest.raises(InputError, match="'bounds'"):
        fit_temperature([[0.0, 1.0]], [0], bounds=bounds)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "2", True, None])
def test_a_temperature_is_finite_and_positive(value):
    with pytest.raises(InputError, match="finite number above 0"):
        Temperature(value)


def test_a_level_is_option_or_token():
    assert Temperature(2.0, level="token").level == "token"
    with pytest.raises(InputError, match="'option' or 'token'"):
        Temperature(2.0, level="confidence")


def test_equal_numbers_are_equal_calibrators_whatever_their_report():
    fitted = fit_temperature([[4.0, 0.0]] * 4, [0, 0, 1, 0])
    assert fitted == Temperature(fitted.value)
    assert hash(fitted) == hash(Temperature(fitted.value))
    assert Temperature(np.float64(2.0)) == Temperature(2)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=2, max_size=6), st.floats(1e-3, 1e3))
def test_scores_stay_normalised_and_the_first_choice_stays(row, value):
    calibrated = Temperature(value)([row])
    assert np.exp(calibrated).sum() == pytest.approx(1.0)
    assert calibrated[0, int(np.argmax(row))] == calibrated.max()


def test_extreme_values_give_no_nan():
    row = [[1e4, -1e4, -np.inf, 1e4 - 1e-3]]
    for value in (5e-324, 1e-300, 1e300):
        calibrated = Temperature(value)(row)
        assert not np.isnan(calibrated).any()
        assert calibrated[0, 2] == -np.inf


def test_tokens_need_the_whole_vocabulary():
    full = TokenScores(np.log([[0.5, 0.25, 0.25]]), chosen=[1], chosen_logprob=np.log([0.25]), log_z=[3.0])
    calibrated = Temperature(0.5, level="token")(full)
    assert np.exp(calibrated.logprobs) == pytest.approx(np.array([[4, 1, 1]]) / 6)
    assert np.exp(calibrated.chosen_logprob) == pytest.approx([1 / 6])


def test_truncated_rows_that_are_not_certain_are_left_out_and_counted():
    shown, answers = planted(5, 40, 2, 2.0)
    logits = np.vstack([shown, np.zeros((3, 2))])
    missing = np.zeros((43, 2), dtype=bool)
    missing[40:] = True
    scores = OptionScores(logits, "label:letter", missing=missing)
    fitted = fit_temperature(scores, np.append(answers, [0, 1, 0]))
    assert fitted.value == pytest.approx(fit_temperature(shown, answers).value, rel=1e-12)
    assert (fitted.report.rows, fitted.report.rows_used) == (43, 40)
    assert fitted.report.notes == ("3 rows were left out because truncation leaves their first choice open.",)
    assert fitted.report.readout == "label:letter"


def test_truncated_rows_that_are_certain_are_used_at_their_point_values():
    shown, answers = planted(6, 40, 2, 2.0)
    missing = np.zeros((40, 2), dtype=bool)
    missing[0, 1] = True
    fitted = fit_temperature(OptionScores(shown, "label", missing=missing), answers)
    assert fitted.value == pytest.approx(fit_temperature(shown, answers).value, rel=1e-12)
    assert fitted.report.notes == ("1 rows were truncated and fitted with each option at its point value.",)


def test_an_answer_of_probability_zero_is_left_out_and_no_row_at_all_is_an_error():
    shown, answers = planted(7, 40, 2, 2.0)
    logits = np.vstack([shown, [[0.0, -np.inf]]])
    scores = OptionScores(logits, "label", mask=np.ones((41, 2)), missing=np.zeros((41, 2)))
    fitted = fit_temperature(scores, np.append(answers, 1))
    assert fitted.value == pytest.approx(fit_temperature(shown, answers).value, rel=1e-12)
    assert "probability 0" in fitted.report.notes[0]
    with pytest.raises(FitError, match="None of the 1 rows"):
        fit_temperature(OptionScores([[0.0, 0.0]], "label", missing=[[True, True]]), [0])
