"""`calibwrap demo`: a real model, real questions, before and after, with labels and without, from packages only."""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibwrap.cli.console import print_figures, print_json, progress_bar, say
from calibwrap.cli.masking import shown_command
from calibwrap.cli.report import halves_sentence, section_of, write_page
from calibwrap.data import load_questions, packaged_model, packaged_models, packaged_sets
from calibwrap.evaluate import Evaluation, evaluate
from calibwrap.questions import Question
from calibwrap.report import reliability_picture, sentences, summary
from calibwrap.wrap import CalibratedLM, wrap

MODEL, REFERENCE = "smollm2-135m-instruct", "gemma-3-270m"
SETS = ("arc_easy", "sciq")
METHODS = ("temperature", "daca", "soft:platt")
SEED = 0


def run(runtime: str, out: Path, questions: int, fresh: bool, as_json: bool) -> None:
    """Fetch, ask, fit, measure, and write the report."""
    if fresh:
        for name in SETS:
            shutil.rmtree(out / name, ignore_errors=True)
    results, seconds = _measure(runtime, out, questions, as_json)
    sections = [section_of(name, result) for name, result in results.items()]
    told = {s.title: sentences(summary(s.series, s.questions), len(s.questions)) for s in sections}
    title = f"{MODEL} on {' and '.join(SETS)}"
    page = write_page(out / "report.html", title, sections, results[SETS[0]], shown_command(sys.argv[1:]))
    picture = reliability_picture(out / "reliability.png", sections[0])
    metrics = {name: result.metrics() for name, result in results.items()}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json({"sets": metrics, "sentences": told, "seconds": seconds, "report": str(page)})
        return
    for name, found in metrics.items():
        _print(name, found, told[name], halves_sentence(results[name]))
    say(f"\nMeasured in {seconds:.0f} s, loading included. Look at {page} (and {picture}).")


def _measure(runtime: str, out: Path, questions: int, as_json: bool) -> tuple[dict[str, Evaluation], float]:
    """Return the evaluation of each set and the seconds that it took after everything was fetched."""
    _print_sources(as_json)
    model, reference = (packaged_model(name, progress=lambda text: say(text, as_json)) for name in (MODEL, REFERENCE))
    sets = {name: load_questions(name, limit=questions, seed=SEED) for name in SETS}
    began = time.monotonic()
    say(f"loading both models through {runtime}", as_json)
    with wrap(f"{runtime}:{model}") as lm, wrap(f"{runtime}:{reference}") as base:
        results = {name: _evaluate(lm, base, name, asked, out / name, as_json) for name, asked in sets.items()}
    return results, time.monotonic() - began


def _evaluate(
    lm: CalibratedLM, base: CalibratedLM, name: str, questions: Sequence[Question], out: Path, as_json: bool
) -> Evaluation:
    with progress_bar(f"{name}, both models", as_json) as progress:
        return evaluate(lm, questions, out, fit=METHODS, reference=base, seed=SEED, resume=True, progress=progress)


def _print_sources(quiet: bool) -> None:
    """Name the licence of everything that is about to be used."""
    for packaged in packaged_models():
        if packaged.name in (MODEL, REFERENCE):
            say(f"model      {packaged.name}: {packaged.licence}", quiet)
    for packaged_set in packaged_sets():
        if packaged_set.name in SETS:
            say(f"questions  {packaged_set.name}: {packaged_set.licence}", quiet)


def _print(name: str, found: Mapping[str, Any], told: Sequence[str], halves: str) -> None:
    print_figures(f"\n{name}: {MODEL}, {found['held_out']} held-out questions", found["series"])
    for method, fit in found["fits"].items():
        say(f"  {method}: {_told(method, fit)}")
    for sentence in told:
        say(f"- {sentence}")
    say(f"- {halves}")


def _told(method: str, fit: Mapping[str, Any]) -> str:
    """Return what a fit is and what it saw.

    >>> _told("temperature", {"temperature": 2.0, "rows": 9, "rows_used": 8, "agreement_rate": None})
    'T = 2.00, fitted on 8 of 9 rows, with labels'
    """
    number = f"T = {fit['temperature']:.2f}, " if "temperature" in fit else ""
    agreement = fit["agreement_rate"]
    agree = "" if agreement is None else f", models agree on {agreement:.0%}"
    labels = "with labels" if method == "temperature" else f"without labels{agree}"
    return f"{number}fitted on {fit['rows_used']} of {fit['rows']} rows, {labels}"
