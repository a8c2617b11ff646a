"""Names on demand: every door tells type checkers and Python the same, and nothing behind it loads too early."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import calibwrap
from calibwrap.on_demand import OnDemand, door, named

DOORS = ("calibwrap", "calibwrap.calibrators", "calibwrap.decoders", "calibwrap.freetext", "calibwrap.readouts")
NOT_YET = (
    "scipy",
    "pydantic",
    "calibwrap.answers_without_labels",
    "calibwrap.calibrators._align",
    "calibwrap.calibrators.auto",
    "calibwrap.calibrators.catto_head",
    "calibwrap.calibrators.dirichlet",
    "calibwrap.calibrators.platt",
    "calibwrap.calibrators.temperature",
    "calibwrap.data",
    "calibwrap.decoders.confidence_at_k",
    "calibwrap.decoders.judgement",
    "calibwrap.estimators",
    "calibwrap.guarantees",
    "calibwrap.metrics",
    "calibwrap.readouts.contextual",
    "calibwrap.readouts.permuted",
    "calibwrap.readouts.verbalized",
)
"""What `import calibwrap` must not load: each is needed by few programs, and all of them together cost most."""


def told_to_type_checkers(package: str) -> dict[str, str]:
    """Return the home of each name that a package imports where only type checkers look."""
    tree = ast.parse(Path(str(importlib.import_module(package).__file__)).read_text(encoding="utf-8"))
    inside = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(inside.test) == "TYPE_CHECKING"
    lines = [node for node in inside.body if isinstance(node, ast.ImportFrom)]
    return {name.name: str(node.module) for node in lines for name in node.names}


def test_import_loads_nothing_that_few_need() -> None:
    code = f"import sys, calibwrap; print([name for name in {NOT_YET!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"
    for name in NOT_YET:
        assert importlib.util.find_spec(name) is not None, f"{name} is gone: name what took its place"


@pytest.mark.parametrize("package", DOORS)
def test_type_checkers_and_python_are_told_the_same(package: str) -> None:
    module = importlib.import_module(package)
    homes = {name: f"{package}.{file}" for file, names in module._HOMES.items() for name in names or [file]}
    told = told_to_type_checkers(package)
    told |= {name: f"{package}.{name}" for name, home in told.items() if home == package}
    assert homes == told
    assert set(homes) <= set(module.__all__)


@pytest.mark.parametrize("package", DOORS)
def test_every_public_name_is_there_whatever_was_imported_before(package: str) -> None:
    code = (
        f"import importlib, pkgutil, {package} as p\n"
        "for found in pkgutil.iter_modules(p.__path__, p.__name__ + '.'):\n"
        "    if found.name.rpartition('.')[2] in p.__all__: importlib.import_module(found.name)\n"
        "print([name for name in p.__all__ if type(getattr(p, name)).__name__ == 'module'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == ("['errors', 'metrics']" if package == "calibwrap" else "[]")


@pytest.mark.parametrize("package", DOORS)
def test_a_door_lists_all_names_and_refuses_others(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_a_found_name_is_kept() -> None:
    find, names = door("calibwrap.calibrators", {"_inputs": ["today"], "platt": []})
    vars(calibwrap.calibrators).pop("today", None)
    assert find("today") is vars(calibwrap.calibrators).pop("today")
    assert find("platt").__name__ == "calibwrap.calibrators.platt"
    assert {"today", "platt", "chain"} <= set(names())


def test_a_table_on_demand_is_a_mapping() -> None:
    table: OnDemand[object] = OnDemand({"root": "math:sqrt", "gone": "no_such_module:name"})
    assert len(table) == 2
    assert "gone" in table
    assert "other" not in table
    assert table["root"] is named("math:sqrt")
    assert table.get("other") is None
    with pytest.raises(KeyError, match="other"):
        table["other"]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        table["gone"]
