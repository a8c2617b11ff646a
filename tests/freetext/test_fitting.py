"""Calibrators fitted on free-text answers: on the toy model, whose answers are right by construction."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.answers_without_labels import fit_answers_without_labels
from calibwrap.decoders.named import find_decoder
from calibwrap.errors import CapabilityError, FitError, InputError, ProvenanceMismatch, QuestionError
from calibwrap.evaluate_traces import evaluate_decoder
from calibwrap.freetext import exact
from calibwrap.freetext.fitting import fit_on_answers, free_prompts
from calibwrap.metrics import ece
from calibwrap.questions import CLOZE, LETTER, SHORT, SHORT_CHAT
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

DECODER = cw.FreeText(confidence="sum", temperature=1.0, max_tokens=1, normalise=exact)


def asked(model, n, seed=0):
    """Questions whose right answers are drawn from the model, seen through a temperature of 2: it is over-confident."""
    random = np.random.default_rng(seed)
    questions = []
    for number in range(n):
        prompt = " ".join(random.choice(["A", "B", "C", "sun"], size=3))
        row = model.next_logprobs(model.encode(prompt)) / 2.0
        p = np.exp(row - np.logaddexp.reduce(row))
        said = model.decode([int(random.choice(len(p), p=p))]).strip()
        questions.append(cw.FreeQuestion(prompt, [said or "nothing"], id=str(number)))
    return questions


def exact_reference(text, references):
    return float(text in references)


def confidences(answers):
    return np.array([answer.confidence for answer in answers])


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_over_confident_answers_are_calibrated_on_questions_that_no_fit_has_seen(method):
    model = ToyModel.random(5)
    lm = cw.wrap(ToyAdapter(model))
    template = cw.Template(body="{question}")
    questions = asked(model, 1200)
    decoders = [cw.FreeText(confidence="sum", max_tokens=1, normalise=exact)]
    fitted = lm.fit_answers(questions[:600], decoders[0], method, judge=exact_reference, template=template)
    held_out = questions[600:]
    raw, mapped = (one.answer_batch(held_out, decoders[0], template=template) for one in (lm, fitted))
    right = np.array([exact_reference(a.text, q.answers) for a, q in zip(raw, held_out, strict=True)])
    assert [a.text for a in raw] == [a.text for a in mapped]
    assert ece(confidences(raw), right) > 0.1
    assert ece(confidences(mapped), right) < 0.06
    report = fitted.calibrator.report
    assert (report.method, report.rows) == (method, 600)
    assert report.objective_after < report.objective_before


def test_bounds_and_options_follow_the_confidence():
    lm = cw.wrap(ToyAdapter(ToyModel.random(2)))
    decoder = cw.ConfidenceAtK(k=8, labels=("A", "B", "C"), marker="", max_tokens=2)
    raw = lm("In the morning the sun", decoder)
    mapped = lm.with_calibrator(cw.Platt(0.5, -0.5))("In the morning the sun", decoder)
    assert mapped.confidence == pytest.approx(float(cw.Platt(0.5, -0.5)(raw.confidence)))
    assert mapped.probabilities[mapped.text] == mapped.confidence
    assert sum(mapped.probabilities.values()) == pytest.approx(1.0)
    others = [label for label in decoder.labels if label != raw.text]
    ratio = raw.probabilities[others[0]] / raw.probabilities[others[1]]
    assert mapped.probabilities[others[0]] / mapped.probabilities[others[1]] == pytest.approx(ratio)
    falling = lm.with_calibrator(cw.Platt(-1.0, 0.0))("In the morning the sun", decoder)
    assert falling.bounds[0] <= falling.confidence <= falling.bounds[1]


def test_an_empty_answer_stays_certainly_wrong_and_out_of_the_fit():
    said = [cw.Answer("a", p, (p, p), candidates=(None,) * 2) for p in (0.9, 0.8, 0.7, 0.6)]
    silent = cw.Answer("", 0.0, (0.0, 0.0), candidates=(None,) * 2, unparsed=2)
    fitted = fit_on_answers([*said, silent], [1, 0, 1, 0, 0], decoder="mine")
    without = fit_on_answers(said, [1, 0, 1, 0])
    assert fitted == without
    assert (fitted.report.rows, fitted.report.rows_used, fitted.report.readout) == (5, 4, "mine")
    assert fitted.report.notes == (
        "4 rows are few: 20 and more are better.",
        "1 of 5 answers say nothing that could be read: they keep confidence 0.",
        "2 of 10 completions were malformed or said nothing.",
    )
    lm = cw.wrap(ToyAdapter()).with_calibrator(cw.Platt(1.0, 5.0))
    answer = lm("In the morning the sun", cw.Stated())
    assert (answer.text, answer.confidence, answer.calibrated_by) == ("", 0.0, "platt")


def test_a_calibrator_fitted_on_raw_answers_replaces_the_one_before():
    """Fitting again starts from the model's own confidence, whatever calibrates now."""
    model = ToyModel.random(5)
    lm, questions = cw.wrap(ToyAdapter(model)), asked(model, 60)
    options = {"decoder": DECODER, "judge": exact_reference, "template": CLOZE}
    once = lm.fit_answers(questions, **options)
    assert once.fit_answers(questions, **options).calibrator == once.calibrator


def test_prompts_are_chats_where_there_is_a_template():
    question = [cw.FreeQuestion("Who?", context="Ann was here.")]
    from calibwrap.capabilities import Provides

    assert free_prompts(question, None, Provides(chat=True)) == [SHORT_CHAT.prompt(question[0])]
    assert free_prompts(question, None, Provides()) == [SHORT.prompt(question[0])]
    assert free_prompts(question, CLOZE, Provides(chat=True)) == ["Ann was here.\n\nQuestion: Who?\nAnswer:"]
    with pytest.raises(InputError, match="'letter' shows options"):
        free_prompts(question, LETTER, Provides())


def test_a_plain_model_is_asked_for_a_reply_that_begins_by_itself():
    seen = []

    class Plain(ToyAdapter):
        def generate(self, prompts, sampling, calibrator=None):
            seen.extend(prompts)
            return super().generate(prompts, sampling, calibrator)

    lm = cw.wrap(Plain(provides=replace(ToyAdapter.everything, chat=False)))
    lm.answer_batch([cw.FreeQuestion("A B?")], cw.Stated(max_tokens=2))
    lm.answer_batch([cw.FreeQuestion("A B?")], cw.FreeText(max_tokens=2))
    assert seen[0].endswith("Question: A B?")
    assert seen[1] == SHORT.prompt(cw.FreeQuestion("A B?"))


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")  # few different confidences
def test_a_confidence_in_steps_is_clipped_wherever_it_is_fitted():
    model, vote = ToyModel.random(5), cw.SelfConsistency(k=4, max_tokens=1)
    lm, questions = cw.wrap(ToyAdapter(model)), asked(model, 60)
    kept = {"judge": exact_reference, "template": CLOZE}
    assert lm.fit_answers(questions, vote, **kept).calibrator.clip == 0.125
    assert lm.fit_answers(questions, vote, clip=0.01, **kept).calibrator.clip == 0.01
    assert fit_answers_without_labels(lm, questions, lm, vote, template=CLOZE).calibrator.clip == 0.125
    options, majority = toy_questions(30, seed=1, model=model), find_decoder("majority@4", marker="", max_tokens=2)
    traced = evaluate_decoder(lm, options, majority, template=LETTER, fit=["platt"])
    assert traced.calibrators["platt"].clip == 0.125


def test_what_cannot_be_fitted_is_said_before_any_call():
    adapter = ToyAdapter()
    lm = cw.wrap(adapter)
    with pytest.raises(QuestionError, match="1 of 1 questions have none"):
        lm.fit_answers([cw.FreeQuestion("Who?")])
    with pytest.raises(InputError, match="must be a FreeQuestion"):
        lm.answer_batch([cw.Question("Who?", ["Ann", "Bob"])])
    with pytest.raises(InputError, match="at least one FreeQuestion"):
        lm.answer_batch([])
    assert not adapter.calls
    with pytest.raises(InputError, match="Did you mean 'platt'"):
        fit_on_answers([cw.Answer("a", 0.5, (0.5, 0.5))], [1], "plat")
    with pytest.raises(InputError, match="one an answer"):
        fit_on_answers([cw.Answer("a", 0.5, (0.5, 0.5))], [1, 0])
    with pytest.raises(FitError, match="None of the 1 answers says anything"):
        fit_on_answers([cw.Answer("", 0.0, (0.0, 0.0))], [0])


def test_options_refuse_a_calibrator_of_one_confidence():
    lm = cw.wrap(ToyAdapter()).with_calibrator(cw.Platt(1.0, 0.0))
    with pytest.raises(CapabilityError, match="use it on answers, as in"):
        lm.choose("Which?", ["A", "B"])


def test_progress_is_told_and_another_model_is_noticed():
    told = []
    model = ToyModel.random(5)
    lm, questions = cw.wrap(ToyAdapter(model)), asked(model, 20)
    fitted = lm.fit_answers(
        questions,
        DECODER,
        "isotonic",
        judge=exact_reference,
        template=CLOZE,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(8, 20), (16, 20), (20, 20)]
    with pytest.raises(ProvenanceMismatch, match="fitted elsewhere"):
        cw.wrap(ToyAdapter(ToyModel.random(6))).with_calibrator(fitted.calibrator, strict=True)
