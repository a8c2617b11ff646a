"""What happens to a long run on a real model: killed half-way, disk full, model file cut; nothing finished is lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calibwrap.data import packaged_model

pytestmark = pytest.mark.model
QUESTIONS = 12


def command(spec: str, out: Path, *more: str) -> list[str]:
    program = str(Path(sys.executable).with_name("calibwrap"))
    data = ("--data", "arc_easy", "--limit", str(QUESTIONS))
    return [
        program,
        "evaluate",
        spec,
        *data,
        "--out",
        str(out),
        "--set",
        "n_threads=1",
        "--set",
        "n_threads_batch=1",
        *more,
    ]


@pytest.fixture(scope="module")
def spec() -> str:
    return f"llama-cpp:{packaged_model('smollm2-135m-instruct')}"


@pytest.fixture(scope="module")
def whole(spec: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, to compare with."""
    out = tmp_path_factory.mktemp("whole")
    subprocess.run(command(spec, out), check=True, capture_output=True)
    return out


def lines(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True) if journal.exists() else []


def test_kill_9_half_way_loses_no_finished_question(spec: str, whole: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    process = subprocess.Popen(command(spec, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(lines(journal)) < 1 + QUESTIONS // 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = [line for line in lines(journal) if line.endswith(b"\n")]
    assert QUESTIONS // 3 < len(finished) <= QUESTIONS, "the kill came too early or too late to show anything"
    assert not (tmp_path / "metrics.json").exists()
    done = subprocess.run(command(spec, tmp_path, "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert lines(journal)[: len(finished)] == finished
    assert len(lines(journal)) == 1 + QUESTIONS
    for name in ("predictions.jsonl", "metrics.json"):
        assert (tmp_path / name).read_text() == (whole / name).read_text()


def test_full_disk_while_the_journal_is_written_is_one_sentence_and_can_be_resumed(
    spec: str, whole: Path, tmp_path: Path
) -> None:
    room = sum(map(len, lines(whole / "journal.jsonl")[:6])) + 20  # the header, five questions, a part of the sixth

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    full = subprocess.run(command(spec, tmp_path), capture_output=True, text=True, preexec_fn=small_disk)
    assert full.returncode == 1
    [sentence] = [line for line in full.stderr.splitlines() if line.startswith("Error: ")]
    assert "5" in sentence
    assert "Traceback" not in full.stderr
    assert lines(tmp_path / "journal.jsonl") == lines(whole / "journal.jsonl")[:6]
    done = subprocess.run(command(spec, tmp_path, "--resume", "--json"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["series"] == json.loads((whole / "metrics.json").read_text())["series"]


@pytest.mark.parametrize("runtime", ["hf", "llama-cpp"])
def test_a_model_file_cut_in_half_is_one_sentence(runtime: str, tmp_path: Path) -> None:
    original = packaged_model("smollm2-135m-instruct")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(original.read_bytes()[: original.stat().st_size // 2])
    done = subprocess.run(command(f"{runtime}:{cut}", tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert "cut.gguf" in done.stderr
    assert "Traceback" not in done.stderr
