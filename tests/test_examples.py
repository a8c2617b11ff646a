"""Every example runs as a user runs it; the plug-ins of the documentation are found like installed ones."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.data import packaged_model
from calibwrap.testing import adapter_checks, calibrator_checks, fit_checks
from tests.servers import real

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PAGES = {"add-an-adapter.md": "table_adapter.py", "add-a-calibrator.md": "top_bias.py"}
CORPUS = "".join(f"Question: What is {n} plus {n}?\nAnswer: {2 * n}\n" for n in range(1, 60))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like an installed package with both plug-ins, at the front of every Python's path."""
    info = tmp_path / "site" / "plug_ins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-ins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[calibwrap.adapters]\ntable = table_adapter:Table\n[calibwrap.calibrators]\ntop-bias = top_bias:TopBias\n"
    )
    for path in (EXAMPLES, info.parent):
        monkeypatch.syspath_prepend(str(path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(EXAMPLES), str(info.parent))))
    for name, text in (("sharp.txt", CORPUS), ("flat.txt", CORPUS[: len(CORPUS) // 8])):
        (tmp_path / name).write_text(text)
    cw.save_questions(
        [cw.Question(f"What is {n} plus {n}?", [str(2 * n), str(n)], answer=0, id=f"q{n}") for n in range(1, 61)],
        tmp_path / "questions.jsonl",
    )
    return tmp_path


def printed(block: str) -> list[str]:
    """What a block's comments say that it prints: behind a print, or on lines of their own."""
    lines = [line.rpartition("  # ")[2] if "print(" in line and "  # " in line else line for line in block.splitlines()]
    kept = zip(lines, block.splitlines(), strict=True)
    return [line.removeprefix("# ") for line, whole in kept if line != whole or line.startswith("# ")]


def run(script: str, folder: Path, *words: str, ignore: str = "no warning") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-W", f"ignore:{ignore}", str(EXAMPLES / script), *words],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(("page", "example"), PAGES.items())
def test_a_page_shows_the_example_as_it_is(page: str, example: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert first is not None
    assert first[1].strip() == (EXAMPLES / example).read_text(encoding="utf-8").split("\n\nif __name__")[0].strip()


@pytest.mark.parametrize("page", [*PAGES, "metrics.md"])
def test_a_page_prints_what_its_comments_say(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__docs__"}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, page, "exec"), names)  # noqa: S102 - our own pages
        assert capsys.readouterr().out.splitlines() == printed(block)


def test_the_table_is_a_conforming_adapter_that_counts_right() -> None:
    table_adapter = module("table_adapter")
    adapter = table_adapter.Table(table_adapter.count_bytes("ab\nab\nac\n"))
    assert {check.outcome.split(":")[0] for check in adapter_checks(adapter)} == {"passed", "not applicable"}
    (after_a,) = adapter.next_token(["a"], top=2)
    assert after_a.ids.tolist() == [[ord("b"), ord("c")]]
    assert np.exp(after_a.logprobs[0]) == pytest.approx([2.01 / (3 + 2.57), 1.01 / (3 + 2.57)])


def test_an_adapter_is_found_through_its_entry_point(installed: Path) -> None:
    lm = cw.wrap(f"table:{installed / 'sharp.txt'}")
    assert lm.adapter.fingerprint().model == "byte-table"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("calibwrap")), "ask", "table:sharp.txt", "What is 2 plus 2?", "-o4", "-o7"],
        cwd=installed, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with pytest.raises(cw.errors.InputError, match="No adapter knows"):
        cw.wrap(object())


def test_an_installed_calibrator_passes_every_check_and_comes_back_from_its_file(installed: Path) -> None:
    from top_bias import TopBias, fit_top_bias  # as an entry point finds it

    assert all(not check.outcome.startswith("exempt") for check in calibrator_checks(TopBias(0.5, -0.7)))
    assert {check.outcome for check in fit_checks(fit_top_bias)} == {"passed"}
    cw.save(TopBias(0.5, -0.7), installed / "top-bias.json")
    assert cw.load(installed / "top-bias.json") == TopBias(0.5, -0.7)
    (installed / "bad.json").write_text((installed / "top-bias.json").read_text().replace("0.5", "-0.5"))
    with pytest.raises(cw.errors.SavedFileError, match="sharpness"):
        cw.load(installed / "bad.json")


def test_the_bias_is_what_was_planted_and_refuses_what_it_cannot_fit() -> None:
    top_bias = module("top_bias")
    with pytest.raises(cw.errors.FitError, match="probability 0"):
        top_bias.fit_top_bias([[0.0, -np.inf], [0.0, 0.0]], [1, 0])
    cut = cw.OptionScores(np.log([[0.8, 0.2]]), readout="label", missing=np.array([[False, True]]))
    with pytest.raises(cw.errors.FitError, match="cut off"):
        top_bias.fit_top_bias(cut, [0])
    fitted = top_bias.fit_top_bias(np.log([[0.9, 0.1]] * 4), [0, 0, 0, 1])  # any map to 3/4 is the best
    assert np.exp(fitted(np.log([[0.9, 0.1]])))[0, 0] == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize("script", ["table_adapter.py", "top_bias.py"])
def test_plug_ins_show_their_checks(script: str, tmp_path: Path) -> None:
    assert run(script, tmp_path).count(": passed") > 15


def test_calibrate_without_labels(installed: Path) -> None:
    told = run(
        "calibrate_without_labels.py", installed, "table:sharp.txt", "table:flat.txt", "questions.jsonl", "c.json"
    )
    calibrator = cw.load(installed / "c.json")
    assert isinstance(calibrator, cw.Temperature)
    assert f"Temperature {calibrator.value:.2f}" in told
    assert calibrator.report is not None
    assert calibrator.report.method == "daca"
    assert f"{calibrator.report.rows_used} of 60" in told


@pytest.mark.model
def test_daca_on_a_real_server_costs_nothing_the_second_time(installed: Path) -> None:
    """A chat model behind llama-server, after a base model that writes sums rather than letters."""
    with real.llama_server(packaged_model("smollm2-135m-instruct")) as server:
        words = [server.model, "questions.jsonl", "c.json", "--base-url", server.base_url, "--limit", "30"]
        first, again = (run("daca_on_an_api.py", installed, *words, ignore="The labels together") for _ in range(2))
    calibrator = cw.load(installed / "c.json")
    assert isinstance(calibrator, cw.Temperature)
    assert calibrator.report is not None
    assert calibrator.report.provenance is not None
    assert (calibrator.report.method, calibrator.report.provenance.runtime) == ("daca", "openai")
    assert f"Temperature {calibrator.value:.2f}" in first
    assert "'prompt_tokens': 0, 'completion_tokens': 0" in again
    assert first.partition("Spent")[0] == again.partition("Spent")[0]


def test_the_api_example_is_short_and_its_address_is_an_argument() -> None:
    text = (EXAMPLES / "daca_on_an_api.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert '"base_url": chosen.base_url' in text


@pytest.mark.model
def test_own_template_on_a_real_model(installed: Path) -> None:
    spec = f"llama-cpp:{packaged_model('smollm2-135m-instruct')}"
    one = '{"n_threads": 1, "n_threads_batch": 1}'
    lines = run("own_template.py", installed, spec, "questions.jsonl", "--limit", "4", "--set", one).splitlines()
    assert [line.split()[0].split("-")[0] for line in lines[1:]] == [
        "continuation:token:cloze", "continuation:token:exam", "label:letter", "label:one",
    ]  # fmt: skip


def test_streaming_state_notices_the_drift(tmp_path: Path) -> None:
    lines = run("streaming_calibration_state.py", tmp_path).splitlines()
    assert ["over-confident" in line for line in lines[:-1]] == [False] * 4 + [True] * 2
    assert "24000 answers" in lines[-1]
