"""Free-text answers calibrated by a reference: the door, and that it improves calibration where the truth is known."""

import sys
from functools import partial

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.answers_without_labels import fit_answers_without_labels
from calibwrap.capabilities import Provides
from calibwrap.decoders.referee import Referee
from calibwrap.errors import CapabilityError, FitError, InputError
from calibwrap.freetext import drawn_logprobs
from calibwrap.freetext.reevaluation import reevaluated
from calibwrap.questions import SHORT
from calibwrap.testing import ToyAdapter, ToyModel

MODEL = ToyModel.random(7)
BASE, SHARP = cw.wrap(ToyAdapter(MODEL)), cw.wrap(ToyAdapter(MODEL.sharpened(3.0)))
QUESTIONS = [cw.FreeQuestion(f"{n} {last}", id=str(n)) for n, last in enumerate(("A", "B", "C", "sun", "é") * 8)]
ONE_TOKEN = cw.FreeText(max_tokens=1)
JUDGE = cw.PTrue(labels=("A", "B"), max_tokens=1)
SILENT = cw.PTrue(labels=("A", "B"), max_tokens=1, normalise=lambda text: "")


def test_no_label_is_read_and_the_mean_is_the_references():
    fitted = fit_answers_without_labels(
        SHARP, QUESTIONS, BASE, ONE_TOKEN, "soft:isotonic", template=SHORT, reference_template=SHORT
    )
    raw = SHARP.answer_batch(QUESTIONS, ONE_TOKEN, template=SHORT)
    soft = reevaluated(BASE.adapter, QUESTIONS, [answer.text for answer in raw], SHORT)
    spoken = np.array([bool(answer.text) for answer in raw])
    mapped = np.array([answer.confidence for answer in fitted.answer_batch(QUESTIONS, ONE_TOKEN, template=SHORT)])
    assert mapped[spoken].mean() == pytest.approx(soft[spoken].mean())
    assert np.mean([np.exp(drawn_logprobs(one.candidates[0])[0]) for one in raw]) > mapped.mean() + 0.1


def test_the_report_says_where_it_comes_from():
    with pytest.warns(cw.errors.CalibrationWarning):  # few different confidences
        fitted = fit_answers_without_labels(SHARP, QUESTIONS, BASE.adapter, ONE_TOKEN, template=SHORT)
    report = fitted.calibrator.report
    assert report.provenance == SHARP.adapter.fingerprint()
    assert report.reference == BASE.adapter.fingerprint()
    assert report.readout.startswith("FreeText(")
    assert report.readout.endswith(" on short")
    with pytest.warns(cw.errors.ProvenanceWarning, match="template"):
        fitted.answer_batch(QUESTIONS[:1], ONE_TOKEN)
    assert report.reference_readout == "mean token probability of the reference"


def test_daca_by_verdicts():
    fitted = fit_answers_without_labels(
        SHARP, QUESTIONS, BASE, JUDGE, "daca", template=SHORT, reference_template=SHORT, min_agree=1
    )
    assert fitted.calibrator.slope == pytest.approx(1 / 3, abs=0.02)
    theirs = BASE.answer_batch(QUESTIONS[:5], JUDGE, template=SHORT)
    ours = fitted.answer_batch(QUESTIONS[:5], JUDGE, template=SHORT)
    pairs = [
        (one.confidence, other.confidence) for one, other in zip(ours, theirs, strict=True) if one.text == other.text
    ]
    assert pairs
    assert all(one == pytest.approx(other, abs=0.02) for one, other in pairs)
    assert fitted.calibrator.report.reference_readout == "verdicts of the reference"


def test_what_does_not_go_is_named():
    with pytest.raises(InputError, match="needs a PTrue decoder"):
        fit_answers_without_labels(SHARP, QUESTIONS, BASE, ONE_TOKEN, "daca")
    with pytest.raises(InputError, match="Unknown method for one confidence"):
        fit_answers_without_labels(SHARP, QUESTIONS, BASE, ONE_TOKEN, "soft:platts", template=SHORT)
    with pytest.raises(FitError, match="None of the 40 answers"):
        fit_answers_without_labels(SHARP, QUESTIONS, BASE, SILENT, "daca", template=SHORT)


class Counted(ToyAdapter):
    """A toy that counts how often one of its kind was closed."""

    closed = 0

    def close(self):
        type(self).closed += 1


def test_a_reference_of_a_spec_is_closed_also_on_an_error_and_no_other(monkeypatch):
    monkeypatch.setattr(sys.modules["calibwrap.opening"], "find_adapter", lambda name: Counted)
    for reference, closed in ((Counted(MODEL), 0), ("toy:1", 1)):
        fit_answers_without_labels(SHARP, QUESTIONS, reference, ONE_TOKEN, "soft:isotonic", template=SHORT)
        assert Counted.closed == closed
    with pytest.raises(FitError, match="says anything"):
        fit_answers_without_labels(SHARP, QUESTIONS, "toy:1", SILENT, "daca", template=SHORT)
    assert Counted.closed == 2


def test_what_can_be_refused_is_refused_before_a_model_is_loaded_or_asked(monkeypatch):
    monkeypatch.setattr(cw.CalibratedLM, "answer_batch", lambda *given, **named: pytest.fail("the model was asked"))
    for method, told in (("soft:platts", "Unknown method"), ("platt", "Without them 'soft:platt'")):
        with pytest.raises(InputError, match=told):
            fit_answers_without_labels(SHARP, QUESTIONS, "no-such-runtime:x", ONE_TOKEN, method, template=SHORT)
    blind = ToyAdapter(MODEL, Provides(top=None))
    with pytest.raises(CapabilityError, match="soft:platt"):
        fit_answers_without_labels(SHARP, QUESTIONS, blind, ONE_TOKEN, template=SHORT)


def test_a_reference_is_asked_once_for_all_fits():
    asked = []
    answers = SHARP.answer_batch(QUESTIONS, ONE_TOKEN, template=SHORT)
    told = partial(Referee, BASE.adapter, QUESTIONS, answers, ONE_TOKEN, SHORT)
    referee = told(progress=lambda done, total: asked.append((done, total)))
    first, second = (referee.fit(f"soft:{name}", "short", SHARP.adapter.fingerprint()) for name in ("beta", "isotonic"))
    spoken = sum(bool(one.text) for one in answers)
    assert asked[-1] == (spoken, spoken)
    assert len([done for done, _ in asked if done == spoken]) == 1
    assert (first.report.method, second.report.method) == ("soft:beta", "soft:isotonic")
