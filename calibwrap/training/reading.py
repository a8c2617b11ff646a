"""Settings of a training run out of a YAML file; what is wrong is told key by key."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibwrap.errors import InputError
from calibwrap.training.settings import (
    AnySettings,
    CattoSettings,
    CftSettings,
    HeadSettings,
    RcftSettings,
    RewardingDoubtSettings,
)
from calibwrap.yaml_files import mapping_of, nearest, sentences

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
    values = mapping_of(path, extra="train")
    named = values.get("method", method)
    if not isinstance(named, str) or named not in METHODS:
        hint = nearest(str(named), METHODS)
        raise InputError(f"'method' in {path} must be one of {', '.join(METHODS)}. Got {named!r}.{hint}")
    if method is not None and named != method:
        raise InputError(f"The command trains {method!r} and {path} says method {named!r}: change one of them.")
    try:
        found: AnySettings = METHODS[named].model_validate({**values, "method": named})
    except ValidationError as error:
        told = sentences(error, METHODS[named])
        raise InputError(f"{path} is no description of a {named!r} run: {told}.") from error
    return found
