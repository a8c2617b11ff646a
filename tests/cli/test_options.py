"""Options that act together: a calibrator with another readout, settings for model and reference; and Ctrl-C."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.cli import main
from calibwrap.cli.parts import open_model, open_reference, read_readout
from calibwrap.errors import InputError, ProvenanceMismatch, ProvenanceWarning
from calibwrap.questions import CLOZE
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions


@pytest.fixture(autouse=True)
def twin_runtime(toy_runtime: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let specs begin with "twin:SEED" too, and save a calibrator that was fitted by continuations."""
    opening = sys.modules["calibwrap.opening"]
    monkeypatch.setattr(opening, "_BUILT_IN", {**opening._BUILT_IN, "twin": ("calibwrap.testing", "ToyAdapter")})
    questions = toy_questions(40, seed=2, model=ToyModel.random(seed=0), template=CLOZE)
    cw.wrap(ToyAdapter()).fit(questions, readout="continuation").save(tmp_path / "cal.json")
    Path("own.json").write_text(json.dumps({"body": "Q: {question}\nA:"}), encoding="utf-8")


def opened(readout: str | None, template: str | None = None, calibrator: str = "cal.json", strict: bool = True) -> Any:
    how = read_readout(readout, None if template is None else Path(template))
    return open_model("toy:0", readout=how, calibrator=Path(calibrator), strict=strict)


def test_strict_refuses_a_readout_that_the_calibrator_was_not_fitted_on() -> None:
    assert opened(None).readout.label == "continuation:sum:cloze"
    assert opened("continuation").calibrator.kind == "temperature"
    with pytest.raises(ProvenanceMismatch, match="label:letter"):
        opened("label")
    with pytest.warns(ProvenanceWarning, match="label:letter"):
        assert opened("label", strict=False).readout.label == "label:letter"


def test_strict_accepts_a_template_of_ones_own_that_the_calibrator_was_fitted_on() -> None:
    how = read_readout(None, Path("own.json"))
    questions = toy_questions(40, seed=2, model=ToyModel.random(seed=0), template=CLOZE)
    cw.wrap(ToyAdapter()).fit(questions, readout=how).save("own-cal.json")
    assert opened(None, "own.json", "own-cal.json").readout == how
    with pytest.raises(ProvenanceMismatch, match="own-"):
        opened("continuation", None, "own-cal.json")


def test_settings_hold_for_a_reference_on_the_same_runtime_only() -> None:
    same = open_reference("toy:0", "toy:1", ["spread=0.0"]).adapter.fingerprint()
    other = open_reference("twin:0", "toy:1", ["spread=0.0"]).adapter.fingerprint()
    assert same == ToyAdapter(ToyModel.random(0, spread=0.0)).fingerprint()
    assert other == ToyAdapter(ToyModel.random(0)).fingerprint()
    with pytest.raises(InputError, match="KEY=VALUE"):
        open_reference("toy:0", "toy:1", ["spread"])


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_ctrl_c_says_how_to_go_on(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    for command in ("ask", "fit"):
        monkeypatch.setattr(f"calibwrap.cli.{command}.run", stopped)
    monkeypatch.setattr(sys, "argv", ["calibwrap", "fit", "toy:0", "--data", "qs.jsonl", "--out", "c.json", *words])
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    told = capsys.readouterr()
    assert "--resume goes on" in (json.loads(told.out)["error"] if words else told.err)
    monkeypatch.setattr(sys, "argv", ["calibwrap", "ask", "toy:0", "Red?", *words])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr()
    assert (json.loads(told.out)["error"] if words else told.err.strip()).removeprefix("Error: ") == "Stopped."


def test_the_version_is_that_of_the_package(run: Any) -> None:
    assert run("--version") == (0, f"calibwrap {cw.__version__}\n", "")
