"""A temperature for each subject of MMLU, drawn towards the common one, beside one for all and 57 separate ones.

Letters by a packaged model in Transformers, in bfloat16. All of MMLU's validation questions fit (8 to 170 a subject),
or the first 8 of each subject; the test split's questions judge, equally many of each subject. "Subject's gap" is the
mean over subjects of |mean confidence - accuracy|; the row "chance" is what it would be if every test question's
confidence were its exact chance to be right: few questions a subject make gaps by themselves. Intervals resample test
questions within their subjects, and differences to the common temperature are paired.

What was read is kept in --work, and a run that is stopped goes on from there.

    OMP_NUM_THREADS=1 python benchmarks/mmlu_groups.py [--work FOLDER] [--model qwen2.5-coder-0.5b-instruct]
        [--readout label:letter-chat] [--per-subject 20] [--json FILE]
"""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import calibwrap as cw
from calibwrap import metrics
from calibwrap.calibrators import fit_group_temperature
from calibwrap.data import load_questions, packaged_model
from calibwrap.errors import CalibrationWarning
from calibwrap.evaluate import collect
from calibwrap.readouts import find_readout

FEWEST = 8
"""Validation questions of the subject that has the fewest."""
COMMON = "one for all"


@dataclass(frozen=True)
class Read:
    """What the model said of N questions."""

    logprobs: np.ndarray
    """(N, K) of the options."""
    right: np.ndarray
    """(N,) index of the right one."""
    groups: np.ndarray
    """(N,) subject."""

    def first(self, count: int) -> "Read":
        """Return the first questions of each subject."""
        rows = np.sort(np.concatenate([np.flatnonzero(self.groups == one)[:count] for one in np.unique(self.groups)]))
        return Read(self.logprobs[rows], self.right[rows], self.groups[rows])


def of_each(questions: Sequence[cw.Question], count: int) -> list[cw.Question]:
    """Return the first questions of each subject."""
    by_group: dict[str, list[cw.Question]] = {}
    for one in questions:
        by_group.setdefault(one.group, []).append(one)
    return [one for group in by_group.values() for one in group[:count]]


def read(chosen: argparse.Namespace) -> dict[str, Read]:
    """Return the scores of both splits, journalled."""
    import torch

    torch.set_num_threads(chosen.threads)
    sets = {
        "fit": load_questions("mmlu", split="validation", seed=0),
        "test": of_each(load_questions("mmlu", split="test", seed=0), chosen.per_subject),
    }
    found = {}
    how = find_readout(chosen.readout)
    with cw.wrap(f"hf:{packaged_model(chosen.model)}", dtype=torch.bfloat16) as lm:
        for name, questions in sets.items():

            def tell(done: int, total: int, name: str = name) -> None:
                print(f"\r{name}: {done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)

            journal = chosen.work / f"{chosen.model}-{chosen.readout.replace(':', '-')}-{name}.jsonl"
            scores = collect(lm, questions, journal, readout=how, resume=True, progress=tell)
            right, groups = ([getattr(one, name) for one in questions] for name in ("answer", "group"))
            found[name] = Read(scores.logprobs, np.array(right), np.array(groups))
    return found


def calibrated(fit: Read, test: Read) -> dict[str, np.ndarray]:
    """Return the test questions' log-probabilities as each method leaves them."""
    common = cw.fit_temperature(fit.logprobs, fit.right)
    separate = np.empty_like(test.logprobs)
    for group in np.unique(test.groups):
        own, asked = fit.groups == group, test.groups == group
        separate[asked] = cw.fit_temperature(fit.logprobs[own], fit.right[own])(test.logprobs[asked])
    drawn = fit_group_temperature(fit.logprobs, fit.right, groups=fit.groups.tolist())
    print(f"{len(fit.right)} rows fit: T = {common.value:.2f}. {drawn.report.notes[0] if drawn.report else ''}")
    return {
        "as it is": test.logprobs,
        COMMON: common(test.logprobs),
        "57 separate ones": separate,
        "57, drawn to the common one": drawn(test.logprobs, groups=test.groups.tolist()),
    }


def figures(logprobs: np.ndarray, right: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Return the figures of N questions."""
    confidence, correct = np.exp(logprobs.max(axis=1)), logprobs.argmax(axis=1) == right
    _, place = np.unique(groups, return_inverse=True)
    gaps = np.bincount(place, confidence - correct) / np.bincount(place)
    return {
        "nll": metrics.nll(logprobs, right),
        "brier": metrics.brier(np.exp(logprobs), right),
        "ece": metrics.ece(np.minimum(confidence, 1.0), correct, n_bins=15),
        "subject's gap": float(np.abs(gaps).mean()),
    }


def chance_of_gap(logprobs: np.ndarray, groups: np.ndarray, draws: int) -> float:
    """Return the mean subject's gap where each answer is right with exactly its confidence."""
    confidence = np.exp(logprobs.max(axis=1))
    _, place = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(0)
    right = random.uniform(size=(draws, len(confidence))) < confidence
    gaps = [np.bincount(place, confidence - one) / np.bincount(place) for one in right]
    return float(np.abs(gaps).mean())


def resampled(groups: np.ndarray, draws: int) -> list[np.ndarray]:
    """Return rows drawn with replacement within each subject."""
    random = np.random.default_rng(1)
    places = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return [np.concatenate([random.choice(own, len(own)) for own in places]) for _ in range(draws)]


def compared(fit: Read, test: Read, draws: int) -> dict[str, Any]:
    """Return the figures of each method, and their differences to the common temperature with intervals."""
    tables = calibrated(fit, test)
    picked = resampled(test.groups, draws)
    values = {name: figures(table, test.right, test.groups) for name, table in tables.items()}
    again = {
        name: [figures(table[rows], test.right[rows], test.groups[rows]) for rows in picked]
        for name, table in tables.items()
    }
    found: dict[str, Any] = {"chance": chance_of_gap(tables[COMMON], test.groups, draws)}
    for name, own in values.items():
        found[name] = {}
        for key, value in own.items():
            less = [one[key] - other[key] for one, other in zip(again[name], again[COMMON], strict=True)]
            ends = np.quantile(less, [0.025, 0.975]).tolist()
            found[name][key] = {"value": value, "change": value - values[COMMON][key], "ends": ends}
    return found


def show(title: str, found: dict[str, Any]) -> None:
    """Print one table."""
    print(f"\n{title}; less than 0 is better than one for all\nchance of the subject's gap: {found['chance']:.3f}")
    for name, row in found.items():
        if name != "chance":
            cells = [
                f"{key} {one['value']:.3f} ({one['change']:+.4f}, {one['ends'][0]:+.4f} to {one['ends'][1]:+.4f})"
                for key, one in row.items()
            ]
            print(f"{name:<28}" + "  ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("mmlu-groups"), help="folder of journals; it goes on there")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--readout", default="label:letter-chat")
    parser.add_argument("--per-subject", type=int, default=20, help="test questions of each subject")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", category=CalibrationWarning)
    chosen.work.mkdir(parents=True, exist_ok=True)
    sets = read(chosen)
    accuracy = float((sets["test"].logprobs.argmax(axis=1) == sets["test"].right).mean())
    print(f"{chosen.model}, {chosen.readout}: {len(sets['test'].right)} test questions, {accuracy:.3f} right")
    fits = {"all validation questions": sets["fit"], f"{FEWEST} a subject": sets["fit"].first(FEWEST)}
    found = {title: compared(fit, sets["test"], chosen.resamples) for title, fit in fits.items()}
    for title, table in found.items():
        show(title, table)
    if chosen.json:
        chosen.json.write_text(json.dumps({"accuracy": accuracy, "tables": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
