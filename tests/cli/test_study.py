"""`calibwrap study`: the table for people and for machines, a dry run, and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.worlds import world, written

pytestmark = pytest.mark.filterwarnings("ignore:The labels together carry")


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    """Write a study of two toys."""
    found = written(tmp_path, world(), count=12)
    (tmp_path / "study.yaml").write_text(
        f"""
models:
- {{stage: one, spec: "toy:0"}}
- {{stage: two, spec: "toy:1"}}
probes:
  generation: {{source: {found["corpus"]}, least_context: 16, positions: 10, events: 100}}
  understanding: {{source: {found["questions"]}, questions: 60, readout: label}}
"""
    )


def test_people_see_the_table_and_machines_all_of_it(run: Any, tmp_path: Path) -> None:
    code, out, err = run("study", "study.yaml", "--out", "s")
    assert code == 0, err
    assert "generation, beside one" in out
    assert "understanding, beside one" in out
    assert (tmp_path / "s" / "table.parquet").exists()
    assert "calibwrap study study.yaml" in (tmp_path / "s" / "report.html").read_text()
    code, out, err = run("study", "study.yaml", "--out", "s")
    assert code == 1
    assert "--resume" in err
    code, out, err = run("study", "study.yaml", "--out", "s", "--resume", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [(row["model"], row["probe"]) for row in told["rows"]] == [
        (model, probe) for model in ("one", "two") for probe in ("generation", "understanding")
    ]


def test_a_dry_run_opens_nothing(run: Any, tmp_path: Path) -> None:
    code, out, err = run("study", "study.yaml", "--out", "s", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["probes"] == {"generation": 10, "understanding": 60}
    assert not (tmp_path / "s").exists()
    code, out, _ = run("study", "study.yaml", "--out", "s", "--dry-run")
    assert code == 0
    assert "toy:1" in out


def test_no_model_at_all_is_an_error_and_says_why(run: Any, tmp_path: Path) -> None:
    text = (
        (tmp_path / "study.yaml").read_text().replace("toy:0", "hf:nowhere/at-all").replace("toy:1", "llama-cpp:x.gguf")
    )
    (tmp_path / "study.yaml").write_text(text)
    code, _, err = run("study", "study.yaml", "--out", "s")
    assert code == 1
    assert "Failed: one" in err
    assert "Failed: two" in err
    assert "No model of the study" in err
    code, out, _ = run("study", "study.yaml", "--out", "s", "--resume", "--json")
    assert code == 1
    assert json.loads(out)["error"] == "No model of the study could be asked."


def test_a_base_that_failed_leaves_no_changes(run: Any, tmp_path: Path) -> None:
    text = (tmp_path / "study.yaml").read_text().replace("toy:0", "llama-cpp:x.gguf")
    (tmp_path / "study.yaml").write_text(f"{text}base: one\n")
    code, out, err = run("study", "study.yaml", "--out", "s")
    assert code == 0, err
    assert "beside one" not in out
    assert "other events" not in out
    assert "Note: The base 'one' has no figures of generation" in err


def test_examples_of_ones_own_need_a_file_of_their_own(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(path.read_text().replace("readout: label", "readout: label, shots: 2"))
    code, _, err = run("study", "study.yaml", "--out", "s")
    assert code == 1
    assert "need 'shots_source'" in err
    path.write_text(path.read_text().replace("shots: 2", f"shots: 2, shots_source: {tmp_path / 'questions.jsonl'}"))
    code, _, err = run("study", "study.yaml", "--out", "s", "--json")
    assert code == 0, err


def test_ctrl_c_tells_how_to_go_on(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from calibwrap.cli import study as command

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "study", stopped)
    code, _, err = run("study", "study.yaml", "--out", "s")
    assert code == 130
    assert "the same command with --resume goes on there" in err
