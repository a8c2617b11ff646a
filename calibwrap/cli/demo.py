"""`calibwrap demo`: a real model, real questions, before and after, with labels and without, from packages only."""

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.cli.console import print_figures, print_json, progress_bar, say
from calibwrap.cli.report import section_of, write_page
from calibwrap.data import load_questions, packaged_model, packaged_models, packaged_sets
from calibwrap.evaluate import RAW, Evaluation, evaluate
from calibwrap.report import reliability_picture
from calibwrap.summary import difference
from calibwrap.wrap import CalibratedLM, answers_of, wrap

MODEL, REFERENCE = "smollm2-135m-instruct", "gemma-3-270m"
SETS = ("arc_easy", "sciq")
METHODS = ("temperature", "daca")
SEED = 0


@dataclass(frozen=True)
class Outcome:
    """One question set of the demo."""

    name: str
    result: Evaluation

    def verdict(self, method: str) -> str:
        """Return one plain sentence on what a method did to the calibration error, its interval included."""
        questions, raw = self.result.part(RAW)
        _, calibrated = self.result.part(method)
        change = difference(raw, calibrated, answers_of(questions))["ece"]
        if change.value is None or change.low is None or change.high is None:
            return f"{self.name}, {method}: the change of the calibration error is not defined."
        told = f"by {abs(change.value):.3f} (95 % interval of the change {change.low:+.3f} to {change.high:+.3f})"
        if change.high < 0:
            return f"{self.name}, {method}: the calibration error fell {told}."
        if change.low > 0:
            return f"{self.name}, {method}: it did NOT help here, the calibration error rose {told}."
        return f"{self.name}, {method}: no clear effect here, the calibration error moved {told}, zero included."


def run(runtime: str, out: Path, questions: int, fresh: bool, as_json: bool) -> None:
    """Fetch, ask, fit, measure, and write the report."""
    if fresh and out.exists():
        for name in SETS:
            shutil.rmtree(out / name, ignore_errors=True)
    _print_sources(as_json)
    say("fetching models and questions (first time only, about 420 MB)", as_json)
    model, reference = packaged_model(MODEL), packaged_model(REFERENCE)
    sets = {name: load_questions(name, limit=questions, seed=SEED) for name in SETS}
    began = time.monotonic()
    say(f"loading both models through {runtime}", as_json)
    with wrap(f"{runtime}:{model}") as lm, wrap(f"{runtime}:{reference}") as base:
        outcomes = [_measure(lm, base, name, sets[name], out, as_json) for name in SETS]
    seconds = time.monotonic() - began
    verdicts = [outcome.verdict(method) for outcome in outcomes for method in METHODS]
    sections = [section_of(outcome.name, outcome.result) for outcome in outcomes]
    command = "calibwrap " + " ".join(sys.argv[1:])
    title = f"{MODEL} on {' and '.join(SETS)}"
    page = write_page(out / "report.html", title, sections, outcomes[0].result, command, verdicts)
    picture = out / "reliability.png"
    reliability_picture(picture, sections[0])
    metrics = {outcome.name: outcome.result.metrics() for outcome in outcomes}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    if as_json:
        print_json({"sets": metrics, "verdicts": verdicts, "seconds": seconds, "report": str(page)})
        return
    _print(metrics, verdicts)
    say(f"\n{seconds:.0f} s after loading began. Report to look at: {page}   Picture: {picture}")


def _measure(
    lm: CalibratedLM, base: CalibratedLM, name: str, questions: list[Any], out: Path, as_json: bool
) -> Outcome:
    with progress_bar(name, as_json) as progress:
        return Outcome(
            name,
            evaluate(lm, questions, out / name, fit=METHODS, reference=base, seed=SEED, resume=True, progress=progress),
        )


def _print_sources(quiet: bool) -> None:
    """Name the licence of everything that is about to be fetched."""
    for packaged in packaged_models():
        if packaged.name in (MODEL, REFERENCE):
            say(f"model     {packaged.name}: {packaged.licence}", quiet)
    for packaged_set in packaged_sets():
        if packaged_set.name in SETS:
            say(f"questions {packaged_set.name}: {packaged_set.licence}", quiet)


def _print(metrics: dict[str, Any], verdicts: list[str]) -> None:
    for name, found in metrics.items():
        print_figures(f"\n{name}: {found['held_out']} held-out questions, {MODEL}", found["series"])
        for method, fit in found["fits"].items():
            say(f"  {method}: {_fit_line(fit)}")
    say("")
    for sentence in verdicts:
        say(f"- {sentence}")


def _fit_line(fit: dict[str, Any]) -> str:
    agreement = fit["agreement_rate"]
    shared = "" if agreement is None else f", models agree on {agreement:.0%}"
    labels = "with labels" if agreement is None else "no label seen"
    return f"fitted on {fit['rows_used']} of {fit['rows']} rows, {labels}{shared}"
