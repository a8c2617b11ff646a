"""Rewards of stated confidences: the golden tables, and the laws that make them worth training with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.errors import InputError
from calibwrap.training import brier_reward, log_score_reward
from calibwrap.training.rewards import reward_table

LEVELS = np.arange(11)
RIGHT = [-7.503, 5.834, 7.842, 9.016, 9.849, 10.495, 11.023, 11.470, 11.857, 12.198, 12.500]
WRONG = [10.000, 9.698, 9.357, 8.970, 8.523, 7.995, 7.349, 6.516, 5.342, 3.334, -10.003]
THRESHOLDS = [0.0222, 0.1453, 0.2478, 0.3489, 0.4497, 0.5504, 0.6512, 0.7523, 0.8548, 0.9779]

probabilities = st.floats(0.0, 1.0)
presets = st.sampled_from(["paper", "official"])


def expected(p, reward=log_score_reward, **options):
    """Return the expected reward of each level for an answer that is right with probability p."""
    return p * reward(LEVELS, True, **options) + (1 - p) * reward(LEVELS, False, **options)


def test_the_table_of_the_official_code():
    np.testing.assert_allclose(log_score_reward(LEVELS, True, preset="official"), RIGHT, atol=5e-4)
    np.testing.assert_allclose(log_score_reward(LEVELS, False, preset="official"), WRONG, atol=5e-4)
    assert log_score_reward(None, True, preset="official") == -30.0
    assert log_score_reward(10, True, preset="official", scale=5.0) == pytest.approx(6.25)


def test_the_paper_runs_from_minus_one_to_one():
    assert [log_score_reward(10, True), log_score_reward(0, False)] == pytest.approx([1.0, 1.0])
    assert [log_score_reward(0, True), log_score_reward(10, False)] == pytest.approx([-1.0, -1.0])
    # by hand: log 0.5 = -0.6931; (-0.6931 + 6.9078) / (-0.0010 + 6.9078) = 0.8998; times 2, less 1
    assert log_score_reward(5, True) == pytest.approx(0.7996, abs=1e-4)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_the_best_level_changes_at_the_golden_thresholds(preset):
    for level, threshold in enumerate(THRESHOLDS):
        assert expected(threshold - 1e-4, preset=preset).argmax() == level
        assert expected(threshold + 1e-4, preset=preset).argmax() == level + 1


@pytest.mark.parametrize("said", [None, -1, 11, 7.5, 1e300, float("inf"), -0.1], ids=lambda said: f"says {said}")
@pytest.mark.parametrize("right", [True, False])
def test_what_cannot_be_read_costs_more_than_the_worst_that_can(said, right):
    for preset, scale in (("paper", 1.0), ("official", 10.0)):
        assert log_score_reward(said, right, preset=preset) == -3.0 * scale
        assert log_score_reward(LEVELS, right, preset=preset).min() > -3.0 * scale
    assert brier_reward(said, right, scale=2.0) == -6.0
    assert brier_reward(LEVELS, right).min() > -3.0


def test_many_statements_at_once_and_the_whole_table():
    rewards = log_score_reward([[3, None], [10, 2]], [[True, False], [False, True]])
    assert rewards.shape == (2, 2)
    assert rewards[0, 1] == -3.0
    assert rewards[1, 0] == log_score_reward(10, False)
    table = reward_table("log", "official")
    np.testing.assert_allclose(table[:11], np.transpose([WRONG, RIGHT]), atol=5e-4)
    assert table[11].tolist() == [-30.0, -30.0]


@given(probabilities)
def test_brier_is_largest_at_the_nearest_level_and_there_its_value_grows_with_p(p):
    values = expected(p, brier_reward)
    assert values.max() == pytest.approx(values[round(10 * p)])
    assert expected(p / 2, brier_reward).max() <= values.max() + 1e-12
    assert values.max() <= p**2 + 1e-12


def test_the_hole_of_the_logarithmic_score_that_the_docstring_shows():
    values = {0: 10.0, 0.1: 9.31, 0.3: 8.98, 0.5: 9.25, 0.7: 9.98, 0.9: 11.31, 1: 12.5}
    for p, value in values.items():
        assert expected(p, preset="official").max() == pytest.approx(value, abs=5e-3)
    assert "9.31  8.98  9.25  9.98  11.31  12.5" in log_score_reward.__doc__


@given(st.integers(0, 9), presets)
def test_more_confidence_is_better_when_right_and_worse_when_wrong(level, preset):
    for reward in (lambda c, a: log_score_reward(c, a, preset=preset), brier_reward):
        assert reward(level + 1, True) > reward(level, True)
        assert reward(level + 1, False) < reward(level, False)


@given(probabilities, st.floats(0.01, 100.0))
def test_neither_scale_nor_preset_moves_the_best_level(p, scale):
    wanted = expected(p)
    for values in (expected(p, scale=scale), expected(p, preset="official", scale=scale)):
        assert wanted[values.argmax()] == pytest.approx(wanted.max(), abs=1e-9)


def test_clipping_makes_the_ends_mean_epsilon():
    assert log_score_reward(10, False, epsilon=0.1) == pytest.approx(-1.0)
    assert log_score_reward(1, True, epsilon=0.1) == log_score_reward(0, True, epsilon=0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((5, 0.5), {}, "True or False"),
        (([1, 2], [True, False, True]), {}, r"one shape.* Got \(2,\) and \(3,\)"),
        (([[1], [2], [3]], [True, False, True]), {}, r"one shape.* Got \(3, 1\) and \(3,\)"),
        (([5], [[True]]), {}, "one shape"),
        ((float("nan"), True), {}, "holds NaN: give None"),
        (([3, None, float("nan")], True), {}, "holds NaN"),
        ((np.array([3, np.nan]), [True, False]), {}, "holds NaN"),
        ((5, float("nan")), {}, "True or False"),
        ((10**400, True), {}, "too large"),
        (([3, -(10**400)], True), {}, "too large"),
        ((5, 10**400), {}, "too large"),
        (("high", True), {}, "numbers or None"),
        ((5, True), {"preset": "code"}, "'preset'"),
        ((5, True), {"epsilon": 0.0}, "'epsilon'"),
        ((5, True), {"epsilon": 0.2}, "'epsilon'"),
        ((5, True), {"scale": -1.0}, "'scale'"),
        ((5, True), {"scale": 10**400}, "'scale'"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, said):
    with pytest.raises(InputError, match=said):
        log_score_reward(*arguments, **options)
    if not options.keys() & {"preset", "epsilon"}:
        with pytest.raises(InputError, match=said):
            brier_reward(*arguments, **options)


def test_a_single_value_goes_with_any_shape():
    assert brier_reward([[0], [10]], True).tolist() == [[0.0], [1.0]]
    assert brier_reward(None, [True, False]).tolist() == [-3.0, -3.0]
    with pytest.raises(InputError, match="'reward'"):
        reward_table("spherical")
