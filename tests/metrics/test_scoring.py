"""Accuracy, Brier scores and likelihood by hand, and at their limits."""

import math

import numpy as np
import pytest

from calibwrap import metrics
from calibwrap.scores import log_softmax


def test_accuracy_of_hard_and_soft_correctness():
    assert metrics.accuracy([1, 0, 0, 1]) == 0.5
    assert metrics.accuracy([0.25, 0.75, 0.5]) == 0.5


def test_brier_is_the_sum_over_options():
    assert metrics.brier([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], [1, 0]) == pytest.approx((0.25 + 0.49 + 0.04) / 2)
    assert metrics.brier([[1.0, 0.0]], [1]) == 2.0
    assert metrics.brier([[1.0, 0.0]], [0]) == 0.0


def test_brier_of_two_options_is_twice_the_binary_one():
    chance = np.array([0.9, 0.2, 0.6])
    correct = np.array([1, 0, 0])
    table = np.column_stack([1 - chance, chance])
    assert metrics.brier(table, correct) == pytest.approx(2 * metrics.top_label_brier(chance, correct))


def test_brier_does_not_write_into_the_caller_s_array():
    table = np.array([[0.5, 0.5]])
    metrics.brier(table, [0])
    assert table.tolist() == [[0.5, 0.5]]


def test_brier_and_nll_ignore_options_that_do_not_exist():
    assert metrics.brier([[0.6, 0.4, 0.0]], [1]) == metrics.brier([[0.6, 0.4]], [1])
    narrow = np.log([[0.6, 0.4]])
    assert metrics.nll([[*narrow[0], -np.inf]], [1]) == metrics.nll(narrow, [1])


def test_top_label_brier_by_hand_also_soft():
    assert metrics.top_label_brier([0.9, 0.6, 0.5], [1, 0, 0.5]) == pytest.approx((0.01 + 0.36 + 0.0) / 3)


def test_nll_is_the_mean_in_nats():
    assert metrics.nll(np.log([[0.5, 0.5], [0.125, 0.875]]), [1, 0]) == pytest.approx((1 + 3) / 2 * math.log(2))


def test_nll_of_an_impossible_answer_is_infinite_and_never_nan():
    certain = [[0.0, -np.inf], [math.log(0.5), math.log(0.5)]]
    assert metrics.nll(certain, [1, 0]) == math.inf
    assert metrics.nll(certain, [0, 0]) == pytest.approx(math.log(2) / 2)


def test_nll_takes_the_rounding_of_float32():
    logits = np.random.default_rng(0).normal(size=(500, 7)) * 5
    answers = np.arange(500) % 7
    exact = metrics.nll(log_softmax(logits), answers)
    assert metrics.nll(log_softmax(logits).astype(np.float32), answers) == pytest.approx(exact, rel=1e-5)
