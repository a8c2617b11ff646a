"""Sweep ECE: by hand, against a plain search written with sorted lists, and blind to the order of ties."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError

law = settings(deadline=None, max_examples=80)
tied = st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=30)
free = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30, unique_by=lambda row: row[0])


def by_search(rows, power):
    """Return the error by a search in lists: of B bins row i is in bin floor(i B / N); a tie follows its first row."""
    rows = sorted(rows)
    first = [min(j for j, other in enumerate(rows) if other[0] == row[0]) for row in rows]
    last = [max(j for j, other in enumerate(rows) if other[0] == row[0]) for row in rows]
    chosen = [rows]
    for n_bins in range(2, len(rows) + 1):
        bins, opened = [], None
        for i, row in enumerate(rows):
            # A bin begins at a tie as soon as one begins at any of its rows.
            begins = any(j * n_bins // len(rows) != (j - 1) * n_bins // len(rows) for j in range(first[i], last[i] + 1))
            if not bins or (begins and opened != first[i]):
                bins.append([])
            opened = first[i]
            bins[-1].append(row)
        heights = [sum(row[1] for row in part) / len(part) for part in bins]
        if heights != sorted(heights):
            break
        chosen = bins
    gaps = [(len(part), abs(math.fsum(row[0] - row[1] for row in part)) / len(part)) for part in chosen if part]
    return (math.fsum(size * gap**power for size, gap in gaps) / len(rows)) ** (1 / power)


def both(rows):
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def test_by_hand():
    # Two bins: 0.5, 0.5. Three bins (2, 1, 1 rows): 0.5, 0, 1. So two: |0.3 - 0.5| and |0.7 - 0.5|.
    assert metrics.sweep_ece([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1]) == pytest.approx(0.2)
    # Accuracy falls already with two bins: one bin is left.
    assert metrics.sweep_ece([0.2, 0.4, 0.6, 0.8], [1, 1, 0, 0]) == pytest.approx(0.0)
    # It rises row by row: each row is a bin.
    assert metrics.sweep_ece([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1]) == pytest.approx((0.2 + 0.4 + 0.4 + 0.2) / 4)


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
@law
@given(rows=st.one_of(free, tied))
def test_agrees_with_a_plain_search(norm, power, rows):
    assert metrics.sweep_ece(*both(rows), norm=norm) == pytest.approx(by_search(rows, power), abs=1e-12)


def test_agrees_with_a_plain_search_on_many_rows():
    rng = np.random.default_rng(4)
    confidence = rng.beta(4, 2, 250)
    correct = rng.random(250) < confidence**1.5
    rows = list(zip(confidence.tolist(), correct.tolist(), strict=True))
    assert metrics.sweep_ece(confidence, correct) == pytest.approx(by_search(rows, 1), abs=1e-12)


@law
@given(tied, st.randoms(use_true_random=False))
def test_blind_to_the_order_of_rows(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert metrics.sweep_ece(*both(rows)) == metrics.sweep_ece(*both(shuffled))


@law
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_lies_between_the_global_gap_and_the_mean_absolute_residual(rows):
    confidence, correct = both(rows)
    error = metrics.sweep_ece(confidence, correct)
    assert abs(confidence.mean() - correct.mean()) - 1e-12 <= error <= np.abs(confidence - correct).mean() + 1e-12


def test_constant_soft_correctness_never_falls_by_rounding():
    confidence = np.linspace(0, 1, 50)
    assert metrics.sweep_ece(confidence, np.full(50, 0.1)) == pytest.approx(np.abs(confidence - 0.1).mean())


def test_its_bias_is_smaller_than_that_of_fifteen_bins():
    rng = np.random.default_rng(5)
    confidence = rng.beta(4, 2, (60, 200))
    correct = rng.random((60, 200)) < confidence
    swept = [metrics.sweep_ece(*pair) for pair in zip(confidence, correct, strict=True)]
    plain = [metrics.ece(*pair, strategy="quantile") for pair in zip(confidence, correct, strict=True)]
    assert np.mean(swept) < 0.8 * np.mean(plain)


def test_stated_confidences_with_two_odd_rows_do_not_hang():
    # The two odd rows only part when there is a bin for almost every row, so nearly every number of bins is tried.
    confidence = np.concatenate([np.full(7_998, 0.9), [0.95, 0.96]])
    correct = np.concatenate([np.arange(7_998) % 4 > 0, [True, False]])
    start = time.process_time()
    assert metrics.sweep_ece(confidence, correct) == pytest.approx(0.15, abs=1e-3)
    assert time.process_time() - start < 10


def test_an_unknown_norm_is_named():
    with pytest.raises(InputError, match="'norm'"):
        metrics.sweep_ece([0.5], [1], norm="l3")
