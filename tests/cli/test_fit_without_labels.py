"""Fits to a reference's word, and the readouts that correct a liking, from the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.testing import ToyModel, toy_questions

QUESTIONS = [replace(one, answer=None) for one in toy_questions(120, seed=2, model=ToyModel.random(seed=0))]
FIT = ("fit", "toy:0", "--data", "qs.jsonl", "--readout", "label", "--reference", "toy:0", "--json")


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    cw.save_questions(QUESTIONS, tmp_path / "qs.jsonl")


@pytest.mark.parametrize(
    ("method", "kind"), [("matched-mean", "temperature"), ("soft:platt", "chain"), ("soft:isotonic", "chain")]
)
def test_no_answers_are_needed(run: Any, method: str, kind: str) -> None:
    code, out, _ = run(*FIT, "--method", method, "--out", "cal.json")
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
