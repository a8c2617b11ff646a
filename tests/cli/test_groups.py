"""Groups in a question file reach the temperatures of groups: `fit`, `evaluate` and `report`, beside a file without."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.cli.report import read_evaluation
from calibwrap.testing import ToyModel, toy_questions

ASKED = toy_questions(80, seed=2, model=ToyModel.random(seed=0))
GROUPED = [replace(one, group=f"subject {row % 3}") for row, one in enumerate(ASKED)]


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    cw.save_questions(GROUPED, tmp_path / "grouped.jsonl")
    cw.save_questions(ASKED, tmp_path / "plain.jsonl")


def test_fit_takes_the_groups_of_the_file(run: Any) -> None:
    words = ("--out", "cal.json", "--readout", "label", "--method", "group-temperature")
    assert run("fit", "toy:0", "--data", "grouped.jsonl", *words)[0] == 0
    fitted = cw.load("cal.json")
    assert fitted.groups == ("subject 0", "subject 1", "subject 2")  # type: ignore[attr-defined]
    assert "Rows of each group: subject 0 27, subject 1 27, subject 2 26." in fitted.report.notes  # type: ignore[union-attr]
    code, _, told = run("fit", "toy:0", "--data", "plain.jsonl", "--out", "other.json", *words[2:])
    assert code == 1
    assert "80 of 80 questions have none (first: toy-0)" in told
    assert not list(Path().glob("other.json*"))  # nothing was asked


def test_auto_tries_a_temperature_for_each_group_where_the_file_names_them(run: Any) -> None:
    words = ("--readout", "label", "--method", "auto", "--json")
    for data, tried in (("grouped", True), ("plain", False)):
        code, out, _ = run("fit", "toy:0", "--data", f"{data}.jsonl", "--out", f"{data}.json", *words)
        assert code == 0
        assert ("group-temperature" in [one["method"] for one in json.loads(out)["candidates"]]) == tried
    assert (
        run("evaluate", "toy:0", "--data", "grouped.jsonl", "--readout", "label", "--fit", "auto", "--out", "o")[0] == 0
    )
    candidates = cw.load("o/calibrator-auto.json").report.candidates  # type: ignore[union-attr]
    assert "group-temperature" in [one.method for one in candidates]


def test_evaluate_maps_each_question_by_its_own_group(run: Any) -> None:
    words = ("evaluate", "toy:0", "--readout", "label", "--out", "out")
    assert run(*words, "--data", "grouped.jsonl", "--fit", "group-temperature", "--fit", "temperature")[0] == 0
    rows = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert [row["group"] for row in rows] == [question.group for question in GROUPED]
    halves = json.loads(Path("out/metrics.json").read_text())["ece_over_random_halves"]
    assert halves["group-temperature"]["value"] is not None
    assert run("report", "out")[0] == 0
    assert list(read_evaluation(Path("out"))[0].questions) == GROUPED


def test_a_saved_calibrator_of_groups_is_told_them_too(run: Any) -> None:
    of = {"subject 0": 0.5, "subject 1": 1.0, "subject 2": 4.0}
    cw.save(cw.GroupTemperature(1.0, tuple(of), tuple(of.values())), "cal.json")
    words = ("evaluate", "toy:0", "--data", "grouped.jsonl", "--readout", "label", "--out", "out")
    assert run(*words, "--calibrator", "cal.json")[0] == 0
    for line in Path("out/predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        powered = [one ** (1.0 / of[row["group"]]) for one in row["probabilities"]["raw"]]
        wanted = [one / sum(powered) for one in powered]
        assert row["probabilities"]["group-temperature"] == pytest.approx(wanted, abs=1e-9)


def test_an_evaluation_from_before_there_were_groups_is_read(run: Any) -> None:
    words = ("evaluate", "toy:0", "--data", "plain.jsonl", "--readout", "label", "--out", "out", "--fit", "temperature")
    assert run(*words)[0] == 0
    assert '"group"' not in Path("out/predictions.jsonl").read_text()
    assert run("report", "out")[0] == 0


def test_a_journal_of_the_same_questions_without_groups_is_resumed(run: Any) -> None:
    words = ("evaluate", "toy:0", "--readout", "label", "--out", "out", "--fit")
    assert run(*words, "temperature", "--data", "plain.jsonl")[0] == 0
    journal = Path("out/journal.jsonl").read_bytes()
    assert run(*words, "group-temperature", "--data", "grouped.jsonl", "--resume")[0] == 0
    assert Path("out/journal.jsonl").read_bytes() == journal
