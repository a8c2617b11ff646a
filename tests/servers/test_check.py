"""The command line against a real llama-server: what it explains, what it compares, and what it pays for once."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import calibwrap as cw

from . import shared

KEY = "sk-test-0123456789abcdef"
SINGLE_THREAD = ("--set", "n_threads=1", "--set", "n_threads_batch=1", "--set", "n_ctx=512")


@pytest.fixture(scope="module")
def server():
    return shared.server("llama-server")


@pytest.fixture
def questions(tmp_path):
    random = np.random.default_rng(0)
    made = [
        cw.Question(f"Is {number} odd?", ["yes", "no", "nobody knows"], answer=int(random.integers(3)), id=f"q{number}")
        for number in range(24)
    ]
    cw.save_questions(made, tmp_path / "qs.jsonl")
    return tmp_path / "qs.jsonl"


def command(*words):
    return [str(Path(sys.executable).with_name("calibwrap")), *map(str, words)]


def settings(server, name="--set"):
    return (name, f"base_url={server.base_url}", name, f"api_key={KEY}", name, "top_logprobs=400")


def run(*words):
    """Run a command in a process of its own: its JSON, and everything that it printed."""
    done = subprocess.run(command(*words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert KEY not in done.stdout + done.stderr
    return done.stdout


def test_a_real_server_is_explained(server):
    found = json.loads(run("check", f"openai:{server.model}", *settings(server), "--json"))
    assert found["provides"]["top"] > 20
    assert "llama" in found["probe"]["Server"]
    assert found["readouts"]["label:letter"]["works"], found["readouts"]
    assert "probabilities of whole answers" in found["readouts"]["continuation:sum:cloze"]["reason"]
    assert found["usage"]["requests"] > 0


def test_the_same_weights_are_the_same_here_and_behind_the_server(server, questions):
    words = ("check", f"llama-cpp:{shared.model().gguf}", *SINGLE_THREAD, "--against", f"openai:{server.model}")
    own = settings(server, "--against-set")
    found = json.loads(run(*words, *own, "--data", questions, "--readout", "label", "--tolerance", "0.005", "--json"))
    assert found["within_tolerance"] is True
    assert found["raw"]["largest"] < 0.005
    assert found["raw"]["same_choice"] > 0.9
    assert found["verdict"]["move"] == "check"
    assert found["usage"]["model"] == {}
    assert found["usage"]["against"]["requests"] >= 24


def test_a_killed_run_pays_for_nothing_twice_and_leaves_no_key(server, questions, tmp_path):
    out = tmp_path / "run"
    words = ("evaluate", f"openai:{server.model}", *settings(server), "--set", "max_concurrency=1", "--data", questions)
    words += ("--readout", "label", "--out", out)
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = out / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.005)
        if process.poll() is not None:
            break
    process.kill()
    process.wait()
    found = json.loads(run(*words, "--resume", "--json"))
    whole = json.loads(run(*words[:-1], tmp_path / "whole", "--json"))
    for name, figure in whole["series"]["raw"].items():  # this server is not the same to the last bit when asked again
        assert found["series"]["raw"][name]["value"] == pytest.approx(figure["value"], abs=1e-4), name
    rows = [json.loads(line)["id"] for line in journal.read_text().splitlines()[1:]]
    assert rows == [f"q{number}" for number in range(24)]
    assert found["usage"]["requests"] < whole["usage"]["requests"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"responses.sqlite", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert Path(tmp_path / "whole" / "metrics.json").exists()
