"""A hidden-state probe beside temperature on a packaged model: accuracy, log loss, ECE and Brier score.

Five seeded splits: the probe and the temperature are fitted on the same labels and judged on the same questions. Both
read options one at a time, so that their order cannot flip an answer. What was read of the model is kept in `--cache`,
with what it was read of, and a run that is stopped goes on from there:

    OMP_NUM_THREADS=1 python benchmarks/probe.py --cache FOLDER [--questions 296] [--labels 50 200] [--minutes 60]
"""

import argparse
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np

import calibwrap as cw
from calibwrap.calibrators import fit_probe
from calibwrap.data import packaged_model
from calibwrap.errors import CalibrationWarning
from calibwrap.evaluate import content_hash
from calibwrap.journal import Journal
from calibwrap.metrics import accuracy, brier, ece, nll
from calibwrap.probing import option_states
from calibwrap.scores import join

SPLITS = 5


def read(lm, questions, layers, folder, deadline):
    """Return the states of the options by question and the scores, kept in pieces of eight questions.

    The journal of the pieces says what they were read of: a folder that holds those of anything else is refused.
    """
    header = {
        "model": asdict(lm.adapter.fingerprint()),
        "readout": lm.readout.label,
        "layers": list(layers),
        "questions": len(questions),
        "content": content_hash(questions),
    }
    with Journal.open(folder / "pieces.jsonl", header, resume=True) as journal:
        parts = [piece(lm, questions, start, layers, journal, deadline) for start in range(0, len(questions), 8)]
    width = max(states.shape[1] for states, _ in parts)
    padded = [np.pad(s, [(0, 0), (0, width - s.shape[1]), (0, 0), (0, 0)]) for s, _ in parts]
    return np.concatenate(padded), join([scores for _, scores in parts])


def piece(lm, questions, start, layers, journal, deadline):
    """Return the states and scores of eight questions, read of the model where the journal does not name them."""
    name = f"part_{start}"
    file, asked = journal.path.with_name(f"{name}.npz"), questions[start : start + 8]
    if name not in journal.done:
        if time.perf_counter() > deadline:
            raise SystemExit(f"{start} of {len(questions)} questions read: run it again to go on.")
        states, _ = option_states(lm.adapter, asked, layers)
        np.savez(file, states=states.astype(np.float32), logprobs=lm.scores(asked).logprobs)
        journal.append([{"id": name}])
    with np.load(file) as held:
        return held["states"], cw.OptionScores(held["logprobs"], lm.readout.label)


def figures(logprobs, answers):
    probabilities = np.exp(logprobs)
    right = logprobs.argmax(axis=1) == answers
    return [
        accuracy(right),
        nll(logprobs, answers),
        ece(probabilities.max(axis=1), right),
        brier(probabilities, answers),
    ]


def split(states, scores, answers, layers, labels, seed):
    """Return the figures of each method on one split, and seconds that the probe's fit took."""
    order = np.random.default_rng(seed).permutation(len(answers))
    fit, held = order[:labels], order[labels:]
    temperature = cw.fit_temperature(scores.take(fit), answers[fit])
    began = time.perf_counter()
    by_layer = {layer: states[fit][:, :, at] for at, layer in enumerate(layers)}
    probe = fit_probe(by_layer, answers[fit], scores.mask[fit], seed=seed)
    seconds = time.perf_counter() - began
    logits = probe.of_states(states[held][:, :, list(layers).index(probe.layer)])
    own = cw.OptionScores(np.where(scores.mask[held], logits, -np.inf), "probe", scores.mask[held])
    rows = {"raw": scores.take(held), "temperature": temperature(scores.take(held)), "probe": own}
    return {name: figures(one.logprobs, answers[held]) for name, one in rows.items()}, seconds, probe.layer


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--model", default="smollm2-135m-instruct")
    options.add_argument("--data", default="arc_easy")
    options.add_argument("--questions", type=int, default=296)
    options.add_argument("--labels", type=int, nargs="+", default=[50, 200])
    options.add_argument("--minutes", type=float, default=60.0)
    asked = options.parse_args()
    warnings.simplefilter("ignore", CalibrationWarning)
    drawn = cw.load_questions(asked.data, split="train", limit=700, seed=0)
    questions = [question for question in drawn if len(question.options) == 4][: asked.questions]  # chance is a quarter
    deadline = time.perf_counter() + 60 * asked.minutes
    with cw.wrap(f"hf:{packaged_model(asked.model)}") as lm:
        depth = lm.adapter.n_layers
        layers = tuple(round(depth * part) for part in (1 / 2, 2 / 3, 5 / 6, 1))
        states, scores = read(lm, questions, layers, asked.cache, deadline)
    answers = np.array([question.answer for question in questions])
    print("| labels | method | accuracy | log loss | ECE | Brier |")
    print("|---|---|---|---|---|---|")
    for labels in asked.labels:
        found = [split(states, scores, answers, layers, labels, seed) for seed in range(SPLITS)]
        for name in ("raw", "temperature", "probe"):
            table = np.array([rows[name] for rows, _, _ in found])
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(axis=0), table.std(axis=0), strict=True)]
            print(f"| {labels} | {name} | " + " | ".join(cells) + " |")
        print(f"probe: layers {[layer for *_, layer in found]}, {np.median([s for _, s, _ in found]):.0f} s a fit")


if __name__ == "__main__":
    main()
