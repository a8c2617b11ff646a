"""Batch calibration: places made even, by hand, with ragged rows, and where it may not be used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.errors import CapabilityError, InputError
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores, log_softmax


def slow(probabilities, row):
    """The paper's formula, one number at a time: p(k) / mean p(k), made to sum to 1."""
    prior = [sum(p[k] for p in probabilities) / len(probabilities) for k in range(len(row))]
    shares = [p / q for p, q in zip(row, prior, strict=True)]
    return [share / sum(shares) for share in shares]


@pytest.mark.parametrize("seed", range(50))
def test_equals_the_formula(seed):
    random = np.random.default_rng(seed)
    logprobs = log_softmax(random.normal(size=(5 + seed, 2 + seed % 6)) + random.normal(size=2 + seed % 6))
    fitted = cw.fit_batch(logprobs)
    wanted = [slow(np.exp(logprobs), row) for row in np.exp(logprobs)]
    np.testing.assert_allclose(np.exp(fitted(logprobs)), wanted, atol=1e-12)


def test_it_takes_out_a_liking_for_a_place_and_may_change_the_choice():
    random = np.random.default_rng(0)
    truth = log_softmax(2.0 * random.normal(size=(2000, 4)))
    answers = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
    liking = truth + np.array([2.0, 0.0, 0.0, -1.0])
    fitted = cw.fit_batch(liking)
    assert not fitted.keeps_argmax
    assert (liking.argmax(axis=1) == answers).mean() + 0.05 < (fitted(liking).argmax(axis=1) == answers).mean()
    assert fitted.report.objective_after < fitted.report.objective_before
    assert np.ptp(np.exp(fitted(liking)).mean(axis=0)) < 0.5 * np.ptp(np.exp(log_softmax(liking)).mean(axis=0))


def test_by_hand():
    """Means 0.6 and 0.4: 0.8 / 0.6 beside 0.2 / 0.4 is 8 : 3, and 0.4 / 0.6 beside 0.6 / 0.4 is 4 : 9."""
    logprobs = np.log([[0.8, 0.2], [0.4, 0.6]])
    np.testing.assert_allclose(np.exp(cw.fit_batch(logprobs)(logprobs)), [[8 / 11, 3 / 11], [4 / 13, 9 / 13]])


def test_rows_of_other_lengths_count_in_units_of_chance():
    """Two options at chance and four at chance show no liking; 2 x 0.8 and 4 x 0.1 are 1 on average."""
    even = log_softmax([[0.0, 0.0, -np.inf, -np.inf], [0.0, 0.0, 0.0, 0.0]])
    assert cw.fit_batch(even).biases == pytest.approx([0.0] * 4)
    ragged = np.log([[0.8, 0.2, 1e-300, 1e-300], [0.1, 0.1, 0.2, 0.6]])
    ragged[0, 2:] = -np.inf
    assert cw.fit_batch(ragged).biases == pytest.approx(-np.log([1.0, 0.4, 0.8, 2.4]))


def test_a_place_that_no_row_has_is_left_as_it_is_and_told():
    without_second = np.array([0.0, -np.inf, 0.0])
    fitted = cw.fit_batch(np.log([[0.8, 1e-300, 0.2], [0.4, 1e-300, 0.6]]) + without_second)
    assert fitted.biases == pytest.approx(-np.log([1.2, 1.0, 0.8]))
    assert any("place 1" in note for note in fitted.report.notes)


@given(st.integers(0, 1000))
def test_even_places_and_constants_change_nothing(seed):
    random = np.random.default_rng(seed)
    row = log_softmax(random.normal(size=3))
    turned = np.array([np.roll(row, turn) for turn in range(3)])
    assert cw.fit_batch(turned + random.normal(size=(3, 1))).biases == pytest.approx([0.0] * 3, abs=1e-12)


def test_save_and_load_are_bit_equal(tmp_path):
    fitted = cw.fit_batch(log_softmax(np.random.default_rng(0).normal(size=(30, 4))))
    save(fitted, tmp_path / "batch.json")
    again = load(tmp_path / "batch.json")
    assert again == fitted
    assert again.report.method == "batch"


def test_few_rows_and_what_it_refuses():
    assert "few" in cw.fit_batch(np.zeros((3, 2))).report.notes[0]
    assert cw.fit_batch(np.zeros((30, 2))).report.notes == ()
    cut = OptionScores.from_lists([[0.6, 0.1]], [[0, 1]], tail=[0.3], cut=[0.05], readout="label")
    with pytest.raises(CapabilityError, match="'batch' needs each option's exact probability"):
        cw.fit_batch(cut)
    with pytest.raises(InputError, match="finite"):
        cw.fit_batch([[np.nan, 0.0]])
