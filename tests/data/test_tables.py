"""Datasets saved to disk by the real `datasets`, and single Arrow and Parquet files."""

import datasets
import pytest

from calibwrap.data import load_questions
from calibwrap.errors import CalibrationWarning, InputError, QuestionError
from calibwrap.questions import Question

ROWS = [
    {"question": "Red planet?", "choices": ["Mars", "Venus"], "answer": 0, "subject": "astronomy"},
    {"question": "Ringed planet?", "choices": ["Mars", "Saturn"], "answer": 1, "subject": "astronomy"},
    {"question": "Hidden?", "choices": ["yes", "no"], "answer": -1, "subject": "tests"},
]
WANTED = [
    Question("Red planet?", ["Mars", "Venus"], answer=0, id="row-0", group="astronomy"),
    Question("Ringed planet?", ["Mars", "Saturn"], answer=1, id="row-1", group="astronomy"),
    Question("Hidden?", ["yes", "no"], id="row-2", group="tests"),
]


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def table(rows):
    return datasets.Dataset.from_list(rows)


@pytest.fixture
def saved(tmp_path):
    def save(rows, **options):
        table(rows).save_to_disk(tmp_path / "set", **options)
        return tmp_path / "set"

    return save


@pytest.mark.parametrize("shards", [1, 3])
def test_a_saved_dataset(saved, shards):
    assert load_questions(saved(ROWS, num_shards=shards)) == WANTED


def test_a_parquet_file(tmp_path):
    table(ROWS).to_parquet(tmp_path / "set.parquet")
    assert load_questions(tmp_path / "set.parquet") == WANTED


def test_an_arrow_file_in_both_formats(tmp_path):
    import pyarrow as pa

    rows = pa.Table.from_pylist(ROWS)
    for name, opened in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        path = tmp_path / f"{name}.arrow"
        with opened(path, rows.schema) as out:
            out.write_table(rows)
        assert load_questions(path) == WANTED


def test_arcs_columns_and_labels(saved):
    rows = [
        {"id": "a", "question": "?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
        {"id": "b", "question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"},
        {"id": "c", "question": "?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": ""},
    ]
    assert [(question.id, question.answer) for question in load_questions(saved(rows))] == [
        ("a", 1), ("b", 0), ("c", None),
    ]  # fmt: skip


def test_class_labels_are_indices(tmp_path):
    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "options": datasets.List(datasets.Value("string")),
            "label": datasets.ClassLabel(names=["A", "B"]),
        }
    )
    rows = {"prompt": ["?"], "options": [["x", "y"]], "label": [1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    assert load_questions(tmp_path / "set")[0].answer_text == "y"


def test_splits(tmp_path):
    both = datasets.DatasetDict({"train": table(ROWS[:1]), "test": table(ROWS[1:])})
    both.save_to_disk(tmp_path / "set")
    assert [question.prompt for question in load_questions(tmp_path / "set", split="train")] == ["Red planet?"]
    for split in ("", "dev"):
        with pytest.raises(InputError, match="has the splits train, test"):
            load_questions(tmp_path / "set", split=split)
    datasets.DatasetDict({"test": table(ROWS)}).save_to_disk(tmp_path / "one")
    assert load_questions(tmp_path / "one") == WANTED


def test_a_split_of_what_has_none(saved):
    with pytest.raises(InputError, match="without splits"):
        load_questions(saved(ROWS), split="test")


def test_repeated_options_become_one_with_a_warning(saved):
    rows = [{"question": "?", "choices": ["12", "-4", "4", "12"], "answer": 3}, ROWS[0] | {"subject": None}]
    with pytest.warns(CalibrationWarning, match=r"1 of 2 questions repeat an option \(first 'row-0'\)"):
        first = load_questions(saved([{k: row[k] for k in ("question", "choices", "answer")} for row in rows]))[0]
    assert (first.options, first.answer) == (("12", "-4", "4"), 0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "?", "choices": ["a"]}, "no column for 'prompt': expected prompt or question"),
        ({"question": "?", "endings": ["a"]}, "no column for 'options': expected options or choices"),
        (
            {"question": "?", "choices": ["a"], "answer": 0, "label": 0},
            "answer and label, both of which may be 'answer'",
        ),
        ({"question": "?", "choices": ["a", "b"], "answer": 2}, "row 0: 'answer' must be an index from 0 to 1"),
        ({"question": "?", "choices": ["a", "b"], "answer": "1"}, "row 0: 'answer' '1' is no option's text"),
        ({"question": None, "choices": ["a"]}, "row 0: 'prompt' must be a text. Got None"),
    ],
)
def test_broken_tables_are_named(saved, row, said):
    with pytest.raises(QuestionError, match=said):
        load_questions(saved([row]))


def test_damaged_files_are_named(saved, tmp_path):
    folder = saved(ROWS)
    file = next(folder.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(QuestionError, match=r"data-.*arrow is not a whole Arrow file"):
        load_questions(folder)
    file.unlink()
    with pytest.raises(InputError, match=r"arrow cannot be read: No such file"):
        load_questions(folder)
    (folder / "state.json").write_text("[]")
    with pytest.raises(InputError, match="not what datasets' save_to_disk writes"):
        load_questions(folder)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(QuestionError, match="not a whole Parquet file"):
        load_questions(tmp_path / "x.parquet")


def test_a_folder_that_is_no_dataset(tmp_path):
    with pytest.raises(InputError, match="save_to_disk"):
        load_questions(tmp_path)
