"""ECE and classwise ECE: cases worked by hand, and laws that hold for any data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError

law = settings(deadline=None, max_examples=100)
confidences = st.one_of(st.floats(0, 1), st.integers(0, 60).map(lambda k: k / 60))
soft_rows = st.lists(st.tuples(confidences, st.floats(0, 1)), min_size=1, max_size=40)
hard_rows = st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=40)
strategies = st.sampled_from(["uniform", "quantile"])


def columns(rows):
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


# Two bins of [0, 0.5) and [0.5, 1]: gaps |0 - 0.3| with weight 1/4 and |2/3 - 0.8| with weight 3/4.
HAND = ([0.3, 0.7, 0.8, 0.9], [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("l1", 0.25 * 0.3 + 0.75 * (0.8 - 2 / 3)),
        ("l2", (0.25 * 0.3**2 + 0.75 * (0.8 - 2 / 3) ** 2) ** 0.5),
        ("max", 0.3),
    ],
)
def test_ece_by_hand(norm, expected):
    assert metrics.ece(*HAND, n_bins=2, norm=norm) == pytest.approx(expected, abs=1e-15)


def test_quantile_ece_by_hand():
    # The median is 0.75: {0.3, 0.7} with accuracy 1/2 against 0.5, {0.8, 0.9} with accuracy 1/2 against 0.85.
    assert metrics.ece(*HAND, n_bins=2, strategy="quantile") == pytest.approx(0.5 * 0.0 + 0.5 * 0.35, abs=1e-15)


def test_default_is_fifteen_uniform_bins_and_l1():
    rng = np.random.default_rng(0)
    data = rng.random(500), rng.random(500) < 0.5
    assert metrics.ece(*data) == metrics.ece(*data, n_bins=15, strategy="uniform", norm="l1")
    assert metrics.ece(*data) != metrics.ece(*data, n_bins=14)


def test_soft_correctness_counts_with_its_value():
    assert metrics.ece([0.75, 0.75], [0.25, 0.75], n_bins=5) == pytest.approx(0.25)


def test_bool_integer_and_float_correctness_agree():
    rng = np.random.default_rng(3)
    confidence, correct = rng.random(1000), rng.random(1000) < 0.5
    expected = metrics.ece(confidence, correct)
    for dtype in (np.int64, np.uint8, np.float32, np.float64):
        assert metrics.ece(confidence, correct.astype(dtype)) == pytest.approx(expected, abs=1e-14)


def test_confidence_one_is_in_the_last_bin():
    assert metrics.ece([1.0, 0.95], [0, 1], n_bins=10) == pytest.approx((1.95 - 1) / 2)


@law
@given(soft_rows, st.integers(1, 40), strategies)
def test_ece_lies_between_the_global_gap_and_the_mean_absolute_residual(rows, n_bins, strategy):
    confidence, correct = columns(rows)
    error = metrics.ece(confidence, correct, n_bins, strategy)
    assert abs(confidence.mean() - correct.mean()) - 1e-12 <= error <= np.abs(confidence - correct).mean() + 1e-12


@law
@given(soft_rows, st.integers(1, 20), st.integers(2, 5))
def test_refining_nested_bins_never_lowers_the_error(rows, n_bins, factor):
    data = columns(rows)
    for norm in ("l1", "l2", "max"):
        assert metrics.ece(*data, n_bins, norm=norm) <= metrics.ece(*data, n_bins * factor, norm=norm) + 1e-12


@law
@given(hard_rows, st.integers(1, 20), strategies)
def test_norms_are_ordered(rows, n_bins, strategy):
    l1, l2, largest = (metrics.ece(*columns(rows), n_bins, strategy, norm) for norm in ("l1", "l2", "max"))
    assert l1 <= l2 + 1e-12
    assert l2 <= largest + 1e-12


@law
@given(hard_rows, st.randoms(use_true_random=False), strategies)
def test_the_order_of_rows_does_not_matter(rows, random, strategy):
    before = metrics.ece(*columns(rows), strategy=strategy)
    random.shuffle(rows)
    assert metrics.ece(*columns(rows), strategy=strategy) == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_a_calibrated_sampler_has_vanishing_error(strategy):
    rng = np.random.default_rng(4)
    confidence = rng.beta(4, 2, 400_000)
    calibrated = metrics.ece(confidence, rng.random(len(confidence)) < confidence, strategy=strategy)
    skewed = metrics.ece(confidence, rng.random(len(confidence)) < confidence**2, strategy=strategy)
    assert calibrated < 0.004  # about sqrt(bins / rows) / 2
    assert skewed == pytest.approx(np.mean(confidence - confidence**2), abs=0.004)


def test_classwise_by_hand():
    # One bin: option 0 has mean 0.7 against frequency 0.5, option 1 0.2 against 0.5, option 2 0.1 against 0.
    table = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]]
    assert metrics.classwise_ece(table, [0, 1], n_bins=1) == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    # Two bins: option 0 is alone in the upper one; option 1 and 2 are all in the lower one.
    assert metrics.classwise_ece(table, [0, 1], n_bins=2) == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    # Ten bins part the two rows of options 0 and 1: (0.2 + 0.6) / 2, (0.1 + 0.7) / 2, 0.1.
    assert metrics.classwise_ece(table, [0, 1], n_bins=10) == pytest.approx((0.4 + 0.4 + 0.1) / 3)


def test_classwise_of_two_options_is_the_binary_error_of_either():
    rng = np.random.default_rng(5)
    first = rng.random(2000)
    answers = (rng.random(2000) > first).astype(int)
    table = np.column_stack([first, 1 - first])
    expected = metrics.ece(first, answers == 0, n_bins=8)
    assert metrics.classwise_ece(table, answers, n_bins=8) == pytest.approx(expected, abs=1e-12)


def test_a_row_without_an_option_adds_no_gap_to_it():
    three = metrics.classwise_ece([[0.5, 0.3, 0.2]], [0])
    ragged = metrics.classwise_ece([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], [0, 0])
    assert ragged == pytest.approx(three / 2)


@pytest.mark.parametrize("options", [{"norm": "l3"}, {"strategy": "mass"}, {"n_bins": 0}, {"n_bins": 2.5}])
def test_wrong_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        metrics.ece([0.5], [1], **options)
