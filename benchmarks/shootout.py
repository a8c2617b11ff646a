"""The shoot-out: every method of the shelf on real models and real question sets, with labels and without.

Models are read through llama.cpp by summed option texts; the reference of the methods without labels is Gemma-3-270m
(pre-trained), read per token. In each of five seeded splits half of the questions fit and the other half is measured.
A cell is the mean over splits; its 95 % interval resamples questions, the same ones for every method, and takes each
split's held-out part of them; fits stay as they are. A method that fails says why in its row. Confidences are those of
the first choice. ECE has 10 bins of equal width and is biased upwards, on resamples once more: resampled figures are
moved so that their mean is the figure itself, so an interval shows spread and no bias. Intervals of the smooth ECE keep
the kernel's width of the whole held-out half. Questions with another number of options than most of their set are left
out: matrix scaling and Dirichlet need one number.

"uses" is what a fit is handed: labels, the reference's scores, the scores alone, or nothing. "choice stays" is what
the fitted calibrators declare. A fit without labels has a bar: where the reference is itself calibrated (its own ECE
over all questions of the set below 0.1), DACA's ECE is to be within 1.5 points of the temperature's with labels, in
the mean over models and sets. A model that is its own reference, read in another way, does not count there.

Reading takes hours and can be ended at any time: it goes on where it stopped; judging takes minutes. CATTO heads are
trained on two thirds of the fit half, and the rest says when to stop.

    OMP_NUM_THREADS=1 python benchmarks/shootout.py [--work FOLDER] [--json FILE] [--markdown FILE]
    OMP_NUM_THREADS=1 python benchmarks/shootout.py --work FOLDER --no-reading     # judges what is kept so far
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _shootout_judge import SPLITS, Key, Results, judge, methods
from _shootout_scores import Reading, Stored, kept, plan, read_all, usual
from _shootout_tables import above_table, bar_rows, bar_table, summary, summary_table, table
from label_free import REFERENCE, REFERENCE_READOUT, SETS

from calibwrap.data import load_questions, packaged_models

LEAST = 40
"""Questions of a set below which a resample may hold none of a split's held-out half."""


def judged(stored: Mapping[Key, Stored], references: Mapping[str, Stored], resamples: int) -> dict[Key, Results]:
    """Return all results, by model, readout and set; the questions of a set are resampled alike for all of them."""
    found: dict[Key, Results] = {}
    for key, model in stored.items():
        size = len(model.answers)
        draw = np.random.default_rng(list(key[2].encode()))  # each set has draws of its own
        counts = draw.multinomial(size, np.full(size, 1.0 / size), resamples)
        other = references[key[2]].scores
        found[key] = {one.name: judge(one, model, other, counts) for one in methods()}
        print(f"judged {', '.join(key)}", file=sys.stderr, flush=True)
    return found


def there(readings: Sequence[Reading], work: Path) -> dict[Key, Stored]:
    """Return the usual questions of what is kept so far; what is not is named."""
    found = {}
    for reading in readings:
        if reading.path(work).exists():
            found[reading.model, reading.readout, reading.name] = usual(kept(reading.path(work)))
        else:
            print(f"not read yet: {reading}", file=sys.stderr, flush=True)
    return found


def told(found: Mapping[Key, Results], references: Mapping[str, Stored], resamples: int) -> tuple[str, dict[str, Any]]:
    """Return everything as Markdown and as plain data."""
    rows, bars = summary(found), bar_rows(found, references)
    sizes = sorted({len(one.answers) for one in references.values()})
    said = f"{' or '.join(map(str, sizes))} questions a set, {SPLITS} splits, {resamples} resamples of the questions."
    lines = [said, "", *summary_table(rows, len(found)), "", *bar_table(found, bars), "", *above_table(found, bars)]
    for key, results in found.items():
        lines += ["", *table(key, results)]
    cells = [
        {"model": key[0], "readout": key[1], "set": key[2], "methods": {name: plain(one) for name, one in of.items()}}
        for key, of in found.items()
    ]
    return "\n".join([*lines, ""]), {"summary": rows, "bar": bars, "cells": cells}


def plain(result: Any) -> dict[str, Any]:
    """Return a result without its resamples."""
    return {name: value for name, value in asdict(result).items() if name != "ece_draws"}


def strict(value: Any) -> Any:
    """Return plain data as strict JSON knows it: what is no number becomes null, what is endless a text."""
    if isinstance(value, Mapping):
        return {name: strict(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = [one.name for one in sorted(packaged_models(), key=lambda one: one.size)]
    parser.add_argument("--work", type=Path, default=Path("shootout-work"), help="folder of readings; it goes on there")
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--readouts", nargs="+", default=["continuation:sum"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-reading", action="store_true", help="open no model: judge what is kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    chosen = parser.parse_args()
    if chosen.questions < LEAST:
        parser.error(f"--questions must be at least {LEAST}. Got {chosen.questions}.")
    return chosen


def main() -> None:
    chosen = arguments()
    chosen.work.mkdir(parents=True, exist_ok=True)
    sets = {name: load_questions(name, limit=chosen.questions, seed=0) for name in chosen.sets}
    readings = plan(chosen.models, chosen.readouts, REFERENCE, sets)
    if not chosen.no_reading:
        read_all(readings, chosen.work, chosen.threads)
    held = there(readings, chosen.work)
    references = {
        name: one for (model, how, name), one in held.items() if (model, how) == (REFERENCE, REFERENCE_READOUT)
    }
    stored = {key: one for key, one in held.items() if key[1] in chosen.readouts and key[2] in references}
    if not stored:
        sys.exit("Nothing to judge yet: a set needs the reference's reading and one model's. Leave out --no-reading.")
    text, data = told(judged(stored, references, chosen.resamples), references, chosen.resamples)
    print(text)
    if chosen.json:
        chosen.json.write_text(json.dumps(strict(data), indent=1, allow_nan=False), encoding="utf-8")
    if chosen.markdown:
        chosen.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
