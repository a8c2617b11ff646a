"""Numbers from outside: what is none is told apart, and large ones lose nothing in silence."""

import decimal

import numpy as np
import pytest

import calibwrap as cw
from calibwrap import metrics
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.real_numbers import array_of, real_array, real_number
from calibwrap.scores import log_softmax


@pytest.mark.parametrize(
    "value", [True, np.True_, "1", b"1", None, 1j, decimal.Decimal(1), [1.0], np.datetime64("NaT")]
)
def test_what_is_no_number_is_nan(value):
    assert np.isnan(real_number(value))


@pytest.mark.parametrize(("value", "number"), [(-(10**400), -np.inf), (np.longdouble(0.5), 0.5), (np.uint8(3), 3.0)])
def test_numbers_of_other_types(value, number):
    assert real_number(value) == number
    assert type(real_number(value)) is float


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([1j]), "complex numbers"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "dates"),
        (["0.5"], "texts"),
        ([0.5, 10**400], "beyond the range of floats"),
        ([[0.5], [0.5, 0.5]], "inhomogeneous"),
    ],
)
def test_what_is_no_array_of_numbers_is_said(values, said):
    with pytest.raises((TypeError, ValueError), match=said):
        real_array(values)
    with pytest.raises(InputError, match=f"'x' must be an array of numbers.*{said}"):
        array_of("'x'", values, np.float64)


def test_the_copy_is_ones_own():
    given = np.array([0.5])
    real_array(given)[0] = 1.0
    assert given[0] == 0.5


@pytest.mark.parametrize("size", [1e17, -1e17, 1e300])
def test_large_equal_logits_share_the_probability(size):
    found = log_softmax([[size, size, -np.inf], [size, -abs(size), -abs(size)]])
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0)
    assert found[0, 0] == pytest.approx(-np.log(2)) == found[0, 1]


RANDOM = np.random.default_rng(1)
SAID, RIGHT = RANDOM.random(60), RANDOM.random(60) < 0.7


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: metrics.ece(SAID, RIGHT, n_bins=10**12), "'n_bins' must be a whole number of at most 1000000"),
        (lambda: metrics.coverage_at_risk(SAID, RIGHT, 0.1j), "'risk' must lie in"),
        (lambda: metrics.bootstrap_ci(metrics.ece, [0.5, [0.5]], [1, 0]), "one is none"),
        (lambda: cw.fit_guard(SAID, RIGHT, seed=0.5), "'seed' must be a whole number"),
        (lambda: cw.fit_platt(SAID, RIGHT, clip=1e-98), "'clip' must lie between 1e-15 and 0.5"),
        (lambda: cw.fit_sets([[0.0], [0.0, 1.0]], [0, 0]), "'logprobs' must be an"),
        (lambda: cw.TokenScores([[0.0], [0.0, -1.0]]), "'logprobs' of TokenScores must be an array of numbers"),
        (lambda: cw.fit_batch([[1e60, 0.0], [0.0, 0.0]]), "must not be further apart than 1e"),
        (lambda: cw.fit_matrix_scaling([[1e200, 0.0], [0.0, 0.0]], [0, 1]), "must not be further apart than 1e"),
        (lambda: cw.Temperature(10**400), "'value' of Temperature must be a finite number"),
    ],
)
def test_what_the_fuzzing_found(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_the_smallest_risk_asks_for_more_rows_than_there_are():
    with pytest.raises(FitError, match="bring at least 13333"):
        cw.fit_guard(SAID, RIGHT, risk=5e-324)


def test_long_floats_are_floats():
    assert metrics.ece(SAID.astype(np.longdouble), RIGHT) == metrics.ece(SAID, RIGHT)
    guard = cw.fit_guard(SAID, RIGHT, risk=np.longdouble(0.6), delta=np.longdouble(0.5))
    assert type(guard.risk) is type(guard.delta) is float


def test_a_drift_next_to_nothing_is_no_overflow():
    assert metrics.ks_test([1e-308], [0]).p_value == 1.0


def test_intervals_of_enormous_logits_are_no_overflow():
    post = np.zeros((10, 3))
    post[6, 0], post[8, 0] = 3.4e154, 1.0
    with pytest.warns(CalibrationWarning):
        fitted = cw.fit_daca(post, np.log(np.tile([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], (5, 1))))
    assert fitted.report.interval[0] <= fitted.value <= fitted.report.interval[1] * (1 + 1e-12)
