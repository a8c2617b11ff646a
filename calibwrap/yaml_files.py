"""YAML files of settings: read strictly, and what is wrong told key by key."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from calibwrap.errors import InputError, need


def mapping_of(path: Path, *, extra: str) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Raises:
        InputError: the file cannot be read, is no YAML, or holds anything else, or a key twice.
        MissingExtra: the package pyyaml is not installed; `extra` brings it.
    """
    yaml = need("yaml", feature="reading YAML", extra=extra)
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


def sentences(error: ValidationError, settings: type[BaseModel]) -> str:
    """Return what is wrong with the keys, one after another."""
    return "; ".join(_sentence(one, settings) for one in error.errors())


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the question whether a known name was meant, "" where none is near.

    >>> nearest("modle", ["model", "seed"])
    " (did you mean 'model'?)."
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)." if near else ""


def _sentence(error: Any, settings: Any) -> str:
    """Return what is wrong with one key."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = settings.model_fields if len(error["loc"]) == 1 else ()
        return f"'{place}' is unknown{nearest(place, known).rstrip('.')}"
    if error["type"] == "missing":
        return f"'{place}' is missing"
    return f"'{place}': {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"
