"""One door to question sets: a file, a folder, or the name of a published set."""

import hashlib
from pathlib import Path
from typing import Any

from calibwrap.data.catalogue import packaged_sets
from calibwrap.data.fetching import Progress
from calibwrap.data.jsonl import read_jsonl
from calibwrap.data.naming import unknown_name
from calibwrap.data.packaged import is_packaged, read_packaged
from calibwrap.data.rows import Asked
from calibwrap.data.tables import SUFFIXES, read_table
from calibwrap.errors import InputError


def load_questions(
    source: str | Path,
    *,
    split: str = "",
    limit: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> list[Any]:
    """Return the questions of `source`, each with an id that is unique within the set.

    All of them are `Question` (with options), or all of them `FreeQuestion` (with `answers`, the texts that are right):
    which, the source decides, so that the type says Any.

    Args:
        source: the path of a JSONL file (plain or gzip), of an Arrow or Parquet file, or of a folder written by
            `datasets`' save_to_disk; or the name of a packaged set (see `packaged_sets`). A text that is such a name
            is always the set: write ./sciq for a file of that name.
        split: which part of the set; empty means the only one, or a packaged set's default.
        limit: how many questions at most; None means all of them. Without a seed, the first ones.
        seed: a whole number for a random order instead of the file's. The order follows from the seed and the ids
            alone: it is the same on every machine, and a larger limit begins with the questions of a smaller one.
        progress: is told what is being fetched, when something is.

    Raises:
        InputError: no such file or set, a file of another kind, an unknown split, or a wrong limit or seed.
        QuestionError: some questions are malformed; up to five are named, each with its line.
        DownloadError: a packaged set could not be fetched.
        MissingExtra: pyarrow is needed and not installed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mine.jsonl"
    >>> _ = path.write_text('{"question": "Red planet?", "choices": ["Mars", "Venus"], "answer": "Mars"}')
    >>> load_questions(path)
    [Question(prompt='Red planet?', options=('Mars', 'Venus'), answer=0, id='line-1', context='', group='')]
    """
    _check_count("limit", limit, least=1)
    _check_count("seed", seed, least=0)
    questions = _read(source, split, progress)
    if seed is not None:
        questions.sort(key=lambda question: hashlib.sha256(f"{seed}\0{question.id}".encode()).digest())
    return questions[:limit]


def _check_count(name: str, value: int | None, *, least: int) -> None:
    """Return nothing when `value` is None or a whole number from `least` on."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise InputError(f"'{name}' must be a whole number of at least {least}, or None. Got {value!r}.")


def _read(source: str | Path, split: str, progress: Progress | None) -> list[Asked]:
    """Return all questions of `source`."""
    if isinstance(source, str) and is_packaged(source):
        return read_packaged(source, split, progress)
    if not isinstance(source, str | Path) or not str(source):
        raise InputError(f"'source' must be a path or the name of a packaged set. Got {source!r}.")
    path = Path(source)
    if path.is_dir() or (path.is_file() and path.suffix in SUFFIXES):
        return read_table(path, split)
    if path.exists():
        if split:
            raise InputError(f"{path} is a JSONL file without splits. Got split={split!r}: leave it out.")
        return read_jsonl(path)
    known = [entry.name for entry in packaged_sets()]
    raise InputError(f"There is no file {str(source)!r}. {unknown_name('packaged set', str(source), known)}")
