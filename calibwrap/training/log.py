"""The log of a training run: one JSON line a step and a line for each time the held-out questions were asked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibwrap.errors import JournalError
from calibwrap.journal import Journal
from calibwrap.questions import Question
from calibwrap.training.settings import RewardingDoubtSettings, TrainSettings

FILE = "training.jsonl"
"""The log in the output folder."""

_FREE = {"output", "merge", "report_to", "save_steps", "threads"}
"""Settings that may change when a run is resumed: what is learnt does not depend on them.

`save_steps` is not free where the best checkpoint is kept: it says which steps are looked at.
"""

_ABSENT: Any = object()
"""Stands for a setting that one side lacks; None is a value."""


class RunLog:
    """An open log; a step that an earlier, interrupted run wrote down stays as it is."""

    def __init__(self, journal: Journal) -> None:
        """Write to an open journal."""
        self._journal = journal

    def write_step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write down the loss and the other numbers of a step."""
        self._write({"id": f"step-{step}", "step": step, **numbers})

    def write_held_out(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write down the held-out figures after a step; 0 is before the first."""
        self._write({"id": f"held-out-{step}", "step": step, "held_out": dict(figures)})

    def write_warning(self, step: int, text: str) -> None:
        """Write down what a run was warned of in a step; the first warning stays."""
        self._write({"id": "warning", "step": step, "warning": text})

    def held_out(self, step: int) -> dict[str, Any] | None:
        """Return the held-out figures after a step, if they were measured."""
        record = self._journal.done.get(f"held-out-{step}")
        return None if record is None else dict(record["held_out"])

    def write_finished(self, step: int) -> None:
        """Write down that weights and model card are in their place; `step` is the one whose weights were kept."""
        self._write({"id": "finished", "step": step})

    def finished(self) -> int | None:
        """Return the step whose weights a finished run has kept; None while it is not finished."""
        record = self._journal.done.get("finished")
        return None if record is None else int(record["step"])

    def _write(self, record: dict[str, Any]) -> None:
        if record["id"] not in self._journal.done:
            self._journal.append([record])


def is_finished(output: Path) -> bool:
    """Return whether the log in an output folder, which another process may have open, ends as a finished run's does.

    >>> is_finished(Path("nowhere"))
    False
    """
    path = output / FILE
    whole, newline, _ = path.read_text(encoding="utf-8").rpartition("\n") if path.exists() else ("", "", "")
    return bool(newline) and '"id": "finished"' in whole.splitlines()[-1]


def has_begun(path: Path) -> bool:
    """Return whether something was done in the run whose log, if there is one, is at `path`: a line after the first.

    >>> has_begun(Path("nowhere"))
    False
    """
    return path.exists() and path.read_bytes().count(b"\n") > 1


def run_header(settings: TrainSettings, held_out: Sequence[Question]) -> dict[str, Any]:
    """Return what a run is determined by: settings that decide what is learnt, and a hash of the held-out questions."""
    import hashlib

    asked = repr([(question.id, question.prompt, question.options, question.answer) for question in held_out])
    keeps_best = isinstance(settings, RewardingDoubtSettings) and settings.held_out is not None
    return {
        **settings.model_dump(mode="json", exclude=_FREE - {"save_steps"} if keeps_best else _FREE),
        "held_out_questions": hashlib.sha256(asked.encode()).hexdigest()[:16],
    }


def check_same_run(path: Path, header: Mapping[str, Any]) -> None:
    """Return nothing when the log at `path`, if there is one, was begun with `header`; it is only read.

    A setting that one side lacks makes another run of it, even where the other side's value is none: the log is of
    another version, and nothing says what that one did.

    Raises:
        JournalError: it is that of other settings, which are named, or no log of a training run.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if not lines or not lines[0].endswith(b"\n"):
        return  # killed while it was begun
    try:
        found = json.loads(lines[0])["run"]
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"{path} is no log of a training run: put it back, or choose another 'output'.") from error
    other = [(name, was, now) for name, was, now in _pairs(found, header) if was != now]
    if not other:
        return
    told = "; ".join(f"{name} is {_shown(was)} in the log and {_shown(now)} now" for name, was, now in other)
    advice = "Choose another 'output', or run with what the log was begun with."
    if any(_ABSENT in (was, now) for _, was, now in other):
        advice = "What is absent, that version of calibwrap does not know: choose another 'output', or go on with it."
    raise JournalError(f"{path} belongs to another run: {told}. {advice}")


def _pairs(found: Any, wanted: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each setting's path with its value on both sides."""
    if not isinstance(found, Mapping) or not isinstance(wanted, Mapping):
        yield name, found, wanted
        return
    for key in dict.fromkeys([*found, *wanted]):
        path = f"{name}.{key}" if name else key
        yield from _pairs(found.get(key, _ABSENT), wanted.get(key, _ABSENT), path)


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else repr(value)


@contextmanager
def open_log(settings: TrainSettings, held_out: Sequence[Question], resume: bool) -> Iterator[RunLog]:
    """Yield the log in the output folder, which says what the run is determined by.

    A log in which nothing is written down yet, since the process died before, is begun anew, and an error before
    anything was done leaves none behind: the next start need not be a resumed one.

    Raises:
        JournalError: there is a log and `resume` is false, or it is that of other settings, which are named.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    path = Path(settings.output) / FILE
    header = run_header(settings, held_out)
    goes_on = resume or not has_begun(path)
    if goes_on:
        check_same_run(path, header)
    with Journal.open(path, header, goes_on) as journal:
        try:
            yield RunLog(journal)
        except BaseException:
            if not journal.done:
                path.unlink()
            raise
