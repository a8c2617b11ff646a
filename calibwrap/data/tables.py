"""Tables of questions: Hugging Face datasets saved to disk, and single Arrow and Parquet files."""

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from calibwrap.data.jsonl import collect
from calibwrap.data.rows import Asked, question_from_row
from calibwrap.errors import CalibrationWarning, InputError, QuestionError, need
from calibwrap.questions import FreeQuestion

COLUMNS = {
    "id": ("id",),
    "prompt": ("prompt", "question", "question_stem"),
    "options": ("options", "choices"),
    "answer": ("answer", "answerKey", "gold", "label"),
    "answers": ("answers",),
    "context": ("context", "passage"),
    "group": ("group", "subject"),
}
"""The columns that are read, each under any one of its names; all others are left alone."""
SUFFIXES = (".arrow", ".parquet")
_ARROW_FILE = b"ARROW1"
"""How Arrow's file format begins; its stream format does not."""


def read_table(path: Path, split: str = "") -> list[Asked]:
    """Return the questions of an Arrow or Parquet file, or of a folder written by `datasets`' save_to_disk.

    Published tables are taken as they are: an answer of -1 or "" means that it is not known, as in hidden test splits,
    and options that are written alike become one, with one warning for the table. A question without an id is called
    after its row, counted from 0: row-0 and so on. A table without options and with a column `answers`, a list of
    texts, holds questions in free text.

    Raises:
        InputError: not such a file or folder, an unknown split, or several splits and none chosen.
        QuestionError: names up to five broken rows, or a column that is missing or there twice.
        MissingExtra: pyarrow is not installed.
    """
    rows = list(iter_records(path, split))
    if not rows:
        raise QuestionError(f"{path} holds no row.")
    columns = _columns(path, list(rows[0]))
    merged: list[str] = []

    def make(row: Mapping[str, Any], number: int) -> Asked:
        """Return the question of one row, and note where options became one."""
        fields = {field: row[column] for field, column in columns.items()}
        if fields.get("answer") in (-1, ""):
            fields["answer"] = None
        question = question_from_row(fields, f"row-{number}", merge=True)
        if isinstance(question, FreeQuestion):
            return question
        options = fields["options"]
        if len(question.options) < len(options["text"] if isinstance(options, dict) else options):
            merged.append(question.id)
        return question

    questions = collect(path, ((f"row {number}", row, number) for number, row in enumerate(rows)), make)
    if merged:
        warnings.warn(
            f"{path}: {len(merged)} of {len(questions)} questions repeat an option (first {merged[0]!r}); options "
            "that are written alike were made one.",
            CalibrationWarning,
            stacklevel=3,
        )
    return questions


def iter_records(path: Path, split: str = "") -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow or Parquet file, or of a folder written by `datasets`' save_to_disk, as they are.

    Raises:
        InputError: not such a file or folder, an unknown split, or several splits and none chosen.
        MissingExtra: pyarrow is not installed.
    """
    for file in _files(path, split):
        try:
            yield from _rows(file)
        except QuestionError as error:
            raise QuestionError(f"{file} {error}") from error
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error


def table_rows(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of an Arrow file given as bytes, in the stream format or the file format.

    Raises:
        QuestionError: not Arrow data, or cut off.
        MissingExtra: pyarrow is not installed.
    """
    return list(_arrow_rows(io.BytesIO(data)))


def _arrow_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the rows of Arrow data, a batch in memory at a time."""
    arrow = need("pyarrow", feature="Reading Arrow files", extra="data")
    ipc = need("pyarrow.ipc", feature="Reading Arrow files", extra="data")
    try:
        is_file_format = file.read(len(_ARROW_FILE)) == _ARROW_FILE
        file.seek(0)
        if is_file_format:
            opened = ipc.open_file(file)
            batches = map(opened.get_batch, range(opened.num_record_batches))
        else:
            batches = ipc.open_stream(file)
        for batch in batches:
            yield from batch.to_pylist()
    except (arrow.ArrowInvalid, OSError) as error:
        raise QuestionError(f"is not a whole Arrow file: {error}.") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file, a batch in memory at a time."""
    if path.suffix == ".arrow":
        with path.open("rb") as file:
            yield from _arrow_rows(file)
        return
    arrow = need("pyarrow", feature="Reading Parquet files", extra="data")
    parquet = need("pyarrow.parquet", feature="Reading Parquet files", extra="data")
    try:
        with parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches():
                yield from batch.to_pylist()
    except arrow.ArrowInvalid as error:
        raise QuestionError(f"is not a whole Parquet file: {error}.") from error


def _columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return which column holds which field."""
    columns: dict[str, str] = {}
    for field, accepted in COLUMNS.items():
        found = [name for name in accepted if name in names]
        if len(found) > 1:
            raise QuestionError(
                f"{path} has the columns {' and '.join(found)}, both of which may be {field!r}. Keep one."
            )
        is_needed = field == "prompt" or (field == "options" and "answers" not in names)
        if not found and is_needed:
            raise QuestionError(
                f"{path} has no column for {field!r}: expected {' or '.join(accepted)}. Got {', '.join(names)}."
            )
        columns |= {field: found[0]} if found else {}
    unread = ("answers",) if "options" in columns else ("answer", "group")
    return {field: column for field, column in columns.items() if field not in unread}


def _files(path: Path, split: str) -> list[Path]:
    """Return the files that hold the rows of `split`, in order."""
    if path.is_dir():
        folder = _split_folder(path, split)
        return [folder / entry["filename"] for entry in _described(folder / "state.json", "_data_files")]
    if split:
        raise InputError(f"{path} is one file without splits. Got split={split!r}: leave it out.")
    return [path]


def _split_folder(path: Path, split: str) -> Path:
    """Return the folder of one split of a dataset saved to disk."""
    if not (path / "dataset_dict.json").is_file():
        if not (path / "state.json").is_file():
            raise InputError(
                f"{path} is a folder without state.json or dataset_dict.json. Expected one written by datasets' "
                "save_to_disk, or the path of one .arrow, .parquet or .jsonl file."
            )
        if split:
            raise InputError(f"{path} is a dataset without splits. Got split={split!r}: leave it out.")
        return path
    splits = _described(path / "dataset_dict.json", "splits")
    if not split and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        raise InputError(f"{path} has the splits {', '.join(splits)}. Got split={split!r}: choose one of them.")
    return path / split


def _described(path: Path, field: str) -> list[Any]:
    """Return a list out of one of the small JSON files of a saved dataset."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[field]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not what datasets' save_to_disk writes: no list {field!r}.") from error
    if not isinstance(found, list) or not found:
        raise InputError(f"{path} is not what datasets' save_to_disk writes: {field!r} is empty.")
    return found
