"""The package as users get it: public names, light import, one-way imports, and a wheel that holds the whole tree."""

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import calibwrap

ROOT = Path(__file__).resolve().parent.parent
RANK = {
    "errors": 0, "real_numbers": 0, "scores": 0, "capabilities": 1, "provenance": 1, "questions": 1, "traces": 1,
    "streaming": 1,
    "base": 2, "calibrators": 3, "decoders": 3, "readouts": 3, "metrics": 3, "adapters": 3, "testing": 3, "saving": 3,
    "data": 3, "files": 0, "journal": 3, "decision_file": 3, "freetext": 3, "score_records": 3, "answer_scores": 4,
    "summary": 4, "halves": 4, "parity": 4, "answer_stream": 4, "estimators": 4, "wrap": 4, "probing": 4, "evaluate": 5,
    "stored_traces": 5, "inline_arrays": 0, "on_demand": 0,
    "guarded_answers": 5, "lifecycle": 6, "yaml_files": 1,
    "guarantees": 3, "guarded": 4, "opening": 3, "evaluate_traces": 5, "evaluate_free": 5, "evaluate_free_answers": 5,
    "answers_without_labels": 5,
    "report": 6, "training": 6, "cli": 7,
}  # fmt: skip
HEAVY = (
    "torch",
    "transformers",
    "llama_cpp",
    "scipy",
    "pydantic",
    "safetensors",
    "typer",
    "rich",
    "pyarrow",
    "matplotlib",
    "sklearn",
)


def sources() -> list[Path]:
    return sorted([*(ROOT / "calibwrap").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])


def unit(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "adapters" else parts[1]


def module_names() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(calibwrap.__path__, "calibwrap.")]


def imports(path: Path) -> list[str]:
    """Return the dotted names that a file imports, at any depth."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return found


def test_public_names_are_sorted_and_exist() -> None:
    assert list(calibwrap.__all__) == sorted(calibwrap.__all__)
    assert all(getattr(calibwrap, name) is not None for name in calibwrap.__all__)


def test_fixed_names_of_the_design_are_public() -> None:
    wanted = (
        "wrap load_questions Question OptionScores fit_temperature fit_daca Temperature chain load save metrics Answer"
    )
    assert set(wanted.split()) <= set(dir(calibwrap))
    measures = "ece classwise_ece brier top_label_brier nll auroc aurc reliability_curve bootstrap_ci CalibrationState"
    assert set(measures.split()) <= set(dir(calibwrap.metrics))


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert calibwrap.__version__ == version("calibwrap")


@pytest.mark.parametrize("name", module_names())
def test_every_module_imports(name: str) -> None:
    assert importlib.import_module(name).__doc__, f"{name} has no docstring"


def test_imports_go_one_way() -> None:
    wrong = []
    for path in sources():
        here = unit(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "calibwrap" or here not in RANK:
                continue
            there = parts[1] if len(parts) > 1 else "__init__"
            if RANK.get(there, 0) > RANK[here] or (there == "training" and here not in ("training", "cli")):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_every_unit_has_a_place_in_the_order() -> None:
    assert {unit(path) for path in sources()} - {"__init__"} <= set(RANK)


def test_adapters_do_not_import_each_other() -> None:
    for path in (ROOT / "adapters").glob("[a-z]*.py"):
        others = [name for name in imports(path) if name.startswith("calibwrap.adapters.")]
        stem = path.stem
        assert all(".adapters._" in name or f".adapters.{stem}" in name for name in others), path


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, calibwrap; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


def test_import_and_help_are_quick() -> None:
    """Loose on purpose: the measured ratios come from benchmarks/startup.py, this only catches a heavy import."""

    def slowest(command: list[str]) -> float:
        import time

        runs = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            runs.append(time.perf_counter() - began)
        return min(runs)

    numpy = slowest([sys.executable, "-c", "import numpy"])
    assert slowest([sys.executable, "-c", "import calibwrap"]) < 4 * numpy
    assert slowest([str(Path(sys.executable).with_name("calibwrap")), "--help"]) < 8 * numpy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # a file that has moved would stay in every later wheel
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return next(out.glob("*.whl"))


def test_wheel_holds_the_whole_tree_and_no_package_called_adapters(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tree = {
        str(path.relative_to(ROOT))
        if path.relative_to(ROOT).parts[0] != "adapters"
        else f"calibwrap/{path.relative_to(ROOT)}"
        for folder in ("calibwrap", "adapters")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == tree


def test_installed_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import calibwrap as cw\n"
        "from calibwrap.testing import ToyAdapter, toy_questions\n"
        f"assert cw.__file__.startswith({str(target)!r}), cw.__file__\n"
        "print(cw.wrap(ToyAdapter()).fit(toy_questions(200), readout='label').calibrator.value)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
