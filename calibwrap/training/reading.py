"""Settings of a training run out of a YAML file; what is wrong is told key by key."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibwrap.errors import InputError, need
from calibwrap.training.settings import (
    AnySettings,
    CattoSettings,
    CftSettings,
    HeadSettings,
    RcftSettings,
    RewardingDoubtSettings,
)

WeightSettings = CattoSettings | CftSettings | RcftSettings | RewardingDoubtSettings
"""What the methods that train weights are told."""

METHODS: dict[str, Any] = {
    "catto": CattoSettings,
    "cft": CftSettings,
    "head": HeadSettings,
    "rcft": RcftSettings,
    "rewarding-doubt": RewardingDoubtSettings,
}
"""What can be trained, and what it is told."""


def read_settings(path: str | Path, method: str | None = None) -> AnySettings:
    """Return the settings in a YAML file; its key `method`, or else the argument, says which method's they are.

    Raises:
        InputError: the file cannot be read, is no YAML, names another method, or has unknown keys or wrong values;
            every key is told with what was expected.
        MissingExtra: the package pyyaml is not installed.
    """
    path = Path(path)
    values = _mapping(path)
    named = values.get("method", method)
    if not isinstance(named, str) or named not in METHODS:
        hint = _nearest(str(named), METHODS)
        raise InputError(f"'method' in {path} must be one of {', '.join(METHODS)}. Got {named!r}.{hint}")
    if method is not None and named != method:
        raise InputError(f"The command trains {method!r} and {path} says method {named!r}: change one of them.")
    try:
        found: AnySettings = METHODS[named].model_validate({**values, "method": named})
    except ValidationError as error:
        told = "; ".join(_sentence(one, METHODS[named]) for one in error.errors())
        raise InputError(f"{path} is no description of a {named!r} run: {told}.") from error
    return found


def _mapping(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file."""
    yaml = need("yaml", feature="reading a training configuration", extra="train")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader(yaml))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration {path} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2020-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{path} is no YAML{place}: {getattr(error, 'problem', None) or error}.") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} must hold keys and values, such as 'model: FOLDER'. Got {type(values).__name__}.")
    return values


def _loader(yaml: Any) -> Any:
    """Return PyYAML's safe loader, made to refuse a key that is written twice instead of keeping the last."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """Return the mapping of a node in which no key is there twice."""
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key is no text", key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def _sentence(error: Any, settings: Any) -> str:
    """Return what is wrong with one key."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = settings.model_fields if len(error["loc"]) == 1 else ()
        return f"'{place}' is unknown{_nearest(place, known).rstrip('.')}"
    if error["type"] == "missing":
        return f"'{place}' is missing"
    return f"'{place}': {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)." if near else ""
