"""What a resumed run would do, told without doing it; and logs of other versions, which are refused by key."""

import json

import pytest

from calibwrap.errors import JournalError
from calibwrap.training import train
from calibwrap.training.log import open_log
from calibwrap.training.plan import plan
from calibwrap.training.reading import METHODS
from calibwrap.training.resuming import beginning

from . import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resuming")
    runs.prepare(folder)
    return folder


def changed_header(path, change):
    """Rewrite the first line of a log as `change` leaves it."""
    first, *rest = path.read_text().splitlines(keepends=True)
    header = json.loads(first)
    change(header["run"])
    path.write_text("".join([json.dumps(header) + "\n", *rest]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: run.pop("held_out"), "held_out is absent in the log and None now"),
        (lambda run: run["train"].pop("limit"), r"train\.limit is absent in the log and None now"),
        (lambda run: run.pop("seed"), "seed is absent in the log and 0 now"),
        (lambda run: run.update(retired=None), "retired is None in the log and absent now"),
    ],
)
def test_a_log_of_another_version_is_refused_by_key(folder, tmp_path, change, told):
    """Also where the value is none, which a comparison of values alone would take for the same."""
    asked = runs.settings(folder, output=tmp_path, held_out=None)
    with open_log(asked, (), resume=False) as log:
        log.write_step(1, {"loss": 0.5})
    with open_log(asked, (), resume=True):
        pass
    changed_header(tmp_path / "training.jsonl", change)
    before = (tmp_path / "training.jsonl").read_bytes()
    with pytest.raises(JournalError, match=rf"{told}.*that version of calibwrap"), open_log(asked, (), resume=True):
        pass
    with pytest.raises(JournalError, match=told):
        beginning(asked, (), resume=True)
    assert (tmp_path / "training.jsonl").read_bytes() == before


def test_a_head_goes_on_with_what_was_recorded(folder):
    sets = {name: {"source": str(folder / f"{name.replace('_', '-')}.jsonl")} for name in ("train", "held_out")}
    output = folder / "head.safetensors"
    asked = METHODS["head"].model_validate({"model": "hf:m", "output": output, **sets})
    assert plan(asked).begins == "from the beginning"
    (folder / "head.positions").mkdir()
    assert plan(asked).begins.startswith(f"with what was recorded in {folder / 'head.positions'}; refused if")
    output.write_bytes(b"")
    with pytest.raises(JournalError, match="is there already"):
        plan(asked)
    assert plan(asked, resume=True).begins.startswith("with what was recorded")


def test_what_is_no_log_is_told(folder, tmp_path):
    asked = runs.settings(folder, output=tmp_path, held_out=None)
    for text in ("[]\n", "no JSON\n", '"text"\n'):
        (tmp_path / "training.jsonl").write_text(text)
        with pytest.raises(JournalError, match="is no log of a training run"):
            beginning(asked, (), resume=True)
    (tmp_path / "training.jsonl").write_text('{"format": "calib')  # killed while it was begun
    assert "nothing to resume" in beginning(asked, (), resume=True)


def test_every_state_of_the_output_folder_is_told_and_left_as_it_is(folder):
    asked = runs.settings(folder, "run", max_steps=4, held_out=None)

    def stop(done, total):
        if done == 3:
            raise RuntimeError("the power went")

    assert plan(asked).begins == "from the beginning"
    assert plan(asked, resume=True).begins == "from the beginning: there is nothing to resume"
    with pytest.raises(RuntimeError):
        train(asked, progress=stop)
    place = asked.output / "checkpoints" / "checkpoint-2"
    found = {path: path.stat().st_mtime_ns for path in asked.output.rglob("*")}
    assert plan(asked, resume=True).begins == f"after step 2 of 4, with {place}"
    with pytest.raises(JournalError, match="Pass --resume"):
        plan(asked)
    with pytest.raises(JournalError, match=r"learning_rate is 0\.01 in the log and 0\.5 now"):
        plan(runs.settings(folder, "run", max_steps=4, held_out=None, learning_rate=0.5), resume=True)
    assert {path: path.stat().st_mtime_ns for path in asked.output.rglob("*")} == found
    (place / "trainer_state.json").write_text("{")
    assert plan(asked, resume=True).begins == "from the beginning: the earlier run left no whole checkpoint"
    assert train(asked, resume=True).finished
    assert plan(asked, resume=True).begins == f"not at all: the run is finished, and its results are in {asked.output}"
    log = asked.output / "training.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"finished"' not in line))
    assert plan(asked, resume=True).begins.endswith("checkpoint-4: weights and model card are to be written")
    log.unlink()
    with pytest.raises(JournalError, match="the log of their run, is missing"):
        plan(asked, resume=True)
