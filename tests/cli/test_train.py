"""`calibwrap train`: settings out of YAML, plans, runs, and sentences for what is wrong."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

import calibwrap as cw
from calibwrap.errors import InputError
from calibwrap.readouts import find_readout
from calibwrap.training.reading import METHODS, read_settings
from calibwrap.training.settings import TrainSettings
from tests.training import runs

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    runs.prepare(folder)
    return folder


@pytest.fixture
def config(folder, tmp_path):
    """Return a function that writes the settings of a short run to a file."""

    def write(name="run", **changed):
        values = runs.settings(folder, name).model_dump(mode="json", exclude_unset=True)
        values.pop("method", None)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**values, "output": str(tmp_path / name), **changed}))
        return path

    return write


def test_a_run_from_a_file(run, config, tmp_path):
    path = config(max_steps=2)
    code, out, err = run("train", "cft", str(path))
    assert code == 0, err
    assert "accuracy" in out
    assert str(tmp_path / "run" / "weights") in err
    code, out, err = run("train", "cft", str(path), "--resume", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["steps"] == 2
    assert found["was_finished"]
    assert found["after"]["accuracy"]["value"] is not None
    code, out, err = run("train", "cft", str(path), "--resume")
    assert (code, "accuracy" in out) == (0, True)
    assert f"finished before: nothing was trained now. Its results are in {tmp_path / 'run'}\n" in err
    code, _, err = run("train", "cft", str(path))
    assert code == 1
    assert "--resume" in err


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("catto", {}),
        ("rcft", {"least_in_bin": 2}),
        ("rewarding-doubt", {"algorithm": "exact", "max_length": 300}),
    ],
)
def test_every_method_runs(run, config, tmp_path, method, changed):
    code, out, err = run("train", method, str(config(method, max_steps=1, batch_size=2, **changed)), "--json")
    assert code == 0, err
    assert json.loads(out)["method"] == method
    assert (tmp_path / method / "weights" / "model.safetensors").exists()


def test_a_head_is_trained_on_a_frozen_model(run, folder, tmp_path):
    path = tmp_path / "head.yaml"
    sets = {
        name: {"source": str(folder / f"{file}.jsonl")} for name, file in (("train", "train"), ("held_out", "held-out"))
    }
    spec = f"hf:{folder / 'model' / 'weights'}"
    path.write_text(
        yaml.safe_dump({"model": spec, "output": str(tmp_path / "head.safetensors"), "max_epochs": 3, **sets})
    )
    code, out, err = run("train", "head", str(path), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["method"] == "head"
    head = cw.load(tmp_path / "head.safetensors")
    assert head.kind == "catto-head"
    for state in ("before", "temperature", "after"):
        assert f"{found[state]['ece_tokens']['value']:.3f}" in " ".join(head.report.notes)
    code, out, err = run("train", "head", str(path))
    assert (code, out) == (1, "")
    assert "head.safetensors is there already. Pass --resume" in " ".join(err.split())
    code, out, err = run("train", "head", str(path), "--resume")
    assert code == 0, err
    for said in ("they also chose the epoch", "before", "temperature", "after", "ECE of answers"):
        assert said in out


def test_a_dry_run_says_what_would_happen(run, config, tmp_path):
    path = config(method="catto")
    code, out, _ = run("train", str(path), "--dry-run")
    assert code == 0
    assert "18 to train on, 10 held out" in out
    assert "optimizer states" in out
    code, out, err = run("train", "catto", str(path), "--dry-run", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["memory"]["total"] == sum(size for name, size in found["memory"].items() if name != "total")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(run, config, monkeypatch, tmp_path, number, code):
    from calibwrap.training.callbacks import LogCallback

    told = LogCallback.on_step_end

    def on_step_end(self, args, state, control, **rest):
        told(self, args, state, control, **rest)
        if state.global_step == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(LogCallback, "on_step_end", on_step_end)
    said = "Stopped after step 1 of 5, with a checkpoint: the same command with --resume goes on there."
    ended, out, err = run("train", "cft", str(config(held_out=None)))
    assert (ended, out) == (code, "")
    assert f"Error: {said}" in err
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-1" / "trainer_state.json").exists()
    ended, out, _ = run("train", "cft", str(config("again", held_out=None)), "--json")
    assert ended == code
    assert json.loads(out) == {"error": said, "type": "Interrupted"}


def test_without_torch_the_missing_package_is_what_is_told(run, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as an import of what is not installed ends
    code, out, err = run("train", "cft", str(config()))
    assert (code, out) == (1, "")
    assert "torch" in err
    assert "calibwrap[train]" in err


@pytest.mark.parametrize(
    ("changed", "words", "sentence"),
    [
        ({"weigth": 0.1}, ["catto"], "'weigth' is unknown (did you mean 'weight'?)"),
        ({"lora": {"rang": 4}}, ["cft"], "'lora.rang' is unknown"),
        ({"seed": 2**32}, ["cft"], "'seed': input should be less than or equal to 4294967295"),
        ({"weight": float("inf")}, ["catto"], "'weight': input should be a finite number, got inf"),
        ({"lora": {"targets": "["}}, ["cft"], "a text names layers by a regular expression, and this"),
        ({"max_steps": 0}, ["cft"], "'max_steps': input should be greater than or equal to 1, got 0"),
        ({"model": None}, ["cft"], "'model': input should be a valid string, got None"),
        ({"model": "vllm:m"}, ["cft"], "give a folder, id or file, without 'vllm:', got 'vllm:m'"),
        ({"method": "cft"}, ["catto"], "The command trains 'catto' and"),
        ({"method": "cat"}, [], "(did you mean 'catto'?)"),
        ({"method": ["catto"]}, [], "must be one of catto, cft, head, rcft, rewarding-doubt. Got ['catto']"),
        ({}, [], "'method' in"),
    ],
)
def test_a_wrong_key_is_one_sentence(run, config, changed, words, sentence):
    code, out, err = run("train", *words, str(config(**changed)))
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert sentence in " ".join(err.split())
    assert err.count("\n") == 1


def test_the_runtime_that_trains_may_stand_before_the_model(config, folder):
    path = config(model=f"hf:{folder / 'model' / 'weights'}")
    assert read_settings(path, "cft").model == str(folder / "model" / "weights")


def test_a_missing_key_is_told(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("method: cft\nmodel: m\n")
    with pytest.raises(InputError, match="'output' is missing; 'train' is missing"):
        read_settings(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: [", "no YAML in line"),
        ("model: a\nmodel: b\n", "no YAML in line 2: 'model' is there twice"),
        ("model: a\n[a, b]: 1\n", "no YAML in line 2: a key is no text"),
        ("model: a\nlora: {{a: b}: 1}\n", "no YAML in line 2: a key is no text"),
        ("model: 2020-13-45\n", "no YAML: month must be in 1..12"),
        ("- model\n", "must hold keys and values"),
        ("1: 2\n", "must hold keys and values"),
        ("", "must hold keys and values"),
    ],
)
def test_what_is_no_mapping_is_told(tmp_path, text, sentence):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_settings(path, "cft")
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "nothing.yaml", "cft")


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("method: cft\nmodel: m\noutput: out\ntrain: {source: arc_easy}\nlearning_rate: 2e-4\nlora:\n")
    found = read_settings(path)
    assert (found.learning_rate, found.lora) == (2e-4, None)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("train-*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_valid(path):
    found = read_settings(path)
    assert f"calibwrap train {found.method} examples/{path.name}" in path.read_text()
    assert path.stem == f"train-{found.method}"
    if isinstance(found, TrainSettings):
        find_readout(found.held_out.readout)


def test_there_is_a_preset_for_every_method():
    assert {f"train-{method}.yaml" for method in METHODS} == {
        path.name for path in (ROOT / "examples").glob("train-*.yaml")
    }


def test_wrong_usage_has_exit_code_2(run, config):
    assert run("train")[0] == 2
    assert run("train", "cft", str(config()), "more")[0] == 2
    for words, told in ((("dpo", str(config())), "one of catto, cft, head, rcft"), (("catto",), "train catto CONFIG")):
        code, out, err = run("train", *words)
        assert (code, out) == (2, "")
        assert told in " ".join(err.replace("│", " ").split())


def test_one_tracker_needs_no_list(config):
    assert read_settings(config(report_to="tensorboard"), "cft").report_to == ["tensorboard"]
