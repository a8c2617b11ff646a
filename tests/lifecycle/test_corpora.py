"""Texts in each form that is read, and what is wrong with the others."""

import gzip
import json

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.errors import InputError
from calibwrap.lifecycle import corpora
from calibwrap.lifecycle.corpora import Document, first_documents, load_documents, pieces

LONG = "One is here. Two is there! " * 40


def names(documents):
    return sorted(one.name for one in documents)


def test_files_of_text(tmp_path):
    (tmp_path / "a.txt").write_text(LONG, encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write(LONG)
    for name in ("a.txt", "b.txt.gz"):
        found = load_documents(tmp_path / name, longest=300)
        assert "".join(one.text for one in sorted(found, key=lambda one: int(one.name.rpartition(":")[2]))) == LONG
        assert all(len(one.text) <= 300 for one in found)


def test_jsonl_of_the_pile_and_of_t_rex(tmp_path):
    rows = [{"text": "Mars is red.", "meta": {"pile_set_name": "x"}}, {"text": "Venus is hot.", "id": "v"}]
    (tmp_path / "pile.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert names(load_documents(tmp_path / "pile.jsonl")) == ["pile.jsonl-1", "v"]
    trex = [{"docid": "Q1", "text": "Mars is red.", "entities": [{"boundaries": [0, 4], "surfaceform": "Mars"}]}]
    (tmp_path / "trex.json").write_text(json.dumps(trex))
    trex[0]["entities"] *= 2  # named twice, one span
    (tmp_path / "trex.json").write_text(json.dumps(trex))
    assert load_documents(tmp_path / "trex.json") == [Document("Q1", "Mars is red.", ((0, 4),))]


def test_tables(tmp_path):
    table = datasets.Dataset.from_list([{"text": "Mars is red."}, {"text": "Venus is hot."}])
    table.to_parquet(tmp_path / "t.parquet")
    table.save_to_disk(tmp_path / "saved")
    assert names(load_documents(tmp_path / "t.parquet")) == ["t.parquet-1", "t.parquet-2"]
    assert names(load_documents(tmp_path / "saved")) == ["saved-1", "saved-2"]


def test_questions_of_one_split_of_a_table(tmp_path):
    row = {"prompt": "Which?", "options": ["Mars", "Venus"], "answer": 0, "context": "The red planet is Mars."}
    table = datasets.Dataset.from_list([row])
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    assert load_documents(tmp_path / "saved", split="test")[0].spans == ((18, 22),)


def test_a_table_in_many_batches_is_read_whole(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [f"Text {n}." for n in range(10)]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    with pyarrow.ipc.new_file(tmp_path / "f.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=3)
    with pyarrow.ipc.new_stream(tmp_path / "s.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=3)
    for name in ("t.parquet", "f.arrow", "s.arrow"):
        assert {one.text for one in load_documents(tmp_path / name)} == {f"Text {n}." for n in range(10)}


def test_a_line_of_jsonl_may_hold_any_sign_and_a_mark_of_the_byte_order_is_no_text(tmp_path):
    line = json.dumps({"text": "One\u2028two\x85three."}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode())
    assert load_documents(tmp_path / "a.jsonl")[0].text == "One\u2028two\x85three."
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfMars.\r\nRed.")
    assert load_documents(tmp_path / "a.txt")[0].text == "Mars.\r\nRed."


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 4)), min_size=1), st.integers(1, 40))
def test_the_first_texts_are_those_of_the_whole_order(found, events):
    sizes = {f"{at}": size for at, (_, size) in enumerate(found)}
    held = [Document(name, text) for text, (name, _) in zip(sizes, found, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "_read", lambda source, split: held)
        chosen = first_documents("x", events, lambda one: sizes[one.text], seed=3)
        order = [one for one in load_documents("x", seed=3) if sizes[one.text]]
    assert chosen == order[: len(chosen)]
    assert len(chosen) == len(order) or sum(sizes[one.text] for one in chosen) >= events
    assert sum(sizes[one.text] for one in chosen[:-1]) < events


def test_passages_of_questions_hold_their_answers(tmp_path):
    text = "The red planet is Mars, and mars has moons."
    asked = [cw.Question(f"Which, {n}?", ["Mars", "Venus"], answer=0, context=text, id=f"q{n}") for n in range(2)]
    cw.save_questions(asked, tmp_path / "q.jsonl")
    assert load_documents(tmp_path / "q.jsonl") == [Document("q0", text, ((18, 22), (28, 32)))]


@pytest.mark.parametrize(("name", "spans"), [("sciq", True), ("squad", True), ("boolq", False)])
def test_packaged_passages(name, spans):
    found = load_documents(name)
    assert len(found) > 400
    assert any(one.spans for one in found) == spans
    assert not [one for one in found if "\nQuestion:" in one.text]
    assert found == load_documents(name)
    assert found != load_documents(name, seed=1)
    assert names(found) == names(load_documents(name, seed=1))


def test_long_texts_are_cut_at_good_places_and_keep_the_spans_that_stay_whole():
    text = "A word here. " * 20
    parts = list(pieces(Document("d", text, ((2, 6), (250, 255))), 60))
    assert "".join(one.text for one in parts) == text
    assert all(one.text.endswith(". ") for one in parts)
    assert [one.text[slice(*span)] for one in parts for span in one.spans] == ["word", text[250:255]]
    assert next(pieces(Document("d", "x" * 130), 60)).text == "x" * 60


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.txt", None, "no file"),
        ("empty.txt", b" \n", "holds no text"),
        ("latin.txt", "naïve".encode("latin-1"), "not UTF-8 from byte 2"),
        ("cut.txt.gz", gzip.compress(b"text " * 99)[:-9], "cannot be read"),
        ("torn.txt.gz", gzip.compress(b"text " * 99)[:12] + b"\xff" * 30, "cannot be read"),
        ("late.jsonl", b'{"text": "a"}\n' + '{"text": "naïve"}'.encode("latin-1"), "not UTF-8 from byte 26"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": ', "no JSON in line 2"),
        ("list.jsonl", b"[1]", "an object in line 1"),
        ("object.json", b"{}", "a list of objects"),
        ("number.json", b"[1]", "row 1: expected an object"),
        ("field.jsonl", b'{"txt": "a"}', "row 1: expected 'text'"),
        ("span.jsonl", b'{"text": "a", "entities": [{"boundaries": [0, 9]}]}', "a span 0 to 9"),
        ("entity.jsonl", b'{"text": "a", "entities": [{"boundaries": 3}]}', "needs 'boundaries'"),
        ("q.jsonl", b'{"prompt": "Who?", "options": ["I", "you"], "context": ""}', "have no passages"),
    ],
)
def test_what_is_no_corpus_is_named(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_documents(tmp_path / name)
