"""The command line: `calibwrap demo | check | ask | fit | evaluate | train | study | report`.

Exit code 0, 1 (it failed), 2 (wrong usage), 130 (stopped by Ctrl-C) or 143 (training was stopped by SIGTERM).
"""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from calibwrap.cli.masking import masked
from calibwrap.errors import CalibwrapError

__all__ = ["Interrupted", "main"]

_STOPPED = 130
"""Exit code that typer makes of Ctrl-C."""
_WRONG_USAGE = 2
"""Exit code that typer gives where options are unknown, missing, or do not go together."""
_JOURNALLED = {"demo": "", **dict.fromkeys(("evaluate", "fit", "study", "train"), " with --resume")}
"""Commands that keep a journal, and what to add to them to go on."""


class Interrupted(Exception):
    """A signal ended a command early, in good order: what it says is how to go on."""

    def __init__(self, message: str, number: int) -> None:
        """Say `message`, and end as shells expect of the signal of that number."""
        super().__init__(message)
        self.code = 128 + number


def main() -> None:
    """Run the command line on `sys.argv`; a failure is one clear sentence on standard error and exit code 1."""
    # Read by the libraries when they load: their bars and notices would be drawn over ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from calibwrap.cli.app import app  # typer is loaded only when the command line runs

    warnings.showwarning = _show_warning
    try:
        app()
    except CalibwrapError as error:
        _fail(str(error), type(error).__name__)
    except Interrupted as stopped:
        _fail(str(stopped), type(stopped).__name__, stopped.code)
    except SystemExit as end:
        if end.code == _WRONG_USAGE:
            _tell_wrong_usage(end.__context__)
        if end.code != _STOPPED:
            raise
        _fail(" ".join(["Stopped.", *_ways_on(sys.argv[1:])]), "Interrupted", _STOPPED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, as in `calibwrap ... | head`
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'A file'}: {error.strerror or error}. Pass a place that can be written.", "OSError")


def _tell_wrong_usage(cause: BaseException | None) -> None:
    """Print a wrong usage for machines too; for people typer has said it on standard error."""
    if "--json" in sys.argv and cause is not None:
        message = masked(str(cause), sys.argv[1:])
        print(json.dumps({"error": message, "type": "UsageError"}, ensure_ascii=False))


def _ways_on(words: Sequence[str]) -> list[str]:
    """Return how to go on with a command that was stopped; empty where it keeps no journal.

    >>> _ways_on(["demo"])
    ['What was finished is in the journal; the same command goes on there.']
    """
    if not words or words[0] not in _JOURNALLED:
        return []
    return [f"What was finished is in the journal; the same command{_JOURNALLED[words[0]]} goes on there."]


def _fail(message: str, kind: str, code: int = 1) -> None:
    message = masked(message, sys.argv[1:])
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "type": kind}, ensure_ascii=False))
    else:
        print(f"Error: {message}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
    """Show calibwrap's own warnings as one line, and leave the libraries' deprecation notices out."""
    if category.__module__.startswith("calibwrap") or not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"Warning: {masked(str(message), sys.argv[1:])}", file=sys.stderr)
