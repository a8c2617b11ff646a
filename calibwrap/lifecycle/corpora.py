"""Texts to read on with: files, JSONL, tables, and the passages of question sets, with the spans that they name."""

import gzip
import hashlib
import heapq
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.data import load_questions
from calibwrap.data.packaged import is_packaged
from calibwrap.data.passages import PASSAGES, Passage, packaged_passages
from calibwrap.data.tables import SUFFIXES, iter_records
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

    JSONL and tables are read a piece at a time, all other files whole.

    Raises:
        InputError: no such file, no text in it, a row that is none, or a file that is not UTF-8.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "t-rex.jsonl"
    >>> row = {"docid": "Q111", "text": "Mars is red.", "entities": [{"boundaries": [0, 4], "surfaceform": "Mars"}]}
    >>> _ = file.write_text(json.dumps(row))
    >>> load_documents(file)
    [Document(name='Q111', text='Mars is red.', spans=((0, 4),))]
    """
    return sorted(_documents(source, split, longest), key=lambda one: _rank(one, seed))


def first_documents(
    source: str | Path,
    events: int,
    size: Callable[[Document], int],
    *,
    split: str = "",
    seed: int = 0,
    longest: int = LONGEST,
) -> list[Document]:
    r"""Return the first texts, in the order of `load_documents`, that have `events` events together, or all there are.

    Only what may still be returned is kept in memory while a source is read.

    Args:
        source: as for `load_documents`.
        events: how many events are enough.
        size: how many a text has; one with 0 is left out.
        split: of a question set, or of a folder of `datasets`.
        seed: of the order.
        longest: most characters of one text; longer ones are cut.

    Raises:
        InputError: as for `load_documents`.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "pile.jsonl"
    >>> _ = file.write_text("\n".join(json.dumps({"text": f"Text {n}."}) for n in range(9)))
    >>> first_documents(file, 3, lambda one: 1) == load_documents(file)[:3]
    True
    """
    heap, total = list[tuple[int, int, Document]](), 0
    for number, one in enumerate(_documents(source, split, longest)):
        if size(one) == 0:
            continue
        heapq.heappush(heap, (-_rank(one, seed), -number, one))
        total += size(one)
        while total - size(heap[0][2]) >= events:
            total -= size(heapq.heappop(heap)[2])
    return [one for _, _, one in sorted(heap, reverse=True)]


def _rank(document: Document, seed: int) -> int:
    """Return a text's place in an order that its name and the seed determine."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{document.name}".encode()).digest(), "big")


def _documents(source: str | Path, split: str, longest: int) -> Iterator[Document]:
    """Yield the texts of a source as they come."""
    is_empty = True
    for one in _read(source, split):
        for part in pieces(one, longest):
            if part.text.strip():
                is_empty = False
                yield part
    if is_empty:
        raise InputError(f"{source} holds no text.")


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
        return _rows(path, iter_records(path, split), split)
    if not path.is_file():
        raise InputError(f"There is no file {str(source)!r}, and no packaged set of that name.")
    suffixes = [one for one in path.suffixes if one != ".gz"]
    if suffixes and suffixes[-1] in (".jsonl", ".json"):
        return _rows(path, _objects(path, is_list=suffixes[-1] == ".json"))
    return [Document(path.name, _text_of(path))]


def _text_of(path: Path) -> str:
    """Return the text of a file, plain or gzip."""
    return "".join(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, plain or gzip, with their ends; without a mark of the byte order."""
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    before = 0
    try:
        with opened(path, "rb") as file:
            for line in file:
                yield line.decode("utf-8" if before else "utf-8-sig")
                before += len(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 from byte {before + error.start} on: convert it first.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _objects(path: Path, *, is_list: bool) -> Iterator[Any]:
    """Yield the values of a JSONL file, or those of the list in a JSON file."""
    if is_list:
        yield from _parsed(path, _text_of(path), "", list)
        return
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield _parsed(path, line, f" in line {number}", dict)


def _parsed(path: Path, text: str, place: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON{place}: {error}.") from error
    if not isinstance(value, kind):
        raise InputError(
            f"{path} must hold {'a list of objects' if kind is list else 'an object'}{place}. Got {text[:60]}."
        )
    return value


def _rows(path: Path, rows: Iterable[Mapping[str, Any]], split: str = "") -> Iterator[Document]:
    """Yield the texts of rows; a row of a question set gives its passage."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"{path}, row {number}: expected an object. Got {row!r}.")
        text = row.get("text")
        if text is None and isinstance(row.get("context"), str):
            yield from _passages_of(path.name, load_questions(path, split=split))
            return
        if not isinstance(text, str):
            raise InputError(f"{path}, row {number}: expected 'text', a text, or a question with a 'context'.")
        name = row.get("docid") or row.get("id") or f"{path.name}-{number}"
        spans = set(_boundaries(path, number, row.get("entities") or ()))
        yield Document(str(name), text, tuple(sorted(spans)))


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
