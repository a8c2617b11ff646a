"""`calibwrap fit --method auto` prints what it compared, for people and for machines."""

import json
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.testing import ToyModel, toy_questions


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    cw.save_questions(toy_questions(80, seed=2, model=ToyModel.random(seed=0)), tmp_path / "qs.jsonl")


def test_people_see_the_table_and_machines_its_numbers(run: Any) -> None:
    words = ("fit", "toy:0", "--data", "qs.jsonl", "--out", "cal.json", "--readout", "label", "--method", "auto")
    code, out, _ = run(*words)
    assert code == 0
    assert "log loss" in out
    assert "needs 60 rows" not in out
    assert "needs 120 rows, and each fit has 64" in " ".join(out.replace("│", " ").split())  # matrix, three options
    code, out, _ = run(*words, "--resume", "--json")
    found = {one["method"]: one for one in json.loads(out)["candidates"]}
    assert code == 0
    assert found["temperature"]["chosen"]
    assert cw.load("cal.json").report.candidates[1].log_loss == found["temperature"]["log_loss"]
