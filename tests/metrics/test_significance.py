"""KS error and the tests of calibration: by hand, by enumeration, by published values, and right under the null."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.metrics.significance import brownian_tail

law = settings(deadline=None, max_examples=100)
rows_of = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)
tied = st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.7, 1.0]), st.booleans()), min_size=1, max_size=25)


@law
@given(st.one_of(rows_of, tied))
def test_ks_error_is_the_worst_threshold(rows):
    confidence, correct = np.array(rows).T
    worst = max(abs(((correct - confidence) * (confidence <= t)).mean()) for t in confidence)
    assert metrics.ks_error(confidence, correct) == pytest.approx(worst, abs=1e-12)


@law
@given(rows_of)
def test_ks_error_lies_between_the_global_gap_and_the_mean_absolute_residual(rows):
    confidence, correct = np.array(rows).T
    error = metrics.ks_error(confidence, correct)
    assert abs(confidence.mean() - correct.mean()) - 1e-12 <= error <= np.abs(confidence - correct).mean() + 1e-12


@law
@given(tied, st.randoms(use_true_random=False))
def test_ks_error_is_blind_to_the_order_of_rows(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    first, second = (metrics.ks_error(*np.array(part).T) for part in (rows, shuffled))
    assert first == pytest.approx(second, abs=1e-15)


def test_ks_error_of_one_sided_errors_is_their_mean():
    assert metrics.ks_error([0.6, 0.9, 0.8], [0.5, 0.5, 0.5]) == pytest.approx(0.8 / 3)


def test_published_values():
    # The worked examples in MAPIE's documentation, its Spiegelhalter p-value is one-sided.
    confidence, correct = [0.1, 0.9, 0.21, 0.9, 0.5], [0, 1, 0, 1, 0]
    assert round(metrics.ks_test(confidence, correct).statistic, 3) == 0.978
    assert round(metrics.spiegelhalter_test(confidence, correct).statistic, 3) == -0.757
    one_sided = 0.8486
    confidence, correct = [0.8, 0.3, 0.5, 0.5, 0.7, 0.1], [1, 0, 1, 0, 1, 0]
    assert metrics.spiegelhalter_test(confidence, correct).p_value == pytest.approx(2 * (1 - one_sided), abs=1.1e-4)
    parted = [0.8, 0.3, 0.5 + 1e-9, 0.5, 0.7, 0.1]  # there the tie at 0.5 counts in one order, here it is whole
    assert metrics.ks_test(parted, correct).p_value == pytest.approx(0.7857, abs=5e-5)
    assert 1 - brownian_tail(1.0) == pytest.approx(0.3708, abs=5e-5)


def test_spiegelhalter_by_enumeration_has_mean_0_and_variance_1():
    confidence = np.array([0.1, 0.35, 0.6, 0.9, 0.99])
    weights, values = [], []
    for outcome in itertools.product([0, 1], repeat=5):
        weights.append(np.prod(np.where(outcome, confidence, 1 - confidence)))
        values.append(metrics.spiegelhalter_test(confidence, outcome).statistic)
    assert np.dot(weights, values) == pytest.approx(0, abs=1e-12)
    assert np.dot(weights, np.square(values)) == pytest.approx(1, abs=1e-12)


@law
@given(tied)
def test_spiegelhalter_is_the_brier_score_against_its_promise(rows):
    confidence, correct = np.array(rows).T
    if set(confidence) <= {1.0}:
        return
    promised = (confidence * (1 - confidence)).mean()
    excess = metrics.top_label_brier(confidence, correct) - promised
    deviation = math.sqrt(((1 - 2 * confidence) ** 2 * confidence * (1 - confidence)).sum()) / len(confidence)
    test = metrics.spiegelhalter_test(confidence, correct)
    assert test.statistic == pytest.approx(excess / deviation, abs=1e-9)
    assert test.p_value == pytest.approx(2 * norm.sf(abs(test.statistic)), rel=1e-9)


@pytest.mark.parametrize("test", [metrics.ks_test, metrics.spiegelhalter_test])
def test_right_confidences_are_rejected_as_often_as_stated_and_wrong_ones_nearly_always(test):
    rng = np.random.default_rng(6)
    confidence = rng.beta(4, 2, (600, 400))
    luck = rng.random((600, 400))
    honest = [test(*pair).p_value for pair in zip(confidence, luck < confidence, strict=True)]
    assert 0.025 < np.mean(np.array(honest) < 0.05) < 0.075
    assert 0.4 < np.mean(honest) < 0.6
    wrong = [test(*pair).p_value for pair in zip(confidence, luck < confidence**2, strict=True)]
    assert np.mean(np.array(wrong) < 0.05) > 0.95


@given(st.floats(0.2, 6))
def test_the_two_series_of_brownian_motion_agree(distance):
    k = np.arange(60)
    reflection = 4 * ((-1.0) ** k * norm.sf((2 * k + 1) * distance)).sum()
    heat = 1 - 4 / np.pi * ((-1.0) ** k / (2 * k + 1) * np.exp(-(((2 * k + 1) * np.pi / distance) ** 2) / 8)).sum()
    assert brownian_tail(distance) == pytest.approx(reflection, abs=1e-13)
    assert brownian_tail(distance) == pytest.approx(heat, abs=1e-13)


def test_brownian_tail_at_the_ends():
    assert brownian_tail(0.0) == 1.0
    assert brownian_tail(1e-9) == 1.0
    assert brownian_tail(12.0) == pytest.approx(4 * norm.sf(12.0), rel=1e-9)
    assert brownian_tail(1e9) == 0.0


def test_confidences_without_variance_are_refused():
    with pytest.raises(InputError, match=r"other than 0, 0.5 and 1"):
        metrics.spiegelhalter_test([0.5, 1.0, 0.0], [1, 1, 0])
    assert metrics.ks_test([0.5, 1.0, 0.0], [1, 1, 0]).p_value == pytest.approx(brownian_tail(1.0))
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        metrics.ks_test([1.0, 0.0], [1, 0])


@pytest.mark.parametrize("test", [metrics.ks_test, metrics.spiegelhalter_test])
def test_soft_correctness_is_refused(test):
    with pytest.raises(InputError, match="0 or 1 for this metric"):
        test([0.2, 0.9], [0.5, 1.0])
