"""A calibrator as one text inside a request, read again in the process where vLLM samples.

Only the numbers travel: class, fields and arrays, never code. A class is found under its kind, as in saved files, or
inside calibwrap itself; a text from outside cannot make the engine import anything else.
"""

import base64
import binascii
import importlib
import json
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from calibwrap.base import Calibrator
from calibwrap.calibrators import calibrator_class
from calibwrap.errors import CapabilityError, InputError, SavedFileError

_ARRAY, _CALIBRATOR, _LIST = "array", "calibrator", "list"
_OWN = "calibwrap."


def to_text(calibrator: Calibrator) -> str:
    """Return the fitted numbers of `calibrator` as one text; its fit report stays behind.

    Raises:
        CapabilityError: its class is not known by its kind, so that the engine's process could not find it.
        InputError: a field is of a type that cannot be written, or not finite.

    >>> from calibwrap.calibrators import Temperature
    >>> from_text(to_text(Temperature(0.1 + 0.2, level="token"))).value
    0.30000000000000004
    """
    numbers = _encoded(calibrator)
    try:
        return json.dumps(numbers, allow_nan=False)
    except ValueError as error:
        raise InputError(f"A calibrator with NaN or infinity inside cannot steer: {error}.") from error


@lru_cache(maxsize=64)
def from_text(text: str) -> Calibrator:
    """Return the calibrator that `to_text` wrote.

    Raises:
        InputError: `text` is not such a text, or its numbers make no calibrator.
    """
    try:
        found = _decoded(json.loads(text))
    except (ValueError, TypeError, KeyError, LookupError, ImportError, binascii.Error, SavedFileError) as error:
        raise InputError(
            f"A calibrator in a request must be what calibwrap wrote there. Got another text: {error}."
        ) from error
    if not isinstance(found, Calibrator):
        raise InputError(f"A request must carry one calibrator. Got {type(found).__name__}.")
    return found


def _encoded(value: Any) -> Any:
    if isinstance(value, Calibrator) and is_dataclass(value):
        own = [field.name for field in fields(value) if field.init and field.name != "report"]
        return {_CALIBRATOR: _name(type(value)), "fields": {name: _encoded(getattr(value, name)) for name in own}}
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {_ARRAY: data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, (tuple, list)):
        return {_LIST: [_encoded(one) for one in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"A field of a steering calibrator is a {type(value).__name__}: use numbers, texts and arrays.")


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if _LIST in value:
        return tuple(_decoded(one) for one in value[_LIST])
    if _ARRAY in value:
        data = np.frombuffer(base64.b64decode(value[_ARRAY]), dtype=np.dtype(value["dtype"]))
        return data.reshape(value["shape"])
    return _class(value[_CALIBRATOR])(**{name: _decoded(one) for name, one in value["fields"].items()})


def _name(kind: type[Calibrator]) -> str:
    """Return the text by which `_class` finds the class again."""
    if kind.__module__.startswith(_OWN):
        return f"{kind.__module__}:{kind.__qualname__}"
    try:
        known = calibrator_class(kind.kind)
    except SavedFileError:
        known = None
    if known is not kind:
        raise CapabilityError(
            f"vLLM samples in a process of its own, which cannot find the class {kind.__qualname__!r} under its kind "
            f"{kind.kind!r}: list it as an entry point of the group 'calibwrap.calibrators', or calibrate the answer "
            "after decoding."
        )
    return kind.kind


def _class(name: str) -> type[Calibrator]:
    module, colon, attribute = name.partition(":")
    if not colon:
        return calibrator_class(name)
    if not module.startswith(_OWN):
        raise InputError(f"the class {name!r} is not of calibwrap")
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Calibrator)):
        raise InputError(f"{name!r} is not a calibrator")
    return found
