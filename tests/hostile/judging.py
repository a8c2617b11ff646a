"""What may come of a hostile input: an error of calibwrap's own with a sentence, or an answer without NaN, in time."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

import calibwrap as cw
from calibwrap.errors import CalibrationWarning, CalibwrapError, ProvenanceWarning

EXAMPLES = int(os.environ.get("CALIBWRAP_HOSTILE", "300"))
"""Inputs of each kind; every entry point of the kind gets every one of them."""
LONGEST = 2000
"""Characters of an error's sentence at the most: an input must not be printed whole."""
OUTCOMES: Counter[tuple[str, str, str]] = Counter()
"""How often (kind of input, entry point, outcome) was seen."""

hostile = settings(
    max_examples=EXAMPLES,
    deadline=timedelta(seconds=20),  # of one input at all entry points of its kind, on a busy machine: else it hangs
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=EXAMPLES < 1000,
)


def judge(kind: str, name: str, call: Callable[[], Any], check: Callable[[Any], None]) -> None:
    """Run a call and count its outcome; what is no outcome of calibwrap's is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ours in (CalibrationWarning, ProvenanceWarning):
            warnings.simplefilter("ignore", ours)
        try:
            found = call()
            check(found)
            outcome, sentence = "answer", ""
        except CalibwrapError as error:
            outcome, sentence = type(error).__name__, str(error)
        except Exception as error:
            error.add_note(f"entry point: {name}")
            raise
    assert len(sentence) < LONGEST, f"{name}: a sentence of {len(sentence)} characters"
    assert sentence or outcome == "answer", f"{name}: {outcome} says nothing"
    OUTCOMES[kind, name, outcome] += 1


def sound(value: Any) -> None:
    """Return nothing when there is no NaN and no +inf anywhere in what came; masses that are unknown are left out."""
    if isinstance(value, (float, np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.kind == "f":
            assert not np.isnan(array).any(), value
            assert not (array == np.inf).any(), value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.name not in ("label_mass", "report", "seen"):
                sound(getattr(value, field.name))
        if isinstance(value, cw.Calibrator):
            usable(value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            sound(one)


def unit(value: Any) -> None:
    """Return nothing when all numbers lie in [0, 1]."""
    array = np.asarray(value, dtype=np.float64)
    assert ((array >= 0.0) & (array <= 1.0 + 1e-12)).all(), value


TRIED = [np.log([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]]), np.log([[0.7, 0.3]]), np.zeros((1, 1)), np.zeros((2, 4))]
"""Scores that a calibrator is tried on; those of other widths than its own it may refuse."""


def usable(calibrator: cw.Calibrator) -> None:
    """Return nothing when a calibrator maps scores to scores, or refuses them by name."""
    if calibrator.level == "confidence":
        unit(calibrator(np.linspace(0.0, 1.0, 7)))
        return
    for scores in TRIED:
        try:
            mapped = calibrator(scores)
        except CalibwrapError:
            continue
        assert not np.isnan(mapped).any()
        np.testing.assert_allclose(np.exp(mapped).sum(axis=1), 1.0, atol=1e-6)


def table_of_outcomes(kind: str) -> list[str]:
    """Return a line for each outcome of one kind of inputs: how often, and at how many entry points."""
    found: Counter[str] = Counter()
    for (of, _, outcome), count in OUTCOMES.items():
        found[outcome] += count if of == kind else 0
    names = {name for of, name, _ in OUTCOMES if of == kind}
    return [f"{kind}: {sum(found.values())} calls of {len(names)} entry points"] + [
        f"  {count:8d}  {outcome}" for outcome, count in found.most_common() if count
    ]
