"""A decoder over a question set on the exact toy model: journalled, resumable, and the same as asking directly."""

import json
from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.decoders.named import DECODERS, find_decoder
from calibwrap.errors import CapabilityError, FitError, InputError, JournalError, ProvenanceMismatch, ProvenanceWarning
from calibwrap.evaluate_traces import TRACES, evaluate_decoder, trace_scores
from calibwrap.questions import LETTER, LETTER_REASONED, LETTER_REASONED_CHAT, Question
from calibwrap.stored_traces import decoded, default_stops, default_template, draw_traces, drawing_of, labels_of
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

MODEL = ToyModel.random(seed=2)
QUESTIONS = toy_questions(30, seed=1, model=MODEL)
ASK = {"marker": "", "max_tokens": 2}
DECODER = find_decoder("confidence@4", **ASK)
FILES = ("metrics.json", "predictions.jsonl")


class Killed(Exception):
    """The process ends here."""


def stop_after(n):
    def progress(done, _):
        if done == n:
            raise Killed

    return progress


def run(out, decoder=DECODER, questions=QUESTIONS, lm=None, **options):
    return evaluate_decoder(lm or cw.wrap(ToyAdapter(MODEL)), questions, decoder, out, template=LETTER, **options)


def texts(folder):
    return [(folder / name).read_text() for name in FILES]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(whole, fit=["temperature", "platt"])
    with pytest.raises(Killed):
        run(torn, fit=["temperature", "platt"], progress=stop_after(11))
    assert len((torn / TRACES).read_text().splitlines()) == 12  # the header and what was finished
    run(torn, fit=["temperature", "platt"], resume=True)
    assert texts(torn) == texts(whole)
    assert (torn / TRACES).read_text() == (whole / TRACES).read_text()


def test_a_question_draws_the_same_traces_in_any_order_and_company(tmp_path):
    drawing = drawing_of(DECODER, LETTER)
    lm = cw.wrap(ToyAdapter(MODEL))
    together = draw_traces(lm, QUESTIONS, drawing, DECODER)
    turned = draw_traces(lm, QUESTIONS[::-1], drawing, DECODER)
    for one, other in zip(together, turned[::-1], strict=True):
        assert [(trace.text, trace.labels is None) for trace in one] == [(t.text, t.labels is None) for t in other]
    assert len({drawing.seed_of(question.id) for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("name", [*(f"{kind}@4" for kind in DECODERS), "greedy"])
def test_answers_are_those_of_the_model_asked_directly(tmp_path, name):
    decoder = find_decoder(name, **ASK)
    result = run(tmp_path, decoder, QUESTIONS[:8])
    lm = cw.wrap(ToyAdapter(MODEL))
    drawing = drawing_of(decoder, LETTER)
    for row, question in enumerate(QUESTIONS[:8]):
        labels = labels_of(question)
        asked = replace(decoder, labels=labels, seed=drawing.seed_of(question.id))
        answer = lm(LETTER.prompt(question, labels), asked)
        assert result.scores["raw"].confidence[row] == pytest.approx(answer.confidence, abs=1e-12)
        assert result.scores["raw"].choice[row] == (labels.index(answer.text) if answer.text else -1)


def test_traces_of_one_journal_serve_every_decoder_without_a_model_call(tmp_path):
    run(tmp_path)
    before = (tmp_path / TRACES).read_text()

    def nothing(*_, **__):
        raise AssertionError("the model was asked again")

    adapter = ToyAdapter(MODEL)
    adapter.generate = nothing
    result = run(tmp_path, find_decoder("majority@4", **ASK), lm=cw.wrap(adapter), resume=True)
    assert result.decoder == "majority@4"
    assert (tmp_path / TRACES).read_text() == before
    answers = decoded(find_decoder("weighted@2", **ASK), QUESTIONS, draw_traces_of(tmp_path))
    assert all(len(answer.candidates) == 2 for answer in answers)
    with pytest.raises(InputError, match="drawn at temperature 1"):
        decoded(find_decoder("weighted@2", **ASK, temperature=0.5), QUESTIONS, draw_traces_of(tmp_path))


def test_what_an_adaptive_decoder_did_without_is_counted(tmp_path):
    plain = run(tmp_path / "plain").cost()
    quick = run(tmp_path / "quick", find_decoder("confidence@8", **ASK, adaptive=True, threshold=0.6)).metrics()[
        "decoder"
    ]
    assert plain["traces_saved"] == 0
    assert quick["traces_saved"] == 8 * len(QUESTIONS) - quick["traces"] > 0


def test_traces_that_were_read_by_another_rule_are_refused(tmp_path):
    run(tmp_path)
    head, first, *rest = (tmp_path / TRACES).read_text().splitlines()
    line = json.loads(first)
    line["traces"][0]["label"] = 1 - (line["traces"][0]["label"] or 0)
    (tmp_path / TRACES).write_text("\n".join([head, json.dumps(line), *rest]) + "\n")
    with pytest.raises(JournalError, match=f"{line['id']!r} were read by another version"):
        draw_traces_of(tmp_path)


def draw_traces_of(folder):
    lm = cw.wrap(ToyAdapter(MODEL))
    return draw_traces(lm, QUESTIONS, drawing_of(DECODER, LETTER), DECODER, folder / TRACES, resume=True)


def test_a_journal_of_other_traces_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(JournalError, match=r"traces\.temperature is 1\.0 in the journal and 0\.5 now"):
        run(tmp_path, replace(DECODER, temperature=0.5), resume=True)
    with pytest.raises(JournalError, match="Pass --resume"):
        run(tmp_path)


def test_cost_and_unparsed_traces_are_counted(tmp_path):
    result = run(tmp_path)
    said = json.loads((tmp_path / "metrics.json").read_text())["decoder"]
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    candidates = [one for line in lines for one in line["candidates"]]
    assert said["name"] == "confidence@4"
    assert said["traces"] == len(candidates) == 4 * len(QUESTIONS)
    assert said["tokens"] == sum(one["tokens"] for one in candidates)
    assert said["unparsed"] == sum(one["choice"] is None for one in candidates) > 0
    assert said["unanswered"] == sum(line["choice"] is None for line in lines) > 0
    assert said["drawing"]["in_force"]["temperature"] == 1.0
    silent = [line for line in lines if line["choice"] is None]
    assert all(line["confidence"] == 0.0 for line in silent)
    assert result.metrics()["series"]["raw"]["accuracy"]["value"] == pytest.approx(
        np.mean([line["choice"] == line["answer"] for line in lines])
    )


def test_a_temperature_is_fitted_on_the_labels_of_all_traces_of_the_fit_part(tmp_path):
    result = run(tmp_path, fit=["temperature"])
    rows = np.flatnonzero(~result.held_out)
    named = [result.named[row] for row in rows]
    scores, answers = trace_scores(named, [QUESTIONS[row].answer for row in rows])
    assert len(scores) == sum(map(len, named))
    assert result.calibrators["temperature"].value == pytest.approx(cw.fit_temperature(scores, answers).value)
    report = cw.load(tmp_path / "calibrator-temperature.json").report
    assert (report.rows, report.readout) == (len(scores), "trace:letter:")


def test_an_overconfident_model_is_calibrated_by_what_its_traces_say():
    questions = toy_questions(400, seed=3, model=MODEL)
    lm = cw.wrap(ToyAdapter(MODEL.sharpened(3.0)))
    found = run(None, replace(DECODER, k=2, max_tokens=1), questions, lm, fit=["temperature", "platt"])
    # every trace reads the same distribution, sharpened by 3, so the planted temperature comes back
    assert found.calibrators["temperature"].value == pytest.approx(3.0, rel=0.35)
    metrics = found.metrics()["series"]
    for name in ("temperature", "platt"):
        assert metrics[name]["ece"]["value"] < metrics["raw"]["ece"]["value"]


def test_a_saved_calibrator_of_traces_is_applied_and_one_of_a_readout_is_not_taken_in_silence(tmp_path):
    fitted = run(tmp_path / "fit", fit=["temperature"])
    saved = cw.load(tmp_path / "fit" / "calibrator-temperature.json")
    lm = replace(cw.wrap(ToyAdapter(MODEL)), calibrator=saved)
    again = run(None, lm=lm, strict=True)
    assert list(again.scores) == ["raw", "temperature"]
    np.testing.assert_array_equal(again.scores["temperature"].probabilities, fitted.scores["temperature"].probabilities)
    other = cw.wrap(ToyAdapter(MODEL)).fit(QUESTIONS, readout="label")
    with pytest.raises(ProvenanceMismatch, match="trace:letter"):
        run(None, lm=other, strict=True)
    with pytest.warns(ProvenanceWarning, match="trace:letter"):
        run(None, lm=other)


def test_what_a_decoder_cannot_do_is_told_before_any_model_call():
    adapter = ToyAdapter(MODEL)
    adapter.generate = None
    lm = cw.wrap(adapter)
    with pytest.raises(InputError, match="needs a reference model"):
        run(None, lm=lm, fit=["daca"])
    with pytest.raises(InputError, match="give the decoder a 'seed'"):
        run(None, replace(DECODER, seed=None), lm=lm)
    with pytest.raises(InputError, match="2 to 26 lettered options"):
        run(None, questions=[Question("Red planet?", ["Mars"], answer=0)], lm=lm)
    tokens = replace(lm, calibrator=cw.Temperature(2.0, level="token"))
    with pytest.raises(CapabilityError, match="journalled traces do not hold"):
        run(None, lm=tokens)


def test_nothing_to_fit_on_is_told():
    with pytest.raises(FitError, match="None of the traces of 15 questions names a label"):
        run(None, replace(DECODER, marker="Never:"), fit=["temperature"])


def test_all_traces_of_a_toy_without_marker_are_kept_and_counted_when_none_names_a_label():
    result = run(None, replace(DECODER, marker="Never:"))
    assert result.cost()["unparsed_share"] == 1.0
    assert result.metrics()["series"]["raw"]["accuracy"]["value"] == 0.0


def test_defaults_follow_what_the_backend_gives():
    provides = ToyAdapter(MODEL).provides
    assert default_template(provides) == LETTER_REASONED
    assert default_template(replace(provides, plain=False)) == LETTER_REASONED_CHAT
    assert default_stops(LETTER_REASONED)
    assert default_stops(LETTER_REASONED_CHAT) == ()


def test_the_reasoned_templates_ask_for_the_line_that_the_default_rule_finds():
    question = QUESTIONS[0]
    rule = cw.AnswerRule(labels_of(question))
    text = LETTER_REASONED.prompt(question, labels_of(question))
    assert rule.named_in(text) is not None  # its examples end as a trace should
    assert text.endswith("Reasoning:")
    chat = LETTER_REASONED_CHAT.prompt(question, labels_of(question))
    assert '"Answer: "' in chat.messages[-1][1]


def test_methods_are_not_compared_on_folds_of_traces_but_on_folds_of_questions():
    adapter = ToyAdapter(MODEL)
    with pytest.raises(InputError, match=r"Got the fit 'auto'.*'auto-confidence', which has one row a question"):
        run(None, fit=["temperature", "auto"], lm=cw.wrap(adapter))
    assert adapter.calls["generate"] == 0
    result = run(None, fit=["auto-confidence"])
    assert result.calibrators["auto-confidence"].report.rows == 15
