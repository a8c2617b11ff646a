"""Free text behind a guard: few of the answers that it gives are wrong, and its file belongs to one way of asking."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.errors import (
    FitError,
    InputError,
    ProvenanceMismatch,
    ProvenanceWarning,
    QuestionError,
    SavedFileError,
)
from calibwrap.freetext import exact_match
from calibwrap.guarded_answers import GuardedAnswers, guard_answers
from calibwrap.questions import SHORT
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

MODEL = ToyModel.random(9)
BARE = replace(SHORT, body="{question}", name="bare")
ONE = cw.FreeText(max_tokens=1)
RISK = 0.3
pytestmark = pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")


def asked(n, seed):
    """What comes after a word? The right answers are drawn from the toy's own world, so that confidences mean much."""
    random, base = np.random.default_rng(seed), cw.wrap(ToyAdapter(MODEL))
    texts = [f"{seed}.{number} {random.choice(['A', 'B', 'C', 'sun', 'é'])}" for number in range(n)]
    drawn = [base(text, cw.SelfConsistency(k=1, max_tokens=1, seed=at)).text for at, text in enumerate(texts)]
    return [cw.FreeQuestion(text, [right or "-"]) for text, right in zip(texts, drawn, strict=True)]


def said(answers):
    return [(one.text, one.confidence) for one in answers]


@pytest.fixture(scope="module")
def guarded():
    lm = cw.wrap(ToyAdapter(MODEL.sharpened(2.0))).fit_answers(asked(200, 1), ONE, "isotonic", template=BARE)
    return guard_answers(lm, asked(600, 2), ONE, RISK, template=BARE)


def test_few_of_the_answers_given_are_wrong(guarded):
    new = asked(400, 3)
    answers = guarded.answer_batch(new)
    given = [(one, question) for one, question in zip(answers, new, strict=True) if one]
    assert 0 < len(given) < len(new)
    wrong = np.mean([exact_match(one.text, question.answers) == 0.0 for one, question in given])
    assert wrong <= RISK + 3 * np.sqrt(RISK * (1 - RISK) / len(given))
    raw = guarded.lm.answer_batch(new, ONE, template=BARE)
    assert said([one or one.withheld for one in answers]) == said(raw)
    assert wrong < np.mean([exact_match(one.text, q.answers) == 0.0 for one, q in zip(raw, new, strict=True)])


def test_its_file_belongs_to_model_decoder_and_template(guarded, tmp_path):
    guarded.save(tmp_path / "guard.json")
    lm, file = cw.wrap(guarded.lm.adapter), tmp_path / "guard.json"
    again = GuardedAnswers.load(lm, file, ONE, BARE)
    assert (again.guard, again.lm.calibrator) == (guarded.guard, guarded.lm.calibrator)
    new = asked(20, 4)
    assert [bool(one) for one in again.answer_batch(new)] == [bool(one) for one in guarded.answer_batch(new)]
    for other in ((ONE, SHORT), (cw.FreeText(max_tokens=2), BARE)):
        with pytest.raises(ProvenanceMismatch, match="guard guarantee was fitted elsewhere"):
            GuardedAnswers.load(lm, file, *other)
        with pytest.warns(ProvenanceWarning, match="guard guarantee"):
            GuardedAnswers.load(lm, file, *other, strict=False)
    with pytest.raises(ProvenanceMismatch):
        GuardedAnswers.load(cw.wrap(ToyAdapter(MODEL)), file, ONE, BARE)
    labels = cw.CalibratedLM(ToyAdapter(MODEL), readout=cw.Label(min_mass=0.0))
    labels.sets(toy_questions(100)).save(file)
    with pytest.raises(SavedFileError, match=r"SetLM\.load"):
        GuardedAnswers.load(lm, file, ONE, BARE)


def test_what_cannot_be_promised_is_refused(guarded, monkeypatch):
    few = asked(20, 5)
    with pytest.raises(FitError, match="20 rows cannot show"):
        guard_answers(guarded.lm, few, ONE, 0.1, template=BARE)
    with pytest.raises(InputError, match="must give 0 or 1"):
        guard_answers(guarded.lm, few, ONE, RISK, template=BARE, judge=lambda text, known: 0.5)
    monkeypatch.setattr(cw.CalibratedLM, "answer_batch", lambda *given, **named: pytest.fail("the model was asked"))
    with pytest.raises(QuestionError):
        guard_answers(guarded.lm, [*few, cw.FreeQuestion("?")], ONE, RISK, template=BARE)
