"""`calibwrap evaluate --decoder` in this process, on the exact toy model."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.testing import ToyModel, toy_questions

TEMPLATE = {
    "body": "{question}\n{options}Answer:",
    "option": "{label}. {option}\n",
    "shows_options": True,
}
WORDS = ("evaluate", "toy:0", "--data", "qs.jsonl", "--template", "t.json", "--max-tokens", "1")


@pytest.fixture(autouse=True)
def first_tokens(toy_runtime: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let traces name a letter as their first token, and write questions and a template."""
    command = sys.modules.get("calibwrap.cli.evaluate") or __import__("calibwrap.cli.evaluate", fromlist=["run"])
    named = command.find_decoder
    monkeypatch.setattr(command, "find_decoder", lambda name, **settings: named(name, **settings, marker=""))
    cw.save_questions(toy_questions(80, seed=2, model=ToyModel.random(seed=0)), tmp_path / "qs.jsonl")
    (tmp_path / "t.json").write_text(json.dumps(TEMPLATE))


def test_files_figures_and_report_are_those_of_the_decoder(run: Any, tmp_path: Path) -> None:
    words = (*WORDS, "--decoder", "confidence@4", "--fit", "temperature", "--fit", "platt", "--out", "e")
    code, out, err = run(*words, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert list(said["series"]) == ["raw", "temperature", "platt"]
    assert said["decoder"]["traces"] == 320
    assert said["readout"].startswith("confidence@4 after trace:t-")
    page = (tmp_path / "e" / "report.html").read_text()
    assert "confidence@4 read 320 traces" in page
    assert {"traces.jsonl", "calibrator-temperature.json", "calibrator-platt.json"} <= {
        path.name for path in (tmp_path / "e").iterdir()
    }

    before = json.loads((tmp_path / "e" / "metrics.json").read_text())
    code, out, err = run(*words, "--resume")
    assert code == 0, err
    assert "confidence@4 read 320 traces" in err
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == before


def test_an_adaptive_decoder_says_what_it_did_without(run: Any) -> None:
    words = (*WORDS, "--decoder", "majority@8")
    plain = json.loads(run(*words, "--out", "e", "--json")[1])
    code, out, err = run(*words, "--out", "e", "--resume", "--json", "--adaptive", "--threshold", "0.6")
    assert code == 0, err
    told = json.loads(out)["decoder"]
    assert (plain["decoder"]["threshold"], plain["decoder"]["traces_saved"], told["threshold"]) == (None, 0, 0.6)
    assert told["traces_saved"] == 640 - told["traces"] > 0
    sure = json.loads(run(*words, "--out", "e", "--resume", "--json", "--adaptive")[1])["decoder"]  # 0.95
    assert told["traces_saved"] > sure["traces_saved"] > 0
    said = f"once the posterior was 0.95, {sure['traces_saved']} more were not needed"
    assert said in Path("e/report.html").read_text()
    assert run("report", "e")[0] == 0
    assert said in Path("e/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--adaptive",), "Got none"),
        (("--adaptive", "--decoder", "greedy"), "Got greedy"),
        (("--adaptive", "--decoder", "confidence@1"), "Got confidence@1"),
        (("--adaptive", "--decoder", "self-consistency@8"), "Got self-consistency@8"),
        (("--threshold", "0.9", "--decoder", "confidence@8"), "add --adaptive"),
        (("--adaptive", "--threshold", "1.5", "--decoder", "confidence@8"), "'threshold' must be a probability"),
    ],
)
def test_what_cannot_stop_early_is_told_so(run: Any, words: tuple[str, ...], says: str) -> None:
    code, _, err = run("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "e", *words)
    assert (code, says in err) == (1, True), err


def test_report_reads_the_answers_back(run: Any, tmp_path: Path) -> None:
    run(*WORDS, "--decoder", "majority@2", "--out", "e", "--json")
    first = (tmp_path / "e" / "report.html").read_text()
    code, _, err = run("report", "e")
    assert code == 0, err
    again = (tmp_path / "e" / "report.html").read_text()
    lead = re.findall(r'<div class="lead">.*?</div>', first)
    assert lead
    assert lead == re.findall(r'<div class="lead">.*?</div>', again)
    assert "majority@2 read 160 traces" in again


def test_a_saved_calibrator_of_traces_is_used_and_strict_knows_it(run: Any) -> None:
    run(*WORDS, "--decoder", "confidence@4", "--fit", "temperature", "--out", "e", "--json")
    words = (*WORDS, "--decoder", "confidence@4", "--calibrator", "e/calibrator-temperature.json", "--strict")
    code, out, err = run(*words, "--out", "f", "--json")
    assert code == 0, err
    assert list(json.loads(out)["series"]) == ["raw", "temperature"]
    code, _, err = run(
        "evaluate", "toy:0", "--data", "qs.jsonl", "--readout", "label", "--out", "g", "--strict", "--calibrator",
        "e/calibrator-temperature.json",
    )  # fmt: skip
    assert code == 1
    assert "trace:t-" in err


def test_a_saved_calibrator_is_a_series_beside_the_fits_with_and_without_a_decoder(run: Any) -> None:
    decoder = (*WORDS, "--decoder", "confidence@2")
    read = ("evaluate", "toy:0", "--data", "qs.jsonl", "--readout", "label")
    for words, other in ((decoder, "platt"), (read, "top-label:platt")):
        run(*words, "--fit", "temperature", "--out", "e", "--json")
        used = ("--calibrator", "e/calibrator-temperature.json", "--strict", "--fit", other)
        code, out, err = run(*words, *used, "--out", f"f-{other}", "--json")
        assert code == 0, err
        assert list(json.loads(out)["series"]) == ["raw", "saved-temperature", other]


def test_a_calibrator_of_confidences_knows_the_decoder_and_the_template(run: Any) -> None:
    run(*WORDS, "--decoder", "confidence@4", "--fit", "platt", "--out", "e", "--json")
    used = ("--calibrator", "e/calibrator-platt.json", "--strict")
    code, out, err = run(*WORDS, "--decoder", "confidence@4", *used, "--out", "f", "--json")
    assert (code, list(json.loads(out)["series"])) == (0, ["raw", "platt"]), err
    code, _, err = run(*WORDS, "--decoder", "confidence@2", *used, "--out", "g")
    assert (code, "fitted on answers of ConfidenceAtK(k=4" in err) == (1, True), err
    code, _, err = run(*WORDS[:4], *WORDS[6:], "--decoder", "confidence@4", *used, "--out", "h", "--stop", "x")
    assert (code, "ConfidenceAtK" in err or "the template" in err) == (1, True), err


def test_answers_that_are_missing_are_told_with_what_a_decoder_can_do(run: Any, tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": "Red?", "options": ["Mars", "Venus"], "answer": [0, None][n]} for n in range(2)]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("evaluate", "toy:0", "--data", "some.jsonl", "--decoder", "weighted@2", "--fit", "platt", "--out", "e")
    code, _, err = run(*words)
    assert (code, "1 of 2 questions have no answer (first: q1)" in err, "daca" in err) == (1, True, False), err


def test_a_prompt_that_is_too_long_is_told_by_its_question(run: Any, tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": "sun " * (5000 if n == 2 else 1), "answers": ["A"]} for n in range(3)]
    (tmp_path / "free.jsonl").write_text("\n".join(map(json.dumps, rows)))
    drawn = ("--data", "free.jsonl", "--decoder", "self-consistency@2", "--out", "f")
    for row in rows:
        row |= {"options": ["Mars", "Venus"], "answer": 0}
        del row["answers"]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    traced, read = (
        ("--decoder", "confidence@2", "--template", "t.json", "--out", "g"),
        ("--readout", "label", "--out", "h"),
    )
    for words, told in (
        (drawn, "It came with the question 'q2'."),
        (("--data", "long.jsonl", *traced), "It came with the question 'q2'."),
        (("--data", "long.jsonl", *read), "It came with one of the 3 questions from 'q0' to 'q2'."),
    ):
        code, _, err = run("evaluate", "toy:0", *words)
        assert (code, told in err) == (1, True), err


def test_greedy_goes_by_its_name(run: Any) -> None:
    code, out, err = run(*WORDS, "--decoder", "greedy", "--stop", "x", "--out", "e", "--json")
    assert (code, json.loads(out)["decoder"]["name"]) == (0, "greedy"), err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--decoder", "confidence"), 1, "needs the number of traces"),
        (("--decoder", "confidence@4", "--fit", "daca"), 1, "calibrated with labels"),
        (("--decoder", "confidence@4", "--readout", "label"), 2, "takes no --readout"),
        (("--decoder", "confidence@4", "--reference", "toy:1"), 1, "have options"),
        (("--decoder", "greedy", "--temperature", "0.8"), 1, "leave --temperature out"),
        (("--stop", "x"), 1, "belong to what --decoder draws"),
    ],
)
def test_wrong_words_are_told(run: Any, more: tuple[str, ...], code: int, said: str) -> None:
    found, _, err = run(*WORDS[:6] if "--stop" in more else WORDS, *more, "--out", "e")
    assert (found, said in " ".join(err.replace("│", " ").split())) == (code, True)
