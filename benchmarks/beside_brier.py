"""Beside brier 0.2.0, on the same model, questions and labels: accuracy, ECE, Brier score, flips, seconds a question.

Two tasks of real questions. "subjects" is brier's own ground, one label set for every text: which of eight subjects a
question of MMLU is from. "arc_easy" has options of its own in every question, and there brier has no calibration to
fit, which belongs to one list of options. Each library asks in its own words. brier shows lettered options (levels raw,
L0: all rotations and the label prior, L1: a temperature on it, L2: a head on hidden states). calibwrap's defaults for
such a model read each option's text after the question, which shows no other option: continuation; the same against
what a text without a question gives; with the mean of unlabelled texts divided out (batch); a temperature; a probe. It
can also do what brier does, letters averaged over all rotations (permuted).

The rows with 0, 50 and 300 labels are fitted on the same questions, and judged on the same others; five random splits.
The label prior of either library sees the 300 texts without labels. A flip is another first choice after the options
were told in reverse order, of the first 60 test questions of the first split. Seconds are processor time of a whole
answer to a new question, one thread, a median of 20.

What was read is kept in --work, and a run that is stopped goes on from there.

    OMP_NUM_THREADS=1 python benchmarks/beside_brier.py [--work FOLDER] [--tasks subjects arc_easy] [--json FILE]
"""

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from brier import Choice, Decider
from brier.backends.hf import HFBackend

import calibwrap as cw
from calibwrap import metrics
from calibwrap.calibrators import fit_batch
from calibwrap.data import load_questions
from calibwrap.errors import CalibrationWarning
from calibwrap.files import replacing
from calibwrap.probing import DEPTHS, option_states
from calibwrap.questions import Question

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the float32 form of the packaged model
from tests.servers import matched

SUBJECTS = {
    "philosophy": "philosophy", "prehistory": "prehistory", "nutrition": "nutrition", "high_school_biology": "biology",
    "high_school_macroeconomics": "economics", "elementary_mathematics": "mathematics", "marketing": "marketing",
    "high_school_psychology": "psychology",
}  # fmt: skip
"""MMLU's subjects that a text may be from, and the option that says so."""
ASKED = "Which subject is this exam question from?"
LABELS = (0, 50, 300)
SPLITS = 5
TIMED = 20
FLIPPED = 60
KEEP_EVERY = 40
"""Prompts after which what was read is kept."""
Table = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Task:
    """Texts, what is asked of them, and what is right."""

    name: str
    states: tuple[str, ...]
    """What brier is told as the state."""
    questions: tuple[Question, ...]
    """What calibwrap is asked."""
    text: str
    """What brier is asked of each state."""

    @property
    def right(self) -> np.ndarray:
        """(N,) index of the right option."""
        return np.array([question.answer for question in self.questions])

    def choice(self, row: int, *, is_reversed: bool = False) -> Choice:
        """Return brier's question of one row."""
        options = self.questions[row].options
        return Choice(self.text, options[::-1] if is_reversed else options, name="asked")

    @property
    def has_one_list(self) -> bool:
        """Whether every question has the same options."""
        return len({question.options for question in self.questions}) == 1


class Memo(HFBackend):
    """brier's backend, which remembers what it read; a file keeps it."""

    def __init__(self, model: str, file: Path) -> None:
        """Load the model, and what is known of it."""
        super().__init__(model)
        self.file, self.fresh, self.is_timed = file, 0, False
        self.known: dict[str, np.ndarray] = {}
        if file.exists():
            with np.load(file) as held:
                self.known = {key: held[key] for key in held.files}

    def label_logprobs(self, prompts: Sequence[str], token_ids: Sequence[int]) -> np.ndarray:
        """Return the rows that brier asks for."""
        read = super().label_logprobs
        return self._remembered(prompts, f"labels {list(token_ids)}", lambda part: read(part, token_ids))

    def hidden_states(self, prompts: Sequence[str], layers: Sequence[int]) -> np.ndarray:
        """Return the states that brier asks for."""
        read = super().hidden_states
        return self._remembered(prompts, f"states {list(layers)}", lambda part: read(part, layers))

    def _remembered(self, prompts: Sequence[str], what: str, read: Callable[[Sequence[str]], Any]) -> np.ndarray:
        if self.is_timed:
            return np.asarray(read(prompts))
        keys = [hashlib.sha256(f"{what}\n{prompt}".encode()).hexdigest() for prompt in prompts]
        left = [at for at, key in enumerate(keys) if key not in self.known]
        for start in range(0, len(left), self.batch_size):
            part = left[start : start + self.batch_size]
            rows = read([prompts[at] for at in part])
            self.known |= {keys[at]: row for at, row in zip(part, rows, strict=True)}
            self.fresh += len(part)
            if self.fresh >= KEEP_EVERY:
                self.keep()
        return np.stack([self.known[key] for key in keys])

    def keep(self) -> None:
        """Write what is known."""
        if self.fresh:
            with replacing(self.file) as path, path.open("wb") as file:
                np.savez(file, **self.known)
            self.fresh = 0


def subjects(count: int) -> Task:
    """Return texts of eight subjects, equally many of each."""
    rows = load_questions("mmlu", split="test", seed=0)
    chosen: list[Question] = []
    for group, subject in SUBJECTS.items():
        own = [one for one in rows if one.group == group and len(one.prompt) <= 300][: count // len(SUBJECTS)]
        right = list(SUBJECTS.values()).index(subject)
        chosen += [Question(f"{one.prompt}\n{ASKED}", tuple(SUBJECTS.values()), right, one.id) for one in own]
    order = np.random.default_rng(0).permutation(len(chosen))
    asked = tuple(chosen[at] for at in order)
    return Task("subjects", tuple(one.prompt.removesuffix(f"\n{ASKED}") for one in asked), asked, ASKED)


def arc_easy(count: int) -> Task:
    """Return questions of ARC-Easy with four options."""
    asked = tuple(one for one in load_questions("arc_easy", split="train", seed=0) if len(one.options) == 4)[:count]
    return Task("arc_easy", tuple(one.prompt for one in asked), asked, "Which answer is right?")


TASKS = {"subjects": subjects, "arc_easy": arc_easy}


def judged(probabilities: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Return the figures of N questions."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == right
    return {
        "accuracy": float(correct.mean()),
        "ece": metrics.ece(np.minimum(confidence, 1.0), correct, n_bins=15),
        "brier": metrics.brier(probabilities, right),
    }


def rows_of_brier(found: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return (N, K) probabilities, in the order in which the options were told."""
    return np.array([list(one["asked"].probs.values()) for one in found])


class Theirs:
    """brier on one task."""

    def __init__(self, task: Task, folder: Path) -> None:
        """Load the model."""
        self.task = task
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a folder has no revision
            self.backend = Memo(str(matched.smollm2().directory), folder / f"brier-{task.name}.npz")

    def decided(self, decider: Decider, rows: Sequence[int], level: str, *, is_reversed: bool = False) -> np.ndarray:
        """Return (n, K) probabilities of some rows, in the options' order."""
        task = self.task
        if task.has_one_list:
            choice = task.choice(0, is_reversed=is_reversed)
            found: list[Any] = []
            for start in range(0, len(rows), 64):
                part = [task.states[row] for row in rows[start : start + 64]]
                found += decider.decide_batch(part, [choice], level)
        else:
            found = [
                decider.decide(task.states[row], [task.choice(row, is_reversed=is_reversed)], level) for row in rows
            ]
        self.backend.keep()
        table = rows_of_brier(found)
        return table[:, ::-1] if is_reversed else table

    def fits(self, fit: Sequence[int]) -> Iterator[tuple[str, int, str, Decider]]:
        """Yield name, number of labels, level and fitted decider."""
        task, plain = self.task, Decider(self.backend)
        yield "raw", 0, "raw", plain
        if not task.has_one_list:
            yield "L0, rotations", 0, "L0", plain
            return
        choice, texts = task.choice(0), [task.states[row] for row in fit]
        said = [task.questions[row].answer_text for row in fit]
        decider = Decider(self.backend)
        decider.fit_prior(texts, [choice])
        yield "L0, rotations and prior", 0, "L0", decider
        for labels in LABELS[1:]:
            decider.fit_temperature(texts[:labels], choice, said[:labels])
            yield "L1, temperature", labels, "L1", decider
            enough = min(said[:labels].count(option) for option in choice.options) >= 5
            if labels >= 60 and enough:
                decider.fit_head(texts[:labels], choice, said[:labels])
                yield "L2, head", labels, "L2", decider


class Ours:
    """calibwrap on one task; everything is read once."""

    READOUTS = ("continuation", "contextual:continuation", "permuted:label")

    def __init__(self, task: Task, folder: Path) -> None:
        """Load the model, and read what the folder does not hold yet."""
        self.task = task
        self.lm = cw.wrap(f"hf:{matched.smollm2().directory}")
        depth: int = self.lm.adapter.n_layers  # type: ignore[attr-defined]
        self.layers = tuple(sorted({round(part * depth) for part in DEPTHS}))
        file = folder / f"calibwrap-{task.name}.npz"
        self.read: dict[str, np.ndarray] = {}
        if file.exists():
            with np.load(file) as held:
                self.read = {key: held[key] for key in held.files}
        reads: dict[str, Callable[[], np.ndarray]] = {
            name: lambda name=name: self.lm.scores(task.questions, readout=name).logprobs for name in self.READOUTS
        }
        reads["states"] = lambda: option_states(self.lm.adapter, task.questions, self.layers)[0].astype(np.float32)
        for name, read in reads.items():
            if name not in self.read:
                self.read[name] = read()
                with replacing(file) as path, path.open("wb") as opened:
                    np.savez(opened, **self.read)

    def fits(self, fit: np.ndarray) -> Iterator[tuple[str, int, str, Callable[[np.ndarray], np.ndarray]]]:
        """Yield name, number of labels, what is read of the model, and what gives the probabilities of some rows."""
        plain, contextual, permuted = (self.read[key] for key in self.READOUTS)
        yield "letters, permuted", 0, "permuted", lambda rows: np.exp(permuted[rows])
        yield "continuation", 0, "text", lambda rows: np.exp(plain[rows])
        yield "continuation, contextual", 0, "contextual", lambda rows: np.exp(contextual[rows])
        batch: cw.Calibrator = fit_batch(plain[fit]) if self.task.has_one_list else cw.Identity()
        corrected = "batch, " if self.task.has_one_list else ""
        if corrected:
            yield "continuation, batch", 0, "text", lambda rows: np.exp(batch(plain[rows]))
        for labels in LABELS[1:]:
            few, right = fit[:labels], self.task.right[fit[:labels]]
            for name, method in (("temperature", cw.fit_temperature), ("auto", cw.fit_auto)):
                found = method(batch(plain[few]), right)
                yield f"{corrected}{name}", labels, "text", lambda rows, found=found: np.exp(found(batch(plain[rows])))
            yield "probe", labels, "states", self.probed(few)

    def probed(self, fit: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return what gives the probabilities of some rows by a probe fitted on others."""
        states = self.read["states"]
        by_layer = {layer: states[fit][:, :, at] for at, layer in enumerate(self.layers)}
        probe = cw.fit_probe(by_layer, self.task.right[fit])
        at = self.layers.index(probe.layer)
        return lambda rows: np.exp(cw.scores.log_softmax(probe.of_states(states[rows][:, :, at])))

    def alone(self, test: np.ndarray) -> dict[str, dict[str, float]]:
        """Return flips and seconds of each way to read; a calibrator adds microseconds to them."""
        questions, found = self.task.questions, dict[str, dict[str, float]]()
        turned = [replace(questions[row], options=questions[row].options[::-1]) for row in test[:FLIPPED]]
        for what, readout in zip(("text", "contextual", "permuted"), self.READOUTS, strict=True):
            again = self.lm.scores(turned, readout=readout).logprobs[:, ::-1]
            flips = again.argmax(axis=1) != self.read[readout][test[:FLIPPED]].argmax(axis=1)
            seconds = clocked(lambda row, how=readout: self.lm.scores([questions[row]], readout=how), test)
            found[what] = {"flips": float(flips.mean()), "seconds": seconds}
        again, _ = option_states(self.lm.adapter, turned, self.layers)
        moved = np.abs(again[:, ::-1] - self.read["states"][test[:FLIPPED]]).max()
        assert moved < 0.05, f"an option's state is read without the others, and moved by {moved}"
        seconds = clocked(lambda row: option_states(self.lm.adapter, [questions[row]], self.layers[:1]), test)
        return found | {"states": {"flips": 0.0, "seconds": seconds}}


def compared(task: Task, folder: Path) -> Table:
    """Return the figures of each row of the table: lists over the splits, and of the first split flips and seconds."""
    theirs, ours = Theirs(task, folder), Ours(task, folder)
    found: Table = {}
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(task.questions))
        fit, test = order[: LABELS[-1]], order[LABELS[-1] :]
        right = task.right[test]
        for name, labels, level, decider in theirs.fits(fit):
            row = found.setdefault(f"brier {name}, {labels} labels", {})
            table = theirs.decided(decider, test, level)
            noted(row, judged(table, right))
            if not split:
                some = test[:FLIPPED]
                turned = theirs.decided(flipped(decider, task), some, level, is_reversed=True)
                flips = float((turned.argmax(axis=1) != table[: len(some)].argmax(axis=1)).mean())
                noted(row, {"flips": flips, "seconds": timed(theirs, decider, test, level)})
        alone = {} if split else ours.alone(test)
        for name, labels, what, answer in ours.fits(fit):
            noted(found.setdefault(f"calibwrap {name}, {labels} labels", {}), judged(answer(test), right))
            noted(found[f"calibwrap {name}, {labels} labels"], alone.get(what, {}))
        print(f"{task.name}: split {split + 1} of {SPLITS}", file=sys.stderr, flush=True)
    return found


def flipped(decider: Decider, task: Task) -> Decider:
    """Return a decider that has for the reversed options what it has for the options: nothing is fitted anew.

    brier has no public way to say so; this writes its private tables of priors, temperatures and heads.
    """
    if not task.has_one_list:
        return decider
    one, other = task.choice(0), task.choice(0, is_reversed=True)
    twin = Decider(decider.backend)
    if one in decider._priors:
        twin._priors[other] = decider._priors[one][::-1]
    if one in decider._temperatures:
        twin._temperatures[other] = decider._temperatures[one]
    if one in decider._heads:
        head = decider._heads[one]
        twin._heads[other] = replace(head, weights=head.weights[:, ::-1], bias=head.bias[::-1])
    return twin


def timed(theirs: Theirs, decider: Decider, rows: Sequence[int], level: str) -> float:
    """Return the median processor seconds of one answer."""
    theirs.backend.is_timed = True
    try:
        return clocked(lambda row: theirs.decided(decider, [row], level), rows)
    finally:
        theirs.backend.is_timed = False


def clocked(answer: Callable[[int], object], rows: Sequence[int]) -> float:
    """Return the median processor seconds that `answer` takes for a row, after one that does not count."""
    answer(rows[0])
    taken = []
    for row in rows[1 : TIMED + 1]:
        began = time.process_time()
        answer(row)
        taken.append(time.process_time() - began)
    return float(np.median(taken))


def noted(row: dict[str, list[float]], more: Mapping[str, float]) -> None:
    """Add one number to each list."""
    for name, value in more.items():
        row.setdefault(name, []).append(value)


def show(name: str, found: Table) -> None:
    """Print one table: mean and standard deviation over the splits."""
    columns = ("accuracy", "ece", "brier", "flips", "seconds")
    print(f"\n{name}\n{'':<46}" + "".join(f"{column:>18}" for column in columns))
    for row, values in found.items():
        cells = [values.get(column, []) for column in columns]
        told = [
            f"{np.mean(one):.3f}" + (f" ± {np.std(one):.3f}" if len(one) > 1 else "") if one else "" for one in cells
        ]
        print(f"{row:<46}" + "".join(f"{cell:>18}" for cell in told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("beside-brier"), help="folder of what was read; it goes on there"
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.questions <= LABELS[-1] + TIMED:
        parser.error(f"--questions must leave more than {TIMED} to test on beside the {LABELS[-1]} to fit on")
    warnings.filterwarnings("ignore", category=CalibrationWarning)
    chosen.work.mkdir(parents=True, exist_ok=True)
    found = {name: compared(TASKS[name](chosen.questions), chosen.work) for name in chosen.tasks}
    for name, table in found.items():
        show(name, table)
    if chosen.json:
        chosen.json.write_text(json.dumps({"questions": chosen.questions, "tasks": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
