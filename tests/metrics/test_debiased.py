"""The debiased calibration error: by hand, by loops over the published formula, and unbiased by enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError

law = settings(deadline=None, max_examples=80)
rows_of = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40)


def by_loops(confidence, correct, n_bins):
    """Return the formula of Kumar, Liang and Ma, one bin after the other, with statistics of lists."""
    total = 0.0
    for low in range(n_bins):
        inside = [
            row for row in zip(confidence, correct, strict=True) if min(math.floor(row[0] * n_bins), n_bins - 1) == low
        ]
        if len(inside) < 2:
            continue
        mean_confidence = math.fsum(row[0] for row in inside) / len(inside)
        mean_label = math.fsum(row[1] for row in inside) / len(inside)
        variance = mean_label * (1 - mean_label) / (len(inside) - 1)
        total += len(inside) / len(confidence) * ((mean_confidence - mean_label) ** 2 - variance)
    return math.sqrt(max(total, 0.0))


def test_by_hand():
    # Bin [0.8, 1): gap 0.9 - 0.5, less 0.25 / 3. Bin [0.6, 0.8): gap 0.7 - 0, less nothing. Weights 2/3 and 1/3.
    expected = math.sqrt(4 / 6 * (0.16 - 0.25 / 3) + 2 / 6 * 0.49)
    found = metrics.debiased_ece([0.9, 0.9, 0.9, 0.9, 0.7, 0.7], [1, 1, 0, 0, 0, 0], n_bins=5)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 4, 16])  # powers of 2, whose edges loops find without rounding
def test_agrees_with_the_published_formula(n_bins):
    rng = np.random.default_rng(n_bins)
    for _ in range(20):
        confidence = rng.random(60)
        correct = rng.random(60) < confidence**2
        found = metrics.debiased_ece(confidence, correct, n_bins)
        assert found == pytest.approx(by_loops(confidence, correct, n_bins), abs=1e-7)


@pytest.mark.parametrize(("chance", "rows"), [(0.3, 2), (0.3, 5), (0.9, 6)])
def test_its_square_is_unbiased(chance, rows):
    # At confidence 0 the corrected square is never negative, so clipping at 0 does not hide a bias.
    mean = 0.0
    for outcome in itertools.product([0, 1], repeat=rows):
        weight = math.prod(chance if hit else 1 - chance for hit in outcome)
        mean += weight * metrics.debiased_ece([0.0] * rows, outcome) ** 2
    assert mean == pytest.approx(chance**2, abs=1e-12)


def test_a_calibrated_sampler_has_less_of_it_than_of_the_plug_in():
    rng = np.random.default_rng(3)
    confidence = rng.beta(4, 2, (40, 300))
    correct = rng.random((40, 300)) < confidence
    plain = [metrics.ece(*pair, norm="l2") for pair in zip(confidence, correct, strict=True)]
    debiased = [metrics.debiased_ece(*pair) for pair in zip(confidence, correct, strict=True)]
    assert np.mean(np.square(debiased)) < np.mean(np.square(plain)) / 4


@law
@given(rows_of, st.sampled_from([1, 3, 15]), st.sampled_from(["uniform", "quantile"]))
def test_it_never_exceeds_the_plug_in(rows, n_bins, strategy):
    confidence, correct = zip(*rows, strict=True)
    try:
        debiased = metrics.debiased_ece(confidence, correct, n_bins, strategy)
    except InputError:
        counts = metrics.reliability_curve(confidence, correct, n_bins, strategy).count
        assert counts.max() == 1
    else:
        assert 0 <= debiased <= metrics.ece(confidence, correct, n_bins, strategy, "l2") + 1e-12


@law
@given(rows_of)
def test_soft_correctness_of_0_and_1_is_hard_correctness(rows):
    confidence, correct = zip(*rows, strict=True)
    hard = metrics.debiased_ece(confidence, correct, 1)
    soft = metrics.debiased_ece(confidence, np.array(correct, dtype=float), 1)
    assert soft == pytest.approx(hard, abs=1e-7)


@law
@given(st.lists(st.floats(0, 1), min_size=3, max_size=20))
def test_soft_correctness_subtracts_its_sample_variance(correct):
    square = np.mean(correct) ** 2 - np.var(correct, ddof=1) / len(correct)
    assume(abs(square) > 1e-9)
    found = metrics.debiased_ece(np.zeros(len(correct)), correct, 1)
    assert found == pytest.approx(math.sqrt(max(square, 0.0)), abs=1e-9)


def test_no_two_rows_in_a_bin_are_refused():
    with pytest.raises(InputError, match=r"at least 2 rows. Got 2 rows"):
        metrics.debiased_ece([0.1, 0.9], [0, 1])
