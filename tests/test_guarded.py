"""`lm.guard` and `lm.sets` on the exact toy model: answers or abstentions, sets, and files that belong to one model."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.errors import FitError, ProvenanceMismatch, ProvenanceWarning, QuestionError, SavedFileError
from calibwrap.guarantees import Abstention, ConformalSets, Guard
from calibwrap.guarded import GuardedLM, SetLM
from calibwrap.readouts import Label
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

BASE = ToyModel.random(seed=1)
FIT, GUARD, NEW = (toy_questions(n, seed=seed, model=BASE) for n, seed in ((100, 1), (800, 2), (400, 3)))
LABEL = Label(min_mass=0.0)
RISK = 0.3


def fitted() -> cw.CalibratedLM:
    lm = cw.CalibratedLM(ToyAdapter(BASE.sharpened(3.0)), readout=LABEL)
    return lm.fit(FIT, method="temperature")


@pytest.fixture(scope="module")
def guarded() -> GuardedLM:
    return fitted().guard(GUARD, risk=RISK, delta=0.05)


@pytest.fixture(scope="module")
def in_sets() -> SetLM:
    return fitted().sets(GUARD, coverage=0.9, method="aps")


def test_a_guarded_model_answers_or_abstains_and_few_answers_are_wrong(guarded: GuardedLM) -> None:
    answers = guarded.choose_batch(NEW)
    raw = guarded.lm.choose_batch(NEW)
    given = [(one, question) for one, question in zip(answers, NEW, strict=True) if one]
    assert 0 < len(given) < len(NEW)
    assert all(one.confidence >= guarded.guard.threshold for one, _ in given)  # type: ignore[union-attr]
    withheld = [one for one in answers if isinstance(one, Abstention)]
    assert all(one.withheld.confidence < guarded.guard.threshold for one in withheld)
    assert [one or one.withheld for one in answers] == raw
    wrong = np.mean([one.text != question.options[question.answer] for one, question in given])  # type: ignore[union-attr]
    overall = np.mean([one.text != q.options[q.answer] for one, q in zip(raw, NEW, strict=True)])
    assert wrong <= RISK + 3 * np.sqrt(RISK * (1 - RISK) / len(given))
    assert wrong < overall


def test_sets_hold_the_right_option_and_the_first_choice_leads(in_sets: SetLM) -> None:
    found = in_sets.answer_sets(NEW)
    held = np.mean([q.options[q.answer] in one.options for one, q in zip(found, NEW, strict=True)])
    assert held >= 0.9 - 3 * np.sqrt(0.09 / len(NEW)) - 3 * np.sqrt(0.09 / len(GUARD))
    for one, answer in zip(found[:50], in_sets.lm.choose_batch(NEW[:50]), strict=True):
        assert one.options[0] == answer.text
        assert one.probabilities == answer.probabilities
        chances = [one.probabilities[option] for option in one.options]
        assert chances == sorted(chances, reverse=True)


def test_one_question_is_answered_like_many(guarded: GuardedLM, in_sets: SetLM) -> None:
    question = NEW[0]
    assert guarded.choose(question.prompt, question.options) == guarded.choose_batch([question])[0]
    assert in_sets.answer_set(question.prompt, question.options) == in_sets.answer_sets([question])[0]


def test_saved_and_loaded_onto_a_fresh_model(guarded: GuardedLM, in_sets: SetLM, tmp_path) -> None:
    fresh = cw.CalibratedLM(ToyAdapter(BASE.sharpened(3.0)), readout=LABEL)
    guarded.save(tmp_path / "guard.json")
    back = GuardedLM.load(fresh, tmp_path / "guard.json")
    assert (back.guard, back.lm.calibrator) == (guarded.guard, guarded.lm.calibrator)
    assert back.choose_batch(NEW[:20]) == guarded.choose_batch(NEW[:20])
    in_sets.save(tmp_path / "sets.json")
    assert SetLM.load(fresh, tmp_path / "sets.json").answer_sets(NEW[:20]) == in_sets.answer_sets(NEW[:20])
    with pytest.raises(SavedFileError, match=r"a saved guard, to be opened with GuardedLM\.load"):
        SetLM.load(fresh, tmp_path / "guard.json")


def test_the_readout_of_the_file_is_taken(guarded: GuardedLM, tmp_path) -> None:
    guarded.save(tmp_path / "guard.json")
    other = cw.CalibratedLM(ToyAdapter(BASE.sharpened(3.0)), readout=cw.Continuation())
    assert GuardedLM.load(other, tmp_path / "guard.json").lm.readout.label == "label:letter"


def test_a_guard_of_another_model_is_refused(guarded: GuardedLM, tmp_path) -> None:
    guarded.save(tmp_path / "guard.json")
    other = cw.CalibratedLM(ToyAdapter(ToyModel.random(seed=9)), readout=LABEL)
    with pytest.raises(ProvenanceMismatch, match="This guard guarantee was fitted elsewhere"):
        GuardedLM.load(other, tmp_path / "guard.json")
    with pytest.warns(ProvenanceWarning, match="This guard guarantee was fitted elsewhere"):
        assert GuardedLM.load(other, tmp_path / "guard.json", strict=False).guard == guarded.guard


COOL = cw.Temperature(2.0, report=cw.FitReport("temperature", 9, 9, 0.0, 0.0, readout="trace::A/B/C"))
"""A calibrator that says it was fitted on the labels of traces, and is none for options that are asked for at once."""
RULE = ConformalSets("lac", coverage=0.9, threshold=0.5, rows=100)
KEEP = Guard(risk=0.1, delta=0.05, threshold=0.8, rows=400, tested=300, answered=120, errors=3)


@pytest.mark.parametrize(
    ("use", "is_direct"),
    [
        (lambda lm: lm.choose_batch(NEW[:2]), True),
        (lambda lm: lm.calibrated_scores(NEW[:2]), False),
        (lambda lm: lm.guard(GUARD, risk=0.6), False),
        (lambda lm: lm.sets(GUARD), False),
        (lambda lm: GuardedLM(lm, KEEP).choose_batch(NEW[:2]), False),
        (lambda lm: SetLM(lm, RULE).answer_sets(NEW[:2]), True),
    ],
    ids=["choose_batch", "calibrated_scores", "guard", "sets", "guarded", "in sets"],
)
def test_a_calibrator_of_traces_is_named_wherever_options_are_read(use, is_direct) -> None:
    """With `strict` by an error, else by a warning, at the line of the two calls that read them directly."""
    lm = cw.CalibratedLM(ToyAdapter(BASE), readout=LABEL)
    said = "fitted on the labels that traces end in"
    with pytest.raises(ProvenanceMismatch, match=said):
        use(lm.with_calibrator(COOL, strict=True))
    with pytest.warns(ProvenanceWarning, match=said) as caught:
        use(lm.with_calibrator(COOL))
    assert not is_direct or {one.filename for one in caught} == {__file__}


def test_answers_are_asked_for_before_any_model_call() -> None:
    bare = [replace(question, answer=None) for question in GUARD[:100]]
    lm = fitted()
    with pytest.raises(QuestionError):
        lm.guard(bare)
    with pytest.raises(QuestionError):
        lm.sets(bare)
    with pytest.raises(FitError, match="bring at least 39"):
        lm.guard(GUARD[:20])
