"""The cache file: found again, safe for two, and every way in which a file can be bad."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.adapters import _openai_cache as module
from calibwrap.adapters._openai_cache import Cache, Entry, request_text
from calibwrap.adapters._openai_transport import Request
from calibwrap.errors import JournalError
from tests.adapters.openai_clients import connected
from tests.servers.fault import FaultServer


def entry(key: str, version: str = "v1", sent: float = 1.0, created: float = 2.0, **reply: Any) -> Entry:
    return Entry(key, "target", version, "m", sent, created, '{"body":{}}', json.dumps(reply))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A cache with one answer, closed."""
    path = tmp_path / "answers.sqlite"
    cache = Cache(path)
    cache.put(entry("k", answer=1))
    cache.close()
    return path


@pytest.fixture
def cache(file: Path) -> Iterator[Cache]:
    opened = Cache(file)
    yield opened
    opened.close()


def test_an_answer_is_found_by_the_next_process(file: Path, cache: Cache) -> None:
    assert cache.get("k") == {"answer": 1}
    assert cache.get("other") is None
    assert len(cache) == 1


def test_a_closed_cache_is_one_file(file: Path) -> None:
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_newest_answer_to_a_request_counts(cache: Cache) -> None:
    cache.put(entry("k", created=3.0, answer=2))
    assert cache.get("k") == {"answer": 2}


def test_a_version_that_was_replaced_is_kept_and_not_used_until_it_is_met_again(cache: Cache) -> None:
    assert cache.put(entry("l", "v2", sent=9.0, created=10.0)) == "'m' (v1) before, 'm' (v2) now"
    assert cache.get("k") is None
    assert cache.put(entry("n", "v1", sent=9.5, created=10.5)) == ""  # was on its way when v2 appeared
    assert cache.get("k") is None
    cache.put(entry("n", "v1", sent=11.0, created=12.0))
    assert cache.get("k") == {"answer": 1}
    assert cache.get("l") is not None
    assert len(cache) == 4


def test_what_a_row_says(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    request = Request("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Q?"}]}, 100)
    with FaultServer() as server, connected(server.url, cache=path) as transport:
        [reply] = transport.send([request])
    connection = sqlite3.connect(path)
    [row] = connection.execute("SELECT system_fingerprint, model, request, reply FROM replies")
    connection.close()
    assert row[:2] == ("fp_first", "m")
    assert json.loads(row[2]) == {"method": "POST", "path": request.path, "body": request.body}
    assert json.loads(row[3]) == reply.body


def test_only_the_same_request_finds_an_answer(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Q?"}], "max_tokens": 1}
    other = [
        Request("/completions", {"model": "m", "prompt": "Q?"}, 10),
        Request("/chat/completions", {**body, "temperature": 0.0}, 10),
        Request("/chat/completions", {**body, "top_logprobs": 0}, 10),
        Request("/models", {}, 10, method="GET"),
    ]
    turned = Request("/chat/completions", dict(reversed(body.items())), 999)
    cache = tmp_path / "answers.sqlite"
    with FaultServer() as first, FaultServer() as second:
        with connected(first.url, cache=cache) as transport:
            transport.send([Request("/chat/completions", body, 10)])
            assert [reply.cached for reply in transport.send([turned, *other])] == [True, False, False, False, False]
        with connected(second.url, cache=cache) as transport:
            assert not transport.send([turned])[0].cached


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_the_text_of_a_request_knows_its_value_and_not_its_order(body: dict[str, Any], dice: Any) -> None:
    shuffled = dict(dice.sample(list(body.items()), len(body)))
    assert request_text("POST", "/x", shuffled) == request_text("POST", "/x", body)
    assert json.loads(request_text("POST", "/x", body)) == {"method": "POST", "path": "/x", "body": body}


WRITER = """
import sys
from calibwrap.adapters._openai_cache import Cache, Entry
print("ready", flush=True)
sys.stdin.readline()
cache = Cache(sys.argv[1])
for number in range(50):
    cache.put(Entry(f"{sys.argv[2]}-{number}", "t", "", "m", 1.0, 2.0, "{}", '{"answer": 1}'))
cache.close()
"""


def test_several_processes_may_make_and_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    command = [sys.executable, "-P", "-c", WRITER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen([*command, name], text=True, **pipes) for name in "abc"]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all make the file at the same moment
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    cache = Cache(path)
    assert len(cache) == 150
    assert all(cache.get(f"{name}-{number}") for name in "abc" for number in range(50))
    cache.close()


def not_sqlite(path: Path) -> None:
    path.write_text("This is a letter to somebody.\n" * 100)


def other_database(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE letters (text TEXT)")


def newer(path: Path) -> None:
    change(path, f"PRAGMA user_version = {module.VERSION + 1}")


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def below_a_file(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.write_text("a file where the folder was")


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (not_sqlite, "not an SQLite file. Choose another"),
        (other_database, "database of something else. Choose another"),
        (newer, "format version 2, and this calibwrap reads 1"),
        (cut_in_half, "damaged. Move it away"),
        (a_folder, "cannot be opened. Choose a file"),
        (below_a_file, "cannot be used .*Mend that"),
    ],
)
def test_a_bad_file_is_named_with_what_to_do(spoil: Callable[[Path], None], words: str, file: Path) -> None:
    spoil(file)
    with pytest.raises(JournalError, match=words) as caught:
        Cache(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("reply", ["{half", "[1]"])
def test_a_damaged_answer_is_not_handed_out(reply: str, file: Path) -> None:
    change(file, f"UPDATE replies SET reply = '{reply}'")
    cache = Cache(file)
    with pytest.raises(JournalError, match="damaged: an answer is no"):
        cache.get("k")
    cache.close()


def test_a_file_that_can_only_be_read_is_found_before_anything_is_paid(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.connect

    def read_only(path: Path, **options: Any) -> sqlite3.Connection:
        return real(f"file:{path}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(JournalError, match=r"read-only\. Make the file and its folder writable"):
        Cache(file)


def test_another_process_that_keeps_the_lock_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)
    cache = Cache(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked by another process"):
        cache.put(entry("new"))
    other.execute("ROLLBACK")
    other.close()
    cache.close()
    cache = Cache(file)
    assert cache.get("new") is not None, "what could not be written is written by closing"
    cache.close()


def test_nothing_is_lost_when_the_disk_is_full(cache: Cache) -> None:
    connection = cache._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match=r"disk is full. Free some space.* 1 answer that came is held"):
        cache.put(entry("big", text="x" * 100_000))
    with pytest.raises(JournalError, match="2 answers that came are held"):
        cache.put(entry("small", text="y" * 100_000))
    assert cache.get("k") == {"answer": 1}
    assert cache.get("big") == {"text": "x" * 100_000}
    assert len(cache) == 1
    connection.execute("PRAGMA max_page_count = 1000000")
    cache.put(entry("last"))
    assert len(cache) == 4
