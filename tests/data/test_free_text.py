"""Question sets in free text: `answers` in place of options, in JSONL files and in tables."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.data import load_questions, save_questions
from calibwrap.errors import InputError, QuestionError

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
OPTIONS = {"prompt": "Red planet?", "options": ["Mars", "Venus"], "answer": 0}
FREE = {"id": "f1", "question": "Red planet?", "answers": ["Mars", "the planet Mars"], "context": "Planets."}


def written(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_answers_make_free_questions(tmp_path):
    unknown = {"prompt": "Who?", "answers": None}
    first, second = load_questions(written(tmp_path / "free.jsonl", FREE, unknown))
    assert first == cw.FreeQuestion("Red planet?", ["Mars", "the planet Mars"], id="f1", context="Planets.")
    assert second == cw.FreeQuestion("Who?", id="line-2")


@given(st.lists(st.tuples(words, st.lists(words, max_size=3), words), min_size=1, max_size=4))
def test_what_is_saved_comes_back(tmp_path_factory, rows):
    questions = [
        cw.FreeQuestion(prompt, answers, id=f"q{number}", context=context)
        for number, (prompt, answers, context) in enumerate(rows)
    ]
    path = tmp_path_factory.mktemp("saved") / "free.jsonl"
    save_questions(questions, path)
    assert load_questions(path) == questions


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([OPTIONS, FREE], r"line 2: has 'answers', and line 1 has 'options'. Make two sets"),
        ([FREE, OPTIONS], r"line 2: has 'options', and line 1 has 'answers'. Make two sets"),
        (
            [{**OPTIONS, "answers": ["Mars"]}],
            r"line 1: Field 'answers' is for free text, and this question has options",
        ),
        ([{"prompt": "Who?", "answers": ["x"], "answer": 0}], r"Keep 'options' and 'answer', or 'answers' alone"),
        ([{"prompt": "Who?", "answers": "x"}], r"'answers' must be a list of texts, each a spelling .* Got 'x'"),
        ([{"prompt": "Who?", "answers": [" "]}], r"'answers\[0\]' must be a text that is not empty"),
        ([{"prompt": "Who?"}], r"Field 'options' is missing.* or 'answers' for free text, which is null"),
        ([{"answers": ["x"]}], r"Field 'prompt' is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, rows, said):
    with pytest.raises(QuestionError, match=said):
        load_questions(written(tmp_path / "wrong.jsonl", *rows))


def test_a_table_with_answers_and_no_options(tmp_path):
    table = pa.table({"question": ["Who?", "Where?"], "answers": [["Ann"], ["Here", "There"]], "answer": [1, 2]})
    pq.write_table(table, tmp_path / "free.parquet")
    assert load_questions(tmp_path / "free.parquet") == [
        cw.FreeQuestion("Who?", ["Ann"], id="row-0"),
        cw.FreeQuestion("Where?", ["Here", "There"], id="row-1"),
    ]


def test_a_table_with_both_is_one_with_options(tmp_path):
    table = pa.table({"question": ["Who?"], "options": [["Ann", "Bob"]], "answer": [1], "answers": [["Bob"]]})
    pq.write_table(table, tmp_path / "both.parquet")
    assert load_questions(tmp_path / "both.parquet")[0].answer_text == "Bob"


def test_free_questions_are_not_asked_for_options():
    from calibwrap.testing import ToyAdapter

    with pytest.raises(InputError, match=r"for free text there are answer_batch\(\) and fit_answers\(\)"):
        cw.wrap(ToyAdapter()).scores([cw.FreeQuestion("Who?", ["Ann"])])
