"""`calibwrap train --dry-run`: where a run would begin, and what would end it at once; nothing is written."""

import json

import pytest
import yaml

from tests.training import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    runs.prepare(folder)
    return folder


def written(folder, path, **changed):
    """Return `path`, which says what a short run into `folder / path.stem` is asked for."""
    values = runs.settings(folder, path.stem, held_out=None, **changed).model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump({**values, "method": "cft"}))
    return str(path)


def test_a_dry_run_says_where_a_resumed_run_would_begin(run, folder):
    path = written(folder, folder / "again.yaml", max_steps=1)
    code, out, err = run("train", path, "--dry-run", "--resume", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["begins"] == "from the beginning: there is nothing to resume"
    assert not (folder / "again").exists()
    assert run("train", path, "--json")[0] == 0
    code, out, _ = run("train", path, "--dry-run", "--resume")
    assert code == 0
    assert "not at all: the run is finished" in " ".join(out.split())
    code, out, err = run("train", path, "--dry-run")
    assert (code, out) == (1, "")
    assert "Pass --resume to go on with it" in err
    code, out, _ = run("train", written(folder, folder / "again.yaml", max_steps=2), "--dry-run", "--resume", "--json")
    assert code == 1
    assert "max_steps is 1 in the log and 2 now" in json.loads(out)["error"]


def test_a_dry_run_tells_a_question_that_is_too_long(run, folder):
    code, out, err = run("train", written(folder, folder / "short.yaml", max_length=8), "--dry-run")
    assert (code, out) == (1, "")
    assert "and 'max_length' is 8" in err
    assert not (folder / "short").exists()
