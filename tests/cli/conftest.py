"""What the tests of several commands share."""

import sys
from pathlib import Path
from typing import Any

import pytest

from calibwrap.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a command line: (exit code, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["calibwrap", *words])
        monkeypatch.setattr("warnings.showwarning", None)
        with pytest.raises(SystemExit) as stopped:
            main()
        out = capsys.readouterr()
        return int(stopped.value.code or 0), out.out, out.err

    return call


@pytest.fixture
def toy_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let specs begin with "toy:SEED", and run the test in a folder of its own."""
    opening = sys.modules["calibwrap.opening"]
    monkeypatch.setattr(opening, "_BUILT_IN", {**opening._BUILT_IN, "toy": ("calibwrap.testing", "ToyAdapter")})
    monkeypatch.chdir(tmp_path)
