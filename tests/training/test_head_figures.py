"""Held-out figures of a head beside doing nothing and beside a temperature, against the readout and the fit by name."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap import training
from calibwrap.metrics import ece
from calibwrap.questions import CLOZE
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions
from calibwrap.training.head import head_powers
from calibwrap.training.head_figures import head_figures, labelled_temperature
from calibwrap.training.head_loss import tempered

MODEL = ToyModel.random(1)


@pytest.fixture(scope="module")
def lm():
    return cw.CalibratedLM(ToyAdapter(MODEL.sharpened(3.0)))


def measured(lm, questions, readout, calibrator=None):
    """Return accuracy and ECE by the library's own way."""
    scores = lm.scores(questions, readout)
    scores = scores if calibrator is None else calibrator(scores)
    right = scores.choice == [question.answer for question in questions]
    return right.mean(), ece(np.minimum(scores.confidence, 1.0), right)


def test_a_head_of_options_beside_identity_and_temperature(lm):
    questions = toy_questions(200, seed=1, model=MODEL)
    sides = questions[:100], questions[100:]
    train, held_out = (training.record_positions(lm, part, level="option", readout="label") for part in sides)
    head = training.train_catto_head(train, held_out)
    found = head_figures(train, held_out, head_powers(head, held_out))
    fitted = cw.fit_temperature(lm.scores(sides[0], "label"), [one.answer for one in sides[0]])
    assert found.value == pytest.approx(fitted.value, rel=1e-4)
    for state, calibrator in ((found.before, None), (found.temperature, fitted), (found.after, head)):
        accuracy, error = measured(lm, sides[1], "label", calibrator)
        assert state["ece_answers"]["value"] == pytest.approx(error, abs=1e-4)
        assert state["accuracy_answers"]["value"] == accuracy
        assert list(state) == ["ece_answers", "accuracy_answers"]
        assert state["ece_answers"]["low"] <= state["ece_answers"]["value"] <= state["ece_answers"]["high"]
    assert found.after["ece_answers"]["value"] < 0.6 * found.before["ece_answers"]["value"]


def test_a_head_of_tokens_is_told_by_tokens_and_by_answers(lm):
    questions = toy_questions(120, seed=2, model=MODEL, template=CLOZE)
    train = training.record_positions(lm, questions[:60], top=5)
    held_out = training.record_positions(lm, questions[60:], wrong="all", top=5)
    powers = np.full(len(held_out), 0.5)
    found = head_figures(train, held_out, powers)
    accuracy, error = measured(lm, questions[60:], "continuation")
    assert found.before["accuracy_answers"]["value"] == accuracy
    assert found.before["ece_answers"]["value"] == pytest.approx(error, abs=1e-4)
    right = held_out.take(held_out.is_right)
    expected = ece(tempered(right, np.full(len(right), 0.5)).confidence, right.is_top)
    assert found.after["ece_tokens"]["value"] == pytest.approx(expected)
    halved = cw.CalibratedLM(ToyAdapter(MODEL.sharpened(1.5)))  # the temperature 2 of every token, in the model itself
    accuracy, error = measured(halved, questions[60:], "continuation")
    assert found.after["accuracy_answers"]["value"] == accuracy
    assert found.after["ece_answers"]["value"] == pytest.approx(error, abs=1e-4)
    assert found.value == pytest.approx(labelled_temperature(train.take(train.is_right)))
    assert "ECE of tokens of right answers" in found.notes[0]
    assert "chose the epoch" in found.notes[-1]


def test_intervals_take_whole_questions(lm):
    """Each row twice in its own question tells nothing new: the interval of one each stays."""
    questions = toy_questions(40, seed=3, model=MODEL, template=CLOZE)
    once = training.record_positions(lm, questions, wrong="none", top=5)
    twice = once.take(np.repeat(np.arange(len(once)), 2))
    one, two = (head_figures(once, rows, np.ones(len(rows))).after["ece_tokens"] for rows in (once, twice))
    assert two == pytest.approx(one)


def test_a_right_answer_of_probability_0_does_not_move_the_temperature(lm):
    questions = toy_questions(60, seed=1, model=MODEL)
    rows = training.record_positions(lm, questions, level="option", readout="label")
    chosen = rows.chosen_logprob.copy()
    chosen[0] = -np.inf
    impossible = replace(rows, chosen_logprob=chosen)
    assert labelled_temperature(impossible) == labelled_temperature(rows.take(np.arange(1, 60)))
