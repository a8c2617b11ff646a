"""Verdicts on given answers, and DACA between two judges: the same words as P(True), the same map as a temperature."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.base import Answer
from calibwrap.capabilities import Provides
from calibwrap.decoders.judgement import fit_daca_judged, judgements, own_judgements
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError
from calibwrap.questions import SHORT
from calibwrap.scores import OptionScores
from calibwrap.testing import ToyAdapter, ToyModel

QUESTIONS = [cw.FreeQuestion(f"{first} {last}") for first in "ABC" for last in ("A", "B", "C", "sun")] * 3
JUDGE = cw.PTrue(labels=("A", "B"), max_tokens=1)


def verdicts_of(right):
    return OptionScores(np.log(np.stack([right, 1.0 - right], axis=1)), "verdict")


def test_a_judge_asks_what_p_true_asks():
    """The model's verdicts on its own answers are the decoder's confidences, asked again or read off."""
    lm = cw.wrap(ToyAdapter(ToyModel.random(3)))
    answers = lm.answer_batch(QUESTIONS, JUDGE, template=SHORT)
    assert all(answer.text for answer in answers)
    asked = judgements(lm.adapter, QUESTIONS, [answer.text for answer in answers], JUDGE, SHORT)
    np.testing.assert_allclose(asked.probabilities[:, 0], [answer.confidence for answer in answers], atol=1e-12)
    np.testing.assert_allclose(own_judgements(answers).probabilities, asked.probabilities, atol=1e-12)


def test_bounds_of_short_lists_are_kept():
    cut = cw.wrap(ToyAdapter(ToyModel.random(3), provides=Provides(top=2, token_bytes=True)))
    answers = cut.answer_batch(QUESTIONS, JUDGE, template=SHORT)
    asked = judgements(cut.adapter, QUESTIONS, [answer.text for answer in answers], JUDGE, SHORT)
    own = own_judgements(answers)
    np.testing.assert_allclose(own.lower, asked.lower, atol=1e-12)
    np.testing.assert_allclose(own.upper, asked.upper, atol=1e-12)
    assert (own.is_cut == asked.is_cut).all()
    assert own.is_cut.any()


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 4.0])
def test_the_line_is_the_temperature(sharpness):
    right = np.linspace(0.05, 0.95, 40)
    odds = sharpness * np.log(right / (1.0 - right))
    own = verdicts_of(1.0 / (1.0 + np.exp(-odds)))
    fitted = fit_daca_judged(own, verdicts_of(right))
    assert fitted.slope == pytest.approx(1.0 / sharpness)
    assert fitted.report.method == "daca"
    np.testing.assert_allclose(fitted(own.probabilities[:, 0]), right)
    np.testing.assert_allclose(
        fitted(own.probabilities[:, 0]), cw.fit_daca(own, verdicts_of(right))(own).probabilities[:, 0]
    )


def test_only_what_both_call_alike_counts():
    own, reference = np.array([0.9] * 20 + [0.8] * 20), np.array([0.75] * 20 + [0.3] * 20)
    fitted = fit_daca_judged(verdicts_of(own), verdicts_of(reference))
    assert fitted([0.9]) == pytest.approx([0.75])
    assert fitted.report.agreement_rate == 0.5
    with pytest.raises(FitError, match="in none of the 20 rows"):
        fit_daca_judged(verdicts_of(own[20:]), verdicts_of(reference[20:]))


def test_certain_verdicts_are_defined():
    sure = [Answer("A", 1.0, (1.0, 1.0))] * 3 + [Answer("A", 0.0, (0.0, 0.0))] + [Answer("A", 0.9, (0.9, 0.9))] * 30
    fitted = fit_daca_judged(own_judgements(sure), verdicts_of(np.full(34, 0.7)))
    assert fitted.report.rows_used == 30  # a certain verdict leaves no temperature that could reach the reference's
    assert (fitted([0.0, 1.0]) > 0.0).tolist() == [True, True]


def test_what_is_no_verdict_is_named():
    three = OptionScores(np.zeros((4, 3)), "label")
    with pytest.raises(InputError, match="two options"):
        fit_daca_judged(three, three)
    with pytest.raises(InputError, match="1 of them empty"):
        judgements(ToyAdapter(), QUESTIONS[:2], ["A", " "])
    with pytest.raises(CapabilityError, match="judgements needs labels"):
        judgements(ToyAdapter(provides=Provides(score=True)), QUESTIONS[:1], ["A"])
    with pytest.warns(CalibrationWarning, match="Only 2 rows agree"):
        fit_daca_judged(verdicts_of(np.array([0.9, 0.9])), verdicts_of(np.array([0.7, 0.7])))
