"""Answers in free text over a question set on the exact toy model: journalled, judged, calibrated, measured by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.answer_scores import OutcomeScores, of_one_outcome, outcome_scores
from calibwrap.base import Answer
from calibwrap.decoders import FreeText, PTrue, SelfConsistency, SemanticEntropy, Stated
from calibwrap.decoders.answer_fits import ASKED, clip_of, template_for
from calibwrap.errors import (
    CapabilityError,
    InputError,
    JournalError,
    ProvenanceMismatch,
    ProvenanceWarning,
    QuestionError,
)
from calibwrap.evaluate_free import (
    ANSWERS,
    OTHER,
    SILENT,
    evaluate_free,
    find_judge,
    outcome_questions,
    verdicts,
)
from calibwrap.evaluate_free_answers import collect_answers, default_free_stops
from calibwrap.freetext import exact, exact_match, f1_above_half
from calibwrap.freetext.fitting import fit_on_answers
from calibwrap.metrics import auroc, ece
from calibwrap.questions import LETTER, SHORT, SHORT_CHAT, FreeQuestion, Question
from calibwrap.summary import difference, figures
from calibwrap.testing import ToyAdapter, ToyModel

pytestmark = pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")  # a few rows make no good fit

MODEL = ToyModel.random(seed=3)
ENDS = (" A", " B", " C", " sun")
QUESTIONS = [
    FreeQuestion(f"What comes after{ENDS[index % 4]}", [("A", "B", "C")[index % 3]], id=f"q{index}")
    for index in range(48)
]
TEMPLATE = replace(SHORT, body="{question}", name="bare")
VOTE = SelfConsistency(k=4, max_tokens=1, normalise=exact)
FILES = ("metrics.json", "predictions.jsonl", ANSWERS)


class Killed(Exception):
    """The process ends here."""


def stop_after(n):
    def progress(done, _):
        if done >= n:
            raise Killed

    return progress


def run(out=None, decoder=VOTE, questions=QUESTIONS, lm=None, **options):
    lm = lm or cw.wrap(ToyAdapter(MODEL))
    return evaluate_free(lm, questions, decoder, out, template=TEMPLATE, **options)


def test_figures_are_those_of_confidence_and_correctness():
    result = run(fit=["platt"])
    found = result.metrics()["series"]
    rows = np.flatnonzero(result.held_out)
    right = np.array([float(result.questions[row].answer == 0) for row in rows])
    assert 0.0 < right.mean() < 1.0
    for name in ("raw", "platt"):
        said = result.scores[name].confidence[rows]
        assert found[name]["accuracy"]["value"] == pytest.approx(right.mean(), abs=1e-12)
        assert found[name]["mean_confidence"]["value"] == pytest.approx(said.mean(), abs=1e-12)
        assert found[name]["brier"]["value"] == pytest.approx(np.square(said - right).mean(), abs=1e-12)
        assert found[name]["ece"]["value"] == pytest.approx(ece(said, right, n_bins=15), abs=1e-12)
        assert found[name]["auroc"]["value"] == pytest.approx(auroc(said, right), abs=1e-12)


def test_answers_and_fit_are_those_of_the_python_way():
    lm = cw.wrap(ToyAdapter(MODEL))
    greedy = FreeText(max_tokens=2)
    result = run(decoder=greedy, fit=["isotonic"], lm=lm)
    direct = lm.answer_batch(QUESTIONS, greedy, template=TEMPLATE)
    assert [one.text for one in result.answers] == [one.text for one in direct]
    assert [one.confidence for one in result.answers] == pytest.approx([one.confidence for one in direct], abs=1e-12)
    fitting = [row for row in range(48) if not result.held_out[row]]
    right = [exact_match(direct[row].text, QUESTIONS[row].answers) for row in fitting]
    by_hand = fit_on_answers([direct[row] for row in fitting], right, "isotonic")
    said = [float(by_hand([one.confidence])[0]) for one in direct]
    assert result.scores["isotonic"].confidence.tolist() == pytest.approx(said, abs=1e-12)
    assert result.calibrators["isotonic"].report.provenance == lm.adapter.fingerprint()


@pytest.mark.parametrize("decoder", [VOTE, FreeText(max_tokens=2)], ids=["sampled", "greedy"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, decoder):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run(whole, decoder, fit=["platt"])
    with pytest.raises(Killed):
        run(torn, decoder, fit=["platt"], progress=stop_after(9))
    kept = len((torn / ANSWERS).read_text().splitlines()) - 1
    assert 9 <= kept < 48
    adapter = ToyAdapter(MODEL)
    run(torn, decoder, fit=["platt"], resume=True, lm=cw.wrap(adapter))
    for name in FILES:
        assert (torn / name).read_text() == (whole / name).read_text()
    silent = ToyAdapter(MODEL)
    run(torn, decoder, fit=["isotonic"], resume=True, judge="f1-above-half", lm=cw.wrap(silent))
    assert silent.calls["generate"] == 0
    assert not (torn / "calibrator-platt.json").exists()


def test_a_sampled_answer_depends_on_its_question_alone():
    lm = cw.wrap(ToyAdapter(MODEL))
    together = collect_answers(lm, QUESTIONS, VOTE, TEMPLATE)
    turned = collect_answers(lm, QUESTIONS[::-1], VOTE, TEMPLATE)[::-1]
    assert [one.text for one, _ in together] == [one.text for one, _ in turned]
    drawn = [tuple(text.text for text in one.candidates) for one, _ in together]
    assert len(set(drawn[::4])) > 1  # one prompt, drawn anew for each question


def test_another_decoder_template_or_seed_does_not_go_on_with_a_journal(tmp_path):
    run(tmp_path)
    for other in (replace(VOTE, seed=1), replace(VOTE, k=2)):
        with pytest.raises(JournalError, match="decoder"):
            run(tmp_path, other, resume=True)
    with pytest.raises(JournalError, match="template"):
        evaluate_free(cw.wrap(ToyAdapter(MODEL)), QUESTIONS, VOTE, tmp_path, template=SHORT, resume=True)


def test_questions_without_references_are_answered_and_not_counted(tmp_path):
    mixed = [replace(QUESTIONS[0], answers=()), *QUESTIONS[1:]]
    result = run(tmp_path, questions=mixed)
    assert result.metrics()["answered"] == 47
    first = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
    assert (first["correct"], first["references"]) == (None, [])
    assert first["answer"] == result.answers[0].text
    assert run(questions=[replace(one, answers=()) for one in QUESTIONS]).metrics()["series"] == {}
    adapter = ToyAdapter(MODEL)
    with pytest.raises(QuestionError, match="q0"):
        run(questions=mixed, fit=["platt"], lm=cw.wrap(adapter))
    assert adapter.calls["generate"] == 0


def test_malformed_statements_are_counted_and_wrong(tmp_path):
    result = run(tmp_path, Stated(max_tokens=2))
    told = result.metrics()["decoder"]
    assert (told["unparsed"], told["unanswered"], told["unparsed_share"]) == (48, 48, 1.0)
    assert result.metrics()["series"]["raw"]["accuracy"]["value"] == 0.0
    for name in ("ece", "brier", "nll"):  # nothing was said, so nothing can be off: that is not calibration
        figure = result.metrics()["series"]["raw"][name]
        assert (figure["value"], figure["reason"]) == (None, "not defined: 48 of 48 questions have no readable answer")
    assert result.scores["raw"].choice.tolist() == [-1] * 48


def test_a_calibrator_is_applied_and_known(tmp_path):
    run(tmp_path, fit=["platt"])
    lm = replace(cw.wrap(ToyAdapter(MODEL)), calibrator=cw.load(tmp_path / "calibrator-platt.json"))
    result = run(lm=lm, strict=True)
    assert list(result.scores) == ["raw", "platt"]
    raw, mapped = result.scores["raw"].confidence, result.scores["platt"].confidence
    assert mapped.tolist() == pytest.approx(lm.calibrator(raw).tolist(), abs=1e-12)
    with pytest.warns(ProvenanceWarning, match="fitted on answers of SelfConsistency"):
        run(decoder=FreeText(max_tokens=1), lm=lm)
    with pytest.raises(ProvenanceMismatch, match="FreeText"):
        run(decoder=FreeText(max_tokens=1), lm=lm, strict=True)
    with pytest.raises(ProvenanceMismatch):
        run(lm=replace(cw.wrap(ToyAdapter(ToyModel.random(seed=9))), calibrator=lm.calibrator), strict=True)
    with pytest.raises(CapabilityError, match="one confidence"):
        run(lm=replace(lm, calibrator=cw.Temperature(2.0)))


def test_wrong_ways_are_refused_before_any_model_call():
    adapter = ToyAdapter(MODEL)
    lm = cw.wrap(adapter)
    with pytest.raises(InputError, match="isotonic or platt"):
        run(lm=lm, fit=["temperature"])
    with pytest.raises(InputError, match="no judge 'strict'"):
        run(lm=lm, judge="strict")
    with pytest.raises(InputError, match="shows options"):
        evaluate_free(lm, QUESTIONS, VOTE, template=LETTER)
    with pytest.raises(InputError, match="must be a FreeQuestion"):
        run(lm=lm, questions=[Question("Red?", ["Mars", "Venus"])])
    with pytest.raises(InputError, match="'seed'"):
        run(lm=lm, decoder=replace(VOTE, seed=None))
    assert not adapter.calls["generate"]
    with pytest.raises(InputError, match=r"0 or 1\. Got 0\.5"):
        run(lm=lm, judge=lambda text, references: 0.5)


def test_a_torn_line_is_named(tmp_path):
    run(tmp_path)
    lines = (tmp_path / ANSWERS).read_text().splitlines()
    record = json.loads(lines[3])
    del record["answer"]["confidence"]
    lines[3] = json.dumps(record)
    (tmp_path / ANSWERS).write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match=record["id"]):
        run(tmp_path, resume=True)


def test_the_judge_normalises_as_the_decoder_does():
    strict, name = find_judge("exact-match", exact)
    assert (strict("mars", ["Mars"]), find_judge("exact-match")[0]("mars", ["Mars"]), name) == (0.0, 1.0, "exact-match")
    loose, _ = find_judge("f1-above-half")
    assert loose("Eiffel Tower Paris", ["Eiffel Tower"]) == 1.0
    assert find_judge(f1_above_half)[0] is f1_above_half


def test_outcomes_of_an_answer_are_two_different_texts():
    asked = [FreeQuestion("Red?", ["Mars", "the Mars"]), FreeQuestion("Hot?", ["Venus"]), FreeQuestion("Cold?")] * 2
    said = [Answer(text, 0.5, (0.5, 0.5)) for text in ("Mars", "Mars", "Mars", "", "Venus", "")]
    found = outcome_questions(asked, said, [True, False, None, False, False, None])
    assert [one.answer for one in found] == [0, 1, None, 1, 1, None]
    assert found[0].options == ("Mars", OTHER)
    assert found[1].options == ("Mars", "Venus")
    assert found[3].options == (SILENT, "Mars, the Mars")
    assert found[4].options == ("Venus", f"{OTHER}: Venus")  # a judge that calls a reference wrong
    assert verdicts(said[:3], asked[:3], exact_match) == [True, False, None]


def test_brier_scores_and_their_changes_are_those_of_one_outcome():
    said = [Answer("a", c, (c, c)) for c in (0.9, 0.6, 0.2, 0.8)]
    raw, other = outcome_scores(said, "x"), outcome_scores([replace(one, confidence=0.5) for one in said], "x")
    right = np.array([1.0, 0.0, 0.0, 1.0])
    answers = (1 - right).astype(int)
    found = of_one_outcome(raw, figures(raw, answers))
    assert found["brier"].value == pytest.approx(np.square([0.1, 0.6, 0.2, 0.2]).mean())
    assert found["brier"].low <= found["brier"].value <= found["brier"].high
    assert found["nll"].value == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.8]).mean())
    change = of_one_outcome(other, difference(raw, other, answers))
    assert change["brier"].value == pytest.approx(0.25 - found["brier"].value)
    options = cw.OptionScores(raw.logprobs, "label")
    assert of_one_outcome(options, figures(options, answers))["brier"].value == pytest.approx(2 * found["brier"].value)
    assert isinstance(raw.take([0, 2]), OutcomeScores)


def test_bounds_of_a_cut_list_are_carried():
    scores = outcome_scores([Answer("a", 0.6, (0.5, 0.7)), Answer("", 0.0, (0.0, 0.0))], "x")
    assert scores.lower.round(12).tolist() == [[0.5, 0.3], [0.0, 1.0]]
    assert scores.upper.round(12).tolist() == [[0.7, 0.5], [0.0, 1.0]]
    assert (scores.is_exact, scores.choice.tolist()) == (False, [0, -1])


def test_defaults_of_prompts_and_of_steps():
    chat, plain = cw.Provides(chat=True), cw.Provides()
    assert template_for(None, chat, Stated) is SHORT_CHAT
    assert template_for(None, plain, PTrue) is SHORT
    assert template_for(None, plain, Stated) is ASKED
    assert template_for(SHORT, plain, Stated) is SHORT
    assert default_free_stops(SHORT, FreeText) == ("\n",)
    assert default_free_stops(SHORT_CHAT, FreeText) == ()
    assert "\n" not in default_free_stops(ASKED, Stated)  # its reply may have several lines
    assert clip_of(SemanticEntropy(k=4)) == 0.125
    assert clip_of(PTrue()) is None
