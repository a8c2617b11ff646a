"""Tokens on the screen, in a file, or for machines, while an answer is drawn."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from calibwrap.cli.console import printable
from calibwrap.streaming import StreamedToken

if TYPE_CHECKING:
    from rich.console import Console

SURE, LIKELY = 0.9, 0.5
"""Probabilities from which on a token is shown green, and yellow; below it is red."""


def show(tokens: Iterable[StreamedToken], as_json: bool, console: "Console | None" = None) -> None:
    """Show tokens as they come: coloured by probability on a terminal, as plain text elsewhere, or as lines of JSON."""
    from rich.console import Console

    console = console or Console(highlight=False)
    if as_json:
        for token in tokens:
            print_line({"token": token.text, **_numbers(token)})
    elif console.is_terminal:
        _show_live(tokens, console)
    else:
        _show_plain(tokens)


def print_line(value: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def _numbers(token: StreamedToken) -> dict[str, Any]:
    """Return all but the text, with null for what a server does not tell."""
    own = {name: value for name, value in asdict(token).items() if name != "text"}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in own.items()}


def _show_plain(tokens: Iterable[StreamedToken]) -> None:
    last: StreamedToken | None = None
    for token in tokens:
        if last is not None and token.completion != last.completion:
            print(f"\n{_footer(last)}\n")
        sys.stdout.write(printable(token.text))
        sys.stdout.flush()
        last = token
    print("" if last is None else f"\n{_footer(last)}")


def _show_live(tokens: Iterable[StreamedToken], console: "Console") -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    number, text = -1, Text()
    live = Live(console=console, vertical_overflow="visible")
    try:
        for token in tokens:
            if token.completion != number:
                live.stop()
                number, text = token.completion, Text()
                live = Live(console=console, vertical_overflow="visible")
                live.start()
            text.append(printable(token.text), style=_style(token.probability))
            live.update(Group(text, Text(_footer(token), style="dim")))
    finally:
        live.stop()


def _footer(token: StreamedToken) -> str:
    known = "not told" if math.isnan(token.confidence) else f"{token.confidence:.1%}"
    return f"{known}  mean probability of a token so far"


def _style(probability: float) -> str:
    return "green" if probability >= SURE else "yellow" if probability >= LIKELY else "red"
