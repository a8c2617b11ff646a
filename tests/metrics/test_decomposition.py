"""The Brier decomposition: by hand, by double sums over the definition, and exact for any data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.scores import log_softmax

law = settings(deadline=None, max_examples=100)
soft_rows = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)
TERMS = ("reliability", "resolution", "uncertainty", "within_bin_variance", "within_bin_covariance")


def by_double_sums(confidence, correct, n_bins):
    """Return the five terms as Murphy and Stephenson et al. define them, two passes over each bin's own rows."""
    index = np.minimum(np.floor(confidence * n_bins), n_bins - 1)
    base = correct.mean()
    terms = dict.fromkeys(TERMS, 0.0)
    for part in np.unique(index):
        forecast, outcome = confidence[index == part], correct[index == part]
        terms["reliability"] += len(forecast) * (forecast.mean() - outcome.mean()) ** 2
        terms["resolution"] += len(forecast) * (outcome.mean() - base) ** 2
        terms["within_bin_variance"] += ((forecast - forecast.mean()) ** 2).sum()
        terms["within_bin_covariance"] += 2 * ((forecast - forecast.mean()) * (outcome - outcome.mean())).sum()
    terms["uncertainty"] = ((correct - base) ** 2).sum()
    return {name: value / len(confidence) for name, value in terms.items()}


def test_by_hand():
    parts = metrics.brier_decomposition([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1])
    assert parts.reliability == pytest.approx((2 * 0.4**2 + 2 * 0.4**2) / 4)
    assert parts.resolution == pytest.approx((2 * 0.25**2 + 2 * 0.25**2) / 4)
    assert parts.uncertainty == pytest.approx(0.75 * 0.25)
    assert parts.within_bin_variance == pytest.approx(0, abs=1e-15)
    assert parts.within_bin_covariance == pytest.approx(0, abs=1e-15)
    assert parts.brier == pytest.approx((0.01 + 0.81 + 0.16 + 0.16) / 4)


@pytest.mark.parametrize("n_bins", [1, 4, 16])  # powers of 2, whose edges are found without rounding
@pytest.mark.parametrize("soft", [False, True])
def test_agrees_with_the_definition(n_bins, soft):
    rng = np.random.default_rng(n_bins)
    confidence = rng.random(300)
    correct = rng.random(300) if soft else rng.random(300) < confidence**2
    parts = metrics.brier_decomposition(confidence, correct, n_bins)
    for name, value in by_double_sums(confidence, correct.astype(float), n_bins).items():
        assert getattr(parts, name) == pytest.approx(value, abs=1e-13), name


@law
@given(soft_rows, st.sampled_from([1, 2, 7, 15]), st.sampled_from(["uniform", "quantile"]))
def test_the_terms_add_up_to_the_brier_score_exactly(rows, n_bins, strategy):
    confidence, correct = np.array(rows).T
    parts = metrics.brier_decomposition(confidence, correct, n_bins, strategy)
    assert parts.brier == pytest.approx(metrics.top_label_brier(confidence, correct), abs=1e-12)
    assert parts.reliability == pytest.approx(metrics.ece(confidence, correct, n_bins, strategy, "l2") ** 2, abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty, parts.within_bin_variance) >= 0
    assert parts.resolution <= parts.uncertainty + 1e-12


@law
@given(st.lists(st.tuples(st.sampled_from([0.05, 0.35, 0.65, 1.0]), st.booleans()), min_size=1, max_size=40))
def test_one_confidence_a_bin_leaves_the_three_terms_of_murphy(rows):
    confidence, correct = np.array(rows).T
    parts = metrics.brier_decomposition(confidence, correct, 10)
    murphy = parts.reliability - parts.resolution + parts.uncertainty
    assert murphy == pytest.approx(metrics.top_label_brier(confidence, correct), abs=1e-12)


def test_the_decompositions_of_all_options_add_up_to_the_brier_score():
    rng = np.random.default_rng(8)
    table = np.exp(log_softmax(rng.normal(size=(400, 3))))
    answers = rng.integers(0, 3, 400)
    parts = [metrics.brier_decomposition(table[:, option], answers == option) for option in range(3)]
    assert sum(part.brier for part in parts) == pytest.approx(metrics.brier(table, answers), abs=1e-12)


def test_generalised_resolution_moves_less_with_the_bins_than_resolution():
    rng = np.random.default_rng(9)
    confidence = rng.random(20_000)
    correct = rng.random(20_000) < confidence
    coarse, fine = (metrics.brier_decomposition(confidence, correct, n_bins) for n_bins in (3, 30))
    moved = abs(coarse.generalised_resolution - fine.generalised_resolution)
    assert moved < abs(coarse.resolution - fine.resolution) / 5


def test_single_precision_and_integers_are_summed_in_double_precision():
    confidence = np.full(100_000, 0.1, dtype=np.float32)
    parts = metrics.brier_decomposition(confidence, np.zeros(100_000, dtype=int))
    assert parts.within_bin_variance == pytest.approx(0, abs=1e-12)
    assert metrics.brier_decomposition([1, 0], [1, 0]).brier == 0
