"""An option temperature to and from `decision.json`, the settings of decision models in Transformers 5.23 and later.

Transformers keeps one temperature for each type of question in that file, beside labels and template, and divides the
options' scores by it before the softmax, as `Temperature` does:

    {"temperature": {"choice": 1.7}, "labels": {...}, ...}

So a temperature that was fitted here is in force wherever the file is read, with no code of ours. All that the file
cannot say is refused by name: more than one number, a level other than options, and where the number was fitted.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, Literal, get_args

from calibwrap.base import Calibrator
from calibwrap.calibrators import Chain, Identity, Temperature
from calibwrap.errors import InputError, SavedFileError
from calibwrap.files import replacing
from calibwrap.provenance import FitReport
from calibwrap.saving import FORMAT

NAME = "decision.json"
"""Name of the file in a model's folder."""
QuestionType = Literal["choice", "noul", "score"]
"""Kinds of questions of a decision model: one of several options, yes or no, and a level on a scale."""
_KEY = "temperature"


def save_decision(
    calibrator: Calibrator,
    path: str | os.PathLike[str],
    *,
    question_type: QuestionType = "choice",
    served_at: float | None = None,
) -> None:
    """Return nothing, having written an option temperature to `decision.json`; everything else in the file stays.

    The prompt matters as much as the number: fit on probabilities of the very prompt that the file's model is asked
    with, which readout "decision" reads from a server of that model.

    Args:
        calibrator: A `Temperature` of level "option", `Identity`, or a chain of them.
        path: The file, new or not, or the folder of a model, whose decision.json is meant.
        question_type: The questions that it is for; Transformers keeps one temperature for each type.
        served_at: The temperature that the server had already applied to the probabilities it was fitted on; what is
            written is the product. To be said where the calibrator was fitted by readout "decision" and the file
            holds a temperature other than 1 already; 1 takes the calibrator's own in its place.

    Raises:
        InputError: a calibrator that the file cannot say, an unknown question type, or `served_at` missing or no
            temperature.
        SavedFileError: the file that is there is no decision.json, or cannot be written; it is then untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_decision(Temperature(1.7), folder)
    ...     load_decision(folder).value
    1.7
    """
    value, path = _one_number(calibrator), _file(path)
    _check_type(question_type)
    content = _read(path) if path.exists() else {}
    temperatures = _temperatures(content, path)
    if served_at is None:
        served_at = _served_at(calibrator, temperatures.get(question_type, 1.0), path)
    product = value * served_at
    if isinstance(served_at, bool) or not 0.0 < served_at < math.inf or not 0.0 < product < math.inf:
        raise InputError(f"'served_at' must be a temperature: finite and above 0. Got {served_at!r}.")
    content[_KEY] = {**temperatures, question_type: product}
    _write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def load_decision(path: str | os.PathLike[str], *, question_type: QuestionType = "choice") -> Temperature:
    """Return the temperature that `decision.json` holds for a type of question; 1 where it says nothing of it.

    It is what a runtime that reads the file applies already. Use it where the same model is read without the file.

    Args:
        path: The file, or the folder of a model, whose decision.json is meant.
        question_type: One of the types of Transformers.

    Raises:
        InputError: an unknown question type.
        SavedFileError: no such file, no JSON object, a calibrator that calibwrap saved, or a temperature that is not a
            finite number above 0.
    """
    path = _file(path)
    _check_type(question_type)
    value = _temperatures(_read(path), path).get(question_type)
    said = f"Read from {NAME}, question type {question_type!r}" + ("." if value else ", which it does not mention.")
    return Temperature(value or 1.0, report=FitReport("given", 0, 0, 0.0, 0.0, notes=(said,)))


ONE_TEMPERATURE = ("daca", "matched-mean", "naive-kl", "temperature")
"""Methods that fit one temperature and nothing else."""


def check_method(method: str) -> None:
    """Return nothing when the fit called `method` gives a calibrator that `decision.json` can hold.

    Raises:
        InputError: it gives, or may give, more than one number.

    >>> check_method("daca")
    """
    if method not in ONE_TEMPERATURE:
        raise InputError(f"{NAME} holds one temperature, and method {method!r} fits more: use a file of another name.")


def _one_number(calibrator: Calibrator) -> float:
    """Return the temperature that has the effect of `calibrator`."""
    if isinstance(calibrator, Chain):
        return math.prod(_one_number(part) for part in calibrator.parts)
    if not isinstance(calibrator, (Temperature, Identity)):
        kind = calibrator.kind if isinstance(calibrator, Calibrator) else type(calibrator).__name__
        raise InputError(f"{NAME} holds one temperature, and {kind!r} is none: use save(), which keeps all of it.")
    if calibrator.level != "option":
        raise InputError(
            f"{NAME} holds a temperature of options, and this one is of level {calibrator.level!r}: use save()."
        )
    return float(calibrator.value) if isinstance(calibrator, Temperature) else 1.0


def _served_at(calibrator: Calibrator, present: float, path: Path) -> float:
    """Return 1, unless the calibrator may have been fitted on top of the temperature that the file holds."""
    parts = calibrator.parts if isinstance(calibrator, Chain) else (calibrator,)
    on_served = any(part.report is not None and part.report.readout.startswith("decision") for part in parts)
    if on_served and present != 1.0:
        raise InputError(
            f"{path} holds the temperature {present:g} already, and the calibrator was fitted on probabilities that a "
            f"server gave: say 'served_at={present:g}' if the server had applied it, 'served_at=1' if it had not."
        )
    return 1.0


def _check_type(question_type: str) -> None:
    if question_type not in get_args(QuestionType):
        raise InputError(f"'question_type' must be one of {', '.join(get_args(QuestionType))}. Got {question_type!r}.")


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path / NAME if path.is_dir() else path


def _read(path: Path) -> dict[str, Any]:
    """Return the object in the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise SavedFileError(f"{path}: cannot be read ({error.strerror or error}). Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise SavedFileError(f"{path}: not JSON ({error}). Give the {NAME} of a model.") from error
    if not isinstance(content, dict):
        raise SavedFileError(f"{path}: must hold a JSON object. Got {type(content).__name__}.")
    if content.get("format") == FORMAT:
        raise SavedFileError(f"{path}: this is a calibwrap calibrator and no {NAME}: use calibwrap.load.")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _temperatures(content: dict[str, Any], path: Path) -> dict[str, float]:
    """Return the checked temperatures of a file, each type's."""
    found = content.get(_KEY, {})
    if not isinstance(found, dict):
        raise SavedFileError(f"{path}: '{_KEY}' must be an object with a number for each question type. Got {found!r}.")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
            raise SavedFileError(f"{path}: '{_KEY}.{name}' must be a finite number above 0. Got {value!r}.")
    return found


def _write(path: Path, text: str) -> None:
    """Write the file so that it is always the old one or the new one."""
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SavedFileError(
            f"{path}: {NAME} could not be written ({error.strerror or error}); what was there is untouched."
        ) from error
