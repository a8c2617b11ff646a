"""Isotonic calibration of one confidence: scikit-learn as oracle, pools worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

import calibwrap as cw
from calibwrap.errors import InputError
from calibwrap.saving import load, save

rows = st.lists(
    st.tuples(st.integers(0, 10).map(lambda n: n / 10), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=40
)


@given(rows)
def test_equals_scikit_learn(pairs):
    confidence, correct = np.array(pairs).T
    oracle = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct)
    grid = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(cw.fit_isotonic(confidence, correct)(grid), oracle.predict(grid), atol=1e-12)


@given(rows)
def test_the_mean_is_kept_and_nothing_gets_worse(pairs):
    confidence, correct = np.array(pairs).T
    fitted = cw.fit_isotonic(confidence, correct)
    assert fitted(confidence).mean() == pytest.approx(correct.mean())
    assert (np.diff(fitted(np.linspace(0.0, 1.0, 50))) >= 0.0).all()
    assert fitted.report.objective_after <= fitted.report.objective_before + 1e-4  # the clip's own share


def test_pools_by_hand():
    """0.2: wrong; 0.4: right; 0.6: wrong, wrong; 0.8: right. The middle three pool to a third."""
    fitted = cw.fit_isotonic([0.2, 0.4, 0.6, 0.6, 0.8], [0, 1, 0, 0, 1])
    assert fitted.x.tolist() == [0.2, 0.4, 0.6, 0.8]
    assert fitted.y == pytest.approx([0.0, 1 / 3, 1 / 3, 1.0])
    assert fitted([0.0, 0.3, 0.5, 0.7, 1.0]) == pytest.approx([0.0, 1 / 6, 1 / 3, 2 / 3, 1.0])


def test_few_rows_are_said_and_many_are_not():
    assert "few" in cw.fit_isotonic([0.5], [1]).report.notes[0]
    assert cw.fit_isotonic(np.linspace(0, 1, 200), np.tile([0, 1], 100)).report.notes == ()


def test_save_and_load_are_bit_equal(tmp_path):
    random = np.random.default_rng(0)
    confidence = random.uniform(size=300)
    fitted = cw.fit_isotonic(confidence, random.uniform(size=300) < confidence**2)
    save(fitted, tmp_path / "isotonic.safetensors")
    again = load(tmp_path / "isotonic.safetensors")
    assert again == fitted
    assert hash(again) == hash(fitted)
    assert (again(confidence) == fitted(confidence)).all()
    assert again != cw.Isotonic([0.5], [0.5])
    assert again != "isotonic"


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([0.5, 0.5], [0.1, 0.2], "must rise"),
        ([0.1, 0.5], [0.2, 0.1], "must not fall"),
        ([0.1, 1.5], [0.1, 0.2], r"'x' of Isotonic must lie in \[0, 1\]"),
        ([0.1, 0.5], [-0.1, 0.2], r"'y' of Isotonic must lie in \[0, 1\]"),
        ([0.1], [0.1, 0.2], "'y' of Isotonic must have shape"),
        ([np.nan], [0.1], "'x' of Isotonic must be finite"),
    ],
)
def test_knots_that_are_none_are_refused(x, y, said):
    with pytest.raises(InputError, match=said):
        cw.Isotonic(x, y)


@pytest.mark.parametrize(
    ("confidence", "correct", "said"),
    [
        ([0.5], [2], "'correct' must be numbers from 0 to 1. Got 2"),
        ([1.5], [1], "'confidence' must be numbers from 0 to 1. Got 1.5"),
        ([0.5, 0.6], [1], r"Got shapes \(2,\) and \(1,\)"),
        ([[0.5]], [[1]], "must be \\(N,\\) numbers"),
        ("half", [1], "Got str"),
    ],
)
def test_what_is_no_pair_is_named(confidence, correct, said):
    for fit in (cw.fit_isotonic, cw.fit_platt):
        with pytest.raises(InputError, match=said):
            fit(confidence, correct)
