"""Fits to a reference's word, and the readouts that correct a liking, from the command line."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.cli.free_text import FREE_DECODERS
from calibwrap.testing import ToyModel, toy_questions

QUESTIONS = [replace(one, answer=None) for one in toy_questions(120, seed=2, model=ToyModel.random(seed=0))]
FIT = ("fit", "toy:0", "--data", "qs.jsonl", "--readout", "label", "--reference", "toy:0", "--json")


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    cw.save_questions(QUESTIONS, tmp_path / "qs.jsonl")


@pytest.mark.parametrize(
    ("named", "method", "kind"),
    [
        ((), "soft:platt", "chain"),
        (("--method", "matched-mean"), "matched-mean", "temperature"),
        (("--method", "soft:isotonic"), "soft:isotonic", "chain"),
    ],
)
def test_no_answers_are_needed(run: Any, named: tuple[str, ...], method: str, kind: str) -> None:
    code, out, _ = run(*FIT, *named, "--out", "cal.json")
    found = json.loads(out)
    assert code == 0
    assert (found["method"], found["kind"], found["agreement_rate"]) == (method, kind, 1.0)
    assert found["reference_readout"] == "label:letter"
    scores = cw.OptionScores([[0.0, -1.0, -2.0]], "label:letter")
    calibrator = cw.load("cal.json")
    assert calibrator.keeps_argmax
    assert calibrator(scores).confidence == pytest.approx(scores.confidence, abs=0.05)  # its own reference


@pytest.mark.filterwarnings("ignore:The labels together carry")
def test_readouts_that_correct_a_liking_are_named_like_others(run: Any) -> None:
    words = ("ask", "toy:0", "What comes after sun", "-o", "one", "-o", "two", "--json", "--readout")
    code, out, _ = run(*words, "permuted:label:letter")
    assert code == 0
    assert json.loads(out)["probabilities"] == pytest.approx({"one": 0.5, "two": 0.5})
    plain, corrected = (json.loads(run(*words, name)[1]) for name in ("label:letter", "contextual:label:letter"))
    assert plain["probabilities"] != corrected["probabilities"]
    assert sum(corrected["probabilities"].values()) == pytest.approx(1.0)


ENDS = ("A", "B", "C", "sun")
FREELY = ("toy:0", "--data", "free.jsonl", "--reference", "toy:0", "--max-tokens", "1")


@dataclass(frozen=True)
class Judge(cw.PTrue):
    """A judge that says what the toy can say."""

    labels: tuple[str, str] = ("A", "B")


@pytest.fixture
def free(tmp_path: Path) -> None:
    """Write questions in free text without an answer."""
    lines = [json.dumps({"id": f"q{n}", "prompt": f"{n} comes after {ENDS[n % 4]}", "answers": []}) for n in range(40)]
    (tmp_path / "free.jsonl").write_text("\n".join(lines))


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
@pytest.mark.parametrize(
    ("more", "method"),
    [((), "soft:platt"), (("--method", "soft:isotonic"), "soft:isotonic"), (("--decoder", "p-true"), "daca")],
)
def test_free_text_needs_no_answers_either(run: Any, free: None, monkeypatch: Any, more: Any, method: str) -> None:
    kinds = {**FREE_DECODERS, "p-true": replace(FREE_DECODERS["p-true"], make=Judge)}
    monkeypatch.setattr("calibwrap.cli.free_text.FREE_DECODERS", kinds)
    named = ("--method", "daca", "--template", "short") if method == "daca" else ()
    code, out, err = run("fit", *FREELY, *more, *named, "--out", "cal.json", "--json")
    assert code == 0, out + err
    report = cw.load("cal.json").report
    assert (report.method, report.rows) == (method, 40)
    assert report.reference is not None
    assert "of the reference" in report.reference_readout
    assert json.loads(out)["method"] == method


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
def test_the_references_word_is_measured_beside_right_answers(run: Any, free: None, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (tmp_path / "free.jsonl").read_text().splitlines()]
    told = [{**line, "answers": [ENDS[number % 3]]} for number, line in enumerate(lines)]
    (tmp_path / "free.jsonl").write_text("\n".join(map(json.dumps, told)))
    fits = ("--fit", "platt", "--fit", "soft:isotonic")
    code, out, err = run("evaluate", *FREELY, *fits, "--out", "e", "--json")
    assert code == 0, err
    assert list(json.loads(out)["series"]) == ["raw", "platt", "soft:isotonic"]
    page = (tmp_path / "e" / "report.html").read_text()
    assert "mean token probability of the reference" in page
    code, _, err = run("report", "e")
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("fit", *FREELY, "--method", "platt", "--out", "c.json"), "fit 'soft:platt'"),
        (("fit", *FREELY, "--method", "daca", "--out", "c.json"), "needs a PTrue decoder"),
        (("fit", *FREELY, "--reference-readout", "label", "--out", "c.json"), "are for options"),
        (("evaluate", *FREELY, "--fit", "platt", "--out", "e"), "fit 'soft:platt'"),
        (("evaluate", *FREELY[:3], "--fit", "soft:platt", "--out", "e"), "needs a reference"),
        (
            ("evaluate", "toy:0", "--data", "qs.jsonl", "--decoder", "greedy", "--reference", "toy:0", "--out", "e"),
            "have options",
        ),
    ],
)
def test_what_does_not_go_with_free_text_is_said(run: Any, free: None, words: Any, told: str) -> None:
    code, _, err = run(*words)
    assert code == 1, err
    assert told in " ".join(err.split())
