"""`fit --risk` and `ask --guard`: what Python gives, an answer or an abstention, and combinations that mean nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

MODEL = ToyModel.random(seed=0)
FIT = ("fit", "toy:0", "--data", "asked.jsonl", "--readout", "label", "--out", "guard.json", "--risk", "0.5")
QUESTIONS = toy_questions(40, seed=9, model=MODEL)


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    cw.save_questions(toy_questions(400, seed=2, model=MODEL), tmp_path / "asked.jsonl")
    cw.save_questions(toy_questions(100, seed=1, model=MODEL), tmp_path / "before.jsonl")


def asked(question: cw.Question, *more: str) -> tuple[str, ...]:
    return ("ask", "toy:0", question.prompt, *(word for one in question.options for word in ("-o", one)), *more)


@pytest.mark.filterwarnings("ignore:The labels together carry only")
def test_it_answers_and_abstains_as_python_does(run: Any) -> None:
    before = ("--data", "before.jsonl", "--readout", "label", "--out", "cal.json")
    assert run("fit", "toy:0", *before)[0] == 0
    code, out, err = run(*FIT, "--calibrator", "cal.json", "--json")
    assert code == 0, err
    told = json.loads(out)
    lm = cw.CalibratedLM(ToyAdapter(MODEL), readout=cw.Label())
    lm = lm.fit(toy_questions(100, seed=1, model=MODEL), method="temperature")
    wanted = lm.guard(toy_questions(400, seed=2, model=MODEL), risk=0.5, delta=0.05)
    assert wanted.guard.threshold is not None
    assert told["threshold"] == pytest.approx(wanted.guard.threshold)
    assert (told["answered"], told["errors"]) == (wanted.guard.answered, wanted.guard.errors)
    seen = set()
    for question in QUESTIONS:
        found = wanted.choose(question.prompt, question.options)
        code, out, err = run(*asked(question, "--guard", "guard.json", "--json"))
        assert code == 0, err
        said = json.loads(out)
        assert said["text"] == (found.text if isinstance(found, cw.Answer) else None)
        assert ("abstained" in said) is not bool(found)
        seen.add(bool(found))
    assert seen == {True, False}


@pytest.mark.filterwarnings("ignore:No threshold can be shown")
def test_people_are_told_why_there_is_no_answer(run: Any) -> None:
    assert run(*FIT[:-1], "0.02")[0] == 0
    code, out, _ = run(*asked(QUESTIONS[0], "--guard", "guard.json"))
    assert code == 0
    assert out.startswith("No answer. No threshold has a risk of at most 0.02")


@pytest.mark.filterwarnings("ignore:The labels together carry only")
def test_a_guard_is_good_for_its_own_model_only(run: Any) -> None:
    assert run(*FIT)[0] == 0
    code, _, err = run("ask", "toy:1", *asked(QUESTIONS[0], "--guard", "guard.json")[2:])
    assert code == 1
    assert "guard guarantee was fitted elsewhere" in err


def test_questions_without_answers_are_refused_before_the_model(run: Any) -> None:
    cw.save_questions([cw.Question("?", ["a", "b"])], "asked.jsonl")
    code, _, err = run(*FIT)
    assert code == 1
    assert "Answers are needed" in err
    cw.save_questions([cw.FreeQuestion("?", ["a"])], "asked.jsonl")
    assert "--readout and --reference-readout are for options" in run(*FIT)[2]


def test_too_few_rows_for_the_risk_are_told_before_the_model(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibwrap.testing.ToyAdapter.next_token", None)  # asking it anything is an error
    code, _, err = run(*FIT[:-1], "0.001")
    assert code == 1
    assert "400 rows cannot show a risk of at most 0.001" in err
    assert not Path("guard.json.journal.jsonl").exists()
    code, _, err = run(*FIT[:-1], "1.6")
    assert code == 1
    assert "'risk' must lie strictly between 0 and 1" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*FIT, "--method", "temperature"), "it takes no --method"),
        ((*FIT[:-2], "--calibrator", "cal.json"), "--calibrator goes with --risk"),
        (("ask", "toy:0", "?", "--guard", "guard.json", "--stream"), "no --stream"),
        (asked(QUESTIONS[0], "--guard", "g", "--decoder", "confidence@2"), "it takes no --decoder"),
        (asked(QUESTIONS[0], "--guard", "g", "--calibrator", "c"), "holds its calibrator"),
        (asked(QUESTIONS[0], "--guard", "g", "--k", "2"), "takes no --k"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(run: Any, words: tuple[str, ...], says: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(("decoder", "says"), [("stated", "answers in free text"), ("greedy", "leave out --decoder")])
def test_a_guard_of_options_draws_nothing(run: Any, decoder: str, says: str) -> None:
    code, _, err = run(*FIT, "--decoder", decoder)
    assert code == 1
    assert says in err


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
def test_free_text_has_guards_too(run: Any) -> None:
    ends = ("A", "B", "C", "sun")
    free = [cw.FreeQuestion(f"{n} comes after {ends[n % 4]}", ["A", "B"][: 1 + n % 2], id=f"q{n}") for n in range(160)]
    cw.save_questions(free[:80], "free.jsonl")
    cw.save_questions(free[80:], "more.jsonl")
    drawn = ("--max-tokens", "1", "--template", "short")
    assert run("fit", "toy:0", "--data", "free.jsonl", "--out", "cal.json", *drawn)[0] == 0
    guard = ("fit", "toy:0", "--data", "more.jsonl", "--calibrator", "cal.json", "--risk", "0.6", "--out", "g.json")
    code, out, err = run(*guard, *drawn, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["rows"], told["risk"]) == (80, 0.6)
    ask = ("ask", "toy:0", free[0].prompt, "--guard", "g.json", "--json")
    code, out, err = run(*ask, *drawn)
    assert code == 0, err
    assert {"text", "confidence"} <= json.loads(out).keys() or "abstained" in json.loads(out)
    code, out, _ = run(*ask, "--max-tokens", "1")  # the toy's chat template in place of the fit's
    assert (code, json.loads(out)["type"]) == (1, "ProvenanceMismatch")
    code, out, _ = run(*guard[:-1], "h.json", "--max-tokens", "1", "--json")  # and on the calibrator
    assert (code, json.loads(out)["type"]) == (1, "ProvenanceMismatch")
