"""Rows of published question sets, each in its own shape, turned into the fields of a question. Pure functions."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]
Parse = Callable[[Row, str], dict[str, Any]]
"""Takes a row and the id for a question that has none of its own; gives the fields of `question_from_row`."""

_MARK = re.compile(r"\[(?:header|title|step|substeps)\]")
_OPEN_TITLE = re.compile(r"(?<=[^\s.!?:;,])\s*\[title\]")


def plain(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of ARC, CommonsenseQA, OpenBookQA and MMLU, which need no change but of names.

    >>> plain({"question": "Red?", "choices": ["Mars", "Venus"], "answer": 0}, "x-0")["id"]
    'x-0'
    """
    return {
        "id": row.get("id") or name,
        "prompt": row["question_stem"] if "question_stem" in row else row["question"],
        "options": row["choices"],
        "answer": row["answerKey"] if "answerKey" in row else row["answer"],
    }


def sciq(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of SciQ, options in an order that follows from the id and the options alone.

    The file gives the right answer apart from three distractors; some order has to be made, and any fixed place of the
    right answer could be learned. Sorting by a hash puts it anywhere, alike on every machine.

    >>> row = {"question": "?", "correct_answer": "a", "distractor1": "b", "distractor2": "c", "distractor3": "d"}
    >>> sorted(sciq(row, "sciq-0")["options"])
    ['a', 'b', 'c', 'd']
    """
    right = row["correct_answer"]
    options = [right, row["distractor1"], row["distractor2"], row["distractor3"]]
    options.sort(key=lambda option: hashlib.sha256(f"{name}\0{option}".encode()).digest())
    return {"id": name, "prompt": row["question"], "options": options, "answer": options.index(right)}


def hellaswag(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of HellaSwag: the activity and the scene are the prompt, its marks for headings left out.

    >>> hellaswag({"activity_label": "Sawing", "ctx": "A man", "endings": ["saws."], "label": "0"}, "h-0")["prompt"]
    'Sawing: A man'
    """
    endings = [_unmarked(ending) for ending in row["endings"]]
    prompt = f"{_unmarked(row['activity_label'])}: {_unmarked(row['ctx'])}"
    return {"id": name, "prompt": prompt, "options": endings, "answer": int(row["label"])}


def piqa(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of PIQA: a goal and two ways to reach it.

    >>> piqa({"goal": "Dry a cup", "sol1": "Use a towel", "sol2": "Use a tap", "label": 0}, "p-0")["answer"]
    0
    """
    return {"id": name, "prompt": row["goal"], "options": [row["sol1"], row["sol2"]], "answer": row["label"]}


def siqa(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of Social IQa, whose labels count from 1.

    >>> row = {"context": "Ann won.", "question": "How is she?", "answerA": "glad", "answerB": "sad", "answerC": "ill"}
    >>> siqa({**row, "label": "1"}, "s-0")["answer"]
    0
    """
    return {
        "id": name,
        "prompt": row["question"],
        "options": [row["answerA"], row["answerB"], row["answerC"]],
        "answer": int(row["label"]) - 1,
        "context": row["context"],
    }


def winogrande(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of WinoGrande: the sentence with its blank is the prompt; labels count from 1.

    >>> winogrande({"sentence": "_ fell.", "option1": "Ann", "option2": "Bob", "answer": "2"}, "w-0")["answer"]
    1
    """
    options = [row["option1"], row["option2"]]
    return {"id": name, "prompt": row["sentence"], "options": options, "answer": int(row["answer"]) - 1}


def boolq(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of BoolQ: the passage is the context, the options are yes and no.

    >>> boolq({"question": "is water wet", "answer": True, "passage": "Water is wet."}, "b-0")["prompt"]
    'is water wet?'
    """
    return _yes_no(name, f"{row['question']}?", row["passage"], yes=row["answer"])


def boolq_request(row: Row, name: str) -> dict[str, Any]:
    r"""Return the fields of BoolQ from a made prompt: passage, question and the word Answer.

    >>> query = "Water is wet.\nQuestion: is water wet?\nAnswer:"
    >>> boolq_request({"query": query, "choices": ["yes", "no"], "gold": 0}, "b-0")["context"]
    'Water is wet.'
    """
    passage, _, rest = row["query"].rpartition("\nQuestion: ")
    return _yes_no(name, rest.removesuffix("\nAnswer:"), passage, yes=row["choices"][row["gold"]] == "yes")


def triviaqa(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of TriviaQA, answered in free text: all aliases of the answer are right.

    >>> row = {"question_id": "tc_1", "question": "Red?", "answer": {"value": "Mars", "aliases": ["Mars", "Ares"]}}
    >>> triviaqa(row, "t-0")["answers"]
    ['Mars', 'Ares']
    """
    return {"id": row["question_id"], "prompt": row["question"], "answers": row["answer"]["aliases"]}


def nq_open(row: Row, name: str) -> dict[str, Any]:
    """Return the fields of NQ-open, answered in free text; its questions come without a question mark.

    >>> nq_open({"question": "who won", "answer": ["Ann"]}, "n-0")["prompt"]
    'who won?'
    """
    return {"id": name, "prompt": f"{row['question']}?", "answers": row["answer"]}


def request(row: Row, name: str) -> dict[str, Any]:
    r"""Return the fields of a made prompt: the question between the words Question and Answer, options, gold index.

    >>> request({"id": "7", "query": "Question: Red?\nAnswer:", "choices": ["Mars", "Sun"], "gold": 0}, "a-0")["prompt"]
    'Red?'
    """
    prompt = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
    return {"id": row.get("id") or name, "prompt": prompt, "options": row["choices"], "answer": row["gold"]}


def _yes_no(name: str, prompt: str, passage: str, *, yes: bool) -> dict[str, Any]:
    """Return the fields of a question that is answered with yes or no."""
    return {"id": name, "prompt": prompt, "options": ["yes", "no"], "answer": 0 if yes else 1, "context": passage}


def _unmarked(text: str) -> str:
    """Return `text` without WikiHow's marks for headings and steps; a title ends the sentence before it."""
    return " ".join(_MARK.sub(" ", _OPEN_TITLE.sub(". ", text)).split())
