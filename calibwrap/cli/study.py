"""`calibwrap study`: calibration over a model's construction, from a YAML file to a table."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibwrap.cli.console import print_json, print_rows, progress_bar, say
from calibwrap.cli.masking import shown_command
from calibwrap.errors import ModelError
from calibwrap.lifecycle.result import Study
from calibwrap.lifecycle.run import REPORT, study, tasks_of
from calibwrap.lifecycle.settings import read_study, stages_of

_NONE = "No model of the study could be asked."


def run(config: Path, out: Path, dry_run: bool, resume: bool, as_json: bool) -> None:
    """Carry a study out, or say what it would read; all models failing is an error.

    Raises:
        ModelError: no model could be studied.
    """
    settings = read_study(config)
    if dry_run:
        plan: dict[str, Any] = {
            "models": [one.model_dump(mode="json") for one in stages_of(settings)],
            "probes": {task.name: len(task.units) for task in tasks_of(settings)},
        }
        if as_json:
            print_json(plan)
            return
        print_rows("Models", ("name", "stage", "spec"), [(m["name"], m["stage"], m["spec"]) for m in plan["models"]])
        print_rows("Texts or questions", ("probe", "of them"), [(name, str(n)) for name, n in plan["probes"].items()])
        return
    count = len(stages_of(settings))
    say(f"{count} model{'s' * (count > 1)}; everything goes to {out}", as_json)
    with progress_bar("pieces", as_json) as progress:
        found = study(settings, out, resume=resume, progress=progress, command=shown_command(sys.argv[1:]))
    if as_json:
        failed = {} if found.findings else {"error": _NONE, "type": ModelError.__name__}
        print_json({**found.told(found.rows()), "out": str(out), **failed})
        if failed:
            sys.exit(1)
        return
    _show(found)
    if not found.findings:
        raise ModelError(f"{_NONE} See above why.")
    say(f"Report: {out / REPORT}; table: {out / 'table.csv'}, {out / 'table.parquet'}")


def _show(found: Study) -> None:
    """Print the table's main columns, and what failed."""
    rows = found.rows()
    for probe in dict.fromkeys(row["probe"] for row in rows):
        has_base = any(one.stage.name == found.base for one in found.of(probe))
        title = f"{probe}, beside {found.base}" if has_base else probe
        cells = [_cells(row, has_base) for row in rows if row["probe"] == probe]
        print_rows(title, ("model", "n", "accuracy", "confidence", "ECE", "change"), cells)
    for name, why in found.failures.items():
        say(f"Failed: {name}: {why}")
    for note in found.notes():
        say(f"Note: {note}")


def _cells(row: Mapping[str, Any], has_base: bool) -> tuple[str, ...]:
    ece = f"{row['ece']:.3f}  {row['ece_low']:.3f}–{row['ece_high']:.3f}"
    change = f"{row['ece_change']:+.3f}" if row["comparable"] else "other events" if has_base else "–"
    if row["comparable"] and row["ece_change_low"] != row["ece_change_high"]:
        change += f"  {row['ece_change_low']:+.3f}–{row['ece_change_high']:+.3f}"
    return row["model"], str(row["n"]), f"{row['accuracy']:.3f}", f"{row['confidence']:.3f}", ece, change
