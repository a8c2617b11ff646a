"""Venn-Abers: a slow reference that fits twice for every place, hand-worked cases, validity on drawn answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

import calibwrap as cw
from calibwrap.errors import InputError


def slow(confidence, correct, place):
    """p0 and p1 by the definition: scikit-learn's isotonic regression of the rows and one more, wrong and right."""
    found = []
    for label in (0.0, 1.0):
        said, right = np.append(confidence, place), np.append(correct, label)
        found.append(IsotonicRegression().fit(said, right).predict([place])[0])
    return found


@pytest.mark.parametrize("seed", range(50))
def test_equals_two_fits_at_every_place(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 40))
    confidence = random.choice(np.linspace(0, 1, 12), n) if seed % 2 else random.uniform(size=n)
    correct = random.integers(0, 2, n).astype(float) if seed % 3 else random.uniform(size=n)
    fitted = cw.fit_venn_abers(confidence, correct)
    places = np.concatenate([confidence[:8], random.uniform(size=6), [0.0, 1.0]])
    low, high = fitted.interval(places)
    wanted = np.array([slow(confidence, correct, place) for place in places])
    np.testing.assert_allclose(np.stack([low, high], axis=1), wanted, atol=1e-9)
    np.testing.assert_allclose(fitted(places), wanted[:, 1] / (1.0 - wanted[:, 0] + wanted[:, 1]), atol=1e-9)


def test_by_hand():
    """One right answer at 0.6. Above it: wrong pools to 1/2, right stays 1. Below: wrong is alone at 0, right has 1."""
    fitted = cw.fit_venn_abers([0.6], [1])
    low, high = fitted.interval([0.5, 0.6, 0.7])
    assert low.tolist() == [0.0, 0.5, 0.5]
    assert high.tolist() == [1.0, 1.0, 1.0]
    assert fitted([0.5, 0.7]) == pytest.approx([0.5, 2 / 3])


def test_no_certainty_from_few_rows():
    fitted = cw.fit_venn_abers(np.linspace(0.1, 0.9, 9), np.ones(9))
    assert fitted([0.95]) == pytest.approx([1 / (1 - 0.9 + 1)])
    assert "are few" in fitted.report.notes[0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=30))
def test_both_rise_and_the_number_lies_between(rows):
    confidence, correct = np.array(rows).T
    fitted, places = cw.fit_venn_abers(confidence, correct), np.linspace(0.0, 1.0, 60)
    low, high = fitted.interval(places)
    mapped = fitted(places)
    assert (low <= high).all()
    assert (np.diff(low) >= 0.0).all()
    assert (np.diff(high) >= 0.0).all()
    assert ((low - 1e-12 <= mapped) & (mapped <= high + 1e-12)).all()


def test_the_next_answers_lie_between_on_average():
    """The guarantee: with the truth chosen between p0 and p1, the mean is calibrated; it lies between their means."""
    random = np.random.default_rng(0)
    lows, highs, rights = [], [], []
    for _ in range(400):
        confidence = random.uniform(size=41)
        correct = (random.uniform(size=41) < confidence**2).astype(float)
        low, high = cw.fit_venn_abers(confidence[:40], correct[:40]).interval(confidence[40])
        lows.append(float(low))
        highs.append(float(high))
        rights.append(correct[40])
    noise = 3.0 * np.std(rights) / 20.0
    assert np.mean(lows) - noise <= np.mean(rights) <= np.mean(highs) + noise
    assert np.mean(highs) - np.mean(lows) < 0.35


def test_rounding_makes_no_new_place():
    confidence = np.array([0.3, 0.6, 0.9])
    fitted = cw.fit_venn_abers(confidence, [0, 1, 1])
    nudged = np.nextafter(confidence, 1.0)
    assert (fitted(nudged) == fitted(confidence)).all()


def test_wrong_steps_are_named():
    good = {"x0": [0.5], "p0": [0.0, 0.5], "x1": [0.5], "p1": [0.5, 1.0]}
    assert cw.VennAbers(**good) == cw.VennAbers(**good)
    assert hash(cw.VennAbers(**good)) == hash(cw.VennAbers(**good))
    assert cw.VennAbers(**good) != cw.VennAbers(**good | {"p1": [0.6, 1.0]})
    assert cw.VennAbers(**good) != cw.Platt(1.0, 0.0)
    for wrong in ({"x0": [1.5]}, {"p0": [0.5, 0.0]}, {"x1": [0.5, 0.5], "p1": [0.5, 0.6, 1.0]}):
        with pytest.raises(InputError, match="must rise and"):
            cw.VennAbers(**good | wrong)
    with pytest.raises(InputError, match="nowhere be above"):
        cw.VennAbers(**good | {"p0": [0.7, 0.7]})
    with pytest.raises(InputError, match="must have shape"):
        cw.VennAbers(**good | {"p0": [0.7]})
