"""`calibwrap evaluate`: a model over a question set; figures, predictions and a report to look at."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibwrap.cli.calibrator_files import load_calibrator
from calibwrap.cli.console import print_figures, print_json, progress_bar, say, say_spent
from calibwrap.cli.fit import Source
from calibwrap.cli.free_text import (
    Freely,
    are_free,
    check_adaptive,
    check_for_options,
    check_name,
    check_unread,
    free_template,
)
from calibwrap.cli.masking import shown_command
from calibwrap.cli.parts import Job, named_template, open_model, open_reference, read_readout, resumable
from calibwrap.cli.report import decoder_sentence, halves_sentence, section_of, unread_caution, write_page
from calibwrap.decoders.named import find_decoder
from calibwrap.decoders.referee import is_without_labels
from calibwrap.errors import InputError
from calibwrap.evaluate import Evaluation, evaluate
from calibwrap.evaluate_free import check_free_fits, evaluate_free
from calibwrap.evaluate_traces import evaluate_decoder
from calibwrap.freetext import references_of
from calibwrap.questions import FreeQuestion, Question
from calibwrap.stored_traces import TRACE_TOKENS, default_stops, default_template
from calibwrap.wrap import CalibratedLM, Progress

CACHE = "responses.sqlite"
"""File in the output folder that keeps paid answers, for runtimes that have any."""


@dataclass(frozen=True)
class Plan:
    """What to fit, how to read, and which saved calibrator to use."""

    fit: tuple[str, ...]
    share: float
    reference: str | None
    readout: str | None
    reference_readout: str | None
    template: Path | None
    calibrator: Path | None
    strict: bool


def run(job: Job, source: Source, plan: Plan, drawn: Freely) -> None:
    """Evaluate and print the table of figures; the questions decide whether the answers are options or free text."""
    if drawn.decoder is not None:
        check_name(drawn.decoder)  # a wrong name is told before questions are fetched and a model is loaded
    check_adaptive(drawn)
    questions = source.questions()
    if are_free(questions):
        _run_free(job, source, questions, plan, drawn)
        return
    check_for_options(drawn, source.data, plan.fit)
    if drawn.decoder is not None and plan.reference is not None:
        raise InputError(
            "--reference goes with the options' probabilities, read without --decoder, or with questions in free text. "
            f"Those of {source.data} have options."
        )
    say(f"{len(questions)} questions from {source.data}; loading {job.spec}", job.as_json)
    with ExitStack() as opened, resumable():
        cache = job.out / CACHE
        traced = drawn.decoder is not None
        how = None if traced else read_readout(plan.readout, plan.template)
        # a calibrator of traces belongs to no readout: the evaluation itself checks where it was fitted
        saved = load_calibrator(plan.calibrator) if traced and plan.calibrator is not None else None
        used = None if traced else plan.calibrator
        lm = opened.enter_context(open_model(job.spec, job.settings, how, used, plan.strict, cache))
        reference = None
        if plan.reference is not None:
            reference = opened.enter_context(open_reference(plan.reference, job.spec, job.settings, cache))
        progress = opened.enter_context(progress_bar("questions", job.as_json))
        result: Evaluation
        if traced:
            lm = lm if saved is None else replace(lm, calibrator=saved)
            result = _decode(lm, questions, drawn, plan, source.seed, job, progress)
        else:
            result = evaluate(
                lm,
                questions,
                job.out,
                fit=plan.fit,
                reference=reference,
                reference_readout=read_readout(plan.reference_readout, plan.template),
                fit_share=plan.share,
                seed=source.seed,
                resume=job.resume,
                progress=progress,
            )
    _show(job, source, result)


def _decode(
    lm: CalibratedLM,
    questions: Sequence[Question],
    drawn: Freely,
    plan: Plan,
    seed: int,
    job: Job,
    progress: Progress,
) -> Evaluation:
    """Return the evaluation of a decoder."""
    template = default_template(lm.adapter.provides) if plan.template is None else named_template(plan.template)
    stop = default_stops(template) if drawn.stop is None else drawn.stop
    asked: dict[str, Any] = {"max_tokens": drawn.max_tokens or TRACE_TOKENS, "stop": stop, "seed": seed}
    asked["temperature"] = 1.0 if drawn.temperature is None else drawn.temperature
    decoder = find_decoder(drawn.decoder or "", **asked, **drawn.stopping)
    return evaluate_decoder(
        lm,
        questions,
        decoder,
        job.out,
        template=template,
        fit=plan.fit,
        fit_share=plan.share,
        seed=seed,
        strict=plan.strict,
        resume=job.resume,
        progress=progress,
    )


def _run_free(job: Job, source: Source, questions: Sequence[FreeQuestion], plan: Plan, drawn: Freely) -> None:
    """Evaluate answers in free text; what can be refused is refused before the model is loaded."""
    check_unread(source.data, plan.readout, plan.reference_readout)
    check_free_fits(plan.fit, drawn.checked(source.data, plan.template), has_reference=plan.reference is not None)
    if any(not is_without_labels(method) for method in plan.fit):
        references_of(questions)
    saved = None if plan.calibrator is None else load_calibrator(plan.calibrator)
    say(f"{len(questions)} questions in free text from {source.data}; loading {job.spec}", job.as_json)
    with ExitStack() as opened, resumable():
        lm = opened.enter_context(open_model(job.spec, job.settings, cache=job.out / CACHE))
        decoder, template = drawn.asked(lm.adapter.provides, plan.template)
        other = None
        if plan.reference is not None:
            say(f"loading {plan.reference}", job.as_json)
            other = opened.enter_context(open_reference(plan.reference, job.spec, job.settings, job.out / CACHE))
        result = evaluate_free(
            lm if saved is None else replace(lm, calibrator=saved),
            questions,
            decoder,
            job.out,
            template=template,
            judge=drawn.judge_name,
            fit=plan.fit,
            reference=other,
            reference_template=free_template(plan.template),
            fit_share=plan.share,
            seed=source.seed,
            strict=plan.strict,
            resume=job.resume,
            progress=opened.enter_context(progress_bar("questions", job.as_json)),
        )
    _show(job, source, result)


def _show(job: Job, source: Source, result: Evaluation) -> None:
    """Write the report and print the figures."""
    metrics = result.metrics()
    title, section = f"{job.spec} on {source.data}", section_of(source.data, result, metrics.get("decoder"))
    page = write_page(job.out / "report.html", title, [section], result, shown_command(sys.argv[1:]))
    if job.as_json:
        print_json({**metrics, "out": str(job.out), "report": str(page)})
        return
    print_figures(f"{metrics['held_out']} held-out questions of {source.data}, {metrics['readout']}", metrics["series"])
    for sentence in (halves_sentence(result), decoder_sentence(metrics.get("decoder")), unread_caution(result)):
        say(sentence, quiet=not sentence)
    say_spent(result.usage)
    say(f"Report: {page}")
