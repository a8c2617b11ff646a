"""Saved calibrators: one small file each, never code.

A file whose name ends in ".json" is JSON. Under any other name a calibrator whose fields are a few numbers becomes a
JSON file too, and one with arrays a safetensors file with the same JSON in its metadata. Which of the two a file is, is
read off its first bytes. The header holds the format version, the kind, the level, the fitted numbers (or the names of
their arrays), the fit report with the model that it was fitted on, and the day. Floats are written so that they come
back bit for bit.

    {"format": "calibwrap-calibrator", "format_version": 1, "date": "2026-11-22",
     "calibrator": {"kind": "temperature", "level": "option", "parameters": {"value": 2.5}, "report": {...}}}
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibwrap.base import Calibrator, Level
from calibwrap.calibrators import Chain, calibrator_class
from calibwrap.calibrators._inputs import today
from calibwrap.errors import InputError, ProvenanceMismatch, ProvenanceWarning, SavedFileError
from calibwrap.files import replacing
from calibwrap.inline_arrays import INLINE, from_inline, inline
from calibwrap.provenance import FitReport, Provenance

FORMAT = "calibwrap-calibrator"
FORMAT_VERSION = 1
MAX_BYTES = 64 * 2**20
"""Largest file that `save` writes and `load` opens: a calibrator is small, and a larger file is something else."""

_WHAT = {FORMAT: "calibrator", "calibwrap-guarantee": "guarantee", "calibwrap-monitor": "monitor"}
_OPENS = {
    FORMAT: "calibwrap.load",
    "calibwrap-guarantee": "GuardedLM.load or SetLM.load",
    "calibwrap-monitor": "calibwrap.guarantees.load_monitor",
}
_METADATA_KEY = "calibwrap"
_ARRAY = "array"
Arrays = dict[str, NDArray[Any]]
H = TypeVar("H")


@dataclass(frozen=True)
class Record:
    """One calibrator in a header."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: str
    level: Level
    parameters: dict[str, Any]
    report: FitReport | None = None


@dataclass(frozen=True)
class _Header:
    """What a file says beside its arrays."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    format: Literal["calibwrap-calibrator"]
    format_version: int
    date: str
    calibrator: Record


def save(calibrator: Calibrator, path: str | os.PathLike[str], *, provenance: Provenance | None = None) -> None:
    """Return nothing, having written `calibrator` to the file `path`; the old file stays whole until the new one is.

    Args:
        calibrator: Any calibrator that is a dataclass of numbers, texts, arrays and other calibrators.
        path: File to write: JSON where its name ends in ".json", else JSON or safetensors by what the calibrator holds.
        provenance: The model that it was fitted on, if its report does not say so yet.

    Raises:
        InputError: a field is of a type that cannot be written, or not finite.
        SavedFileError: the file cannot be written; the foreign cause is chained.

    >>> import tempfile
    >>> from calibwrap.calibrators import Temperature
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Temperature(0.1 + 0.2), f"{folder}/cal.json")
    ...     load(f"{folder}/cal.json").value
    0.30000000000000004
    """
    arrays = arrays_for(path)
    record = record_of(_with_provenance(calibrator, provenance), "", arrays)
    header = _Header(FORMAT, FORMAT_VERSION, today(), record)  # type: ignore[arg-type]
    write_whole(Path(path), packed(asdict(header), arrays))


def load(path: str | os.PathLike[str]) -> Calibrator:
    """Return the calibrator in the file `path`, its fit report and provenance with it.

    Raises:
        SavedFileError: no such file, or it is broken, of another kind, too large, or written by a newer calibwrap; the
            message names the file and what to do.
    """
    path = Path(path)
    text, arrays = split_file(path, read_whole(path))
    header = checked_header(path, text, _Header, FORMAT, FORMAT_VERSION)
    with named(path):
        return built(header.calibrator, arrays)


def check_provenance(calibrator: Calibrator, provenance: Provenance, readout: str, *, strict: bool = False) -> None:
    """Return nothing when `calibrator` was fitted on this model and readout, or does not say on which.

    A calibrator is good for the model, number format and readout that it was fitted on; `Provenance.verdict` says
    which moves are worth a measurement. Parts of a chain are checked one by one.

    Raises:
        ProvenanceMismatch: something differs and `strict` is on; else a `ProvenanceWarning` is given.

    >>> check_provenance(calibrator_class("temperature")(2.0), Provenance(model="a"), "label:letter", strict=True)
    """
    for part in calibrator.parts if isinstance(calibrator, Chain) else (calibrator,):
        message = _mismatch(part, provenance, readout)
        if message and strict:
            raise ProvenanceMismatch(message)
        if message:
            warnings.warn(message, ProvenanceWarning, stacklevel=2)


def _mismatch(part: Calibrator, provenance: Provenance, readout: str) -> str:
    """Return what is wrong with using one calibrator on this model and readout; empty when nothing is."""
    if part.report is None:
        return ""
    fitted = part.report.provenance or provenance
    return mismatch(f"{part.kind} calibrator", fitted, part.report.readout, provenance, readout)


def mismatch(what: str, fitted: Provenance, fitted_readout: str, provenance: Provenance, readout: str) -> str:
    """Return what is wrong with using `what`, fitted on one model and readout, on another; empty when nothing is.

    A readout that is empty is not compared.

    >>> mismatch("guard", Provenance(model="a"), "label", Provenance(model="a"), "label")
    ''
    """
    verdict = fitted.verdict(provenance)
    differences = [] if verdict.move == "same" else fitted.differences(provenance)
    advice = verdict.advice
    if readout and fitted_readout not in ("", readout):
        differences.append(f"readout: {fitted_readout!r} against {readout!r}")
        advice = "fit it again on this readout, or read the model as it was fitted"
    if not differences:
        return ""
    told = "" if verdict.move == "same" else f" Verdict: {verdict.summary}."
    return (
        f"This {what} was fitted elsewhere ({'; '.join(differences)}), so that its probabilities may be wrong here."
        f"{told} What to do: {advice}."
    )


def _with_provenance(calibrator: Calibrator, provenance: Provenance | None) -> Calibrator:
    """Return `calibrator` with `provenance` in its report, and in those of a chain's parts, where none was known."""
    if not isinstance(calibrator, Calibrator) or not is_dataclass(calibrator):
        raise InputError(f"'calibrator' must be a Calibrator and a dataclass. Got {type(calibrator).__name__}.")
    if provenance is None:
        return calibrator
    if isinstance(calibrator, Chain):
        parts = tuple(_with_provenance(part, provenance) for part in calibrator.parts)
        return Chain(parts, report=calibrator.report)
    report = calibrator.report or FitReport("given", 0, 0, 0.0, 0.0, notes=("The numbers were given, not fitted.",))
    known = report if report.provenance else replace(report, provenance=provenance)
    return replace(calibrator, report=known)


def arrays_for(path: str | os.PathLike[str]) -> Arrays | None:
    """Return where the arrays of a file go: None, which is into the JSON itself, for a name that ends in ".json".

    >>> arrays_for("cal.json"), arrays_for("cal.safetensors")
    (None, {})
    """
    return None if Path(path).suffix == ".json" else {}


def record_of(calibrator: Any, name: str, arrays: Arrays | None) -> Record:
    """Return the header's part on one calibrator; its arrays go to `arrays` under names that begin with `name`."""
    own = [field.name for field in fields(calibrator) if field.init and field.name not in ("report", "level")]
    parameters = {key: _encoded(getattr(calibrator, key), f"{name}{key}", arrays) for key in own}
    return Record(calibrator.kind, calibrator.level, parameters, calibrator.report)


def _encoded(value: Any, name: str, arrays: Arrays | None) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, np.ndarray):
        if arrays is None:
            return inline(value)
        arrays[name] = np.ascontiguousarray(value)
        return {_ARRAY: name}
    if isinstance(value, Calibrator):
        return asdict(record_of(value, f"{name}.", arrays))
    if isinstance(value, (tuple, list)):
        return [_encoded(one, f"{name}.{index}", arrays) for index, one in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"The field '{name}' is a {type(value).__name__}, which cannot be saved: use numbers and arrays.")


def packed(header: dict[str, Any], arrays: Arrays | None) -> bytes:
    """Return the bytes of a file: the header as JSON, or a safetensors file with the same JSON where there are arrays.

    Raises:
        InputError: NaN, infinity or half a character in the header.

    >>> json.loads(packed({"a": 0.5}, {}))
    {'a': 0.5}
    """
    try:
        text = json.dumps(header, ensure_ascii=False, allow_nan=False, indent=None if arrays else 1)
        as_json = f"{text}\n".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"A text with half a character inside cannot be saved: {error}.") from error
    except ValueError as error:
        raise InputError(f"A record with NaN or infinity inside cannot be saved: {error}.") from error
    if not arrays:
        return as_json
    from safetensors.numpy import save as to_bytes

    return bytes(to_bytes(arrays, {_METADATA_KEY: text}))


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and move it there, so that `path` is always the old file or the new one.

    Raises:
        SavedFileError: the file cannot be written, or is so large that it would not be opened again.
    """
    if len(data) > MAX_BYTES:
        raise SavedFileError(
            f"{path}: {len(data)} bytes to save, and a file of more than {MAX_BYTES} is not opened again; what was "
            "there is untouched. Save what holds less."
        )
    try:
        with replacing(path) as part, part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SavedFileError(
            f"{path}: the calibrator could not be saved ({error.strerror or error}); what was there is untouched."
        ) from error


def read_whole(path: Path) -> bytes:
    """Return the bytes of a regular file of sensible size."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SavedFileError(f"{path}: not a file. Give the file that save() wrote.")
        if size > MAX_BYTES:
            raise SavedFileError(
                f"{path}: {size} bytes, and no calibrator is larger than {MAX_BYTES}. Give the file that save() wrote."
            )
        return path.read_bytes()
    except OSError as error:
        raise SavedFileError(f"{path}: cannot be read ({error.strerror or error}). Check the path.") from error


def split_file(path: Path, data: bytes) -> tuple[str, Arrays]:
    """Return the header's text and the arrays of a JSON or safetensors file."""
    packed = data[8:9] == b"{" and data[:1] != b"{"  # safetensors: 8 bytes of length, then a JSON header
    if not packed and (data[:1] == b"\x80" or data[:2] == b"PK"):
        raise SavedFileError(
            f"{path}: a pickle or an archive, which could hold code and is never opened. Save the calibrator again "
            "with calibwrap.save()."
        )
    try:
        if not packed:
            return data.decode("utf-8-sig"), {}
        from safetensors.numpy import load as from_bytes

        arrays = from_bytes(data)  # checks lengths and offsets against the file
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
        return metadata.get(_METADATA_KEY, "{}"), arrays
    except Exception as error:  # safetensors' own error type is not part of its typed interface
        raise _broken(path, error) from error


def checked_header(path: Path, text: str, kind: type[H], name: str, newest: int) -> H:
    """Return the checked header of a file of the format `name`, whose newest version here is `newest`.

    Raises:
        SavedFileError: another format, a newer version, or broken.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(path, error) from error
    if not isinstance(raw, dict) or raw.get("format") != name:
        raise SavedFileError(f"{path}: not a saved {_WHAT[name]}.{_other(raw, name)}")
    version = raw.get("format_version")
    if isinstance(version, int) and version > newest:
        raise SavedFileError(
            f"{path}: written by a newer calibwrap (format {version}; this one reads up to {newest}). Update calibwrap."
        )
    if type(version) is not int or version < 1:
        raise SavedFileError(f"{path}: 'format_version' must be a whole number from 1 on. Got {version!r}.")
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SavedFileError(
            f"{path}: a broken {_WHAT[name]} file: '{where}': {first['msg']} ({len(error.errors())} such errors). Save "
            "it again."
        ) from error


def _other(raw: Any, name: str) -> str:
    """Return what to do with a file that is not of the format `name`."""
    found = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(found, str) or found not in _WHAT:
        return f" Give the file that a {_WHAT[name]} was saved to."
    return f" It is a saved {_WHAT[found]}: open it with {_OPENS[found]}."


def built(record: Record, arrays: Arrays) -> Calibrator:
    """Return the calibrator of a checked record; its own checks decide whether the numbers are sound."""
    kind: Any = calibrator_class(record.kind)
    names = {field.name for field in fields(kind) if field.init}
    wanted = names - {"report", "level"}
    if set(record.parameters) != wanted:
        raise SavedFileError(
            f"a {record.kind} calibrator has the parameters {sorted(wanted)}, and {sorted(record.parameters)} came"
        )
    parameters = {key: _decoded(value, arrays) for key, value in record.parameters.items()}
    level = {"level": record.level} if "level" in names else {}
    found: Calibrator = kind(**parameters, **level, report=record.report)
    if found.level != record.level:
        raise SavedFileError(
            f"a {record.kind} calibrator of these parts is of level {found.level!r}, not {record.level!r}"
        )
    return found


def _decoded(value: Any, arrays: Arrays) -> Any:
    """Return what `_encoded` was given."""
    if isinstance(value, list):
        return tuple(_decoded(one, arrays) for one in value)
    if not isinstance(value, dict):
        return value
    if set(value) == INLINE:
        return from_inline(value)
    if set(value) == {_ARRAY}:
        if value[_ARRAY] not in arrays:
            raise SavedFileError(f"the array {value[_ARRAY]!r} is missing")
        return arrays[value[_ARRAY]]
    from pydantic import TypeAdapter

    return built(TypeAdapter(Record).validate_python(value), arrays)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a calibrator is built into a `SavedFileError` that names the file."""
    try:
        yield
    except (SavedFileError, ValueError, TypeError, RecursionError) as error:
        sentence = str(error).splitlines()[0].rstrip(".")
        raise SavedFileError(f"{path}: {sentence}. Save the calibrator again.") from error


def _broken(path: Path, error: Exception) -> SavedFileError:
    reason = str(error).splitlines()[0].rstrip(".")
    return SavedFileError(f"{path}: a broken or truncated calibrator file ({reason}). Save or copy it again.")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that a calibrator can have")
