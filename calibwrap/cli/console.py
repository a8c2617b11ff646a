"""What the commands show people: progress bars, tables of figures; and what they print for machines."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from calibwrap.wrap import Progress

SHOWN = {"accuracy": "accuracy", "mean_confidence": "confidence", "ece": "ECE", "brier": "Brier", "nll": "NLL"}
"""Figures in the table on the terminal and their headings, 80 columns in all; the rest is in metrics.json."""
_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}
"""What is shown in place of each control character: those of C0 but newline and tab, DEL, and those of C1."""


def printable(text: str) -> str:
    r"""Return `text` without control characters, which a model or a file could drive a terminal by.

    >>> printable("red: \x1b[31m")
    'red: �[31m'
    """
    return text.translate(_CONTROLS)


def say(text: str, quiet: bool = False) -> None:
    """Print a line for people, on standard error, so that standard output holds results only."""
    if not quiet:
        print(printable(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print one JSON object for machines; NaN and infinity, which JSON does not know, are refused."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


@contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function (done, in all) that draws a bar with the time that is left, on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(title, total=None)
        first: list[int] = []

        def show(done: int, total: int) -> None:
            if not first:  # questions that a resumed run finds done must not count as speed
                first.append(done)
                bar.reset(task, total=total, completed=done)
            bar.update(task, completed=done, total=total)

        yield show


def print_figures(title: str, series: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Print a table of figures with their 95 % intervals, one row a series."""
    from rich.console import Console
    from rich.table import Table

    if not series:
        return
    table = Table(title=title, title_justify="left", caption="95 % bootstrap intervals", caption_justify="left")
    table.add_column("")
    for heading in SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row, found in series.items():
        table.add_row(row, *(_cell(found[name]) for name in SHOWN))
    Console().print(table)


def _cell(figure: Mapping[str, Any]) -> str:
    """Return a figure with its interval; resamples that are all the same, as of one question, are no interval."""
    if figure["value"] is None:
        return "not defined"
    text = f"{figure['value']:.3f}"
    if figure["low"] is None or figure["low"] == figure["high"]:
        return text
    return f"{text}\n[dim]{figure['low']:.2f}–{figure['high']:.2f}[/dim]"


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Print a two-column table."""
    print_rows(title, (), [(name, str(value)) for name, value in pairs.items()])


def print_rows(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the texts are shown as they are, brackets included, but for control characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=bool(headings))
    for heading in headings:
        table.add_column(Text(printable(heading)))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def say_spent(usage: Mapping[str, int], who: str = "") -> None:
    """Print what was spent on standard error, where anything is billed; `who` says which of several models did."""
    from calibwrap.report.origins import usage_text

    if usage:
        say(f"Spent{who and f' by {who}'}: {usage_text(usage)}.")
