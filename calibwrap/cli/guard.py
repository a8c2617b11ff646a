"""`calibwrap fit --risk`: questions with answers in, one file out with a calibrator and the guard that stands on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from calibwrap import saving
from calibwrap.cli.calibrator_files import load_calibrator
from calibwrap.cli.console import print_json, print_pairs, progress_bar, say, say_spent
from calibwrap.cli.fit import Source
from calibwrap.cli.free_text import Freely, are_free, check_for_options, check_unread
from calibwrap.cli.parts import Job, open_model, read_readout, resumable
from calibwrap.decoders.answering import check_decoder, check_template
from calibwrap.decoders.reading import signed
from calibwrap.errors import InputError
from calibwrap.evaluate import collect
from calibwrap.evaluate_free import find_judge
from calibwrap.evaluate_free_answers import collect_answers
from calibwrap.freetext import references_of
from calibwrap.guarantees import Guard, fit_guard
from calibwrap.guarantees.selective import check_enough
from calibwrap.guarded import GuardedLM
from calibwrap.guarded_answers import GuardedAnswers, fit_guard_on
from calibwrap.questions import FreeQuestion, Question, answers_of


@dataclass(frozen=True)
class Promise:
    """What a guard keeps."""

    risk: float
    """Largest share of wrong answers among those given."""
    delta: float
    """Chance that it fails."""


def run(
    job: Job,
    source: Source,
    calibrator: Path | None,
    readout: str | None,
    template: Path | None,
    drawn: Freely,
    promise: Promise,
) -> None:
    """Ask the questions, fit a guard on the calibrated confidences, save it with the calibrator, and print it.

    Raises:
        QuestionError: a question has no answer.
        ProvenanceMismatch: the calibrator was fitted on another model, or on answers that were made otherwise.
        FitError: too few questions.
    """
    questions = source.questions()
    if are_free(questions):
        check_unread(source.data, readout)
        _run_free(job, source, questions, calibrator, template, drawn, promise)
        return
    check_for_options(drawn, source.data)
    if drawn.decoder is not None:
        raise InputError("A guard of options reads their probabilities: leave out --decoder.")
    _run_options(job, source, questions, calibrator, readout, template, promise)


def _run_options(
    job: Job,
    source: Source,
    questions: Sequence[Question],
    calibrator: Path | None,
    readout: str | None,
    template: Path | None,
    promise: Promise,
) -> None:
    answers = answers_of(questions)  # before a model is loaded
    check_enough(len(questions), **asdict(promise))
    say(f"{len(questions)} questions from {source.data}; loading {job.spec}", job.as_json)
    how = read_readout(readout, template)
    with resumable(), open_model(job.spec, job.settings, how, calibrator, strict=True, cache=_cache(job)) as lm:
        with progress_bar("model", job.as_json) as progress:
            scores = lm.calibrator(collect(lm, questions, _journal(job), resume=job.resume, progress=progress))
        guard = fit_guard(scores.confidence, scores.choice == answers, **asdict(promise), seed=source.seed)
        GuardedLM(lm, guard).save(job.out)
        usage = lm.adapter.usage()
    _print(guard, job, usage)


def _run_free(
    job: Job,
    source: Source,
    questions: Sequence[FreeQuestion],
    calibrator: Path | None,
    template: Path | None,
    drawn: Freely,
    promise: Promise,
) -> None:
    drawn.checked(source.data, template)
    references_of(questions)
    check_enough(len(questions), **asdict(promise))
    saved = None if calibrator is None else load_calibrator(calibrator)
    say(f"{len(questions)} questions in free text from {source.data}; loading {job.spec}", job.as_json)
    with resumable(), open_model(job.spec, job.settings, cache=_cache(job)) as lm:
        decoder, asked = drawn.asked(lm.adapter.provides, template)
        if saved is not None:
            saving.check_provenance(saved, lm.adapter.fingerprint(), "", strict=True)
            check_decoder(saved, decoder, strict=True)
            check_template(saved, asked.label, strict=True)
            lm = replace(lm, calibrator=saved)
        with progress_bar("model", job.as_json) as progress:
            found = collect_answers(lm, questions, decoder, asked, _journal(job), resume=job.resume, progress=progress)
        answers = [signed(answer, lm.calibrator) for answer, _ in found]
        judge = find_judge(drawn.judge_name, decoder.normalise)[0]
        guard = fit_guard_on(answers, questions, judge, **asdict(promise), seed=source.seed)
        GuardedAnswers(lm, guard, decoder, asked).save(job.out)
        usage = lm.adapter.usage()
    _print(guard, job, usage)


def _cache(job: Job) -> Path:
    return job.out.with_name(f"{job.out.name}.responses.sqlite")


def _journal(job: Job) -> Path:
    return job.out.with_name(f"{job.out.name}.journal.jsonl")


def _print(guard: Guard, job: Job, usage: Mapping[str, int]) -> None:
    if job.as_json:
        print_json({"file": str(job.out), **asdict(guard), "bound": guard.bound, "usage": dict(usage)})
        return
    shown = {**asdict(guard), "risk at most, by these rows": "" if guard.bound is None else f"{guard.bound:.4f}"}
    threshold = "none: it never answers" if guard.threshold is None else f"{guard.threshold:.4f}"
    print_pairs(f"Saved to {job.out}", shown | {"threshold": threshold})
    say_spent(usage)
