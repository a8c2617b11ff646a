"""`calibwrap fit --risk`: questions with answers in, one file out with a calibrator and the guard that stands on it."""

from dataclasses import asdict
from pathlib import Path

from calibwrap.cli.console import print_json, print_pairs, progress_bar, say, say_spent
from calibwrap.cli.fit import Source
from calibwrap.cli.free_text import are_free
from calibwrap.cli.parts import Job, open_model, read_readout, resumable
from calibwrap.errors import InputError
from calibwrap.evaluate import collect
from calibwrap.guarantees import fit_guard
from calibwrap.guarded import GuardedLM
from calibwrap.questions import answers_of


def run(
    job: Job,
    source: Source,
    calibrator: Path | None,
    readout: str | None,
    template: Path | None,
    risk: float,
    delta: float,
) -> None:
    """Read the scores, fit a guard on the calibrated confidences, save it with the calibrator, and print it.

    Raises:
        InputError: questions in free text.
        QuestionError: a question has no answer.
        FitError: too few questions.
    """
    questions = source.questions()
    if are_free(questions):
        raise InputError(f"--risk is for questions with options, and those of {source.data} are in free text.")
    answers = answers_of(questions)  # before a model is loaded
    say(f"{len(questions)} questions from {source.data}; loading {job.spec}", job.as_json)
    how = read_readout(readout, template)
    cache, journal = (job.out.with_name(f"{job.out.name}.{end}") for end in ("responses.sqlite", "journal.jsonl"))
    with resumable(), open_model(job.spec, job.settings, how, calibrator, strict=True, cache=cache) as lm:
        with progress_bar("model", job.as_json) as progress:
            scores = lm.calibrator(collect(lm, questions, journal, resume=job.resume, progress=progress))
        guard = fit_guard(scores.confidence, scores.choice == answers, risk=risk, delta=delta, seed=source.seed)
        GuardedLM(lm, guard).save(job.out)
        usage = lm.adapter.usage()
    if job.as_json:
        print_json({"file": str(job.out), **asdict(guard), "bound": guard.bound, "usage": dict(usage)})
        return
    shown = {**asdict(guard), "risk at most, by these rows": "" if guard.bound is None else f"{guard.bound:.4f}"}
    threshold = "none: it never answers" if guard.threshold is None else f"{guard.threshold:.4f}"
    print_pairs(f"Saved to {job.out}", shown | {"threshold": threshold})
    say_spent(usage)
