"""`calibwrap check`: what a model on its runtime can give, before anything is built on it."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from calibwrap.base import Adapter
from calibwrap.cli.abilities import abilities, lacks
from calibwrap.cli.console import print_json, print_pairs, say_spent
from calibwrap.cli.parts import open_model
from calibwrap.errors import CalibrationWarning, CalibwrapError, ModelError
from calibwrap.questions import CLOZE, CLOZE_CHAT, LETTER, LETTER_CHAT, Question
from calibwrap.readouts import find_readout
from calibwrap.wrap import CalibratedLM

_PROBE = Question("Which planet is known as the red planet?", ["Venus", "Mars", "Jupiter"], answer=1, id="probe")

WIDE = 0.005
"""Width of an interval that is worth showing beside two decimals."""


def run(spec: str, settings: list[str] | None, conformance: bool, as_json: bool) -> None:
    """Print identity, capabilities, what a probe has shown, and the readouts that work."""
    with open_model(spec, settings) as lm:
        found = inspect(lm)
        found["conformance"] = _conformance(lm.adapter) if conformance else {}
        found["usage"] = dict(lm.adapter.usage())
        told = abilities(lm.adapter.provides, lm.adapter.fingerprint().semantics)
    if as_json:
        print_json(found)
    else:
        _print(found, told)


def inspect(lm: CalibratedLM) -> dict[str, Any]:
    """Return identity, capabilities, findings of the probe and the answers of all readouts to one question."""
    return {
        "model": asdict(lm.adapter.fingerprint()),
        "provides": asdict(lm.adapter.provides),
        "probe": dict(lm.adapter.probe()),
        "readouts": {name: _try(lm, name) for name in _readout_names()},
    }


def _print(found: Mapping[str, Any], told: Mapping[str, str]) -> None:
    print_pairs("Model", {name: value or "not told" for name, value in found["model"].items()})
    print_pairs("What it can give", told)
    if found["probe"]:
        print_pairs("What asking the server has shown", found["probe"])
    print_pairs("Readouts on one question", {name: _told(one) for name, one in found["readouts"].items()})
    if found["conformance"]:
        print_pairs("Conformance", found["conformance"])
    say_spent(found["usage"])


def _readout_names() -> list[str]:
    """Return the readouts of a question with options that needs no drawing; other templates are for drawn texts."""
    continuations = [f"continuation:sum:{template.name}" for template in (CLOZE, CLOZE_CHAT)]
    labels = [f"label:{template.name}" for template in (LETTER, LETTER_CHAT)]
    return [*continuations, *labels, "decision"]


def _try(lm: CalibratedLM, name: str) -> dict[str, Any]:
    """Return the answer to the probe question, or why there is none; what cannot work costs no call."""
    lacking = lacks(find_readout(name).needs, lm.adapter.provides)
    if lacking:
        return {"works": False, "reason": f"it needs {lacking}, which the model on this runtime does not give"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)  # the label mass is shown instead
            scores = lm.scores([_PROBE], readout=name)
    except CalibwrapError as error:
        return {"works": False, "reason": str(error)}
    best, mass = int(scores.choice[0]), float(scores.label_mass[0])
    return {
        "works": True,
        "choice": _PROBE.options[best],
        "confidence": float(scores.confidence[0]),
        "bounds": [float(scores.lower[0, best]), float(scores.upper[0, best])],
        "missing": int(scores.n_missing[0]),
        "label_mass": None if mass != mass else mass,
    }


def _told(found: Mapping[str, Any]) -> str:
    """Return the answer of one readout as people read it."""
    if not found["works"]:
        return f"no: {found['reason']}"
    text = f"yes: {found['choice']} at {found['confidence']:.2f}"
    low, high = found["bounds"]
    if high - low >= WIDE:
        text += f" ({low:.2f} to {high:.2f} by what the list leaves out)"
    if found["missing"]:
        text += f", {found['missing']} of {len(_PROBE.options)} options not listed"
    return (
        text if found["label_mass"] is None else f"{text}, options carry {found['label_mass']:.2f} of the probability"
    )


def _conformance(adapter: Adapter) -> dict[str, str]:
    from calibwrap.testing import CheckFailed, adapter_checks

    try:
        return {check.name: check.outcome for check in adapter_checks(adapter)}
    except CheckFailed as error:
        raise ModelError(str(error)) from error
