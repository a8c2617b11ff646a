"""The mergeable state: streaming equals batch, merging is a commutative monoid, counts are exact."""

import copy
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.metrics import CalibrationState

law = settings(deadline=None, max_examples=60)
batch = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=12)


def state_of(rows, n_bins=7):
    return CalibrationState.empty(n_bins).update([row[0] for row in rows], [row[1] for row in rows])


def same(left, right):
    assert np.array_equal(left.count, right.count)
    assert np.array_equal(left.correct_sum, right.correct_sum)
    assert left.confidence_sum == pytest.approx(right.confidence_sum, abs=1e-12)
    assert left.squared_error_sum == pytest.approx(right.squared_error_sum, abs=1e-12)
    assert np.array_equal(left.moments.correct_square, right.moments.correct_square)
    assert left.moments.variance == pytest.approx(right.moments.variance, abs=1e-12)
    assert left.moments.brier_variance == pytest.approx(right.moments.brier_variance, abs=1e-12)


@law
@given(st.lists(batch, max_size=6).filter(any))
def test_streaming_in_any_pieces_equals_the_functions_on_all_rows(batches):
    state = CalibrationState.empty(7)
    for rows in batches:
        state = state.update([row[0] for row in rows], [row[1] for row in rows])
    confidence = np.array([row[0] for rows in batches for row in rows])
    correct = np.array([row[1] for rows in batches for row in rows])
    for norm in ("l1", "l2", "max"):
        assert state.ece(norm) == pytest.approx(metrics.ece(confidence, correct, 7, norm=norm), abs=1e-12)
    assert state.n == len(confidence)
    assert state.accuracy == metrics.accuracy(correct)
    assert state.mean_confidence == pytest.approx(confidence.mean(), abs=1e-12)
    assert state.gap == pytest.approx(correct.mean() - confidence.mean(), abs=1e-12)
    assert state.top_label_brier == pytest.approx(metrics.top_label_brier(confidence, correct), abs=1e-12)
    ours, whole = state.reliability_curve(), metrics.reliability_curve(confidence, correct, 7)
    assert ours.accuracy == pytest.approx(whole.accuracy, abs=1e-12, nan_ok=True)
    assert ours.confidence == pytest.approx(whole.confidence, abs=1e-12, nan_ok=True)


@law
@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), max_size=5).filter(any))
def test_soft_rows_in_any_pieces_give_the_terms_of_the_functions(batches):
    state = CalibrationState.empty(7)
    for rows in batches:
        state += state_of(rows)
    confidence, correct = np.array([row for rows in batches for row in rows]).T
    ours, whole = state.brier_decomposition(), metrics.brier_decomposition(confidence, correct, 7)
    assert dataclasses.astuple(ours) == pytest.approx(dataclasses.astuple(whole), abs=1e-12)
    if state.count.max() > 1:
        whole_error = metrics.debiased_ece(confidence, correct, 7)
        assert state.debiased_ece() ** 2 == pytest.approx(whole_error**2, abs=1e-12)


def test_the_test_of_spiegelhalter_in_pieces():
    rng = np.random.default_rng(4)
    confidence = rng.beta(4, 2, 3000)
    correct = rng.random(3000) < confidence**1.1
    state = CalibrationState.empty()
    for part in np.array_split(np.arange(3000), 7):
        state = state.update(confidence[part], correct[part])
    whole = metrics.spiegelhalter_test(confidence, correct)
    assert state.spiegelhalter_test().statistic == pytest.approx(whole.statistic, rel=1e-9)
    assert state.spiegelhalter_test().p_value == pytest.approx(whole.p_value, rel=1e-9)
    with pytest.raises(InputError, match="Got soft correctness"):
        state.update([0.9], [0.5]).spiegelhalter_test()


NEED_MOMENTS = ["debiased_ece", "brier_decomposition", "spiegelhalter_test"]


@pytest.mark.parametrize("name", NEED_MOMENTS)
def test_a_state_without_moments_says_so_and_so_does_what_it_is_merged_into(name):
    bare = CalibrationState(np.array([2]), np.array([1.0]), np.array([1.0]), 0.5)
    assert bare.ece() == 0
    for state in (bare, bare + CalibrationState.empty(1), CalibrationState.empty(1) + bare):
        assert state.moments is None
        with pytest.raises(InputError, match="'moments'"):
            getattr(state, name)()


def test_moments_of_other_bins_are_refused():
    moments = CalibrationState.empty(3).moments
    with pytest.raises(InputError, match=r"as many bins as 'count', 1. Got 3"):
        CalibrationState(np.array([2]), np.array([1.0]), np.array([1.0]), 0.5, moments)


@pytest.mark.parametrize("name", NEED_MOMENTS)
def test_terms_of_no_rows_are_refused(name):
    with pytest.raises(InputError, match=r"0 rows|no rows"):
        getattr(CalibrationState.empty(), name)()


@law
@given(batch, batch, batch)
def test_merging_is_commutative_and_associative_with_a_neutral_element(first, second, third):
    a, b, c = state_of(first), state_of(second), state_of(third)
    same(a + b, b + a)
    same((a + b) + c, a + (b + c))
    same(a + CalibrationState.empty(7), a)
    same(a.merge(b), state_of(first + second))


def test_updating_leaves_the_old_state_alone():
    old = state_of([(0.5, True)])
    new = old.update([0.5], [False])
    assert (old.n, new.n) == (1, 2)
    with pytest.raises(ValueError, match="read-only"):
        old.count[0] = 9


def test_sums_of_hard_correctness_stay_exact_beyond_float32_and_int32():
    state = CalibrationState(np.array([2**40]), np.array([2.0**39]), np.array([2.0**39]), 0.0)
    grown = state.update([0.5], [True])
    assert grown.count.tolist() == [2**40 + 1]
    assert grown.correct_sum.tolist() == [2.0**39 + 1]


def test_states_survive_the_protocol_that_copies_and_pickles():
    state = state_of([(0.5, True), (0.9, False)])
    same(copy.deepcopy(state), state)


def test_states_of_other_bins_do_not_merge():
    with pytest.raises(InputError, match="Got 7 and 8"):
        CalibrationState.empty(7).merge(CalibrationState.empty(8))


@pytest.mark.parametrize("name", ["accuracy", "mean_confidence", "gap", "top_label_brier"])
def test_properties_of_no_rows_are_refused(name):
    with pytest.raises(InputError, match="no rows"):
        getattr(CalibrationState.empty(), name)


def test_ece_of_no_rows_is_refused():
    with pytest.raises(InputError, match="no rows"):
        CalibrationState.empty().ece()


def test_a_bad_batch_is_refused():
    with pytest.raises(InputError, match="confidence"):
        CalibrationState.empty().update([np.nan], [True])


@law
@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=12), max_size=4).filter(any))
def test_a_smooth_state_gives_the_smooth_error_of_all_rows_in_any_pieces(batches):
    states = [CalibrationState.empty(7, smooth=True).update(*np.array(rows).reshape(-1, 2).T) for rows in batches]
    state = sum(states[1:], states[0])
    confidence, correct = np.array([row for rows in batches for row in rows]).T
    assert state.smooth_ece() == pytest.approx(metrics.smooth_ece(confidence, correct), abs=1e-9)


def test_residuals_are_lost_where_one_side_has_none():
    with_them, without = CalibrationState.empty(7, smooth=True).update([0.5], [1]), state_of([(0.5, True)])
    assert (with_them + with_them).smooth_ece() == pytest.approx(0.5)
    for state in (without, with_them + without, without + with_them):
        with pytest.raises(InputError, match="smooth=True"):
            state.smooth_ece()
    with pytest.raises(InputError, match="no rows"):
        CalibrationState.empty(7, smooth=True).smooth_ece()
    with pytest.raises(InputError, match="residual_sums"):
        dataclasses.replace(without, residual_sums=np.zeros(5))
