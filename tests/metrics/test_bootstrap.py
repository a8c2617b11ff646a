"""Bootstrap intervals: right width, right cover, paired rows, and no silent gaps."""

import math
from functools import partial

import numpy as np
import pytest

from calibwrap import metrics
from calibwrap.errors import InputError


def test_width_is_that_of_the_normal_theory():
    correct = np.arange(900) % 2 == 0
    low, high = metrics.bootstrap_ci(metrics.accuracy, correct, n_resamples=2000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 900), rel=0.1)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.005)


def test_level_moves_the_ends():
    correct = np.arange(400) % 2 == 0
    low, high = metrics.bootstrap_ci(metrics.accuracy, correct, level=0.5)
    assert high - low == pytest.approx(2 * 0.6745 * 0.025, rel=0.15)


def test_cover_is_near_the_level():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = metrics.bootstrap_ci(metrics.accuracy, rng.random(150) < 0.7, n_resamples=200, seed=trial)
        inside += low <= 0.7 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_rows_stay_together_and_options_come_through_partial():
    rng = np.random.default_rng(1)
    confidence = rng.random(200)
    correct = confidence > 0.5
    assert metrics.bootstrap_ci(metrics.auroc, confidence, correct, n_resamples=50) == (1.0, 1.0)
    coarse = metrics.bootstrap_ci(partial(metrics.ece, n_bins=1), confidence, correct, n_resamples=50)
    assert coarse[1] < metrics.bootstrap_ci(metrics.ece, confidence, correct, n_resamples=50)[0]


def test_tables_are_resampled_by_row():
    table = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    low, high = metrics.bootstrap_ci(metrics.brier, table, [0, 1, 0], n_resamples=300)
    assert (low, high) == (0.0, 0.5)  # the best row drawn thrice, the worst row drawn thrice


def test_the_seed_decides():
    data = np.random.default_rng(2).random(100), np.arange(100) % 2
    assert metrics.bootstrap_ci(metrics.ece, *data, seed=5) == metrics.bootstrap_ci(metrics.ece, *data, seed=5)
    assert metrics.bootstrap_ci(metrics.ece, *data, seed=5) != metrics.bootstrap_ci(metrics.ece, *data, seed=6)


def test_infinite_values_stay_infinite():
    logprobs = np.log([[0.5, 0.5]] * 9 + [[1.0, 1e-320]])
    logprobs[-1, 1] = -np.inf
    low, high = metrics.bootstrap_ci(metrics.nll, logprobs, [0] * 9 + [1], n_resamples=200)
    assert low == pytest.approx(math.log(2))
    assert high == math.inf


def test_paired_difference_cancels_what_both_share():
    rng = np.random.default_rng(3)
    correct = rng.random(500) < 0.6
    good = np.where(correct, 0.8, 0.4)
    worse = np.clip(good + 0.1, 0, 1)
    paired = metrics.bootstrap_difference(metrics.top_label_brier, (worse, correct), (good, correct))
    exact = metrics.top_label_brier(worse, correct) - metrics.top_label_brier(good, correct)
    assert paired[0] <= exact <= paired[1]
    alone = metrics.bootstrap_ci(metrics.top_label_brier, worse, correct)
    assert paired[1] - paired[0] > 0
    assert metrics.bootstrap_difference(metrics.ece, (good, correct), (good, correct), n_resamples=50) == (0, 0)
    assert alone[1] - alone[0] > 0
    swapped = metrics.bootstrap_difference(metrics.top_label_brier, (good, correct), (worse, correct))
    assert swapped == pytest.approx((-paired[1], -paired[0]), abs=1e-12)


def test_an_undefined_resample_is_an_error_with_its_cause():
    with pytest.raises(InputError, match="not defined on resample") as caught:
        metrics.bootstrap_ci(metrics.auroc, [0.1, 0.9, 0.8], [0, 1, 1])
    assert isinstance(caught.value.__cause__, InputError)


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        (([1, 0], [1]), {}, "equally many rows"),
        (([1],), {}, "at least 2"),
        ((), {}, "equally many rows"),
        (([1, 0],), {"level": 95}, "'level'"),
        (([1, 0],), {"n_resamples": 0}, "'n_resamples'"),
    ],
)
def test_wrong_arguments_are_named(arrays, options, words):
    with pytest.raises(InputError, match=words):
        metrics.bootstrap_ci(lambda *_: 0.0, *arrays, **options)


def test_a_metric_that_returns_nan_is_an_error():
    with pytest.raises(InputError, match="NaN on resample 0"):
        metrics.bootstrap_ci(lambda _: math.nan, [1, 0])
