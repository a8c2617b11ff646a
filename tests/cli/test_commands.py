"""The commands in this process, on the exact toy model; files, exit codes and machine output are looked at."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.cli.parts import parse_settings, read_template
from calibwrap.errors import InputError
from calibwrap.questions import CLOZE
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

QUESTIONS = toy_questions(120, seed=2, model=ToyModel.random(seed=0))
LABEL = ("--readout", "label")


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    """Write 120 questions."""
    cw.save_questions(QUESTIONS, tmp_path / "qs.jsonl")


def test_ask_prints_an_answer_for_people_and_for_machines(run: Any) -> None:
    words = ("ask", "toy:0", "What comes after sun", "-o", "A", "-o", "B")
    code, out, _ = run(*words)
    assert code == 0
    assert "not calibrated" in out
    code, out, _ = run(*words, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["text"] in ("A", "B")
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)


def test_ask_without_options_generates(run: Any) -> None:
    code, out, _ = run("ask", "toy:0", "What comes after sun", "--json")
    answer = json.loads(out)
    assert code == 0
    assert 0 <= answer["confidence"] <= 1
    assert answer["probabilities"] == {}


def test_fit_saves_a_calibrator_that_ask_uses(run: Any) -> None:
    code, out, _ = run("fit", "toy:0", "--data", "qs.jsonl", "--out", "cal.json", *LABEL, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["kind"] == "temperature"
    assert report["rows"] == 120
    assert cw.load("cal.json").value == report["temperature"]  # type: ignore[attr-defined]
    first = next(question for question in QUESTIONS if question.prompt.endswith("é"))  # there the labels have the mass
    code, out, _ = run(
        "ask", "toy:0", first.prompt, *(f"-o{o}" for o in first.options), "--calibrator", "cal.json", "--json"
    )
    assert json.loads(out)["calibrated_by"] == "temperature"


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
def test_a_fit_on_next_to_nothing_ends_with_a_caution(run: Any) -> None:
    certain = cw.wrap(ToyAdapter(ToyModel.random(0))).scores(QUESTIONS, "label").choice
    asked = [replace(question, answer=int(best)) for question, best in zip(QUESTIONS, certain, strict=True)]
    cw.save_questions(asked[:1], "one.jsonl")
    code, out, err = run("fit", "toy:0", "--data", "one.jsonl", "--out", "one.json", *LABEL)
    assert code == 0
    assert "Caution: this was fitted on 1 question, fewer than 20" in err
    assert err.splitlines()[-1].startswith("Caution: the temperature is the lower end")
    assert "Caution" not in run("fit", "toy:0", "--data", "qs.jsonl", "--out", "all.json", *LABEL)[2]
    assert "0.01" in out


def test_a_temperature_is_shown_with_four_digits_and_kept_with_all(run: Any) -> None:
    out = run("fit", "toy:0", "--data", "qs.jsonl", "--out", "all.json", *LABEL)[1]
    value = cw.load("all.json").value  # type: ignore[attr-defined]
    assert f"{value:.4g}" in out
    assert str(value) not in out


@pytest.mark.filterwarnings("ignore:The labels together carry only")
def test_resamples_that_are_all_the_same_are_no_interval(run: Any) -> None:
    cw.save_questions(QUESTIONS[:1], "one.jsonl")
    out = run("evaluate", "toy:0", "--data", "one.jsonl", "--out", "run", *LABEL)[1]
    assert "ECE" in out
    assert "–" not in out


def test_fit_without_labels_needs_a_reference_and_no_answers(run: Any) -> None:
    bare = [cw.Question(q.prompt, q.options, id=q.id) for q in QUESTIONS]
    cw.save_questions(bare, "bare.jsonl")
    words = ("fit", "toy:0", "--data", "bare.jsonl", "--out", "cal.json", *LABEL, "--method", "daca")
    code, _, err = run(*words)
    assert code == 1
    assert "--reference" in err
    code, out, _ = run(*words, "--reference", "toy:0", "--json")
    assert code == 0
    assert json.loads(out)["temperature"] == pytest.approx(1.0)  # the reference is the model itself


def test_evaluate_writes_figures_predictions_and_report(run: Any, tmp_path: Path) -> None:
    words = ("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", *LABEL, "--fit", "temperature", "--fit", "daca")
    code, out, err = run(*words, "--reference", "toy:0", "--json")
    assert code == 0, err
    metrics = json.loads(out)
    assert metrics["held_out"] == 60
    assert set(metrics["series"]) == {"raw", "temperature", "daca"}
    saved = json.loads(Path("run/metrics.json").read_text())
    assert saved["series"] == metrics["series"]
    rows = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [question.id for question in QUESTIONS]
    held_out = [row for row in rows if row["part"] == "held-out"]
    confidence = np.array([max(row["probabilities"]["raw"]) for row in held_out])
    correct = np.array([int(np.argmax(row["probabilities"]["raw"])) == row["answer"] for row in held_out])
    assert metrics["series"]["raw"]["ece"]["value"] == pytest.approx(cw.metrics.ece(confidence, correct))
    assert metrics["series"]["raw"]["accuracy"]["value"] == pytest.approx(correct.mean())
    page = Path("run/report.html").read_text()
    assert "without labels" in page
    assert cw.load("run/calibrator-temperature.json").report.rows == 60  # type: ignore[union-attr]


def test_evaluate_for_people_prints_a_table(run: Any) -> None:
    code, out, err = run("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", *LABEL)
    assert code == 0
    assert "ECE" in out
    assert "report.html" in err


def test_evaluate_with_a_saved_calibrator_measures_all_questions(run: Any) -> None:
    run("fit", "toy:0", "--data", "qs.jsonl", "--out", "cal.json", *LABEL)
    code, out, _ = run("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", "--calibrator", "cal.json", "--json")
    metrics = json.loads(out)
    assert code == 0
    assert metrics["held_out"] == 120
    assert set(metrics["series"]) == {"raw", "temperature"}


def test_evaluate_without_answers_gives_predictions_and_no_figures(run: Any) -> None:
    cw.save_questions([cw.Question(q.prompt, q.options, id=q.id) for q in QUESTIONS[:10]], "bare.jsonl")
    code, out, err = run("evaluate", "toy:0", "--data", "bare.jsonl", "--out", "run", *LABEL, "--json")
    assert code == 0, err
    assert json.loads(out)["series"] == {}
    assert Path("run/report.html").exists()


def test_some_answers_are_figures_of_those(run: Any) -> None:
    some = [q if n % 2 else cw.Question(q.prompt, q.options, id=q.id) for n, q in enumerate(QUESTIONS[:40])]
    cw.save_questions(some, "some.jsonl")
    code, out, err = run("evaluate", "toy:0", "--data", "some.jsonl", "--out", "run", *LABEL, "--json")
    assert code == 0, err
    assert json.loads(out)["answered"] == 20


def test_report_makes_the_page_again(run: Any) -> None:
    run("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", *LABEL, "--fit", "temperature")
    before = Path("run/report.html").read_text()
    Path("run/report.html").unlink()
    code, _, err = run("report", "run", "--picture", "picture.png")
    assert code == 0, err
    again = Path("run/report.html").read_text()
    figures = [part for part in before.split("<") if part.startswith("td") and "%" in part]
    assert figures
    assert all(part in again for part in figures)
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_one_sentence(run: Any) -> None:
    run("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", *LABEL)
    code, _, err = run("report", "run", "--picture", "nowhere/picture.png")
    assert code == 1
    assert err.splitlines()[-1].startswith("Error: ")
    assert "nowhere" in err
    assert "Traceback" not in err


def test_report_on_a_folder_without_an_evaluation_says_so(run: Any) -> None:
    code, _, err = run("report", ".")
    assert code == 1
    assert "calibwrap evaluate" in err


def test_check_shows_capabilities_and_readouts(run: Any) -> None:
    code, out, _ = run("check", "toy:0", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["provides"]["full_vocabulary"] is True
    assert found["model"]["runtime"] == "toy"
    assert found["readouts"]["label:letter"]["works"] is True
    assert found["readouts"]["label:letter-chat"]["works"] is False
    code, out, _ = run("check", "toy:0")
    assert code == 0
    assert "the whole vocabulary" in out


def test_check_runs_the_conformance_kit(run: Any) -> None:
    code, out, err = run("check", "toy:0", "--conformance", "--json")
    assert code == 0, err
    assert "passed" in json.loads(out)["conformance"].values()


@pytest.mark.parametrize(
    "words", [("evaluate",), ("ask", "toy:0"), ("nothing",), ("fit", "toy:0", "--data", "qs.jsonl")]
)
def test_wrong_usage_is_exit_code_2(run: Any, words: tuple[str, ...]) -> None:
    assert run(*words)[0] == 2
    code, out, err = run(*words, "--json")
    assert (code, json.loads(out)["type"]) == (2, "UsageError"), err


def test_a_failure_is_one_sentence_and_exit_code_1(run: Any) -> None:
    code, out, err = run("ask", "hf:/nowhere", "What?", "-o", "A", "-o", "B")
    assert code == 1
    assert out == ""
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    code, out, _ = run("ask", "tooy:0", "What?", "--json")
    assert code == 1
    assert json.loads(out)["type"] == "InputError"


def test_a_broken_line_names_file_line_and_what_is_wrong(run: Any) -> None:
    lines = Path("qs.jsonl").read_text().splitlines()
    Path("bad.jsonl").write_text("\n".join([*lines[:6], '{"id": "x", "prompt": "What?", "options": []}', *lines[7:]]))
    code, _, err = run("evaluate", "toy:0", "--data", "bad.jsonl", "--out", "run", *LABEL)
    assert code == 1
    assert "bad.jsonl" in err
    assert "7" in err
    assert "options" in err
    assert not Path("run").exists()


def test_a_second_run_without_resume_is_refused_and_keeps_the_journal(run: Any) -> None:
    words = ("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", *LABEL)
    run(*words)
    journal = Path("run/journal.jsonl").read_bytes()
    code, _, err = run(*words)
    assert code == 1
    assert "resume" in err
    assert Path("run/journal.jsonl").read_bytes() == journal
    assert run(*words, "--resume")[0] == 0
    assert Path("run/journal.jsonl").read_bytes() == journal


def test_resume_with_another_model_names_the_difference(run: Any) -> None:
    run("evaluate", "toy:0", "--data", "qs.jsonl", "--out", "run", *LABEL)
    code, _, err = run("evaluate", "toy:5", "--data", "qs.jsonl", "--out", "run", *LABEL, "--resume")
    assert code == 1
    assert "revision" in err


def test_a_resumed_run_equals_an_uninterrupted_one(run: Any) -> None:
    words = ("evaluate", "toy:0", "--data", "qs.jsonl", *LABEL, "--fit", "temperature", "--json")
    whole = json.loads(run(*words, "--out", "whole")[1])
    run(*words, "--out", "torn")
    lines = Path("torn/journal.jsonl").read_bytes().splitlines(keepends=True)
    Path("torn/journal.jsonl").write_bytes(b"".join(lines[:50]) + lines[50][:17])  # killed in the middle of a line
    resumed = json.loads(run(*words, "--out", "torn", "--resume")[1])
    assert resumed["series"] == whole["series"]
    assert Path("torn/predictions.jsonl").read_text() == Path("whole/predictions.jsonl").read_text()


def test_settings_are_json_or_text() -> None:
    assert parse_settings(["a=1", "b=x=y", 'c={"d": true}']) == {"a": 1, "b": "x=y", "c": {"d": True}}
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_settings(["a"])


def test_a_template_file_replaces_the_template(run: Any) -> None:
    Path("mine.json").write_text(json.dumps({"body": "Say {question}", "separator": " "}))
    cw.save_questions(toy_questions(20, template=CLOZE), "texts.jsonl")
    words = ("evaluate", "toy:0", "--data", "texts.jsonl", "--out", "run", "--template", "mine.json", "--json")
    code, out, err = run(*words)
    assert code == 0, err
    assert json.loads(out)["readout"].startswith("continuation:sum:mine-")
    assert read_template(Path("mine.json")).label.startswith("mine-")
    Path("wrong.json").write_text('{"boody": "x"}')
    with pytest.raises(InputError, match="boody"):
        read_template(Path("wrong.json"))
