"""`calibwrap check`: what a model on its runtime can give, before anything is built on it."""

from dataclasses import asdict
from typing import Any

from calibwrap.base import Adapter
from calibwrap.cli.console import print_json, print_pairs
from calibwrap.cli.parts import open_model
from calibwrap.errors import CalibwrapError, ModelError
from calibwrap.questions import TEMPLATES, Question
from calibwrap.readouts import find_readout

_PROBE = Question("Which planet is known as the red planet?", ["Venus", "Mars", "Jupiter"], answer=1, id="probe")


def run(spec: str, settings: list[str] | None, conformance: bool, as_json: bool) -> None:
    """Print capabilities, identity and the readouts that work."""
    with open_model(spec, settings) as lm:
        identity = asdict(lm.adapter.fingerprint())
        provides = asdict(lm.adapter.provides)
        readouts = {name: _try(lm.adapter, name) for name in _readout_names()}
        checks = _conformance(lm.adapter) if conformance else {}
    if as_json:
        print_json({"model": identity, "provides": provides, "readouts": readouts, "conformance": checks})
        return
    print_pairs("Model", identity)
    print_pairs("Provides (None: no limit)", provides)
    print_pairs("Readouts on one question", {name: _told(found) for name, found in readouts.items()})
    if checks:
        print_pairs("Conformance", checks)


def _readout_names() -> list[str]:
    continuations = [f"continuation:sum:{name}" for name, t in TEMPLATES.items() if not t.shows_options]
    return [*continuations, *(f"label:{name}" for name, t in TEMPLATES.items() if t.shows_options)]


def _try(adapter: Adapter, name: str) -> dict[str, Any]:
    """Return the answer to the probe question, or why there is none."""
    try:
        scores = find_readout(name).ask(adapter, [_PROBE])
    except CalibwrapError as error:
        return {"works": False, "reason": str(error)}
    mass = float(scores.label_mass[0])
    answer = {"choice": _PROBE.options[int(scores.choice[0])], "confidence": float(scores.confidence[0])}
    return {"works": True, **answer, "label_mass": None if mass != mass else mass}


def _told(found: dict[str, Any]) -> str:
    if not found["works"]:
        return f"no: {found['reason']}"
    mass = "" if found["label_mass"] is None else f", labels carry {found['label_mass']:.2f} of the probability"
    return f"yes: {found['choice']} at {found['confidence']:.2f}{mass}"


def _conformance(adapter: Adapter) -> dict[str, str]:
    from calibwrap.testing import CheckFailed, adapter_checks

    try:
        return {check.name: check.outcome for check in adapter_checks(adapter)}
    except CheckFailed as error:
        raise ModelError(str(error)) from error
