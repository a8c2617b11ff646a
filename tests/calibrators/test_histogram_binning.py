"""Histogram binning: netcal as oracle, hand-worked cases, ties, and bins that say too little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netcal.binning import HistogramBinning as Oracle

import calibwrap as cw
from calibwrap.errors import FitError, InputError


def made(n, seed):
    random = np.random.default_rng(seed)
    confidence = random.beta(3.0, 1.0, n)
    return confidence, (random.uniform(size=n) < confidence**2).astype(float)


@pytest.mark.parametrize("seed", range(50))
def test_equal_width_equals_netcal(seed):
    """netcal's bins are (lo, hi], so values are compared away from edges."""
    confidence, correct = made(80, seed)
    oracle = Oracle(bins=12)
    oracle.fit(confidence, correct)
    fitted = cw.fit_histogram_binning(confidence, correct, n_bins=12, strategy="uniform", monotone=False)
    np.testing.assert_allclose(fitted(confidence), oracle.transform(confidence).ravel(), atol=1e-12)


def test_equal_mass_by_hand():
    fitted = cw.fit_histogram_binning([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 0, 0, 1, 1, 1], n_bins=3)
    assert fitted.values.tolist() == [0.0, 0.5, 1.0]
    assert fitted([0.0, 0.35, 1.0]).tolist() == [0.0, 0.5, 1.0]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0]), st.sampled_from([0, 1])), min_size=8),
    st.integers(1, 8),
)
def test_ties_are_never_parted_and_each_bin_has_its_share(rows, n_bins):
    confidence, correct = np.array(rows, dtype=float).T
    fitted = cw.fit_histogram_binning(confidence, correct, n_bins=n_bins, monotone=False)
    assert len(fitted.values) <= n_bins
    mapped = fitted(confidence)
    which = np.searchsorted(fitted.edges[1:-1], confidence, side="right")
    assert len(np.unique(which)) == len(fitted.values)  # no bin is empty
    for one in np.unique(which):
        assert mapped[which == one] == pytest.approx(correct[which == one].mean())


def test_bins_in_the_wrong_order_are_pooled():
    confidence, correct = [0.1, 0.2, 0.4, 0.5, 0.8, 0.9], [1, 1, 0, 1, 1, 1]
    pooled = cw.fit_histogram_binning(confidence, correct, n_bins=3)
    assert pooled.values.tolist() == [0.75, 0.75, 1.0]
    assert pooled.is_one_way
    assert "2 bins were in the wrong order" in pooled.report.notes[-1]
    as_they_are = cw.fit_histogram_binning(confidence, correct, n_bins=3, monotone=False)
    assert as_they_are.values.tolist() == [1.0, 0.5, 1.0]
    assert not as_they_are.is_one_way


def test_bins_without_rows_keep_their_middle():
    fitted = cw.fit_histogram_binning([0.1, 0.9], [0, 1], n_bins=4, strategy="uniform")
    assert fitted.values.tolist() == [0.0, 0.375, 0.625, 1.0]
    assert fitted.report.notes[0] == "2 of 4 bins have no rows and keep their middle."


def test_soft_correctness_is_averaged():
    assert cw.fit_histogram_binning([0.5, 0.6], [0.25, 0.75], n_bins=1).values.tolist() == [0.5]


def test_what_cannot_be_is_named():
    with pytest.raises(FitError, match=r"10 bins of equal mass need at least 10 rows\. Got 3"):
        cw.fit_histogram_binning([0.1, 0.2, 0.3], [0, 1, 1])
    with pytest.raises(InputError, match="'strategy'"):
        cw.fit_histogram_binning([0.1], [0], strategy="mass")
    with pytest.raises(InputError, match="'n_bins'"):
        cw.fit_histogram_binning([0.1], [0], n_bins=0)
    for edges in ([0.0, 0.5], [0.1, 1.0], [0.0, 0.5, 0.5, 1.0], [1.0]):
        with pytest.raises(InputError, match="'edges' of HistogramBinning must rise"):
            cw.HistogramBinning(edges, np.zeros(len(edges) - 1))
    with pytest.raises(InputError, match="'values' of HistogramBinning must lie"):
        cw.HistogramBinning([0.0, 1.0], [1.5])


def test_equal_numbers_are_equal():
    one, two = cw.HistogramBinning([0, 1], [0.5]), cw.HistogramBinning([0.0, 1.0], [0.5])
    assert one == two
    assert hash(one) == hash(two)
    assert one != cw.HistogramBinning([0, 1], [0.4])
    assert one != cw.Platt(1.0, 0.0)
