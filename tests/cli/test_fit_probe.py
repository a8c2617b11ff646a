"""`fit --method probe` and what uses its file, on a tiny random model whose states hold the last word."""

import json
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.probing import ProbeReadout
from tests.adapters import hf_models
from tests.test_probing import questions

FIT = ("fit", "--data", "qs.jsonl", "--method", "probe", "--out", "probe.safetensors")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: Any) -> str:
    """Save model, tokenizer and questions, and return the model's spec."""
    hf_models.llama().save_pretrained(tmp_path / "model")
    hf_models.byte_level().save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    cw.save_questions(questions(40), "qs.jsonl")
    cw.save_questions(questions(24, seed=1), "new.jsonl")
    return f"hf:{tmp_path / 'model'}"


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
def test_a_probe_is_fitted_saved_and_answers(run: Any, spec: str) -> None:
    code, out, err = run(FIT[0], spec, *FIT[1:], "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "probe"
    probe = cw.load("probe.safetensors")
    code, out, err = run(
        "evaluate", spec, "--data", "new.jsonl", "--calibrator", "probe.safetensors", "--out", "e", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["readout"] == probe.readout  # type: ignore[attr-defined]
    assert found["series"]["probe"]["accuracy"]["value"] > 0.8
    with cw.wrap(spec) as lm:
        answering = lm.with_calibrator(probe, strict=True)
        assert isinstance(answering.readout, ProbeReadout)
        asked = answering.choose("Which is a town?", ["Paris", "water"])
    words = (
        "ask",
        spec,
        "Which is a town?",
        "-o",
        "Paris",
        "-o",
        "water",
        "--calibrator",
        "probe.safetensors",
        "--json",
    )
    code, out, err = run(*words)
    assert code == 0, err
    assert json.loads(out)["confidence"] == pytest.approx(asked.confidence)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--readout", "label"), "takes no --readout"),
        (("--reference", "toy:0"), "no --reference"),
        (("--resume",), "leave out --resume"),
        (("--decoder", "confidence@2"), "draws answers in free text only"),
    ],
)
def test_what_a_probe_does_not_take_is_said(run: Any, spec: str, more: Any, says: str) -> None:
    code, _, err = run(FIT[0], spec, *FIT[1:], *more)
    assert code == 1
    assert says in " ".join(err.split())


def test_a_backend_without_states_is_refused(run: Any, spec: str, toy_runtime: None) -> None:
    cw.save_questions(questions(40), "qs.jsonl")
    code, _, err = run(FIT[0], "toy:0", *FIT[1:])
    assert code == 1
    assert "hidden states" in err
