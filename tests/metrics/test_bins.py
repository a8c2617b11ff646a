"""The bin rule [lo, hi), last one closed: exact at every edge, and cheap in memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.metrics._bins import CHUNK, quantile_edges, uniform_edges, uniform_index


def searched(confidence, n_bins):
    """The rule itself: how many inner edges are at or below the value."""
    inner = np.array([edge / n_bins for edge in range(1, n_bins)])
    return np.searchsorted(inner, confidence, side="right")


@pytest.mark.parametrize("n_bins", [*range(1, 200), 1000, 4096, 99991])
def test_every_edge_and_its_neighbours_fall_where_the_rule_says(n_bins):
    edges = uniform_edges(n_bins)
    values = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1)])
    assert np.array_equal(uniform_index(values, n_bins, edges), searched(values, n_bins))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(1, 10**6))
def test_any_value_falls_where_the_rule_says(values, n_bins):
    values = np.array(values)
    assert np.array_equal(uniform_index(values, n_bins, uniform_edges(n_bins)), searched(values, n_bins))


def test_decimal_confidences_open_the_bin_of_their_name():
    curve = metrics.reliability_curve(np.arange(11) / 10, np.ones(11), n_bins=10)
    assert curve.count.tolist() == [1] * 9 + [2]  # 0.9 and 1.0 share the last bin


def test_float32_values_are_binned_as_the_numbers_that_they_are():
    just_below = np.float32(0.7)  # 0.699999988...
    assert float(just_below) < 0.7
    assert metrics.reliability_curve(np.array([just_below]), [1], n_bins=10).count.tolist().index(1) == 6


def test_uniform_work_needs_the_memory_of_a_chunk_only():
    confidence = np.random.default_rng(0).random(40 * CHUNK)
    correct = confidence > 0.5
    tracemalloc.start()
    metrics.ece(confidence, correct)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < confidence.nbytes / 4


def test_results_do_not_depend_on_the_chunk_border():
    confidence = np.random.default_rng(1).random(2 * CHUNK + 7)
    correct = np.random.default_rng(2).random(len(confidence)) < 0.5
    index = searched(confidence, 15)
    gap = np.bincount(index, correct, 15) - np.bincount(index, confidence, 15)
    assert metrics.ece(confidence, correct) == pytest.approx(np.abs(gap).sum() / len(confidence), abs=1e-14)


def test_quantile_bins_hold_equally_many_distinct_values_and_never_part_ties():
    spread = metrics.reliability_curve(np.linspace(0.01, 0.99, 100), np.ones(100), n_bins=5, strategy="quantile")
    assert spread.count.tolist() == [20] * 5
    tied = metrics.reliability_curve([0.2] * 6 + [0.9] * 4, np.ones(10), n_bins=4, strategy="quantile")
    assert sorted(tied.count[tied.count > 0].tolist()) == [4, 6]
    assert quantile_edges(np.array([0.5, 0.5]), 3).tolist() == [0.5] * 4


def test_a_value_on_a_quantile_edge_opens_the_upper_bin():
    curve = metrics.reliability_curve([0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 1, 1], n_bins=2, strategy="quantile")
    assert curve.edges.tolist() == [0.1, 0.3, 0.5]
    assert curve.count.tolist() == [2, 3]
    assert curve.accuracy.tolist() == [0.0, 1.0]
