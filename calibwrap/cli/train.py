"""`calibwrap train`: weights or a head that are calibrated, from a YAML file."""

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from calibwrap.cli import Interrupted
from calibwrap.cli.console import print_json, print_rows, progress_bar, say

if TYPE_CHECKING:
    from calibwrap.training.plan import Plan
    from calibwrap.training.run import Result


def run(method: str | None, config: Path, dry_run: bool, resume: bool, as_json: bool) -> None:
    """Train, or say what training would do."""
    from calibwrap.training.reading import METHODS, read_settings

    if method is not None and method not in METHODS:
        raise typer.BadParameter(f"METHOD must be one of {', '.join(METHODS)}. Got {method!r}.")
    if method is None and str(config) in METHODS and not config.exists():
        raise typer.BadParameter(f"The file of settings is missing: calibwrap train {config} CONFIG.yaml")
    settings = read_settings(config, method)
    if dry_run:
        from calibwrap.training.plan import plan

        _show_plan(plan(settings, resume=resume), as_json)
        return
    from calibwrap.training.run import is_main_process, train

    quiet = as_json or not is_main_process()
    say(f"Training {settings.model} by {settings.method}; everything goes to {settings.output}", quiet)
    with progress_bar("steps", quiet) as progress, left_together():
        result = train(settings, resume=resume, progress=progress)
    if not result.finished:
        raise Interrupted(
            f"Stopped after step {result.step} of {result.steps}, with a checkpoint: the same command with --resume "
            "goes on there.",
            result.stopped_by,
        )
    if is_main_process():
        _show_result(result, as_json)


@contextmanager
def left_together() -> Iterator[None]:
    """Close what several processes of one run share: a process that just ends may abort.

    A trainer, which is full of cycles, keeps the threads of its process group: it has to go first.
    """
    try:
        yield
    finally:
        torch = sys.modules.get("torch")  # where it could not be imported, that is the error to be told
        if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
            gc.collect()
            torch.distributed.destroy_process_group()


def _show_plan(plan: "Plan", as_json: bool) -> None:
    """Print what a run will do and what it needs."""
    if as_json:
        print_json({**vars(plan), "memory": {**plan.memory, "total": plan.total}})
        return
    rows = [
        ("method", plan.method),
        ("model", plan.model),
        ("output", plan.output),
        ("begins", plan.begins),
        ("questions", f"{plan.questions} to train on, {plan.held_out} held out"),
        ("steps", f"{plan.steps}, {plan.examples} examples a process"),
    ]
    if plan.parameters:
        rows.append(("parameters", f"{plan.parameters:,}, of which {plan.trainable:,} are trained"))
    print_rows("What will happen; nothing has been trained", (), rows)
    if plan.memory:
        needed = [(name, _gigabytes(size)) for name, size in [*plan.memory.items(), ("together", plan.total)]]
        print_rows("Memory of one process, with texts of max_length tokens", ("for", "GB"), needed)


def _show_result(result: "Result", as_json: bool) -> None:
    """Print the held-out figures before and after, and where the files are."""
    if result.was_finished:
        say(f"This run was finished before: nothing was trained now. Its results are in {result.output}", quiet=as_json)
    files = {"adapter": result.adapter, "weights": result.weights}
    if as_json:
        found = {name: str(path) for name, path in files.items() if path is not None}
        figures = {"before": result.before, "after": result.after}
        figures |= {"temperature": result.temperature} if result.temperature else {}
        about = {"method": result.method, "output": str(result.output), "steps": result.step}
        print_json({**about, "was_finished": result.was_finished, **found, **figures})
        return
    if result.after:
        _show_figures(result)
    for name, path in files.items():
        say(f"{name.capitalize()}: {path}", quiet=path is None)
    say(f"Output: {result.output}")


def _show_figures(result: "Result") -> None:
    """Print the held-out figures as a table; a head has a column more, for what it has to beat."""
    from calibwrap.training.model_card import figure_names

    columns = {"before": result.before, "temperature": result.temperature, "after": result.after}
    shown = {heading: found for heading, found in columns.items() if found or heading != "temperature"}
    names = {name: said for name, said in figure_names(result.method).items() if name in result.after}
    cells = [(said, *(_cell(found.get(name)) for found in shown.values())) for name, said in names.items()]
    chose = "; they also chose the epoch" if result.method == "head" else ""
    print_rows(f"Held-out questions, with 95 % bootstrap intervals{chose}", ("", *shown), cells)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "not measured"
    text = f"{figure['value']:.3f}"
    return text if figure["low"] is None else f"{text}  {figure['low']:.2f}–{figure['high']:.2f}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3f}"
