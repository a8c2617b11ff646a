"""Question files: what is accepted, what is refused, and how it is said."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.data import load_questions, save_questions
from calibwrap.errors import CalibwrapError, InputError, QuestionError
from calibwrap.questions import Question

GOOD = '{"id": "q1", "prompt": "Red planet?", "options": ["Mars", "Venus"], "answer": 0}'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@pytest.fixture
def load(tmp_path):
    def write_and_load(data, name="q.jsonl"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return load_questions(path)

    return write_and_load


def line(**changes):
    fields = {"id": "q1", "prompt": "Red planet?", "options": ["Mars", "Venus"], "answer": 0, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


def test_a_file_as_documented(load):
    assert load(GOOD + "\n") == [Question("Red planet?", ["Mars", "Venus"], answer=0, id="q1")]


@pytest.mark.parametrize(
    ("answer", "index"),
    [(0, 0), (1, 1), ("Mars", 0), (" Venus ", 1), ("A", 0), ("b", 1), (None, None), (..., None)],
)
def test_answers_are_an_index_a_text_a_letter_or_unknown(load, answer, index):
    assert load(line(answer=answer))[0].answer == index


@pytest.mark.parametrize(("group", "read"), [("law", "law"), (7, "7"), (0, "0"), (None, ""), (..., "")])
def test_a_group_is_a_text_a_whole_number_or_unknown(load, group, read):
    assert load(line(group=group))[0].group == read


def test_a_group_comes_back_and_none_is_not_written(tmp_path):
    asked = [Question("Red?", ["yes", "no"], id="a", group="sky"), Question("Wet?", ["yes", "no"], id="b")]
    save_questions(asked, tmp_path / "q.jsonl")
    assert load_questions(tmp_path / "q.jsonl") == asked
    assert [("group" in json.loads(line)) for line in (tmp_path / "q.jsonl").read_text().splitlines()] == [True, False]


def test_a_group_of_another_kind_or_in_free_text_is_refused(load):
    with pytest.raises(QuestionError, match="'group' must be a text or a whole number"):
        load(line(group=["law"]))
    with pytest.raises(QuestionError, match="'group' is for questions with options"):
        load('{"prompt": "Red planet?", "answers": ["Mars"], "group": "sky"}')


@pytest.mark.parametrize(
    ("fields", "index"),
    [
        ({"options": ["1", "2", "3"], "answer": "2"}, 1),
        ({"options": {"text": ["Mars", "Venus"], "label": ["1", "2"]}, "answer": "2"}, 1),
        ({"options": {"text": ["Mars", "Venus"], "label": ["B", "A"]}, "answer": "A"}, 1),
        ({"options": ["A", "B"], "answer": "A"}, 0),
    ],
)
def test_labels_and_texts_decide_what_a_digit_or_letter_means(load, fields, index):
    assert load(line(**fields))[0].answer == index


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[]", "must be a JSON object. Got list"),
        ("null", "must be a JSON object. Got NoneType"),
        (line(prompt=...), "Field 'prompt' is missing"),
        (line(options=...), "Field 'options' is missing"),
        (line(promt="?"), "Unknown field 'promt'. Did you mean 'prompt'?"),
        (
            line(colour="red"),
            "Unknown field 'colour'. Known are id, prompt, options, answer, answers, context, group, metadata",
        ),
        (line(question="Again?"), "Field 'prompt' is given twice, once as 'question'"),
        ('{"prompt": "?", "options": ["a", "b"], "answer": 0, "answer": 1}', "the field 'answer' is given twice"),
        (line(options=[]), "'options' must be a list of at least one text"),
        (line(options=["a", ""]), r"'options\[1\]' must be a text that is not empty"),
        (line(options=["a", "a "]), "'options' must all be different"),
        (line(options=["a", 2]), "'options' must be a list of texts"),
        (line(options="ab"), "'options' must be a list of texts"),
        (line(options={"text": ["a"], "label": ["A", "B"]}), "one label for each text"),
        (line(options={"text": ["a", "b"], "label": ["A", "A"]}), "all different"),
        (line(prompt=" "), "'prompt' must be a text that is not empty"),
        (line(prompt=7), "'prompt' must be a text. Got 7"),
        (line(context=["a"]), "'context' must be a text"),
        (line(id=""), "'id' is empty"),
        (line(id=1.5), "'id' must be a text or a whole number"),
        (line(answer=2), "'answer' must be an index from 0 to 1"),
        (line(answer=-1), "'answer' must be an index from 0 to 1"),
        (line(answer=True), "'answer' must be an index counted from 0"),
        (line(answer=0.0), "'answer' must be an index counted from 0"),
        (line(answer="C"), "no option's text and none of the labels A, B"),
        (line(answer="1"), "A digit in quotes may count from 0 or from 1"),
        (line(options=["B", "A"], answer="A"), "label of one option and the text of another"),
        (GOOD.replace("Red", "\\ud800"), "one half of a surrogate pair"),
        (GOOD.encode().replace(b"Red", b"R\xe9d"), "is not UTF-8: byte 25 of the line is 0xe9"),
        (GOOD.encode().replace(b"Red", b"R\0d"), "holds a NUL byte"),
        ("[" * 100_000, "cannot be read"),
        (line(answer=0).replace("0}", "1" * 5000 + "}"), "cannot be read"),
    ],
)
def test_a_broken_line_is_named_with_its_number(load, data, said):
    data = data if isinstance(data, bytes) else data.encode()
    with pytest.raises(QuestionError, match=said) as caught:
        load(line(id="first").encode() + b"\n\n" + data + b"\n")
    assert "q.jsonl: 1 row is broken:\n  line 3: " in str(caught.value)


def test_up_to_five_broken_lines_are_told_together(load):
    lines = [line(id=f"q{n}", answer=9 if n % 2 else 0) for n in range(14)]
    with pytest.raises(QuestionError) as caught:
        load("\n".join(lines))
    told = str(caught.value).splitlines()
    assert told[0].endswith("7 rows are broken:")
    assert [text.split(":")[0].strip() for text in told[1:6]] == ["line 2", "line 4", "line 6", "line 8", "line 10"]
    assert told[6] == "  and 2 more"


def test_a_repeated_id_names_both_lines(load):
    with pytest.raises(QuestionError, match=r"line 2: the id 'q1' is already that of line 1"):
        load(GOOD + "\n" + GOOD)


def test_what_editors_and_windows_leave_behind_is_accepted(load):
    data = b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n  \n" + line(id=2).encode()
    assert [question.id for question in load(data)] == ["q1", "2"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(load):
    assert load(GOOD.replace("Red", "Red\u2028\x85"))[0].prompt == "Red\u2028\x85 planet?"


def test_questions_without_an_id_are_called_after_their_line(load):
    assert [question.id for question in load("\n" + line(id=...) + "\n" + line(id=None))] == ["line-2", "line-3"]


def test_characters_written_as_a_whole_pair_are_accepted(load):
    assert load(GOOD.replace("Red", "\\ud83d\\ude80"))[0].prompt == "\U0001f680 planet?"


def test_metadata_is_left_alone(load):
    assert load(line(metadata={"source": ["book", 7]}))[0].id == "q1"


def test_gzip_is_read_whatever_the_name(load):
    assert len(load(gzip.compress(GOOD.encode()), "q.jsonl.gz")) == 1
    assert len(load(gzip.compress(GOOD.encode()), "q.jsonl")) == 1


def test_a_truncated_gzip_file_is_named(load):
    with pytest.raises(QuestionError, match="damaged or truncated gzip"):
        load(gzip.compress(GOOD.encode())[:-6], "q.jsonl.gz")


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(load, data):
    with pytest.raises(QuestionError, match="holds no question"):
        load(data)


def test_utf16_is_named(load):
    with pytest.raises(QuestionError, match="UTF-16"):
        load(GOOD.encode("utf-16"))


@given(st.binary(max_size=80))
def test_any_bytes_give_questions_or_a_named_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "q.jsonl"
    path.write_bytes(data)
    with pytest.raises(CalibwrapError):
        load_questions(path)


@st.composite
def questions(draw):
    options = draw(st.lists(TEXT, min_size=1, max_size=4, unique_by=str.strip))
    answer = draw(st.none() | st.integers(0, len(options) - 1))
    return draw(TEXT), options, answer, draw(st.just("") | TEXT)


@given(st.lists(questions(), min_size=1, max_size=5), st.sampled_from(["q.jsonl", "q.jsonl.gz"]))
def test_saving_and_loading_gives_the_same(tmp_path_factory, drawn, name):
    made = [Question(p, o, answer=a, id=f"id {n}", context=c) for n, (p, o, a, c) in enumerate(drawn)]
    path = tmp_path_factory.mktemp("saved") / name
    save_questions(made, path)
    assert load_questions(path) == made
    first = path.read_bytes()
    save_questions(load_questions(path), path)
    assert path.read_bytes() == first


def test_what_cannot_be_read_back_is_not_saved(tmp_path):
    twice = [Question("?", ["a"], id="x"), Question("!", ["a"], id="x")]
    with pytest.raises(QuestionError, match="'x' more than once"):
        save_questions(twice, tmp_path / "q.jsonl")
    with pytest.raises(QuestionError, match="lone surrogate"):
        save_questions([Question("\ud800", ["a"])], tmp_path / "q.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_saving_where_nothing_can_be_written(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        save_questions([Question("?", ["a"])], tmp_path / "none" / "q.jsonl")
