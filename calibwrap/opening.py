"""The call that opens an adapter, checked against what the adapter takes before it is made."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calibwrap.base import Adapter
from calibwrap.errors import InputError


def opened(
    opens: Callable[..., Adapter], target: Any, parts: Sequence[Any], options: Mapping[str, Any], what: str
) -> Adapter:
    """Return the adapter that `opens` makes of `target`; what it cannot take is told before it is called.

    Raises:
        InputError: `parts` or `options` are missing, or are not those of `what`.
    """
    signature = inspect.signature(opens)
    try:
        signature.bind(target, *parts, **options)
    except TypeError as error:
        taken = ", ".join(_shown(one) for one in list(signature.parameters.values())[1:]) or "nothing else"
        raise InputError(f"wrap cannot open {what}: {error}. Beside the first it takes: {taken}.") from error
    return opens(target, *parts, **options)


def _shown(parameter: inspect.Parameter) -> str:
    """Return how a caller writes a parameter."""
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return "the runtime's own settings by name"
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return "any number of parts"
    needed = parameter.default is inspect.Parameter.empty
    named = parameter.name if parameter.kind is inspect.Parameter.POSITIONAL_ONLY else f"{parameter.name}=..."
    return f"{named} (needed)" if needed else named
