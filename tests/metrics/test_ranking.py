"""AUROC and risk against coverage: by hand, by brute force, and blind to the order of ties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError

law = settings(deadline=None, max_examples=80)
tied_rows = st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.4, 0.7, 1.0]), st.booleans()), min_size=1, max_size=25)


def columns(rows):
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


@law
@given(tied_rows.filter(lambda rows: len({row[1] for row in rows}) == 2))
def test_auroc_counts_pairs_and_halves_ties(rows):
    right = [confidence for confidence, hit in rows if hit]
    wrong = [confidence for confidence, hit in rows if not hit]
    pairs = [float(a > b) + 0.5 * (a == b) for a, b in itertools.product(right, wrong)]
    assert metrics.auroc(*columns(rows)) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auroc_extremes():
    assert metrics.auroc([0.9, 0.8, 0.1], [1, 1, 0]) == 1.0
    assert metrics.auroc([0.9, 0.8, 0.1], [0, 0, 1]) == 0.0
    assert metrics.auroc([0.5, 0.5, 0.5], [0, 0, 1]) == 0.5


@pytest.mark.parametrize("correct", [[1, 1], [0, 0]])
def test_auroc_of_one_class_is_refused(correct):
    with pytest.raises(InputError, match="at least one right and one wrong"):
        metrics.auroc([0.2, 0.9], correct)


def test_auroc_refuses_soft_correctness():
    with pytest.raises(InputError, match=r"0 or 1 for this metric. Got 0.5 in row 1"):
        metrics.auroc([0.2, 0.9], [1.0, 0.5])


def test_aurc_by_hand_without_ties():
    # Kept from the top: right, wrong, right, wrong: risks 0, 1/2, 1/3, 1/2.
    assert metrics.aurc([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def naive_aurc(correct):
    return np.mean(np.cumsum(1 - np.asarray(correct)) / np.arange(1, len(correct) + 1))


def test_aurc_of_ties_is_the_mean_over_their_orders():
    confidence, correct = [0.9, 0.5, 0.5, 0.5, 0.2], [0, 1, 0, 0, 1]
    orders = [naive_aurc([0, *order, 1]) for order in itertools.permutations([1, 0, 0])]
    assert metrics.aurc(confidence, correct) == pytest.approx(np.mean(orders), abs=1e-14)


@law
@given(tied_rows, st.randoms(use_true_random=False))
def test_ranking_is_blind_to_the_order_of_rows(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert metrics.aurc(*columns(rows)) == metrics.aurc(*columns(shuffled))
    before, after = (metrics.risk_coverage_curve(*columns(part)) for part in (rows, shuffled))
    assert np.array_equal(before.risk, after.risk)
    assert np.array_equal(before.coverage, after.coverage)


def test_risk_coverage_by_hand():
    curve = metrics.risk_coverage_curve([0.5, 0.9, 0.5, 0.2], [1, 0, 0, 1])
    assert curve.threshold.tolist() == [0.9, 0.5, 0.2]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.risk == pytest.approx([1.0, 2 / 3, 0.5])


@law
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_curve_ends_at_the_error_rate_and_risks_are_rates(rows):
    confidence, correct = columns(rows)
    curve = metrics.risk_coverage_curve(confidence, correct)
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx(1 - correct.mean(), abs=1e-12)
    assert np.all(np.diff(curve.threshold) < 0)
    assert -1e-12 <= curve.risk.min() <= metrics.aurc(confidence, correct) + 1e-12


def test_without_ties_aurc_is_the_mean_of_the_curve():
    rng = np.random.default_rng(0)
    data = rng.random(300), rng.random(300) < 0.6
    assert metrics.aurc(*data) == pytest.approx(metrics.risk_coverage_curve(*data).risk.mean(), abs=1e-13)
