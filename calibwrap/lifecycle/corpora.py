"""Texts to read on with: files, JSONL, tables, and the passages of question sets, with the spans that they name."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.data import load_questions
from calibwrap.data.packaged import is_packaged
from calibwrap.data.passages import PASSAGES, Passage, packaged_passages
from calibwrap.data.tables import SUFFIXES, table_records
from calibwrap.errors import InputError
from calibwrap.questions import FreeQuestion, Question

Span = tuple[int, int]
"""First character of an entity or an answer in its text, and the first one after it."""
LONGEST = 2000
"""Characters of a text; longer ones are cut into texts of their own at the ends of paragraphs, sentences or words."""
_ENDS = (re.compile(r"\n\s*\n"), re.compile(r"(?<=[.!?])\s+"), re.compile(r"\s+"))
"""Where a long text may be cut, the better places first."""


@dataclass(frozen=True)
class Document:
    """A text by name, and where its entities or answers stand.

    >>> Document("mars", "Mars is red.", ((0, 4),)).spans
    ((0, 4),)
    """

    name: str
    text: str
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        """Check that the spans lie inside the text."""
        for start, stop in self.spans:
            if not 0 <= start < stop <= len(self.text):
                raise InputError(
                    f"The text {self.name!r} has {len(self.text)} characters. Got a span {start} to {stop}."
                )


def load_documents(source: str | Path, *, split: str = "", seed: int = 0, longest: int = LONGEST) -> list[Document]:
    """Return the texts of `source` in an order that follows from the seed and their names alone.

    Args:
        source: a text file (.txt, .md, plain or gzip); a JSONL file of objects with `text`, as the Pile's, and with
            `entities`, as T-REx's, whose `boundaries` become spans; a JSON file that holds a list of such objects; an
            Arrow or Parquet file or a folder of `datasets` with a column `text`; or a question set with passages, by
            file or name, where each passage is a text and the right answer, as often as the passage has it, a span.
        split: of a question set, or of a folder of `datasets`.
        seed: of the order.
        longest: most characters of one text; longer ones are cut.

    Raises:
        InputError: no such file, no text in it, a row that is none, or a file that is not UTF-8.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "t-rex.jsonl"
    >>> row = {"docid": "Q111", "text": "Mars is red.", "entities": [{"boundaries": [0, 4], "surfaceform": "Mars"}]}
    >>> _ = file.write_text(json.dumps(row))
    >>> load_documents(file)
    [Document(name='Q111', text='Mars is red.', spans=((0, 4),))]
    """
    found = [part for one in _read(source, split) for part in pieces(one, longest) if part.text.strip()]
    if not found:
        raise InputError(f"{source} holds no text.")
    return sorted(found, key=lambda one: hashlib.sha256(f"{seed}\0{one.name}".encode()).digest())


def pieces(document: Document, longest: int = LONGEST) -> Iterator[Document]:
    """Yield the document cut into texts of at most `longest` characters, each with the spans that it holds whole.

    >>> [one.text for one in pieces(Document("d", "One two. Three four. Five"), 12)]
    ['One two. ', 'Three four. ', 'Five']
    """
    start, text = 0, document.text
    while start < len(text):
        stop = _cut(text, start, longest)
        whole = start == 0 and stop == len(text)
        spans = tuple((a - start, b - start) for a, b in document.spans if start <= a and b <= stop)
        yield document if whole else Document(f"{document.name}:{start}", text[start:stop], spans)
        start = stop


def _cut(text: str, start: int, longest: int) -> int:
    """Return where the piece that begins at `start` ends: in the second half of what fits, if there is a good place."""
    if len(text) - start <= longest:
        return len(text)
    window = text[start : start + longest]
    for pattern in _ENDS:
        places = [match.end() for match in pattern.finditer(window) if match.end() > longest // 2]
        if places:
            return start + places[-1]
    return start + longest


def _read(source: str | Path, split: str) -> Iterable[Document]:
    path = Path(source)
    if isinstance(source, str) and source in PASSAGES:
        return _passages(packaged_passages(source, split))
    if isinstance(source, str) and is_packaged(source):
        return _passages_of(source, load_questions(source, split=split))
    if path.is_dir() or path.suffix in SUFFIXES:
        return _rows(path, table_records(path, split))
    if not path.is_file():
        raise InputError(f"There is no file {str(source)!r}, and no packaged set of that name.")
    suffixes = [one for one in path.suffixes if one != ".gz"]
    if suffixes and suffixes[-1] in (".jsonl", ".json"):
        return _rows(path, _objects(path, is_list=suffixes[-1] == ".json"))
    return [Document(path.name, _text_of(path))]


def _text_of(path: Path) -> str:
    """Return the text of a file, plain or gzip."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 from byte {error.start} on: convert it first.") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _objects(path: Path, *, is_list: bool) -> Iterator[Any]:
    """Yield the values of a JSONL file, or those of the list in a JSON file."""
    text = _text_of(path)
    if is_list:
        yield from _parsed(path, text, "", list)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _parsed(path, line, f" in line {number}", dict)


def _parsed(path: Path, text: str, place: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is no JSON{place}: {error}.") from error
    if not isinstance(value, kind):
        raise InputError(
            f"{path} must hold {'a list of objects' if kind is list else 'an object'}{place}. Got {text[:60]}."
        )
    return value


def _rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[Document]:
    """Yield the texts of rows; a row of a question set gives its passage."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"{path}, row {number}: expected an object. Got {row!r}.")
        text = row.get("text")
        if text is None and isinstance(row.get("context"), str):
            yield from _passages_of(path.name, load_questions(path))
            return
        if not isinstance(text, str):
            raise InputError(f"{path}, row {number}: expected 'text', a text, or a question with a 'context'.")
        name = row.get("docid") or row.get("id") or f"{path.name}-{number}"
        yield Document(str(name), text, tuple(_boundaries(path, number, row.get("entities") or ())))


def _boundaries(path: Path, number: int, entities: Sequence[Any]) -> Iterator[Span]:
    """Yield the spans of T-REx's entities."""
    for entity in entities:
        try:
            start, stop = entity["boundaries"]
            yield int(start), int(stop)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}, row {number}: an entity needs 'boundaries', two numbers. Got {entity!r}."
            ) from error


def _passages(found: Iterable[Passage]) -> Iterator[Document]:
    """Yield the passages of questions, each once, with the places of the right answers."""
    for one in found:
        places = (re.finditer(rf"\b{re.escape(answer)}\b", one.text, re.IGNORECASE) for answer in one.answers if answer)
        spans = {match.span() for matches in places for match in matches}
        yield Document(one.name, one.text, tuple(sorted(spans)))


def _passages_of(source: str, questions: Sequence[Question | FreeQuestion]) -> Iterator[Document]:
    """Yield the passages of a question set of the user's."""
    found: dict[str, tuple[str, list[str]]] = {}
    for question in questions:
        if question.context.strip():
            own = question.answers if isinstance(question, FreeQuestion) else [question.answer_text or ""]
            found.setdefault(question.context, (question.id, []))[1].extend(own)
    if not found:
        raise InputError(f"The questions of {source} have no passages (a 'context'): take a set that has.")
    return _passages(Passage(name, text, tuple(answers)) for text, (name, answers) in found.items())
