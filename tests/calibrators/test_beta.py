"""Beta calibration: netcal and scipy as oracles, hand-worked cases, the bounds' certificate, poor data."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

import calibwrap as cw
from calibwrap.errors import CalibrationWarning, InputError


def made(n, seed, a=0.4, b=0.9, intercept=-0.5):
    random = np.random.default_rng(seed)
    confidence = 1.0 / (1.0 + np.exp(-random.normal(1.0, 1.5, n)))
    odds = a * np.log(confidence) - b * np.log1p(-confidence) + intercept
    return confidence, (random.uniform(size=n) < 1.0 / (1.0 + np.exp(-odds))).astype(float)


def loss(numbers, confidence, correct):
    odds = numbers[0] * np.log(confidence) - numbers[1] * np.log1p(-confidence) + numbers[2]
    return (np.logaddexp(0.0, odds) - correct * odds).mean()


@pytest.mark.parametrize("seed", range(50))
def test_equals_a_bounded_search(seed):
    """scipy's L-BFGS-B under the same bounds; on these the optimum is inside or on either bound."""
    a, b = np.random.default_rng(seed + 1000).uniform(-0.2, 1.5, 2)
    confidence, correct = made(120, seed, max(a, 0.0), max(b, 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        fitted = cw.fit_beta(confidence, correct)
    oracle = minimize(
        loss,
        [1.0, 1.0, 0.0],
        (confidence, correct),
        bounds=[(0, None), (0, None), (None, None)],
        options={"ftol": 1e-14},
    )
    assert fitted.report.converged
    assert fitted.report.objective_after <= oracle.fun + 1e-9
    features = np.stack([np.log(confidence), -np.log1p(-confidence)], axis=1)
    if min(fitted.a, fitted.b) > 1e-6:
        free = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(features, correct)
        np.testing.assert_allclose(fitted(confidence), free.predict_proba(features)[:, 1], atol=1e-4)
    else:
        np.testing.assert_allclose(
            loss([fitted.a, fitted.b, fitted.intercept], confidence, correct), oracle.fun, atol=1e-8
        )


def test_equals_netcal():
    from netcal.scaling import BetaCalibration

    confidence, correct = made(3000, 3)
    oracle = BetaCalibration(method="mle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries below it
        oracle.fit(confidence, correct)
        wanted = oracle.transform(confidence)
    np.testing.assert_allclose(cw.fit_beta(confidence, correct)(confidence), wanted, atol=1e-3)


def test_three_places_are_fitted_exactly():
    fitted = cw.fit_beta([0.2] * 4 + [0.5] * 4 + [0.8] * 4, [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    assert fitted([0.2, 0.5, 0.8]) == pytest.approx([0.25, 0.5, 0.75])


def test_one_end_alone():
    """a = b = 1 leaves confidence as it is; b = 0 lets certainty at the top say nothing."""
    same = np.array([0.1, 0.5, 0.9])
    assert cw.Beta(1.0, 1.0, 0.0)(same) == pytest.approx(same)
    assert cw.Beta(1.0, 0.0, np.log(3.0))([1.0]) == pytest.approx([0.75], abs=1e-6)


def test_soft_correctness_equals_the_same_rows_weighed():
    confidence = np.array([0.9, 0.6, 0.3])
    hard = cw.fit_beta(np.repeat(confidence, 4), [1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0])
    soft = cw.fit_beta(confidence, [0.75, 0.5, 0.25])
    assert (soft.a, soft.b, soft.intercept) == pytest.approx((hard.a, hard.b, hard.intercept), rel=1e-6)


def test_two_places_ask_for_equal_slopes_and_one_for_none():
    with pytest.warns(CalibrationWarning, match="Only two"):
        two = cw.fit_beta([0.5] * 4 + [0.9] * 4, [1, 0, 0, 0, 1, 1, 1, 0])
    assert two.a == two.b
    assert two([0.5, 0.9]) == pytest.approx([0.25, 0.75])
    with pytest.warns(CalibrationWarning, match="All confidences are equal"):
        one = cw.fit_beta([0.9] * 4, [1, 1, 1, 0])
    assert (one.a, one.b) == (1.0, 1.0)
    assert one([0.9]) == pytest.approx([0.75])


def test_wrong_order_gives_one_value_and_says_so():
    with pytest.warns(CalibrationWarning, match="a = b = 0"):
        fitted = cw.fit_beta([0.2, 0.3, 0.4, 0.6, 0.7, 0.8], [1, 1, 0, 1, 0, 0])
    assert fitted([0.1, 0.9]) == pytest.approx([0.5, 0.5])
    assert fitted.report.at_bound == "lower"
    assert fitted.report.converged


@pytest.mark.parametrize("correct", [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
def test_where_no_numbers_are_best_the_targets_are_smoothed(correct):
    with pytest.warns(CalibrationWarning, match="smoothed targets"):
        fitted = cw.fit_beta([0.2, 0.4, 0.6, 0.8], correct)
    assert ((fitted([0.0, 0.5, 1.0]) > 0.0) & (fitted([0.0, 0.5, 1.0]) < 1.0)).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=25))
def test_more_confidence_never_means_less_and_nothing_gets_worse(rows):
    confidence, correct = np.array(rows).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        fitted = cw.fit_beta(confidence, correct)
    assert fitted.report.converged, fitted
    assert fitted.report.objective_after <= fitted.report.objective_before + 1e-12
    assert (np.diff(fitted(np.linspace(0.0, 1.0, 50))) >= -1e-12).all()


@pytest.mark.parametrize("numbers", [(-0.1, 1, 0), (1, np.nan, 0), (1, 1, np.inf), (True, 1, 0), (1, "1", 0)])
def test_wrong_numbers_are_named(numbers):
    with pytest.raises(InputError, match="of Beta must be"):
        cw.Beta(*numbers)
