"""`calibwrap evaluate`: a model over a question set; figures, predictions and a report to look at."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from calibwrap.cli.calibrator_files import load_calibrator
from calibwrap.cli.console import print_figures, print_json, progress_bar, say, say_spent
from calibwrap.cli.fit import Source
from calibwrap.cli.masking import shown_command
from calibwrap.cli.parts import open_model, open_reference, read_readout, read_template, resumable
from calibwrap.cli.report import decoder_sentence, halves_sentence, section_of, write_page
from calibwrap.decoders.named import find_decoder
from calibwrap.evaluate import Evaluation, evaluate
from calibwrap.evaluate_traces import evaluate_decoder
from calibwrap.questions import TEMPLATES, Question, Template
from calibwrap.stored_traces import default_stops, default_template
from calibwrap.wrap import CalibratedLM, Progress

CACHE = "responses.sqlite"
"""File in the output folder that keeps paid answers, for runtimes that have any."""


@dataclass(frozen=True)
class Plan:
    """What to fit, and how to read."""

    fit: tuple[str, ...]
    share: float
    reference: str | None
    readout: str | None
    reference_readout: str | None
    template: Path | None


@dataclass(frozen=True)
class Drawn:
    """Which decoder answers, and how its traces are drawn."""

    name: str
    temperature: float
    max_tokens: int
    stop: tuple[str, ...] | None


def run(
    spec: str,
    source: Source,
    out: Path,
    plan: Plan,
    calibrator: Path | None,
    strict: bool,
    settings: list[str] | None,
    resume: bool,
    as_json: bool,
    drawn: Drawn | None = None,
) -> None:
    """Evaluate and print the table of figures."""
    if drawn is not None:
        find_decoder(drawn.name)  # a wrong name is told before a model is loaded
    questions = source.questions()
    say(f"{len(questions)} questions from {source.data}; loading {spec}", as_json)
    with ExitStack() as opened, resumable():
        cache = out / CACHE
        how = read_readout(plan.readout, plan.template) if drawn is None else None
        # a calibrator of traces belongs to no readout: the evaluation itself checks where it was fitted
        saved = None if drawn is None or calibrator is None else load_calibrator(calibrator)
        lm = opened.enter_context(open_model(spec, settings, how, calibrator if drawn is None else None, strict, cache))
        reference = None
        if plan.reference is not None:
            reference = opened.enter_context(open_reference(plan.reference, spec, settings, cache))
        progress = opened.enter_context(progress_bar("questions", as_json))
        result: Evaluation
        if drawn is not None:
            lm = lm if saved is None else replace(lm, calibrator=saved)
            result = _decode(lm, questions, drawn, plan, source.seed, out, strict, resume, progress)
        else:
            result = evaluate(
                lm,
                questions,
                out,
                fit=plan.fit,
                reference=reference,
                reference_readout=read_readout(plan.reference_readout, plan.template),
                fit_share=plan.share,
                seed=source.seed,
                resume=resume,
                progress=progress,
            )
    _show(spec, source, out, result, as_json)


def _decode(
    lm: CalibratedLM,
    questions: Sequence[Question],
    drawn: Drawn,
    plan: Plan,
    seed: int,
    out: Path,
    strict: bool,
    resume: bool,
    progress: Progress,
) -> Evaluation:
    """Return the evaluation of a decoder."""
    template = default_template(lm.adapter.provides) if plan.template is None else _template(plan.template)
    stop = default_stops(template) if drawn.stop is None else drawn.stop
    asked = {"temperature": drawn.temperature, "max_tokens": drawn.max_tokens, "stop": stop, "seed": seed}
    decoder = find_decoder(drawn.name, **asked)
    return evaluate_decoder(
        lm,
        questions,
        decoder,
        out,
        template=template,
        fit=plan.fit,
        fit_share=plan.share,
        seed=seed,
        strict=strict,
        resume=resume,
        progress=progress,
    )


def _template(named: Path) -> Template:
    """Return a built-in template by its name, else the one in a file."""
    return TEMPLATES.get(str(named)) or read_template(named)


def _show(spec: str, source: Source, out: Path, result: Evaluation, as_json: bool) -> None:
    """Write the report and print the figures."""
    metrics = result.metrics()
    title, section = f"{spec} on {source.data}", section_of(source.data, result, metrics.get("decoder"))
    page = write_page(out / "report.html", title, [section], result, shown_command(sys.argv[1:]))
    if as_json:
        print_json({**metrics, "out": str(out), "report": str(page)})
        return
    print_figures(f"{metrics['held_out']} held-out questions of {source.data}, {metrics['readout']}", metrics["series"])
    for sentence in (halves_sentence(result), decoder_sentence(metrics.get("decoder"))):
        say(sentence, quiet=not sentence)
    say_spent(result.usage)
    say(f"Report: {page}")
