"""`calibwrap evaluate`: a model over a question set; figures, predictions and a report to look at."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from calibwrap.cli.console import print_figures, print_json, progress_bar, say, say_spent
from calibwrap.cli.fit import Source
from calibwrap.cli.masking import shown_command
from calibwrap.cli.parts import open_model, open_reference, read_readout, resumable
from calibwrap.cli.report import halves_sentence, section_of, write_page
from calibwrap.evaluate import evaluate

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
) -> None:
    """Evaluate and print the table of figures."""
    questions = source.questions()
    say(f"{len(questions)} questions from {source.data}; loading {spec}", as_json)
    with ExitStack() as opened, resumable():
        cache = out / CACHE
        how = read_readout(plan.readout, plan.template)
        lm = opened.enter_context(open_model(spec, settings, how, calibrator, strict, cache))
        reference = None
        if plan.reference is not None:
            reference = opened.enter_context(open_reference(plan.reference, spec, settings, cache))
        progress = opened.enter_context(progress_bar("questions", as_json))
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
    title, section = f"{spec} on {source.data}", section_of(source.data, result)
    page = write_page(out / "report.html", title, [section], result, shown_command(sys.argv[1:]))
    metrics = result.metrics()
    if as_json:
        print_json({**metrics, "out": str(out), "report": str(page)})
        return
    print_figures(f"{metrics['held_out']} held-out questions of {source.data}, {metrics['readout']}", metrics["series"])
    say(halves_sentence(result))
    say_spent(result.usage)
    say(f"Report: {page}")
