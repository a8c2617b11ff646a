"""The shoot-out: every method of the shelf on real models and real question sets, with labels and without.

Models are read through Transformers, in bfloat16, in two families: by summed option texts, and by letters where the
model knows them (right more often than chance, at the 5 % level). Only letters have places, which batch calibration and
the class-wise methods can mend. The reference of the methods without labels is Gemma-3-270m (pre-trained), read per
token. Rows named "contextual" or "permuted" map a reading that corrects the plain one, and "probe" maps hidden states
of option texts. Sets of as many options are also judged as one, where each set is a group for group-temperature.
Answers in free text, drawn by llama.cpp, have tables of their own: one confidence an answer, that of its tokens or what
the model says when it is asked whether it is right, mapped with labels or by the reference's word (BaseCal, DACA).
Their cells are means over the splits, and the least and greatest of them.

In each of five seeded splits half of the questions fit and the other half is measured.
A cell is the mean over splits; its 95 % interval resamples questions, the same ones for every method, and takes each
split's held-out part of them; fits stay as they are. A method that fails says why in its row. Confidences are those of
the first choice. ECE has 10 bins of equal width and is biased upwards, on resamples once more: resampled figures are
moved so that their mean is the figure itself, so an interval shows spread and no bias. Intervals of the smooth ECE keep
the kernel's width of the whole held-out half. Questions with another number of options than most of their set are left
out: matrix scaling and Dirichlet need one number.

"uses" is what a fit is handed: labels, the reference's scores, the scores alone, or nothing. "choice stays" is what
the fitted calibrators and the readout declare. A fit without labels has a bar: where the reference is itself calibrated
(its own ECE over all questions of the set below 0.1), DACA's ECE is to be within 1.5 points of the temperature's with
labels, in the mean over models and sets. A model that is its own reference, read in another way, does not count there.

Reading takes hours and can be ended at any time: it goes on where it stopped; judging takes minutes. CATTO heads are
trained on two thirds of the fit half, and the rest says when to stop.

    OMP_NUM_THREADS=1 python benchmarks/shootout.py [--work FOLDER] [--json FILE] [--markdown FILE]
    OMP_NUM_THREADS=1 python benchmarks/shootout.py --work FOLDER --no-reading     # judges what is kept so far
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _shootout_free import FREE, FREE_MODELS, FREE_SETS, free_table, kept_free, read_free
from _shootout_judge import SPLITS, Key, Results, judge
from _shootout_methods import methods
from _shootout_probe import PROBE, kept_states, read_states
from _shootout_scores import (
    AROUND,
    REFERENCE,
    REFERENCE_READOUT,
    SETS,
    Reading,
    Stored,
    family_of,
    kept,
    knows,
    plain_readout,
    plan,
    pooled,
    read_all,
    usual,
)
from _shootout_tables import above_table, bar_rows, bar_table, summary, summary_table, table

from calibwrap.data import load_questions, packaged_models

LEAST = 40
"""Questions of a set below which a resample may hold none of a split's held-out half."""
JOINT = " + "
"""Stands between the names of sets that are judged as one."""

Cells = dict[Key, dict[str, Stored]]
"""By model, plain readout and set: what was read plainly (""), and around or beside that."""


def gathered(held: Mapping[Key, Stored], families: Sequence[str]) -> Cells:
    """Return the plain readings of some families with those that correct them, where there are any."""
    found: Cells = {}
    for (model, readout, name), plain in held.items():
        if any(readout == plain_readout(family, model) for family in families):
            corrected = {around: (model, f"{around}:{readout}", name) for around in AROUND[family_of(readout)]}
            found[model, readout, name] = {"": plain, **{a: held[key] for a, key in corrected.items() if key in held}}
    return found


def joint(cells: Cells, references: Mapping[str, Stored]) -> tuple[Cells, dict[str, Stored]]:
    """Return the sets of as many options as one, for each model and readout, and the reference on the same ones."""
    found: Cells = {}
    others: dict[str, Stored] = {}
    for model, readout in dict.fromkeys(key[:2] for key in cells):
        mine = {key[2]: of for key, of in cells.items() if key[:2] == (model, readout)}
        plain = pooled({name: of[""] for name, of in mine.items()})
        if plain is None:
            continue
        names = list(dict.fromkeys(plain.groups))
        corrections = [a for a in AROUND[family_of(readout)] if all(a in mine[name] for name in names)]
        whole = {around: pooled({name: mine[name][around] for name in names}) for around in corrections}
        found[model, readout, JOINT.join(names)] = {"": plain, **whole}
        others[JOINT.join(names)] = pooled({name: references[name] for name in names})
    return found, others


def judged(cells: Cells, references: Mapping[str, Stored], resamples: int) -> dict[Key, Results]:
    """Return all results, by model, readout and set; the questions of a set are resampled alike for all of them."""
    found: dict[Key, Results] = {}
    for key, readings in cells.items():
        size = len(readings[""].answers)
        draw = np.random.default_rng(list(key[2].encode()))  # each set has draws of its own
        counts = draw.multinomial(size, np.full(size, 1.0 / size), resamples)
        other = references[key[2]].scores
        rows = [one for one in methods() if one.reads in readings and (readings[""].groups or not one.in_groups)]
        found[key] = {one.name: judge(one, readings[one.reads], other, counts) for one in rows}
        print(f"judged {', '.join(key)}", file=sys.stderr, flush=True)
    return found


def there(readings: Sequence[Reading], work: Path) -> dict[Key, Stored]:
    """Return the usual questions of what is kept so far; what is not is named."""
    found = {}
    for reading in readings:
        if reading.path(work).exists():
            found[reading.model, reading.readout, reading.name] = usual(kept(reading.path(work)))
        else:
            print(f"not read: {reading}", file=sys.stderr, flush=True)
    return found


def with_states(cells: Cells, readings: Sequence[Reading], work: Path) -> Cells:
    """Return the cells, those of option texts with the hidden states that are kept of the same questions."""
    found = dict(cells)
    for reading in readings:
        key = (reading.model, plain_readout("text", reading.model), reading.name)
        if key in cells and reading.path(work).exists():
            found[key] = {**cells[key], PROBE: kept_states(reading, cells[key][""], work)}
        else:
            print(f"not read: {reading}", file=sys.stderr, flush=True)
    return found


def sections(found: Mapping[Key, Results]) -> Iterator[tuple[str, dict[Key, Results]]]:
    """Yield the results that can be ranked together, with a title: by family, sets alone and sets as one."""
    for family in AROUND:
        for title, is_joint in ((family, False), (f"{family}, sets as one", True)):
            part = {
                key: of for key, of in found.items() if family_of(key[1]) == family and (JOINT in key[2]) == is_joint
            }
            if part:
                yield title, part


def told(
    found: Mapping[Key, Results], references: Mapping[str, Stored], guessed: Sequence[Key], resamples: int
) -> tuple[str, dict[str, Any]]:
    """Return everything as Markdown and as plain data; `guessed` are the letters that are not judged."""
    sizes = sorted({len(one.answers) for name, one in references.items() if JOINT not in name})
    lines = [
        f"{' or '.join(map(str, sizes))} questions a set, {SPLITS} splits, {resamples} resamples of the questions."
    ]
    if guessed:
        lines += ["", f"Not judged, being at chance: {'; '.join(', '.join(key) for key in guessed)}."]
    data: dict[str, Any] = {"at_chance": list(guessed), "sections": {}}
    for title, part in sections(found):
        rows, bars = summary(part), bar_rows(part, references)
        lines += ["", *summary_table(title, rows), "", *bar_table(part, bars), "", *above_table(part, bars)]
        data["sections"][title] = {"summary": rows, "bar": bars}
    for key, results in found.items():
        lines += ["", *table(key, results)]
    data["cells"] = [
        {"model": key[0], "readout": key[1], "set": key[2], "methods": {name: plain(one) for name, one in of.items()}}
        for key, of in found.items()
    ]
    return "\n".join([*lines, ""]), data


def told_free(readings: Sequence[Reading], work: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the tables of free text as Markdown and as plain data; what is not read is named."""
    lines: list[str] = []
    data = []
    for reading in readings:
        read = kept_free(reading, work)
        if read is None:
            print(f"not read: {reading}", file=sys.stderr, flush=True)
            continue
        table_of, found = free_table(f"{reading.model}, {reading.name}", read)
        lines += ["", *table_of]
        data.append({"model": reading.model, "set": reading.name, **found})
    return "\n".join([*lines, ""]) if lines else "", data


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
    parser.add_argument("--families", nargs="+", choices=tuple(AROUND), default=tuple(AROUND), help="of readings")
    parser.add_argument("--probe", nargs="*", choices=models, default=models[:1], help="models of the row 'probe'")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--free", nargs="*", choices=FREE_SETS, default=FREE_SETS, help="sets of free text")
    parser.add_argument("--free-models", nargs="+", choices=models, default=FREE_MODELS)
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
    readings = plan(chosen.models, chosen.families, REFERENCE, sets)
    probed = [one for one in chosen.probe if one in chosen.models and "text" in chosen.families]
    states = [Reading(model, PROBE, name, tuple(of)) for model in probed for name, of in sets.items()]
    asked = {name: load_questions(name, limit=chosen.questions, seed=0) for name in chosen.free}
    free = [Reading(model, FREE, name, tuple(of)) for model in chosen.free_models for name, of in asked.items()]
    if not chosen.no_reading:
        read_all(readings, chosen.work, chosen.threads)
        read_states(states, chosen.work, chosen.threads)
        read_free(free, chosen.work, chosen.threads)
    held = there(readings, chosen.work)
    references = {name: one for (*how, name), one in held.items() if how == [REFERENCE, REFERENCE_READOUT]}
    cells = {key: of for key, of in gathered(held, chosen.families).items() if key[2] in references}
    guessed = [key for key, of in cells.items() if family_of(key[1]) == "letters" and not knows(of[""])]
    cells = {key: of for key, of in cells.items() if key not in guessed}
    if not cells:
        sys.exit("Nothing to judge yet: a set needs the reference's reading and one model's. Leave out --no-reading.")
    whole, others = joint(cells, references)
    references |= others
    found = judged(with_states(cells, states, chosen.work) | whole, references, chosen.resamples)
    text, data = told(found, references, guessed, chosen.resamples)
    of_free, data["free"] = told_free(free, chosen.work)
    text += of_free
    print(text)
    if chosen.json:
        chosen.json.write_text(json.dumps(strict(data), indent=1, allow_nan=False), encoding="utf-8")
    if chosen.markdown:
        chosen.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
