"""Calibrator files that commands read and write: calibwrap's own, and `decision.json` by its name."""

from pathlib import Path

from calibwrap import saving
from calibwrap.base import Calibrator
from calibwrap.decision_file import NAME, check_method, load_decision, save_decision
from calibwrap.errors import InputError
from calibwrap.provenance import Provenance


def load_calibrator(path: Path) -> Calibrator:
    """Return the calibrator in a file; out of a decision.json its temperature of choice questions."""
    return load_decision(path) if path.name == NAME else saving.load(path)


def save_calibrator(calibrator: Calibrator, path: Path, provenance: Provenance) -> None:
    """Write a calibrator to a file; into a decision.json as its temperature of choice questions."""
    if path.name == NAME:
        save_decision(calibrator, path)
    else:
        saving.save(calibrator, path, provenance=provenance)


def check_file_holds_free(path: Path) -> None:
    """Return nothing when the file `path` can hold a calibrator of one confidence.

    Raises:
        InputError: a decision.json.
    """
    if path.name == NAME:
        raise InputError(
            f"A {NAME} holds one temperature of options. Got free text: pass another --out, such as platt.json."
        )


def check_file_holds(method: str, path: Path) -> None:
    """Return nothing when the file `path` can hold what the fit called `method` gives; asked before any model call.

    Raises:
        InputError: a decision.json, which holds one temperature, and a method that fits more.
    """
    if path.name == NAME:
        check_method(method)
