"""Every Python block of the README and the documentation runs, file by file, in order; every command exists."""

import re
import shlex
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.jsonl").write_text(
        "\n".join(
            f'{{"id": "q{n}", "prompt": "What is {n} plus {n}?", "options": ["{2 * n}", "{2 * n + 1}"], "answer": 0}}'
            for n in range(1, 41)
        ),
        encoding="utf-8",
    )
    names: dict[str, object] = {"__name__": "__docs__"}
    for number, block in enumerate(blocks(page, "python")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a page may show a warning on purpose; tests of code do not
            exec(compile(block, f"{page.name} block {number}", "exec"), names)  # noqa: S102 - our own pages
    assert blocks(page, "python") or page.stem not in ("README", "quickstart", "add-a-calibrator", "add-an-adapter")


def test_the_decision_table_knows_every_method() -> None:
    from calibwrap.calibrators import CONFIDENCE_FITS, FITS

    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    stems = {name.partition(":")[0] for name in (*FITS, *CONFIDENCE_FITS, "probe")}
    assert {stem for stem in stems if not re.search(rf"`{stem}[`:]", page)} == set()


def test_every_method_has_a_page_that_says_the_same_things() -> None:
    from calibwrap.calibrators import CONFIDENCE_FITS, FITS

    stems = {name.partition(":")[0] for name in (*FITS, *CONFIDENCE_FITS)} - {"auto", "auto-confidence"}
    pages = {page.stem: page for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert {"soft-labels" if stem == "soft" else stem for stem in stems} <= set(pages)
    for name, page in pages.items():
        text = page.read_text(encoding="utf-8")
        for said in ("**When**", "**Formula**", "**Source**", "**Cost**", "**Where it fails**", "## Example", "```sh"):
            assert said in text, f"{name} does not say {said}"
        assert blocks(page, "python"), name


def test_the_decision_table_says_whether_the_first_choice_stays() -> None:
    from calibwrap.calibrators import FITS

    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.count(" | ") == 6]
    told = {" ".join(cells[1:5]): cells[5] for cells in rows if cells[5].startswith(("stays", "may change"))}
    assert {stays.partition(",")[0] for stays in told.values()} == {"stays", "may change"}
    for methods, stays in told.items():
        named = {*re.findall(r"`([a-z:-]+)`", methods)} - {"auto"}  # which chooses among all of them
        assert all(name in FITS and FITS[name].keeps_argmax for name in named) == stays.startswith("stays"), methods


def test_documented_commands_exist() -> None:
    from calibwrap.cli.app import app

    seen = set()
    for page in PAGES:
        for line in "\n".join(blocks(page, "sh")).splitlines():
            if line.startswith("calibwrap "):
                words = shlex.split(line, comments=True)
                shown = CliRunner().invoke(app, [words[1], "--help"])
                assert shown.exit_code == 0, f"{page.name}: {line}"
                options = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert all(option in shown.output for option in options), f"{page.name}: {line}"
                seen.add(words[1])
    assert {"demo", "ask", "fit", "evaluate", "check", "report"} <= seen
