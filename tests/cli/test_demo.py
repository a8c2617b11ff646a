"""`calibwrap demo` for real, small: two packaged models through llama.cpp, which loads in a second."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.model


def demo(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("calibwrap"))
    command = [program, "demo", "--runtime", "llama-cpp", "--questions", "40", "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})


def test_demo_measures_writes_and_resumes(tmp_path: Path) -> None:
    first = demo(tmp_path)
    assert first.returncode == 0, first.stderr
    for shown in ("raw", "temperature", "daca", "soft:platt", "ECE", "Brier", "NLL"):
        assert shown in first.stdout
    for told in ("Apache-2.0", "Gemma", "CC-BY", "without labels, models agree on", "20 held-out questions"):
        assert told in first.stdout + first.stderr
    for name in ("report.html", "reliability.png", "metrics.json", "arc_easy/journal.jsonl", "sciq/predictions.jsonl"):
        assert (tmp_path / name).stat().st_size > 0
    journals = {path: path.read_bytes() for path in tmp_path.rglob("*journal.jsonl")}
    again = demo(tmp_path, "--json")
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in journals} == journals
    found = json.loads(again.stdout)
    assert found["sets"] == json.loads((tmp_path / "metrics.json").read_text())
    for metrics in found["sets"].values():
        assert metrics["held_out"] == 20
        raw, labelled = metrics["series"]["raw"], metrics["series"]["temperature"]
        assert raw["accuracy"] == labelled["accuracy"]
        assert metrics["fits"]["daca"]["agreement_rate"] > 0
        assert raw["mean_confidence"]["value"] - raw["accuracy"]["value"] > 0.1  # over-confident, as small models are
