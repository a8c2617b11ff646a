"""Two processes with half the batch each learn what one process learns with the whole."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from calibwrap.training import train
from calibwrap.training.checkpoints import last_checkpoint

from . import runs

CASES: dict[str, dict] = {
    "catto": {"weight": 0.5},
    "rcft": {"n_bins": 2, "least_in_bin": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder in which two processes have run each case, in one pair of processes."""
    folder = tmp_path_factory.mktemp("distributed")
    runs.prepare(folder)
    paths = [written(settings(folder, "catto", "stopped", batch_size=2, held_out=None), folder / "stopped.yaml")]
    paths += [written(settings(folder, method, "two", batch_size=2), folder / f"{method}.yaml") for method in CASES]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("distributed_run.py")
    done = subprocess.run(
        [sys.executable, str(script), str(port), *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


def written(asked, path):
    """Return `path`, which says what is asked for."""
    path.write_text(yaml.safe_dump(asked.model_dump(mode="json", exclude_unset=True) | {"method": asked.method}))
    return path


def settings(folder, method, name, **changed):
    options = {"max_steps": 4, "lora": None, "learning_rate": 1e-3, "save_steps": 4, **CASES[method], **changed}
    return runs.settings(folder, f"{method}-{name}", method, **options)


@pytest.mark.parametrize("method", CASES)
def test_two_processes_learn_as_one(folder, method):
    one = train(settings(folder, method, "one"))
    two = folder / f"{method}-two"
    losses = []
    for output in (one.output, two):
        lines = [json.loads(line) for line in (output / "training.jsonl").read_text().splitlines()[1:]]
        losses.append([line["loss"] for line in lines if "loss" in line])
        assert [line["step"] for line in lines if "held_out" in line] == [0, 2, 4]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)
    mine, theirs = (load_file(path / "weights" / "model.safetensors") for path in (one.output, two))
    for name, weight in mine.items():
        np.testing.assert_allclose(theirs[name], weight, atol=1e-4, err_msg=name)


def test_one_process_that_is_told_to_stop_stops_both_with_a_checkpoint(folder):
    output = folder / "catto-stopped"
    assert last_checkpoint(output / "checkpoints")[1] == 2
    assert not (output / "weights").exists()
    assert {path.name for path in (output / "checkpoints" / "checkpoint-2").glob("rng_state*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
