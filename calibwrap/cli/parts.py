"""What several commands read from their options: models, templates, calibrators."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from calibwrap import saving
from calibwrap.base import Readout
from calibwrap.cli.calibrator_files import load_calibrator
from calibwrap.decoders import fitted_on_traces
from calibwrap.errors import BudgetExceeded, InputError, ServerError
from calibwrap.opening import find_adapter
from calibwrap.questions import TEMPLATES, Template
from calibwrap.readouts import find_readout
from calibwrap.wrap import CalibratedLM, wrap


@dataclass(frozen=True)
class Job:
    """What commands that ask a model a whole question set are told of the run itself."""

    spec: str
    """The model, RUNTIME:MODEL."""
    out: Path
    """File or folder to write."""
    settings: list[str] | None = None
    """KEY=VALUE texts for the runtime."""
    resume: bool = False
    """Whether to go on where an earlier run ended."""
    as_json: bool = False
    """Whether to print for machines."""


def open_model(
    spec: str,
    settings: list[str] | None = None,
    readout: Readout | None = None,
    calibrator: Path | None = None,
    strict: bool = False,
    cache: Path | None = None,
) -> CalibratedLM:
    """Return the wrapped model of a spec, with a saved calibrator if one is named.

    Paid answers are kept in the file `cache` where the runtime keeps any and the settings name no other.
    """
    saved = None if calibrator is None else load_calibrator(calibrator)  # before the model, which takes longer to load
    options = parse_settings(settings or [])
    if cache is not None and "cache" not in options and _keeps_answers(spec):
        options["cache"] = str(cache)
    lm = wrap(spec, **options)
    if saved is None:
        return lm if readout is None else CalibratedLM(lm.adapter, readout=readout)
    if readout is None:
        if not fitted_on_traces(saved):
            return lm.with_calibrator(saved, strict=strict)
        readout = lm.readout  # no readout reads as it was fitted: compared below
    saving.check_provenance(saved, lm.adapter.fingerprint(), readout.label, strict=strict)
    return CalibratedLM(lm.adapter, saved, readout, strict)


def open_reference(reference: str, spec: str, settings: list[str] | None, cache: Path | None = None) -> CalibratedLM:
    """Return the wrapped reference model; on the runtime of `spec`, the same settings hold for it."""
    is_same = reference.partition(":")[0] == spec.partition(":")[0]
    return open_model(reference, settings if is_same else None, cache=cache)


@contextmanager
def resumable() -> Iterator[None]:
    """Say how to go on when a budget or a server ends a run that keeps a journal.

    Raises:
        BudgetExceeded: as it came, with that sentence added.
        ServerError: the same, when all retries were in vain.
    """
    how = "Every finished question is in the journal: the same command with --resume goes on there."
    try:
        yield
    except BudgetExceeded as error:
        raise BudgetExceeded(f"{error} {how}") from error
    except ServerError as error:
        if type(error) is not ServerError:  # a request that no repeating can mend: the message says what to change
            raise
        raise ServerError(f"{error} {how}") from error


def _keeps_answers(spec: str) -> bool:
    """Return whether the runtime of a spec can keep paid answers in a file."""
    name, _, target = spec.partition(":")
    return bool(target) and bool(find_adapter(name).caches)


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Return KEY=VALUE texts as options; values are JSON where they parse as it, else text.

    Raises:
        InputError: a text without an equals sign.

    >>> parse_settings(["n_ctx=512", "dtype=float32"])
    {'n_ctx': 512, 'dtype': 'float32'}
    """
    options: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:  # the text itself is not repeated: it may be a key
            raise InputError(f"--set expects KEY=VALUE. Got {len(text)} characters without a name and an equals sign.")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def read_readout(name: str | None, template: Path | None) -> Readout | None:
    """Return the readout that the options name, or None for the model's own default."""
    if name is None and template is None:
        return None
    return find_readout(name or "continuation", None if template is None else read_template(template))


def named_template(named: Path) -> Template:
    """Return a built-in template by its name, else the one in a file.

    >>> named_template(Path("short")).name
    'short'
    """
    return TEMPLATES.get(str(named)) or read_template(named)


def read_template(path: Path) -> Template:
    """Return the template in a JSON file: an object whose names are the fields of `Template`.

    Raises:
        InputError: not readable, not JSON, or an unknown field.
    """
    known = {field.name for field in fields(Template)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The template {path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict) or not set(content) <= known:
        unknown = sorted(set(content) - known) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"The template {path} must be an object with fields of {sorted(known)}. Got {unknown}.")
    return Template(**{"name": path.stem, **content})
