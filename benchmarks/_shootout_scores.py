"""What the shoot-out judges: option scores of real models on real question sets, read once and kept.

A reading is one set by one model in one way. While it is under way each question is journalled; when it is whole it
becomes an .npz file, named by model, readout, set and a hash of the questions, and no model is opened for it again.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from label_free import REFERENCE_READOUT

import calibwrap as cw
from calibwrap.data import packaged_model, packaged_models
from calibwrap.errors import CalibrationWarning
from calibwrap.evaluate import collect, content_hash, question_keys
from calibwrap.files import replacing
from calibwrap.questions import answers_of
from calibwrap.readouts import find_readout

EVERY = 50
"""Questions between two lines of progress."""


@dataclass(frozen=True)
class Reading:
    """One set of questions by one model, read in one way."""

    model: str
    readout: str
    name: str
    """The set."""
    questions: tuple[cw.Question, ...]

    def path(self, work: Path) -> Path:
        """Return where its scores are kept; other questions, or the same in another order, lie elsewhere."""
        parts = (self.model, self.readout.replace(":", "-"), self.name, content_hash(self.questions))
        return work / f"{'--'.join(parts)}.npz"

    def __str__(self) -> str:
        return f"{self.model}, {self.readout}, {self.name} ({len(self.questions)} questions)"


@dataclass(frozen=True)
class Stored:
    """What was read of N questions."""

    scores: cw.OptionScores
    answers: np.ndarray
    """(N,) index of the right option."""
    ids: tuple[str, ...]


def plan(
    models: Sequence[str], readouts: Sequence[str], reference: str, sets: Mapping[str, Sequence[cw.Question]]
) -> list[Reading]:
    """Return what has to be read, smallest model first; of the reference's readings first what the others need."""
    sizes = {model.name: model.size for model in packaged_models()}
    wanted = {(model, readout) for model in models for readout in readouts} | {(reference, REFERENCE_READOUT)}
    order = sorted(wanted, key=lambda pair: (sizes[pair[0]], pair[1] != REFERENCE_READOUT, pair))
    return [Reading(*pair, name, tuple(questions)) for pair in order for name, questions in sets.items()]


def keep(path: Path, stored: Stored) -> None:
    """Write the scores with all their bounds; the file appears whole or not at all."""
    arrays = {field.name: getattr(stored.scores, field.name) for field in fields(stored.scores)}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, answers=stored.answers, ids=np.array(stored.ids), **arrays)


def kept(path: Path) -> Stored:
    """Return what `keep` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    answers, ids = arrays.pop("answers"), tuple(str(one) for one in arrays.pop("ids"))
    return Stored(cw.OptionScores(**{**arrays, "readout": str(arrays["readout"])}), answers, ids)


def usual(stored: Stored) -> Stored:
    """Return the questions that have as many options as most of their set: some methods know no others."""
    width = np.bincount(stored.scores.mask.sum(axis=1)).argmax()
    rows = np.flatnonzero(stored.scores.mask.sum(axis=1) == width)
    taken = stored.scores.take(rows)
    tables = {field.name: getattr(taken, field.name) for field in fields(taken) if field.name != "readout"}
    narrow = {name: array[:, :width] for name, array in tables.items() if array.ndim == 2}
    return Stored(replace(taken, **narrow), stored.answers[rows], tuple(stored.ids[row] for row in rows))


def read_all(readings: Iterable[Reading], work: Path, threads: int) -> None:
    """Read what is not kept yet; each model is opened once, and not at all when everything of it is there."""
    by_model: dict[str, list[Reading]] = {}
    for reading in readings:
        if not reading.path(work).exists():
            by_model.setdefault(reading.model, []).append(reading)
    for model, left in by_model.items():
        with cw.wrap(
            f"llama-cpp:{packaged_model(model)}", n_threads=threads, n_threads_batch=threads, n_ctx=1024, verbose=False
        ) as lm:
            for reading in left:
                keep(reading.path(work), read(lm, reading, work))


def read(lm: cw.CalibratedLM, reading: Reading, work: Path) -> Stored:
    """Return one reading; questions that its journal holds are not asked again."""
    journal = reading.path(work).with_suffix(".jsonl")
    how = find_readout(reading.readout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # little mass on the options is what gets calibrated
        scores = collect(lm, reading.questions, journal, readout=how, resume=True, progress=teller(str(reading)))
    return Stored(scores, np.array(answers_of(reading.questions)), tuple(question_keys(reading.questions)))


def teller(what: str) -> Callable[[int, int], None]:
    """Return a function that prints how far a reading is, now and then."""
    start = time.perf_counter()

    def tell(done: int, total: int) -> None:
        if done % EVERY == 0 or done == total:
            took = time.perf_counter() - start
            print(f"{what}: {done}/{total} after {took:.0f} s", file=sys.stderr, flush=True)

    return tell
