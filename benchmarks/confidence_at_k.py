"""Does it help? Greedy, votes and Confidence@k on real models and question sets: accuracy, calibration and cost.

Traces are drawn once for each model, question set and seed, and journalled; every decoder at every k is worked out from
them. So a run that was ended goes on where it stopped, and other decoders cost no model call. Three states:

- raw: the model's own label probabilities;
- temperature: every trace's label probabilities at a temperature fitted on the traces of the other half of the
  questions, which can change what Confidence@k, the weighted vote and the mean posterior answer (a majority vote reads
  no probability, so it has no such row);
- platt: the raw answers, their confidence mapped by Platt scaling fitted on this decoder's answers to the other half.

Both halves are measured, each with what the other one fitted; "all sets" is fitted on all sets together. Intervals are
95 % bootstrap intervals over questions; a question is drawn with the traces of all its seeds. An answer that no trace
names is wrong with confidence 0. Tokens are the drawn ones of the k traces; reading the prompt comes once for all.

    OMP_NUM_THREADS=1 python benchmarks/confidence_at_k.py [--work FOLDER] [--json FILE] [--markdown FILE]
"""

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import calibwrap as cw
from calibwrap import metrics
from calibwrap.base import Answer, Calibrator, Completion
from calibwrap.calibrators import Identity
from calibwrap.data import load_questions, packaged_model
from calibwrap.decoders.named import find_decoder
from calibwrap.errors import CalibrationWarning
from calibwrap.evaluate_traces import trace_scores
from calibwrap.freetext.fitting import fit_on_answers
from calibwrap.questions import TEMPLATES, Question
from calibwrap.stored_traces import (
    Drawing,
    decoded,
    default_stops,
    draw_traces,
    drawing_of,
    labels_of,
    named_traces,
)

KINDS = ("confidence", "majority", "weighted", "posterior")
STATES = ("raw", "temperature", "platt")
MEASURES = {
    "accuracy": lambda confidence, correct: float(correct.mean()),
    "confidence": lambda confidence, correct: float(confidence.mean()),
    "ece": lambda confidence, correct: metrics.ece(confidence.ravel(), correct.ravel(), n_bins=15),
    "aurc": lambda confidence, correct: metrics.aurc(confidence.ravel(), correct.ravel()),
}


@dataclass(frozen=True)
class Plan:
    """What is drawn, and where the journals lie."""

    work: Path
    sets: tuple[str, ...]
    questions: int
    seeds: int
    k: tuple[int, ...]
    template: str
    temperature: float
    max_tokens: int
    threads: int

    def drawings(self) -> dict[str, Drawing]:
        """Return the drawings of a question set by the name of their journal: one greedy, one sampled for each seed."""
        template = TEMPLATES[self.template]
        shared = {"max_tokens": self.max_tokens, "stop": default_stops(template)}
        sampled = {
            f"seed-{seed}": find_decoder(f"confidence@{max(self.k)}", temperature=self.temperature, seed=seed, **shared)
            for seed in range(self.seeds)
        }
        decoders = {"greedy": find_decoder("greedy", **shared), **sampled}
        return {name: drawing_of(decoder, template) for name, decoder in decoders.items()}


@dataclass
class Points:
    """What one decoder in one state says of N questions and S seeds."""

    confidence: list[list[float]] = field(default_factory=list)
    correct: list[list[bool]] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    unparsed: list[float] = field(default_factory=list)

    def add(self, answers: Sequence[Answer], right: str) -> None:
        """Add one question: an answer a seed."""
        self.confidence.append([answer.confidence for answer in answers])
        self.correct.append([answer.text == right for answer in answers])
        self.tokens.append(float(np.mean([sum(len(one.scores) for one in answer.candidates) for answer in answers])))
        self.unparsed.append(float(np.mean([answer.unparsed / len(answer.candidates) for answer in answers])))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return confidence and correctness (N, S)."""
        return np.array(self.confidence), np.array(self.correct)


def draw(plan: Plan, model: str) -> dict[str, dict[str, list[tuple[Completion, ...]]]]:
    """Return the traces of one model by question set and drawing, and draw what the journals do not hold."""
    found: dict[str, dict[str, list[tuple[Completion, ...]]]] = {}
    runtime = {"n_threads": plan.threads, "n_ctx": 1024}
    with cw.wrap(f"llama-cpp:{packaged_model(model)}", **runtime) as lm:
        for name in plan.sets:
            questions = load_questions(name, limit=plan.questions, seed=0)
            found[name] = {}
            for journal, drawing in plan.drawings().items():
                path = plan.work / model / name / f"{journal}.jsonl"
                start, left = time.perf_counter(), []
                decoder = find_decoder(f"confidence@{drawing.k}", **drawing.decoder_settings())
                found[name][journal] = draw_traces(
                    lm,
                    questions,
                    drawing,
                    decoder,
                    path,
                    resume=True,
                    progress=lambda done, total, left=left: left.append(total - done),
                )
                took = time.perf_counter() - start
                told = f"{model} {name} {journal}: {left[0]} questions drawn in {took:.0f} s"
                print(told, file=sys.stderr, flush=True)
    return found


def temperatures(
    questions: Sequence[Question], drawn: Sequence[Sequence[tuple[Completion, ...]]], halves: np.ndarray
) -> list[cw.Temperature]:
    """Return for each half the temperature fitted on all traces of the other one."""
    fitted = []
    for half in (0, 1):
        rows = np.flatnonzero(halves != half)
        asked = [questions[row] for row in rows]
        decoder = find_decoder(f"confidence@{len(drawn[0][0])}")
        named = [of for traces in drawn for of in named_traces(decoder, asked, [traces[row] for row in rows])]
        scores, answers = trace_scores(named, [question.answer for question in asked] * len(drawn))
        fitted.append(cw.fit_temperature(scores, answers))
    return fitted


def platted(answers: Sequence[Sequence[Answer]], right: Sequence[str], halves: np.ndarray) -> list[Calibrator]:
    """Return for each half the Platt map of the answers to the other one, all seeds together."""
    fitted = []
    for half in (0, 1):
        rows = np.flatnonzero(halves != half)
        pairs = [(of[row], of[row].text == right[row]) for of in answers for row in rows]
        fitted.append(fit_on_answers([answer for answer, _ in pairs], [correct for _, correct in pairs], "platt"))
    return fitted


def by_halves(
    decoder: Any,
    questions: Sequence[Question],
    traces: Sequence[tuple[Completion, ...]],
    calibrators: Sequence[Calibrator],
    halves: np.ndarray,
) -> list[Answer]:
    """Return the answers to all questions, each half with the calibrator that is meant for it."""
    both = [decoded(decoder, questions, traces, calibrator) for calibrator in calibrators]
    return [both[half][row] for row, half in enumerate(halves)]


def measure_set(
    plan: Plan, questions: Sequence[Question], traces: dict[str, list[tuple[Completion, ...]]]
) -> tuple[dict[tuple[str, str], Points], list[float]]:
    """Return the points of every decoder (its name) in every state, and the temperatures of both halves."""
    halves = np.random.default_rng(0).permutation(len(questions)) % 2
    right = [labels_of(question)[question.answer] for question in questions]
    sampled = [of for name, of in traces.items() if name != "greedy"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # a temperature at its bound is printed
        warm = temperatures(questions, sampled, halves)
    found: dict[tuple[str, str], Points] = {}
    for name in ("greedy", *(f"{kind}@{k}" for k in plan.k for kind in KINDS)):
        decoder = find_decoder(name, temperature=plan.temperature)
        drawn = [traces["greedy"]] if name == "greedy" else sampled
        raw = [decoded(decoder, questions, of) for of in drawn]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)  # few rows; what comes of it is in the table
            maps = platted(raw, right, halves)
        states = {"raw": [Identity()] * 2, "temperature": warm, "platt": maps}
        if name.startswith("majority"):
            del states["temperature"]
        for state, calibrators in states.items():
            answers = [by_halves(decoder, questions, of, calibrators, halves) for of in drawn]
            points = found[name, state] = Points()
            for row, truth in enumerate(right):
                points.add([of[row] for of in answers], truth)
    return found, [one.value for one in warm]


def pooled(of_sets: Sequence[dict[str, list[tuple[Completion, ...]]]]) -> dict[str, list[tuple[Completion, ...]]]:
    """Return the traces of several question sets as those of one, by drawing."""
    return {name: [traces for of in of_sets for traces in of[name]] for name in of_sets[0]}


def row_of(points: Points, baseline: Points, resamples: int) -> dict[str, Any]:
    """Return the figures of one decoder in one state, and what its accuracy has over the majority vote of equal k."""
    confidence, correct = points.arrays()
    row: dict[str, Any] = {"tokens": float(np.mean(points.tokens)), "unparsed": float(np.mean(points.unparsed))}
    for name, measure in MEASURES.items():
        low, high = metrics.bootstrap_ci(measure, confidence, correct, n_resamples=resamples, seed=0)
        row[name] = {"value": measure(confidence, correct), "low": low, "high": high}
        row[name]["seeds"] = [measure(confidence[:, [s]], correct[:, [s]]) for s in range(confidence.shape[1])]
    gain = correct.mean(axis=1) - baseline.arrays()[1].mean(axis=1)
    low, high = metrics.bootstrap_ci(lambda values: float(values.mean()), gain, n_resamples=resamples, seed=0)
    row["accuracy_over_majority"] = {"value": float(gain.mean()), "low": low, "high": high}
    return row


def table(found: dict[tuple[str, str], Points], resamples: int) -> dict[str, dict[str, Any]]:
    """Return the figures by decoder and state."""
    rows: dict[str, dict[str, Any]] = {}
    for (name, state), points in found.items():
        k = name.partition("@")[2] or "1"
        rows.setdefault(name, {})[state] = row_of(points, found[f"majority@{k}", "raw"], resamples)
    return rows


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print one table."""
    print(f"\n{title}")
    headings = ("accuracy", "over majority", "confidence", "ECE", "AURC")
    print(f"{'decoder':<14}{'state':<13}" + "".join(f"{name:>21}" for name in headings) + f"{'tokens':>9}{'unread':>8}")
    for name, states in rows.items():
        for state, row in states.items():
            cells = [row[key] for key in ("accuracy", "accuracy_over_majority", "confidence", "ece", "aurc")]
            shown = "".join(f"{c['value']:>9.3f} {c['low']:>5.2f}–{c['high']:<5.2f}" for c in cells)
            print(f"{name:<14}{state:<13}{shown}{row['tokens']:>9.0f}{row['unparsed']:>8.1%}")


def markdown(model: str, name: str, rows: dict[str, dict[str, Any]]) -> str:
    """Return one table for people: a line a decoder, the states beside each other; no state, no figure."""

    def cell(states: dict[str, Any], state: str, measure: str) -> str:
        found = states.get(state, {}).get(measure)
        return f"{found['value']:.3f}" if found else ""

    def interval(states: dict[str, Any], state: str, measure: str) -> str:
        found = states.get(state, {}).get(measure)
        return f"{found['value']:+.3f} ({found['low']:+.2f} to {found['high']:+.2f})" if found else ""

    heads = "decoder | accuracy: raw | T | over majority: raw | T | ECE: raw | T | Platt | AURC: raw | T | tokens"
    lines = [f"**{model}, {name}**", "", f"| {heads} |", "|" + "---|" * len(heads.split("|"))]
    for decoder, states in rows.items():
        cells = [decoder, cell(states, "raw", "accuracy"), cell(states, "temperature", "accuracy")]
        cells += [interval(states, state, "accuracy_over_majority") for state in ("raw", "temperature")]
        cells += [cell(states, state, "ece") for state in STATES]
        cells += [cell(states, state, "aurc") for state in ("raw", "temperature")]
        lines.append(f"| {' | '.join([*cells, format(states['raw']['tokens'], '.0f')])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
    parser.add_argument("--sets", nargs="+", default=["arc_easy", "sciq", "openbookqa"])
    parser.add_argument("--questions", type=int, default=30, help="of each set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--template", default="letter-reasoned", choices=["letter-reasoned", "letter-reasoned-chat"])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="models at a time")
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--work", type=Path, default=Path("confidence-at-k"), help="folder of the journals")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the tables as they stand in the documentation")
    chosen = parser.parse_args()
    names = ("work", "sets", "questions", "seeds", "k", "template", "temperature", "max_tokens", "threads")
    plan = Plan(**{name: getattr(chosen, name) for name in names})
    plan = replace(plan, sets=tuple(plan.sets), k=tuple(sorted(plan.k)))
    results: dict[str, Any] = {}
    pages: list[str] = []
    with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
        drawn = dict(zip(chosen.models, pool.map(draw, [plan] * len(chosen.models), chosen.models), strict=True))
    for model, by_set in drawn.items():
        asked = {name: load_questions(name, limit=plan.questions, seed=0) for name in plan.sets}
        if len(asked) > 1:
            everything = [question for questions in asked.values() for question in questions]
            asked, by_set = {**asked, "all sets": everything}, {**by_set, "all sets": pooled(list(by_set.values()))}
        every: dict[str, dict[tuple[str, str], Points]] = {}
        results[model] = {}
        for name, traces in by_set.items():
            every[name], warm = measure_set(plan, asked[name], traces)
            results[model][name] = {"temperatures": warm, "decoders": table(every[name], chosen.resamples)}
        for name, of in results[model].items():
            asked_in_all = len(every[name]["greedy", "raw"].tokens)
            fitted = ", ".join(f"{value:.2f}" for value in of["temperatures"])
            title = f"{model}, {name}, {asked_in_all} questions, {plan.seeds} seeds; temperatures: {fitted}"
            show(title, of["decoders"])
            pages.append(markdown(model, f"{name}, {asked_in_all} questions", of["decoders"]))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if chosen.markdown:
        chosen.markdown.write_text("\n".join(pages), encoding="utf-8")


if __name__ == "__main__":
    main()
