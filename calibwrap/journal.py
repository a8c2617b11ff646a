"""The journal of a long run: finished questions, one JSON line each, appended and never rewritten.

The first line is a header that says which run this is. A process that is killed at any moment loses at most the batch
that it was writing; the next one opens the journal, learns what is done and goes on. POSIX systems only: the journal is
locked with flock, so that two runs never write the same file.
"""

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Self

from calibwrap.errors import InputError, JournalError

FORMAT = "calibwrap-journal"
VERSION = 1
"""Version of the file's format; any other one is refused."""
Record = Mapping[str, Any]
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Journal:
    """An open journal; use it in a `with` statement, or call `close`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    >>> with Journal.open(path, {"model": "toy"}, resume=False) as journal:
    ...     journal.append([{"id": "q1", "confidence": 0.75}])
    >>> with Journal.open(path, {"model": "toy"}, resume=True) as journal:
    ...     journal.done["q1"]["confidence"]
    0.75
    """

    path: Path
    """The file."""
    torn: int
    """Bytes of a half-written last line that were found and cut off at opening; 0 when the journal was whole."""

    def __init__(self, path: Path, handle: int, remember: Callable[[Record], Record]) -> None:
        """Take over an open and locked file; `open` is the way to get a journal."""
        self.path = path
        self.torn = 0
        self._handle = handle
        self._remember = remember
        self._size = 0
        self._done: dict[str, Record] = {}

    @classmethod
    def open(cls, path: str | Path, header: Record, resume: bool, remember: Callable[[Record], Record] = dict) -> Self:
        """Return the journal at `path`, made when there is none.

        Args:
            path: the file; its folder is made when there is none.
            header: what the run is determined by, as values that JSON knows: the model's provenance, the readout, a
                hash of the questions, their number.
            resume: whether to go on with a journal that exists. Without one, resuming begins anew.
            remember: called once with each record that is on the disk, those of an earlier run first, in their order;
                what it returns is what `done` keeps of it in memory, by default all.

        Raises:
            JournalError: a journal exists and `resume` is false; it belongs to another run, which the message tells
                field by field; a line other than a half-written last one is broken; another process has it open; or
                the file cannot be read or written.
            InputError: the header is not JSON.
        """
        path = Path(path)
        wanted = json.loads(_encoded(header, "The header of the journal"))
        journal = cls(path, _locked(path), remember)
        try:
            journal._start(wanted, resume)
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def done(self) -> Mapping[str, Record]:
        """The records of the finished questions by id, in the order in which they were written; a view, not a copy."""
        return MappingProxyType(self._done)

    def append(self, records: Sequence[Record]) -> None:
        """Write `records` and return when they are on the disk; one call costs one fsync, so batch them.

        Each record has an "id", a text that no other record has. Infinite numbers and NaN come back as they were
        written, in Python's spelling of JSON.

        Raises:
            JournalError: the disk is full, or the file cannot be written. The records that were written whole are kept
                and are in `done`, and the file ends after the last of them.
            InputError: a record has no id, an id that is done already, or a value that JSON does not know. Nothing of
                the batch is written.
        """
        fresh: dict[str, Record] = {}
        lines = []
        for record in records:
            name = record.get("id")
            if not isinstance(name, str) or not name:
                raise InputError(f"Every record needs an 'id', a text that is not empty. Got {name!r}.")
            if name in fresh or name in self._done:
                raise InputError(
                    f"Ids are written once. Got {name!r} again; look into 'done' before asking a question."
                )
            line = _encoded(record, f"The record {name!r}")
            lines.append(line)
            fresh[name] = json.loads(line)
        self._write(lines, fresh)

    def close(self) -> None:
        """Close the file and let go of its lock; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, header: Record, resume: bool) -> None:
        """Read what is there, or write the header of a new journal."""
        try:
            size = os.fstat(self._handle).st_size
            if size and not resume:
                raise JournalError(
                    f"{self.path} is the journal of an earlier run. Pass --resume to go on with it, or choose another "
                    "folder for a new run."
                )
            with os.fdopen(self._handle, "rb", closefd=False) as file:
                self._size = self._read(file, header)
            os.ftruncate(self._handle, self._size)
        except OSError as error:
            raise JournalError(f"The journal {self.path} cannot be opened: {error.strerror}.") from error
        self.torn = size - self._size
        if not self._size:
            self._write([_encoded({"format": FORMAT, "version": VERSION, "run": header}, "The header")], {})

    def _read(self, file: BinaryIO, header: Record) -> int:
        """Learn from the whole lines what is done, and return where the last of them ends."""
        end = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            record = _object(self.path, number, line)
            if number == 1:
                _compare(self.path, _run_of(self.path, record), header)
                continue
            name = record.get("id")
            if not isinstance(name, str) or not name:
                raise _broken(self.path, number, "has no id")
            if name in self._done:
                raise _broken(self.path, number, f"repeats the id {name!r}")
            self._done[name] = self._remember(record)
        return end

    def _write(self, lines: Sequence[bytes], records: Mapping[str, Record]) -> None:
        """Write whole lines and wait for the disk; on failure, keep those that were written whole."""
        if self._handle < 0:
            raise JournalError(f"The journal {self.path} is closed. Open it again with --resume.")
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._handle, data[written:])
            os.fsync(self._handle)
        except OSError as error:
            kept = self._cut(lines, written if written < len(data) else 0)
            self._learn(dict(list(records.items())[:kept]))
            full = error.errno in _NO_SPACE
            cause = "The disk is full" if full else f"Writing failed ({error.strerror})"
            raise JournalError(
                f"{cause}: {len(self._done)} finished questions are safe in {self.path}. "
                f"{'Free some space' if full else 'Mend that'} and go on with --resume."
            ) from error
        self._size += len(data)
        self._learn(records)

    def _learn(self, records: Mapping[str, Record]) -> None:
        """Remember records that are on the disk."""
        self._done.update({name: self._remember(record) for name, record in records.items()})

    def _cut(self, lines: Sequence[bytes], written: int) -> int:
        """Cut the file after the last whole line of which all bytes were written; return how many lines were kept.

        Bytes that were handed over but not confirmed by the disk are not counted: the caller passes 0 for them. A file
        that cannot be cut is closed, because a later line would be glued to the broken one.
        """
        ends = [end for end in accumulate(map(len, lines)) if end <= written]
        try:
            os.ftruncate(self._handle, self._size + (ends[-1] if ends else 0))
            os.fsync(self._handle)
        except OSError:
            self.close()
            return 0
        self._size += ends[-1] if ends else 0
        return len(ends)


def _locked(path: Path) -> int:
    """Return the handle of the file at `path`, made where there is none, locked against every other process."""
    import fcntl

    handle = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        _sync_folder(path.parent)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if handle >= 0:
            os.close(handle)
        if isinstance(error, BlockingIOError):
            raise JournalError(
                f"Another process is writing {path}. Wait until it has finished, or choose another folder."
            ) from error
        raise JournalError(f"The journal {path} cannot be opened: {error.strerror}.") from error
    return handle


def _sync_folder(folder: Path) -> None:
    """Make sure that a new file's name, too, is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encoded(record: Record, what: str) -> bytes:
    """Return the line for `record`."""
    try:
        return json.dumps(dict(record)).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} must be made of texts, numbers, lists and mappings. Got {error}.") from error


def _run_of(path: Path, header: Record) -> Any:
    """Return what the first line says about the run."""
    if header.get("format") != FORMAT:
        raise JournalError(f"{path} is not a journal: its first line has no format {FORMAT!r}. Choose another file.")
    if header.get("version") != VERSION:
        raise JournalError(
            f"{path} has format version {header.get('version')!r}. This calibwrap reads version {VERSION}: begin a new "
            "run in another folder, or go on with the version that wrote it."
        )
    return header.get("run")


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Return the JSON object of one line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _broken(path, number, f"is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _broken(path, number, f"is not a JSON object but {type(record).__name__}")
    return record


def _broken(path: Path, number: int, what: str) -> JournalError:
    """Return the error for a line that no interrupted write explains."""
    return JournalError(
        f"{path}, line {number} {what}. Only a last line without an end can come from an interrupted run, so the file "
        "was changed or damaged: restore it, or begin a new run in another folder."
    )


def _compare(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    """Return nothing when the journal belongs to this run."""
    differences = _differences(found, wanted)
    if not differences:
        return
    advice = "Choose another folder, or run with what the journal was begun with."
    if len(differences) == 1 and differences[0].startswith("model.revision "):
        advice = (
            "The name is the same and what stands behind it is not: another file, or a server that changed its model "
            "or software since. Scores of both must not be mixed: choose another folder for a new run."
        )
    raise JournalError(f"{path} belongs to another run: {'; '.join(differences)}. {advice}")


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Return one text for each field that differs, both sides named; fields of nested mappings by their path."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*found, *(key for key in wanted if key not in found)]
        pairs = [(f"{name}.{key}" if name else key, found.get(key), wanted.get(key)) for key in keys]
        return [text for path, left, right in pairs for text in _differences(left, right, path)]
    return [] if found == wanted else [f"{name or 'header'} is {found!r} in the journal and {wanted!r} now"]
