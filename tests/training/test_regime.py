"""The regime report: bounds that hold on every sample, a hand-worked case, verdicts that depend on the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap.errors import InputError
from calibwrap.metrics import ece
from calibwrap.scores import OptionScores
from calibwrap.training import regime_report


def scores_of(probabilities):
    with np.errstate(divide="ignore"):
        return OptionScores(np.log(probabilities), readout="label")


def drawn(seed, rows, options=4, sharpness=1.0):
    random = np.random.default_rng(seed)
    return random.dirichlet(np.ones(options) / sharpness, size=rows), random


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 20), st.floats(0.2, 5.0))
def test_the_bounds_hold_on_every_sample(seed, rows, n_bins, sharpness):
    """Provable ones: no assumption about the reference, the answers or the bins."""
    model, random = drawn(seed, rows, sharpness=sharpness)
    reference = random.dirichlet(np.ones(4), size=rows)
    found = regime_report(scores_of(model), random.integers(0, 4, rows), scores_of(reference), n_bins=n_bins)
    assert found.lower_bound <= found.ece + 1e-12
    assert found.ece <= found.upper_bound + 1e-12
    assert found.reference.relative_ece <= found.reference.target_error + 1e-12
    assert found.reference.excess.low <= found.reference.excess.high


def test_the_target_error_bounds_the_ece_where_the_reference_is_the_truth():
    """In expectation only: many answers drawn from the reference itself."""
    model, random = drawn(0, 20000, sharpness=3.0)
    truth = 0.5 * model + 0.5 * random.dirichlet(np.ones(4), size=len(model))
    answers = (truth.cumsum(axis=1) < random.random((len(model), 1))).sum(axis=1).clip(max=3)
    found = regime_report(scores_of(model), answers, scores_of(truth))
    assert found.ece == pytest.approx(found.reference.relative_ece, abs=0.01)
    assert found.ece <= found.reference.target_error
    assert found.accuracy <= found.reference.critical_accuracy
    assert found.reference.ece < 0.02
    assert found.regime == "calibratable"


def test_a_case_by_hand():
    model = scores_of([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
    reference = scores_of([[0.6, 0.4], [0.5, 0.5], [0.6, 0.4], [0.2, 0.8]])
    found = regime_report(model, [0, 1, 1, 1], reference)
    assert found.accuracy == 0.75
    assert found.mean_confidence == pytest.approx(0.75)
    assert found.lower_bound == pytest.approx(0.0, abs=1e-12)
    assert found.upper_bound == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    assert found.reference.target_error == pytest.approx((0.2 + 0.1 + 0.3 + 0.1) / 4)
    assert found.reference.critical_accuracy == pytest.approx((0.6 + 0.5 + 0.6 + 0.8) / 4)
    assert found.reference.excess.value == pytest.approx(0.75 - 0.625)
    assert found.reference.accuracy == 0.5  # right on rows 0 and 3
    assert found.ece == pytest.approx(ece([0.8, 0.6, 0.7, 0.9], [1, 0, 1, 1], n_bins=10))


def test_a_model_that_is_too_good_for_its_reference_is_not_calibratable_to_it():
    right = np.tile([[0.9, 0.1]], (200, 1))
    found = regime_report(scores_of(right), [0] * 190 + [1] * 10, scores_of(np.tile([[0.6, 0.4]], (200, 1))))
    assert found.regime == "non-calibratable"
    assert "Estimate relative to the reference: non-calibratable" in found.text


def test_the_text_says_what_is_proved_and_what_is_not():
    model = scores_of(np.tile([[0.9, 0.1]], (10, 1)))
    alone = regime_report(model, [0] * 5 + [1] * 5)
    assert alone.regime == "no reference"
    assert "Provable on these questions, for any bins: 0.400 <= ECE <= 0.500." in alone.text
    assert "cannot be estimated" in alone.text
    both = regime_report(model, [0] * 5 + [1] * 5, scores_of(np.tile([[0.55, 0.45]], (10, 1))))
    assert both.regime == "undecided"
    assert "Relative to the reference (its own accuracy 0.500 and ECE 0.050 here)" in both.text
    assert "theorem" not in both.text


def test_one_question_decides_nothing():
    assert regime_report(scores_of([[0.9, 0.1]]), [0], scores_of([[0.6, 0.4]])).regime == "undecided"


def test_other_questions_are_refused():
    model = scores_of([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2]])
    with pytest.raises(InputError, match="same questions and options"):
        regime_report(model, [0, 1], scores_of([[0.9, 0.1, 0.0]]))
    with pytest.raises(InputError, match="options that differ"):
        regime_report(model, [0, 1], scores_of([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]]))
    with pytest.raises(InputError, match="option that exists"):
        regime_report(model, [2, 1])
