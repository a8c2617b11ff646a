"""The journal: what survives a kill, a full disk, a second writer and a careless hand."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.errors import InputError, JournalError
from calibwrap.journal import Journal

HEADER = {"model": {"name": "toy", "revision": "abc"}, "readout": "label", "n": 3}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def written(path, *names):
    with Journal.open(path, HEADER, resume=False) as journal:
        journal.append([{"id": name} for name in names])
    return path


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_records_come_back_as_they_were(path):
    record = {
        "id": "q1",
        "logprobs": [-0.1, -math.inf],
        "text": "zw\u00f6lf \u2028 \ud800\n",
        "tail": 1e-300,
        "bounds": None,
    }
    with Journal.open(path, HEADER, resume=False) as journal:
        journal.append([record])
        assert journal.done["q1"] == record
    with Journal.open(path, HEADER, resume=True) as journal:
        assert journal.done == {"q1": record}
        assert journal.torn == 0


def test_what_is_remembered_is_told_once_in_order_and_only_when_it_is_on_the_disk(path, monkeypatch):
    told = []

    def remember(record):
        told.append(record["id"])
        return {"length": len(record["id"])}

    with Journal.open(path, HEADER, resume=False, remember=remember) as journal:
        journal.append([{"id": "one"}, {"id": "three"}])
        monkeypatch.setattr(os, "write", lambda handle, data: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(JournalError, match="full"):
            journal.append([{"id": "lost"}])
        monkeypatch.undo()
        assert dict(journal.done) == {"one": {"length": 3}, "three": {"length": 5}}
    assert told == ["one", "three"]
    with Journal.open(path, HEADER, resume=True, remember=remember) as journal:
        assert dict(journal.done) == {"one": {"length": 3}, "three": {"length": 5}}
    assert told == ["one", "three"] * 2


def test_resuming_goes_on_and_keeps_the_order(path):
    written(path, "b", "a")
    with Journal.open(path, HEADER, resume=True) as journal:
        journal.append([{"id": "c"}])
    with Journal.open(path, HEADER, resume=True) as journal:
        assert list(journal.done) == ["b", "a", "c"]
    assert len(path.read_text().splitlines()) == 4


def test_done_cannot_be_changed_from_outside(path):
    with Journal.open(path, HEADER, resume=True) as journal, pytest.raises(TypeError):
        journal.done["x"] = {}


def test_an_existing_journal_is_not_touched_without_resume(path):
    before = written(path, "a").read_bytes()
    with pytest.raises(JournalError, match=r"Pass --resume to go on with it, or choose another folder"):
        Journal.open(path, HEADER, resume=False)
    assert path.read_bytes() == before


def test_a_run_of_something_else_is_told_field_by_field(path):
    written(path, "a")
    other = {"model": {"name": "toy", "revision": "xyz"}, "readout": "label", "seed": 1}
    with pytest.raises(JournalError) as caught:
        Journal.open(path, other, resume=True)
    message = str(caught.value)
    assert "model.revision is 'abc' in the journal and 'xyz' now" in message
    assert "n is 3 in the journal and None now" in message
    assert "seed is None in the journal and 1 now" in message
    assert "readout" not in message


def test_tuples_in_a_header_are_what_json_makes_of_them(path):
    Journal.open(path, {"options": (1, 2)}, resume=False).close()
    with Journal.open(path, {"options": (1, 2)}, resume=True) as journal:
        assert journal.torn == 0
    with pytest.raises(JournalError, match=r"options is \[1, 2\] in the journal and \[2, 1\] now"):
        Journal.open(path, {"options": (2, 1)}, resume=True)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_cut_off_and_said(path, cut):
    whole = written(path, "a").read_bytes()
    path.write_bytes(whole + b'{"id": "b"}\n'[:-cut])
    with Journal.open(path, HEADER, resume=True) as journal:
        assert list(journal.done) == ["a"]
        assert journal.torn == 12 - cut
        assert path.read_bytes() == whole
        journal.append([{"id": "b"}])
    with Journal.open(path, HEADER, resume=True) as journal:
        assert list(journal.done) == ["a", "b"]


def test_a_torn_header_begins_anew(path):
    path.parent.mkdir()
    path.write_text('{"format": "calib')
    with Journal.open(path, HEADER, resume=True) as journal:
        assert (journal.torn, dict(journal.done)) == (17, {})
    assert json.loads(path.read_text()) == {"format": "calibwrap-journal", "version": 1, "run": HEADER}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "b", ', "line 3 is not JSON"),
        (b"\0\0\0\0", "line 3 is not JSON"),
        (b"\xff", "line 3 is not JSON"),
        (b"[1]", "line 3 is not a JSON object but list"),
        (b'{"confidence": 1}', "line 3 has no id"),
        (b'{"id": "a"}', "line 3 repeats the id 'a'"),
        (b"", "line 3 is not JSON"),
        (b"[" * 100_000, "line 3 is not JSON"),
    ],
)
def test_a_broken_line_elsewhere_is_named_and_nothing_is_changed(path, line, said):
    damaged = written(path, "a").read_bytes() + line + b'\n{"id": "z"}\n'
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match=said) as caught:
        Journal.open(path, HEADER, resume=True)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "q1", "prompt": "?"}\n', "is not a journal"),
        ('{"format": "calibwrap-journal", "version": 2}\n', "format version 2. This calibwrap reads version 1"),
    ],
)
def test_files_of_another_kind_or_version_are_refused(path, text, said):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(JournalError, match=said):
        Journal.open(path, HEADER, resume=True)
    assert path.read_text() == text


@pytest.mark.parametrize("record", [{}, {"id": ""}, {"id": 7}, {"id": "a"}, {"id": "x", "value": {1, 2}}])
def test_a_bad_record_writes_nothing_of_its_batch(path, record):
    before = written(path, "a").read_bytes()
    with Journal.open(path, HEADER, resume=True) as journal, pytest.raises(InputError):
        journal.append([{"id": "fine"}, record])
    assert path.read_bytes() == before


def test_an_id_twice_in_one_batch_is_refused(path):
    with Journal.open(path, HEADER, resume=False) as journal, pytest.raises(InputError, match="'b' again"):
        journal.append([{"id": "b"}, {"id": "b"}])


def test_a_header_that_is_not_json_is_refused(path):
    with pytest.raises(InputError, match="header"):
        Journal.open(path, {"model": object()}, resume=False)
    assert not path.exists()


def test_two_runs_cannot_write_the_same_journal(path):
    code = (
        "import sys; from calibwrap.journal import Journal; from calibwrap.errors import JournalError\n"
        "try: Journal.open(sys.argv[1], {}, resume=True)\n"
        "except JournalError as error: print(error)"
    )
    with Journal.open(path, HEADER, resume=False) as journal:
        with pytest.raises(JournalError, match="Another process is writing"):
            Journal.open(path, HEADER, resume=True)
        assert "Another process is writing" in run(code, path).stdout
        journal.append([{"id": "a"}])
    with Journal.open(path, HEADER, resume=True) as journal:
        assert list(journal.done) == ["a"]


def test_a_refused_journal_lets_go_of_its_lock(path):
    written(path, "a")
    with pytest.raises(JournalError, match="--resume"):
        Journal.open(path, HEADER, resume=False)
    Journal.open(path, HEADER, resume=True).close()


def test_a_closed_journal_says_so(path):
    journal = Journal.open(path, HEADER, resume=False)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append([{"id": "a"}])


def test_a_path_that_cannot_be_a_journal(tmp_path):
    with pytest.raises(JournalError, match="Is a directory"):
        Journal.open(tmp_path, HEADER, resume=False)
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open(tmp_path / "file" / "journal.jsonl", HEADER, resume=False)


def test_kill_minus_nine_loses_at_most_the_batch_in_flight(path):
    """A real process appends batches as fast as it can and tells what it has been promised; then it is killed."""
    code = (
        "import sys; from calibwrap.journal import Journal\n"
        "journal = Journal.open(sys.argv[1], {}, resume=True)\n"
        "start = len(journal.done)\n"
        "for batch in range(10**9):\n"
        "    names = [f'{start}-{batch}-{i}' for i in range(3)]\n"
        "    journal.append([{'id': name, 'filling': 'x' * 5000} for name in names])\n"
        "    print(names[-1], flush=True)\n"
    )
    promised = []
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        promised.append(process.stdout.readline())
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        promised += process.communicate(timeout=60)[0].splitlines()
        assert process.returncode == -signal.SIGKILL
        with Journal.open(path, {}, resume=True) as journal:
            assert {line.strip() for line in promised} <= set(journal.done)
            assert path.read_bytes().endswith(b"\n")


FULL = """
import json, resource, sys
from calibwrap.errors import JournalError
from calibwrap.journal import Journal
journal = Journal.open(sys.argv[1], {}, resume=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (21_000, resource.RLIM_INFINITY))
try:
    for batch in range(100):
        journal.append([{"id": f"{batch}-{i}", "filling": "x" * 300} for i in range(10)])
except JournalError as error:
    told = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
done = len(journal.done)
journal.append([{"id": "after"}])
print(json.dumps([told, done]))
"""


def test_no_room_left_keeps_every_whole_line_and_can_go_on(path):
    """The limit on a file's size stops a real write in the middle of a line; a full disk takes the same way."""
    said = run(FULL, path)
    told, done = json.loads(said.stdout)
    assert told.startswith(f"The disk is full: {done} finished questions are safe in {path}.")
    assert "\n" not in told
    assert done % 10 != 0, "the limit must fall inside a batch for this test to mean something"
    with Journal.open(path, {}, resume=True) as journal:
        assert (len(journal.done), journal.torn) == (done + 1, 0)
        assert list(journal.done)[-1] == "after"


def test_a_disk_that_fails_to_confirm_is_not_believed(path, monkeypatch):
    """A failing fsync cannot be had on demand: the batch is taken back, because nobody knows what reached the disk."""
    with Journal.open(path, HEADER, resume=False) as journal:
        journal.append([{"id": "a"}])
        before = path.read_bytes()
        real, fails = os.fsync, iter([True])

        def fsync(handle):
            if next(fails, False):
                raise OSError(5, "Input/output error")
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(JournalError, match=r"Writing failed \(Input/output error\): 1 finished"):
            journal.append([{"id": "b"}, {"id": "c"}])
        assert path.read_bytes() == before
        journal.append([{"id": "b"}])
        assert list(journal.done) == ["a", "b"]


def test_a_file_that_cannot_be_mended_is_closed(path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    journal = Journal.open(path, HEADER, resume=False)
    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr(os, "ftruncate", broken)
    with pytest.raises(JournalError, match="0 finished questions are safe"):
        journal.append([{"id": "a"}])
    with pytest.raises(JournalError, match="is closed"):
        journal.append([{"id": "a"}])


@given(tail=st.binary(max_size=60), position=st.integers(0, 200))
def test_any_damage_gives_a_journal_or_a_named_error(tmp_path_factory, tail, position):
    path = written(tmp_path_factory.mktemp("damage") / "journal.jsonl", "a", "b")
    data = path.read_bytes()
    path.write_bytes(data[:position] + tail)
    error = None
    try:
        with Journal.open(path, HEADER, resume=True) as journal:
            assert all(record["id"] == name for name, record in journal.done.items())
            assert path.read_bytes()[-1:] == b"\n"
    except JournalError as caught:
        error = caught
    assert error is None or str(path) in str(error)
