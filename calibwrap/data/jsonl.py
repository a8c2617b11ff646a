"""Question files: one JSON object a line, read with every broken line named, and written."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from calibwrap.data.rows import Asked, question_from_row
from calibwrap.errors import InputError, QuestionError
from calibwrap.files import replacing
from calibwrap.questions import FreeQuestion, Question

SHOWN = 5
"""How many broken rows one error names."""
_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"
_LONE_SURROGATE = re.compile("[\\ud800-\\udfff]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_jsonl(path: Path) -> list[Asked]:
    """Return the questions of a JSONL file, plain or gzip; blank lines and a byte order mark are skipped.

    A question without an id is called after its line: line-1 and so on.

    Raises:
        QuestionError: names the file and, for up to five broken lines, the line's number and what is wrong with it.
        InputError: the file cannot be opened.
    """
    return collect(path, ((f"line {number}", line, number) for number, line in _lines(path)), _question)


def collect(path: Path, rows: Iterable[tuple[str, Any, int]], make: Callable[[Any, int], Asked]) -> list[Asked]:
    """Return `make(row, number)` for all (place, row, number); broken rows and repeated ids are told together.

    A set holds questions with options or questions in free text, not both.

    Raises:
        QuestionError: names up to five broken rows; or there is no row at all.
    """
    questions: list[Asked] = []
    broken: list[str] = []
    places: dict[str, str] = {}
    for place, row, number in rows:
        try:
            question = make(row, number)
            if question.id in places:
                raise QuestionError(f"the id {question.id!r} is already that of {places[question.id]}.")
            if questions and type(question) is not type(questions[0]):
                kinds = ["'answers'", "'options'"]
                one, other = kinds if isinstance(question, FreeQuestion) else kinds[::-1]
                raise QuestionError(f"has {one}, and {places[questions[0].id]} has {other}. Make two sets of them.")
            places[question.id] = place
            questions.append(question)
        except QuestionError as error:
            broken.append(f"  {place}: {error}")
    if broken:
        more = f"\n  and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        count = "1 row is" if len(broken) == 1 else f"{len(broken)} rows are"
        raise QuestionError(f"{path}: {count} broken:\n" + "\n".join(broken[:SHOWN]) + more)
    if not questions:
        raise QuestionError(f"{path} holds no question. Expected one JSON object a line, or one row a question.")
    return questions


def save_questions(questions: Sequence[Question] | Sequence[FreeQuestion], path: str | Path) -> None:
    r"""Write `questions` as a JSONL file that `load_questions` reads back as they were; gzip when it ends in .gz.

    The file appears whole or not at all. A question without an id is written without one, and gets its line's number
    as its id on reading.

    Raises:
        QuestionError: two questions have the same id, or a text cannot be written as UTF-8.
        InputError: the file cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.jsonl"
    >>> save_questions([Question("Red planet?", ["Mars", "Venus"], answer=0, id="q1")], path)
    >>> path.read_text()
    '{"id": "q1", "prompt": "Red planet?", "options": ["Mars", "Venus"], "answer": 0}\n'
    """
    path = Path(path)
    names = [question.id for question in questions if question.id]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise QuestionError(f"Ids must be unique within a file. Got {repeated[0]!r} more than once.")
    try:
        data = "".join(map(_line, questions)).encode()
    except UnicodeEncodeError as error:
        raise QuestionError(f"A question holds a lone surrogate, which UTF-8 cannot write: {error}.") from error
    try:
        with replacing(path) as part:
            part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


def _line(question: Asked) -> str:
    """Return the line for one question, without the fields that say nothing."""
    fields: dict[str, object] = {"id": question.id} if question.id else {}
    fields["prompt"] = question.prompt
    if isinstance(question, FreeQuestion):
        fields["answers"] = list(question.answers)
    else:
        fields |= {"options": list(question.options), "answer": question.answer}
    if question.context:
        fields["context"] = question.context
    if isinstance(question, Question) and question.group:
        fields["group"] = question.group
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Return (number, bytes) of the lines that are not blank."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise QuestionError(
            f"{path} is a damaged or truncated gzip file ({error}). Copy or download it again."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if data.startswith(_UTF16_MARKS):
        raise QuestionError(f"{path} is a UTF-16 file. Save it as UTF-8.")
    for number, line in enumerate(data.removeprefix(_UTF8_MARK).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _question(line: bytes, number: int) -> Asked:
    """Return the question of one line."""
    if b"\0" in line:
        raise QuestionError(f"holds a NUL byte (byte {line.index(0)} of the line); the file is damaged or not UTF-8.")
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise QuestionError(f"is not UTF-8: byte {error.start} of the line is {line[error.start]:#04x}.") from error
    except json.JSONDecodeError as error:
        raise QuestionError(f"is not JSON: {error.msg} at column {error.colno}.") from error
    except QuestionError:
        raise
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"is JSON that cannot be read: {error}.") from error
    if not isinstance(row, dict):
        raise QuestionError(f"must be a JSON object. Got {type(row).__name__}.")
    if b"\\u" in line and _LONE_SURROGATE.search(json.dumps(row, ensure_ascii=False)):
        raise QuestionError(
            "holds one half of a surrogate pair, such as \\ud800, which is no character. Mend the text."
        )
    return question_from_row(row, f"line-{number}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, or say which key it has twice: of two answers, JSON would silently keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise QuestionError(f"the field {next(n for n in names if names.count(n) > 1)!r} is given twice.")
    return fields
