"""`calibwrap fit`: questions in, one calibrator file out. Journalled beside the file, so that it can be resumed."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.base import Calibrator, Readout
from calibwrap.calibrators import CONFIDENCE_FITS, PROBE, default_fit, fit_for, fit_named
from calibwrap.cli.calibrator_files import check_file_holds, check_file_holds_free, save_calibrator
from calibwrap.cli.console import print_json, print_pairs, print_rows, progress_bar, say, say_spent
from calibwrap.cli.free_text import Freely, are_free, check_for_options, check_name, check_unread, free_template
from calibwrap.cli.parts import Job, open_model, open_reference, read_readout, resumable
from calibwrap.data import load_questions
from calibwrap.decoders.referee import SOFT, Referee, check_reference
from calibwrap.errors import InputError
from calibwrap.evaluate import collect, describe
from calibwrap.evaluate_free import check_free_fits, find_judge, fitted_answers
from calibwrap.evaluate_free_answers import collect_answers
from calibwrap.freetext import graded, references_of
from calibwrap.questions import FreeQuestion, Question, answers_of, groups_of
from calibwrap.readouts.defaults import default_reference_readout
from calibwrap.scores import OptionScores
from calibwrap.wrap import CalibratedLM

FEW = 20
"""Questions below which a fit is said to rest on few; `fit_daca` warns below as many agreeing ones."""


@dataclass(frozen=True)
class Source:
    """Where questions come from."""

    data: str
    split: str = ""
    limit: int | None = None
    seed: int = 0

    def questions(self) -> list[Any]:
        """Return `Question`s, or `FreeQuestion`s; without a limit all of them, in the order of the file."""
        return load_questions(self.data, split=self.split, limit=self.limit, seed=self.seed if self.limit else None)


def run(
    job: Job,
    source: Source,
    method: str | None,
    reference: str | None,
    readout: str | None,
    reference_readout: str | None,
    template: Path | None,
    drawn: Freely,
) -> None:
    """Read the scores, fit, save, and print the report of the fit; of free text, draw and judge answers."""
    if method == PROBE and (reference or readout or reference_readout or template):
        raise InputError("A probe reads hidden states: it takes no --readout, no --template and no --reference.")
    if method is not None and method != PROBE and method not in CONFIDENCE_FITS:
        _check_method(method, reference, job.out)  # before questions are fetched
    questions = source.questions()
    if are_free(questions):
        check_unread(source.data, readout, reference_readout)
        named = method or ("platt" if reference is None else f"{SOFT}platt")
        _run_free(job, source, questions, named, reference, template, drawn)
        return
    if drawn.decoder is not None:
        check_name(drawn.decoder)
    check_for_options(drawn, source.data)
    method = method or default_fit(has_reference=reference is not None)
    _check_undrawn(method, drawn)
    if method == PROBE:
        _run_probe(job, source, questions)
        return
    _check_method(method, reference, job.out)
    if fit_named(method).needs_groups:
        groups_of(questions)  # names the first question without one
    plan, options = fit_for(method, {}, questions)
    answers = answers_of(questions) if plan.needs_answers else None
    say(f"{len(questions)} questions from {source.data}; loading {job.spec}", job.as_json)
    cache = _beside(job, "responses.sqlite")
    with resumable(), open_model(job.spec, job.settings, read_readout(readout, template), cache=cache) as lm:
        with progress_bar("model", job.as_json) as progress:
            journal = _beside(job, "journal.jsonl")
            scores = collect(lm, questions, journal, resume=job.resume, progress=progress)
        if reference is None:
            fitted = lm.fitted(method, scores, answers=answers, **options)
        else:
            how = read_readout(reference_readout, template) or default_reference_readout(lm.readout)
            say(f"loading {reference}", job.as_json)
            with open_reference(reference, job.spec, job.settings, cache) as other:
                fitted = _fit_to_reference(lm, scores, questions, method, other, how, job)
        save_calibrator(fitted.calibrator, job.out, lm.adapter.fingerprint())
        usage = lm.adapter.usage()
    _print(fitted.calibrator, job, usage)


def _beside(job: Job, ending: str) -> Path:
    """Return the file of that ending that is kept beside the calibrator's."""
    return job.out.with_name(f"{job.out.name}.{ending}")


def _check_method(method: str, reference: str | None, out: Path) -> None:
    """Return nothing when a fit of options has what it needs, and its file can hold it."""
    plan = fit_named(method)
    if plan.needs_reference != (reference is not None):
        raise InputError(f"Method {method!r} {'needs' if plan.needs_reference else 'takes no'} --reference SPEC.")
    check_file_holds(method, out)


def _check_undrawn(method: str, drawn: Freely) -> None:
    """Return nothing when questions with options can be fitted this way without drawing anything.

    Raises:
        InputError: a fit of one confidence, or a decoder.
    """
    if method in CONFIDENCE_FITS or drawn.decoder is not None:
        asked = f"--method {method}" if drawn.decoder is None else f"--decoder {drawn.decoder}"
        raise InputError(
            f"`fit` reads the probabilities of options, and draws answers in free text only: {asked} does not go with "
            "questions that have options. Use `evaluate --decoder confidence@8 --fit platt`, which saves the "
            "calibrator, or another --method, such as temperature."
        )


def _run_probe(job: Job, source: Source, questions: Sequence[Question]) -> None:
    """Read hidden states, fit a probe on them, save, and print the report; states are too large for a journal."""
    if job.resume:
        raise InputError(
            "A probe's states are kept nowhere, so that there is nothing to go on from: leave out --resume."
        )
    answers_of(questions)  # before a model is loaded
    say(f"{len(questions)} questions from {source.data}; loading {job.spec}", job.as_json)
    with open_model(job.spec, job.settings) as lm:
        with progress_bar("hidden states", job.as_json) as progress:
            fitted = lm.fit(questions, PROBE, progress=progress)
        save_calibrator(fitted.calibrator, job.out, lm.adapter.fingerprint())
        _print(fitted.calibrator, job, lm.adapter.usage())


def _run_free(
    job: Job,
    source: Source,
    questions: Sequence[FreeQuestion],
    method: str,
    reference: str | None,
    template: Path | None,
    drawn: Freely,
) -> None:
    """Draw answers in free text, judge them or let a reference, fit their confidence, save, and print the report."""
    check_file_holds_free(job.out)
    check_free_fits([method], drawn.checked(source.data, template), has_reference=reference is not None)
    if reference is None:
        references_of(questions)
    say(f"{len(questions)} questions in free text from {source.data}; loading {job.spec}", job.as_json)
    cache, journal = _beside(job, "responses.sqlite"), _beside(job, "journal.jsonl")
    with resumable(), ExitStack() as opened:
        lm = opened.enter_context(open_model(job.spec, job.settings, cache=cache))
        decoder, asked = drawn.asked(lm.adapter.provides, template)
        with progress_bar("model", job.as_json) as progress:
            found = collect_answers(lm, questions, decoder, asked, journal, resume=job.resume, progress=progress)
        answers, referee, correct = [answer for answer, _ in found], None, list[float]()
        if reference is None:
            correct = graded(answers, questions, find_judge(drawn.judge_name, decoder.normalise)[0]).tolist()
        else:
            say(f"loading {reference}", job.as_json)
            other = opened.enter_context(open_reference(reference, job.spec, job.settings, cache))
            check_reference([method], other.adapter)
            shown = opened.enter_context(progress_bar("reference", job.as_json))
            referee = Referee(other.adapter, questions, answers, decoder, free_template(template), shown)
        calibrator = fitted_answers(lm, decoder, asked, answers, correct, method, referee)
        save_calibrator(calibrator, job.out, lm.adapter.fingerprint())
        usage = lm.adapter.usage()
    _print(calibrator, job, usage)


def _fit_to_reference(
    lm: CalibratedLM,
    scores: OptionScores,
    questions: list[Question],
    method: str,
    other: CalibratedLM,
    how: Readout,
    job: Job,
) -> CalibratedLM:
    with progress_bar("reference", job.as_json) as progress:
        journal = _beside(job, "reference.jsonl")
        others = collect(other, questions, journal, readout=how, resume=job.resume, progress=progress)
        return lm.fitted(method, scores, reference=others, provenance=other.adapter.fingerprint())


def _print(calibrator: Calibrator, job: Job, usage: Mapping[str, int]) -> None:
    report = describe(calibrator)
    if job.as_json:
        print_json({"file": str(job.out), **report, "usage": dict(usage)})
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
    print_pairs(f"Saved to {job.out}", {name: _rounded(value) for name, value in shown.items()})
    if report.get("candidates"):
        print_rows(
            "What was compared: log loss on held-out folds, in nats",
            ("method", "log loss", "minus the plain one's", ""),
            [_candidate_row(one) for one in report["candidates"]],
        )
    for note in report.get("notes", ()):
        say(note)
    say_spent(usage)
    for caution in cautions(report):
        say(f"Caution: {caution}")


def _candidate_row(candidate: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return one line of the table of method "auto"."""
    loss, difference = candidate["log_loss"], candidate["difference"]
    return (
        candidate["method"],
        "" if loss is None else f"{loss:.4f}",
        "" if difference is None else f"{difference[0]:+.4f} to {difference[1]:+.4f}",
        "chosen" if candidate["chosen"] else candidate["note"],
    )


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
