"""Excess AURC and the points of the risk-coverage curve: by hand, by all orders, by all thresholds."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError

law = settings(deadline=None, max_examples=100)
tied = st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.7, 1.0]), st.booleans()), min_size=1, max_size=25)
soft = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=30)
@given(soft)
def test_excess_aurc_is_the_distance_from_the_best_of_all_orders(rows):
    confidence, correct = np.array(rows).T
    steps = np.arange(1, len(rows) + 1)
    best = min(np.mean(np.cumsum(order) / steps) for order in itertools.permutations(1 - correct))
    expected = metrics.aurc(confidence, correct) - best
    assert metrics.excess_aurc(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_excess_aurc_tends_to_the_closed_form():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(200_000), rng.random(200_000) < 0.7
    risk = 1 - correct.mean()
    closed = metrics.aurc(confidence, correct) - (risk + (1 - risk) * math.log(1 - risk))
    assert metrics.excess_aurc(confidence, correct) == pytest.approx(closed, abs=1e-5)


def test_excess_aurc_of_a_perfect_ranking_is_0_at_any_accuracy():
    for right in (0, 3, 5):
        assert metrics.excess_aurc([0.9, 0.8, 0.7, 0.6, 0.5], np.arange(5) < right) == 0
    assert metrics.excess_aurc([0.5, 0.5], [1, 0]) == pytest.approx((0.5 + 0.5) / 2 - (0 + 0.5) / 2)


@law
@given(tied, st.floats(0, 1))
def test_coverage_at_a_risk_is_the_best_of_all_thresholds(rows, risk):
    confidence, correct = np.array(rows).T
    kept = [confidence >= threshold for threshold in set(confidence)]
    allowed = [part.mean() for part in kept if (1 - correct[part]).mean() <= risk]
    assert metrics.coverage_at_risk(confidence, correct, risk) == pytest.approx(max(allowed, default=0.0))


@law
@given(tied, st.floats(0, 1))
def test_risk_at_a_coverage_is_that_of_the_strictest_threshold_that_keeps_enough(rows, coverage):
    confidence, correct = np.array(rows).T
    kept = [confidence >= threshold for threshold in sorted(set(confidence), reverse=True)]
    chosen = next(part for part in kept if part.mean() >= coverage)
    found = metrics.risk_at_coverage(confidence, correct, coverage)
    assert found == pytest.approx((1 - correct[chosen]).mean())


@law
@given(tied, st.floats(0, 1))
def test_the_two_are_inverse(rows, risk):
    confidence, correct = np.array(rows).T
    coverage = metrics.coverage_at_risk(confidence, correct, risk)
    if coverage > 0:
        assert metrics.risk_at_coverage(confidence, correct, coverage) <= risk


def test_points_by_hand():
    answers = [0.9, 0.8, 0.8, 0.3], [1, 1, 0, 0]  # risks 0, 1/3, 1/2 at coverages 1/4, 3/4, 1
    assert [metrics.coverage_at_risk(*answers, risk) for risk in (0, 0.3, 1 / 3, 0.5)] == [0.25, 0.25, 0.75, 1.0]
    assert [metrics.risk_at_coverage(*answers, share) for share in (0, 0.25, 0.76, 1)] == [0, 0, 0.5, 0.5]
    assert metrics.coverage_at_risk([0.9, 0.5], [0, 0], 0.5) == 0.0


def test_they_go_into_a_bootstrap():
    rng = np.random.default_rng(1)
    confidence = rng.random(200)
    correct = rng.random(200) < confidence
    low, high = metrics.bootstrap_ci(partial(metrics.coverage_at_risk, risk=0.25), confidence, correct, n_resamples=99)
    assert low <= metrics.coverage_at_risk(confidence, correct, 0.25) <= high


@pytest.mark.parametrize("function", [metrics.coverage_at_risk, metrics.risk_at_coverage])
@pytest.mark.parametrize("share", [-0.1, 1.1, 5, math.nan])
def test_shares_outside_the_unit_interval_are_named(function, share):
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        function([0.5], [1], share)
