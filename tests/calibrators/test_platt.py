"""Platt scaling of one confidence: scikit-learn as oracle, hand-worked cases, and the data that have no best line."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import calibwrap as cw
from calibwrap.calibrators._confidence import log_odds, separation
from calibwrap.calibrators._logistic import fit_line
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores


def made(n, seed=0, slope=0.4, intercept=-0.7):
    """Over-confident numbers, and answers drawn from the line through their log-odds."""
    random = np.random.default_rng(seed)
    odds = random.normal(1.0, 2.0, n)
    truth = 1.0 / (1.0 + np.exp(-(slope * odds + intercept)))
    return 1.0 / (1.0 + np.exp(-odds)), (random.uniform(size=n) < truth).astype(float)


@pytest.mark.parametrize("seed", range(8))
def test_equals_scikit_learn_without_penalty(seed):
    confidence, correct = made(60, seed)
    fitted = cw.fit_platt(confidence, correct)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(log_odds(confidence)[:, None], correct)
    assert fitted.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-5)
    assert fitted.intercept == pytest.approx(oracle.intercept_[0], rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(fitted(confidence), oracle.predict_proba(log_odds(confidence)[:, None])[:, 1], atol=1e-6)
    assert fitted.report.converged
    assert fitted.report.objective_after <= fitted.report.objective_before


def test_soft_correctness_equals_the_same_rows_weighed():
    confidence, share = np.array([0.9, 0.6, 0.3]), np.array([0.75, 0.5, 0.25])
    hard = cw.fit_platt(np.repeat(confidence, 4), [1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0])
    soft = cw.fit_platt(confidence, share)
    assert (soft.slope, soft.intercept) == pytest.approx((hard.slope, hard.intercept), rel=1e-7)


def test_two_places_are_fitted_exactly():
    """At log-odds 0 one of four is right, at log 9 three of four: slope log 9 / log 9, intercept -log 3."""
    fitted = cw.fit_platt([0.5] * 4 + [0.9] * 4, [1, 0, 0, 0, 1, 1, 1, 0])
    assert fitted.intercept == pytest.approx(-np.log(3.0))
    assert fitted.slope == pytest.approx(1.0)
    assert fitted([0.5, 0.9]) == pytest.approx([0.25, 0.75])


def test_platts_targets_by_hand():
    """Two right and one wrong: 3/4 for each right one, 1/3 for the wrong one, at one place each."""
    fitted = cw.fit_platt([0.5, 0.9, 0.9], [0, 1, 1], smoothing=True)
    assert fitted([0.5, 0.9]) == pytest.approx([1 / 3, 3 / 4])


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1]),
        ([0.2, 0.4, 0.4, 0.8], [0, 0, 1, 1]),
        ([0.2, 0.4, 0.6, 0.8], [1, 1, 0, 0]),
        ([0.2, 0.8], [1, 1]),
        ([0.2, 0.8], [0, 0]),
        ([0.7, 0.7], [1, 1]),
        ([0.7], [0]),
    ],
)
def test_where_no_line_is_best_the_targets_are_smoothed(confidence, correct):
    with pytest.warns(CalibrationWarning, match="smoothed targets"):
        fitted = cw.fit_platt(confidence, correct)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    assert fitted.report.converged
    assert "smoothed targets" in fitted.report.notes[0]
    assert ((fitted(confidence) > 0.0) & (fitted(confidence) < 1.0)).all()


def test_equal_confidences_leave_the_slope_open():
    with pytest.warns(CalibrationWarning, match="slope was left at 1"):
        fitted = cw.fit_platt([0.9] * 4, [1, 1, 1, 0])
    assert fitted.slope == 1.0
    assert fitted([0.9]) == pytest.approx([0.75])


def test_a_falling_line_is_said():
    with pytest.warns(CalibrationWarning, match="slope is below 0"):
        fitted = cw.fit_platt([0.2, 0.2, 0.2, 0.8, 0.8, 0.8], [1, 1, 0, 0, 0, 1])
    assert fitted.slope < 0.0


@pytest.mark.parametrize("verdict", [0.0, 1.0])
@pytest.mark.parametrize("rows", [3, 48, 2000])
def test_answers_that_are_all_alike_say_nothing_of_the_slope(verdict, rows):
    confidence = np.random.default_rng(rows).uniform(size=rows)
    with pytest.warns(CalibrationWarning, match="all are alike") as said:
        fitted = cw.fit_platt(confidence, np.full(rows, verdict))
    assert "below 0" not in str(said[0].message)
    assert abs(fitted.slope) < 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_a_level_line_is_not_said_to_fall(seed):
    """One third is right at each confidence, so the best slope is 0; rounding gives it a sign."""
    confidence = np.repeat(np.random.default_rng(seed).uniform(size=16), 3)
    fitted = cw.fit_platt(confidence, np.tile([1.0, 0.0, 0.0], 16))
    assert abs(fitted.slope) < 1e-6
    assert fitted.report.notes == ()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30))
def test_the_gradient_vanishes_and_nothing_gets_worse(rows):
    confidence, correct = np.array(rows).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        fitted = cw.fit_platt(confidence, correct)
    assert fitted.report.converged, fitted
    assert fitted.report.objective_after <= fitted.report.objective_before + 1e-12


def test_separation_by_hand():
    position = np.array([0.0, 1.0, 2.0])
    assert separation(position, np.array([0.0, 1.0, 0.0])) == ""
    assert separation(position, np.array([0.0, 0.0, 1.0])) == "separable"
    assert separation(position, np.array([0.2, 0.2, 0.2])) == ""  # soft targets never part
    assert separation(np.zeros(2), np.array([0.0, 1.0])) == "constant"


def test_a_start_far_away_comes_home():
    line = fit_line(np.linspace(-1e3, 1e3, 50), np.tile([0.0, 1.0, 1.0, 0.0, 1.0], 10))
    assert line.converged
    assert abs(line.slope) < 1e-3


def test_the_ends_have_the_odds_of_the_clip():
    platt = cw.Platt(1.0, 0.0, clip=0.1)
    assert platt([0.0, 0.05, 0.5, 1.0]) == pytest.approx([0.1, 0.1, 0.5, 0.9])
    shares = cw.fit_platt([1.0] * 4 + [0.5] * 4, [1, 1, 1, 0, 1, 0, 1, 0], clip=1 / 16)
    assert shares([1.0, 0.5]) == pytest.approx([0.75, 0.5])


def test_save_and_load_are_bit_equal(tmp_path):
    fitted = cw.fit_platt(*made(50))
    save(fitted, tmp_path / "platt.json")
    again = load(tmp_path / "platt.json")
    assert (again.slope, again.intercept, again.clip) == (fitted.slope, fitted.intercept, fitted.clip)
    assert again.level == "confidence"
    assert again.report == fitted.report


@pytest.mark.parametrize(
    "wrong",
    [{"slope": np.nan}, {"slope": True}, {"intercept": np.inf}, {"clip": 0.0}, {"clip": 0.5}, {"slope": "1"}],
)
def test_numbers_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        cw.Platt(**{"slope": 1.0, "intercept": 0.0} | wrong)


def test_options_are_not_one_confidence():
    with pytest.raises(CapabilityError, match="maps one confidence, and OptionScores came"):
        cw.Platt(1.0, 0.0)(OptionScores(np.log([[0.8, 0.2]]), "label"))
    with pytest.raises(CapabilityError, match="log-probabilities came"):
        cw.Platt(1.0, 0.0).logits(np.log([[0.8, 0.2]]))


def test_a_chain_of_confidences_runs_in_order():
    both = cw.chain(cw.Platt(2.0, 0.0), cw.Isotonic([0.0, 1.0], [0.0, 0.5]))
    assert both([0.75]) == pytest.approx([0.45])  # odds 3 become 9, 9/10 becomes half of it
    assert both.level == "confidence"
