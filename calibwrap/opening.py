"""Which adapter a model belongs to, and the call that opens it, checked against what the adapter takes."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibwrap.base import Adapter
from calibwrap.errors import InputError

_BUILT_IN = {
    "hf": ("calibwrap.adapters.hf", "Transformers"),
    "llama-cpp": ("calibwrap.adapters.llamacpp", "LlamaCpp"),
    "openai": ("calibwrap.adapters.openai_api", "OpenAI"),
    "vllm": ("calibwrap.adapters.vllm_engine", "VLLM"),
}
_OPEN_GGUF = ("hf", "llama-cpp")
"""Runtimes that open a packaged model, which is a GGUF file, by its name."""
_LOADED = {"transformers": "hf", "llama_cpp": "llama-cpp", "openai": "openai", "vllm": "vllm"}


def adapter_names() -> list[str]:
    """Return the names of all runtimes that a spec may begin with, those of installed plug-ins included."""
    return sorted({*_BUILT_IN, *(entry.name for entry in _plug_ins())})


def find_adapter(name: str) -> Any:
    """Return the adapter class of a runtime.

    Raises:
        InputError: unknown name; near ones and all are listed.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        return getattr(__import__(module, fromlist=[attribute]), attribute)
    for entry in _plug_ins():
        if entry.name == name:
            return entry.load()
    near = difflib.get_close_matches(name, adapter_names(), n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(f"There is no runtime {name!r}. {hint}Known: {', '.join(adapter_names())}.")


def adapter_for(target: Any) -> Any:
    """Return the adapter class for a loaded object, by the package that its type, or a base of it, comes from.

    Raises:
        InputError: no adapter knows such objects.
    """
    roots = {base.__module__.partition(".")[0] for base in type(target).__mro__}
    known = next((name for root, name in _LOADED.items() if root in roots), None)
    adapter = find_adapter(known) if known else _adapter_that_wraps(roots)
    if adapter is None:
        raise InputError(
            f"No adapter knows objects of type {type(target).__module__}.{type(target).__name__}. Known runtimes: "
            f"{', '.join(adapter_names())}."
        )
    return adapter


def opened_adapter(target: Any, parts: Sequence[Any], options: Mapping[str, Any]) -> Adapter:
    """Return the adapter of a model: of a spec, a loaded object with its `parts`, or an adapter, returned as it is.

    Raises:
        InputError: a spec without a colon, an unknown runtime, an object that no adapter knows; and as `opened`.
    """
    if isinstance(target, Adapter):
        return target
    if isinstance(target, str):
        name, colon, rest = target.partition(":")
        if not colon or not rest:
            raise InputError(f"A spec is RUNTIME:MODEL, such as 'hf:FOLDER' or 'llama-cpp:FILE.gguf'. Got {target!r}.")
        opens = find_adapter(name).load
        return opened(opens, file_of(name, rest), parts, options, f"a spec of {name!r}")
    adapter = adapter_for(target)
    return opened(adapter, target, parts, options, f"a loaded object of {adapter.name!r}")


def file_of(runtime: str, target: str) -> str:
    """Return the file of a packaged model in place of its name, fetched once; anything else as it is.

    >>> file_of("hf", "owner/name"), file_of("openai", "gemma-3-270m")
    ('owner/name', 'gemma-3-270m')
    """
    if runtime not in _OPEN_GGUF:
        return target
    from calibwrap.data import packaged_model, packaged_models

    is_packaged = target in {model.name for model in packaged_models()} and not Path(target).exists()
    return str(packaged_model(target)) if is_packaged else target


def check_alone(target: Any, as_they_are: tuple[type, ...], parts: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Return nothing unless something stands beside a target of the types that are taken as they are.

    Raises:
        InputError: it would be ignored.
    """
    if isinstance(target, as_they_are) and (parts or options):
        given = ", ".join([*(type(part).__name__ for part in parts), *(f"{name}=..." for name in options)])
        raise InputError(
            f"wrap takes this {type(target).__name__} as it is, and nothing beside it. Got {given}: a readout is named "
            "where questions are asked, lm.scores(questions, readout=...), or cw.CalibratedLM(adapter, readout=...), "
            "and settings of the runtime where it is opened."
        )


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


def _plug_ins() -> Sequence[Any]:
    """Return the entry points of adapters that other packages bring."""
    from importlib.metadata import entry_points  # costs more than the rest of this file together

    return tuple(entry_points(group="calibwrap.adapters"))


def _adapter_that_wraps(roots: set[str]) -> Any:
    """Return the plug-in adapter that declares one of the packages `roots` in its `wraps`, or None."""
    loaded = (entry.load() for entry in _plug_ins())
    return next((adapter for adapter in loaded if roots & set(adapter.wraps)), None)


def _shown(parameter: inspect.Parameter) -> str:
    """Return how a caller writes a parameter."""
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return "the runtime's own settings by name"
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return "any number of parts"
    needed = parameter.default is inspect.Parameter.empty
    named = parameter.name if parameter.kind is inspect.Parameter.POSITIONAL_ONLY else f"{parameter.name}=..."
    return f"{named} (needed)" if needed else named
