"""Paid answers, kept in one SQLite file: each is in it before the next is awaited, and asking again costs nothing.

An answer is found by the whole request. What a server calls the same model may change behind its name, so each answer
remembers which version gave it, as far as the server tells, and answers of a version that was replaced are kept but no
longer used. Several processes may use one file at the same time.
"""

import contextlib
import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.errors import JournalError

VERSION = 1
"""Version of the file's format; a newer one is refused."""
_APPLICATION = 0x63_77_72_31
"""SQLite's mark of whose file it is: "cwr1"."""
_LOCK_SECONDS = 30.0
"""How long one process waits while another one writes."""
_MOVE_AWAY = "Move it away and run again, or recover what is left with: sqlite3 FILE .recover"
_TABLES = (
    """CREATE TABLE replies (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL, target TEXT NOT NULL, system_fingerprint TEXT NOT NULL,
        model TEXT NOT NULL, created REAL NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL)""",
    "CREATE INDEX replies_by_key ON replies (key)",
    """CREATE TABLE versions (
        target TEXT NOT NULL, system_fingerprint TEXT NOT NULL, model TEXT NOT NULL,
        first_seen REAL NOT NULL, last_asked REAL NOT NULL, PRIMARY KEY (target, system_fingerprint, model))""",
    f"PRAGMA application_id = {_APPLICATION}",
)
# A version is in force when it is the last that appeared, or was met again by a request sent after that one appeared
# (servers that run several versions side by side keep them all).
_FIND = """
    SELECT reply FROM replies JOIN versions AS v USING (target, system_fingerprint, model)
    WHERE key = ? AND max(v.first_seen, v.last_asked) >=
        (SELECT max(first_seen) FROM versions WHERE versions.target = v.target)
    ORDER BY replies.id DESC LIMIT 1"""
_NEWEST = "SELECT system_fingerprint, model FROM versions WHERE target = ? ORDER BY first_seen DESC LIMIT 1"
_SEE = """
    INSERT INTO versions VALUES (:target, :system_fingerprint, :model, :created, :sent)
    ON CONFLICT DO UPDATE SET last_asked = max(last_asked, excluded.last_asked)"""
_KEEP = """
    INSERT INTO replies (key, target, system_fingerprint, model, created, request, reply)
    VALUES (:key, :target, :system_fingerprint, :model, :created, :request, :reply)"""


@dataclass(frozen=True)
class Entry:
    """One answer, and where it came from."""

    key: str
    """SHA-256 of the whole request."""
    target: str
    """Address and name of the model that was asked."""
    system_fingerprint: str
    """What the server tells about its version; empty when it tells nothing."""
    model: str
    """The model as the server names it."""
    sent: float
    """When the request left, in seconds since 1970."""
    created: float
    """When the answer came, in the same seconds."""
    request: str
    """The request as JSON: method, path and body, never headers."""
    reply: str
    """The answer's body as it came."""


class Cache:
    """An open cache; close it, and it is one file again.

    >>> cache = Cache(None)
    >>> _ = cache.put(Entry("key", "model", "", "model", 1.0, 2.0, "{}", '{"answer": 1}'))
    >>> cache.get("key")
    {'answer': 1}
    >>> cache.close()
    """

    def __init__(self, path: str | Path | None) -> None:
        """Open the file at `path`, made when there is none; None is a cache in memory.

        Raises:
            JournalError: the file cannot be opened or written, is no cache, is damaged, or is of a newer calibwrap.
        """
        self.path = None if path is None else Path(path)
        self._where = "the cache in memory" if path is None else f"The cache {self.path}"
        self._lock = threading.Lock()
        self._unsaved: dict[str, Entry] = {}
        with self._explained():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path or ":memory:", timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, _close, self._connection, self._lock)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the newest answer to the request of this key, of a version that is in force; None when there is none.

        Raises:
            JournalError: the file cannot be read, or what it holds is damaged.
        """
        with self._lock, self._explained():
            waiting = self._unsaved.get(key)
            row = self._connection.execute(_FIND, (key,)).fetchone() if waiting is None else (waiting.reply,)
        if row is None:
            return None
        try:
            reply = json.loads(row[0])
        except (TypeError, ValueError, RecursionError) as error:
            raise JournalError(f"{self._where} is damaged: an answer is not JSON ({error}). {_MOVE_AWAY}") from error
        if not isinstance(reply, dict):
            raise JournalError(f"{self._where} is damaged: an answer is no JSON object. {_MOVE_AWAY}")
        return reply

    def put(self, entry: Entry, keep: bool = True) -> str:
        """Write `entry` and return when it is in the file.

        An entry that cannot be written stays in memory and is written by the next call that can.

        Args:
            entry: the answer.
            keep: whether to keep the answer; else only the version that gave it is noted.

        Returns:
            How the model changed, when the answer is from a version that was never met and another was in force;
            else an empty text.

        Raises:
            JournalError: the disk is full, or the file cannot be written.
        """
        with self._lock:
            if keep:
                self._unsaved[entry.key] = entry
            return self._write((entry, *(waiting for key, waiting in self._unsaved.items() if key != entry.key)))

    def __len__(self) -> int:
        """Return how many answers are kept."""
        with self._lock, self._explained():
            return int(self._connection.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Write what could not be written before, and close the file; a second call does nothing.

        Raises:
            JournalError: something is still unsaved and cannot be written now either.
        """
        with self._lock:
            try:
                if self._unsaved:
                    self._write(tuple(self._unsaved.values()))
            finally:
                self._connection.close()

    def _write(self, entries: tuple[Entry, ...]) -> str:
        """Write what waits and note the versions of `entries`; return how the model of the first one changed."""
        with self._explained(), self._transaction():
            changes = [self._see(entry) for entry in entries]
            self._connection.executemany(_KEEP, [vars(waiting) for waiting in self._unsaved.values()])
        self._unsaved.clear()
        return changes[0]

    def _see(self, entry: Entry) -> str:
        """Note the version that gave the entry, and return how it differs from the newest known, when it is new."""
        newest = self._connection.execute(_NEWEST, (entry.target,)).fetchone()
        known = self._connection.execute(
            "SELECT 1 FROM versions WHERE (target, system_fingerprint, model) = (?, ?, ?)",
            (entry.target, entry.system_fingerprint, entry.model),
        ).fetchone()
        self._connection.execute(_SEE, vars(entry))
        if newest is None or known is not None:
            return ""
        return f"{_version(*newest)} before, {_version(entry.system_fingerprint, entry.model)} now"

    def _prepare(self) -> None:
        """Make the tables of a new file, or see that an old one is ours and can be written."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                self._make()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # another process is making the same file; changing the mode does not wait for it

    def _make(self) -> None:
        with self._transaction("DEFERRED"):  # one look: another process may be making the file at this moment
            is_ready = self._is_ready()
        if not is_ready:
            self._connection.execute("PRAGMA journal_mode = WAL")
        with self._transaction():
            for statement in () if self._is_ready() else _TABLES:
                self._connection.execute(statement)
            # A file that cannot be written is found by writing, before anything is paid for.
            self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def _is_ready(self) -> bool:
        """Return whether the tables are there; false for a new file."""
        application, version = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if application == _APPLICATION:
            if version > VERSION:
                raise JournalError(
                    f"{self._where} has format version {version}, and this calibwrap reads {VERSION}: use the version "
                    "that wrote it, or another file."
                )
            return True
        if application or self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise JournalError(f"{self._where} is a database of something else. Choose another file.")
        return False

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """Make changes all or none, and wait for other processes that write; "DEFERRED" only looks at one state."""
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite and the system say into what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"{self._where} {_advice(error)}{self._kept()}") from error

    def _kept(self) -> str:
        count = len(self._unsaved)
        if not count:
            return ""
        return (
            f" {'1 answer that came is' if count == 1 else f'{count} answers that came are'} held in memory until then."
        )


def request_text(method: str, path: str, body: object) -> str:
    """Return a request as canonical JSON: the same for the same request, whatever the order of its fields.

    Raises:
        ValueError: a value that JSON does not know, such as NaN.
        TypeError: an object that JSON does not know.

    >>> request_text("POST", "/x", {"b": 1, "a": [2.0]})
    '{"body":{"a":[2.0],"b":1},"method":"POST","path":"/x"}'
    """
    request = {"method": method, "path": path, "body": body}
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _close(connection: sqlite3.Connection, lock: threading.Lock) -> None:
    """Close a connection that its owner forgot, or had no time to close, when no thread is using it."""
    with lock:
        connection.close()


def _version(system_fingerprint: str, model: str) -> str:
    return f"{model!r} ({system_fingerprint})" if system_fingerprint else f"{model!r}"


def _advice(error: sqlite3.Error | OSError) -> str:
    """Return the rest of a sentence that began with the file's name."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    advice = {
        sqlite3.SQLITE_FULL: "cannot grow: the disk is full. Free some space and run again; earlier answers are safe.",
        sqlite3.SQLITE_BUSY: f"was locked by another process for {_LOCK_SECONDS:.0f} s. Wait until that has finished.",
        sqlite3.SQLITE_NOTADB: "is not an SQLite file. Choose another file.",
        sqlite3.SQLITE_CORRUPT: f"is damaged. {_MOVE_AWAY}",
        sqlite3.SQLITE_READONLY: "is read-only. Make the file and its folder writable, or choose another file.",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened. Choose a file in a folder that can be written.",
    }
    return advice.get(code, f"cannot be used ({error}). Mend that, or choose another file.")
