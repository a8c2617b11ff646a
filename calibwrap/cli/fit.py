"""`calibwrap fit`: questions in, one calibrator file out. Journalled beside the file, so that it can be resumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.base import Calibrator, Readout
from calibwrap.calibrators import fit_named
from calibwrap.cli.calibrator_files import check_file_holds, save_calibrator
from calibwrap.cli.console import print_json, print_pairs, progress_bar, say, say_spent
from calibwrap.cli.parts import open_model, open_reference, read_readout, resumable
from calibwrap.data import load_questions
from calibwrap.errors import InputError
from calibwrap.evaluate import collect, describe
from calibwrap.questions import Question, answers_of
from calibwrap.scores import OptionScores
from calibwrap.wrap import CalibratedLM, default_reference_readout

FEW = 20
"""Questions below which a fit is said to rest on few; `fit_daca` warns below as many agreeing ones."""


@dataclass(frozen=True)
class Source:
    """Where questions come from."""

    data: str
    split: str = ""
    limit: int | None = None
    seed: int = 0

    def questions(self) -> list[Question]:
        """Return the questions; without a limit all of them, in the order of the file."""
        return load_questions(self.data, split=self.split, limit=self.limit, seed=self.seed if self.limit else None)


def run(
    spec: str,
    source: Source,
    out: Path,
    method: str,
    reference: str | None,
    readout: str | None,
    reference_readout: str | None,
    template: Path | None,
    settings: list[str] | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Read the scores, fit, save, and print the report of the fit."""
    plan = fit_named(method)
    if plan.needs_reference != (reference is not None):
        raise InputError(f"Method {method!r} {'needs' if plan.needs_reference else 'takes no'} --reference SPEC.")
    check_file_holds(method, out)
    questions = source.questions()
    answers = answers_of(questions) if plan.needs_answers else None
    say(f"{len(questions)} questions from {source.data}; loading {spec}", as_json)
    cache = out.with_name(out.name + ".responses.sqlite")
    with resumable(), open_model(spec, settings, read_readout(readout, template), cache=cache) as lm:
        journal = out.with_name(out.name + ".journal.jsonl")
        with progress_bar("model", as_json) as progress:
            scores = collect(lm, questions, journal, resume=resume, progress=progress)
        if reference is None:
            fitted = lm.fitted(method, scores, answers=answers)
        else:
            how = read_readout(reference_readout, template) or default_reference_readout(lm.readout)
            say(f"loading {reference}", as_json)
            with open_reference(reference, spec, settings, cache) as other:
                fitted = _fit_to_reference(lm, scores, questions, method, other, how, out, resume, as_json)
        save_calibrator(fitted.calibrator, out, lm.adapter.fingerprint())
        usage = lm.adapter.usage()
    _print(fitted.calibrator, out, usage, as_json)


def _fit_to_reference(
    lm: CalibratedLM,
    scores: OptionScores,
    questions: list[Question],
    method: str,
    other: CalibratedLM,
    how: Readout,
    out: Path,
    resume: bool,
    as_json: bool,
) -> CalibratedLM:
    with progress_bar("reference", as_json) as progress:
        journal = out.with_name(out.name + ".reference.jsonl")
        others = collect(other, questions, journal, readout=how, resume=resume, progress=progress)
        return lm.fitted(method, scores, reference=others, provenance=other.adapter.fingerprint())


def _print(calibrator: Calibrator, out: Path, usage: Mapping[str, int], as_json: bool) -> None:
    report = describe(calibrator)
    if as_json:
        print_json({"file": str(out), **report, "usage": dict(usage)})
        return
    shown: dict[str, object] = {}
    wanted = (
        "kind",
        "temperature",
        "rows",
        "rows_used",
        "agreement_rate",
        "objective_before",
        "objective_after",
        "interval",
        "at_bound",
    )
    shown |= {name.replace("_", " "): report[name] for name in wanted if report.get(name) not in (None, "")}
    print_pairs(f"Saved to {out}", {name: _rounded(value) for name, value in shown.items()})
    for note in report.get("notes", ()):
        say(note)
    say_spent(usage)
    for caution in cautions(report):
        say(f"Caution: {caution}")


def cautions(report: Mapping[str, Any]) -> list[str]:
    """Return why a fit, as `describe` tells it, should not be trusted as it is; empty where nothing speaks against it.

    >>> cautions({"rows_used": 100, "at_bound": ""})
    []
    """
    found = []
    used, side = report.get("rows_used", FEW), report.get("at_bound", "")
    if used < FEW:
        rows = "1 question" if used == 1 else f"{used} questions"
        found.append(f"this was fitted on {rows}, fewer than {FEW}; another set may give quite another number.")
    if side:
        found.append(
            f"the temperature is the {side} end of the interval that was searched, so that the best one lies beyond "
            "it: these questions do not determine it. Take more questions, and look whether their answers are right."
        )
    return found


def _rounded(value: object) -> object:
    """Return a number with the digits that people read; the file keeps all of them."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (tuple, list)):
        return " to ".join(str(_rounded(one)) for one in value)
    return value
