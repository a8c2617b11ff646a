"""What the shoot-out judges: option scores of real models on real question sets, read once and kept.

A reading is one set by one model in one way. While it is under way each question is journalled; when it is whole it
becomes an .npz file, named by model, readout, set and a hash of the questions, and no model is opened for it again.

There are two families of readings: summed option texts, and letters. Either can be corrected by a reading around it.
Small models often do not know the letters: where the plain reading is right no more often than chance, corrections are
not read, and the shoot-out does not judge it.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

import calibwrap as cw
from calibwrap.data import packaged_model, packaged_models
from calibwrap.errors import CalibrationWarning
from calibwrap.evaluate import collect, content_hash, question_keys
from calibwrap.files import replacing
from calibwrap.questions import answers_of
from calibwrap.readouts import find_readout
from calibwrap.scores import join

SETS = ("arc_easy", "sciq", "openbookqa", "commonsense_qa")
REFERENCE, REFERENCE_READOUT = "gemma-3-270m", "continuation:token"
"""What the methods without labels learn from."""
AROUND = {"text": ("contextual",), "letters": ("contextual", "permuted")}
"""By family of readings: the readouts around the plain one that correct it."""
CHANCE = 0.05
"""Level of the test that a model which guesses is right as often as this one."""
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

    @property
    def plain(self) -> "Reading":
        """The reading that this one corrects, or itself."""
        around, _, inside = self.readout.partition(":")
        return replace(self, readout=inside) if around in AROUND["letters"] else self

    def __str__(self) -> str:
        return f"{self.model}, {self.readout}, {self.name} ({len(self.questions)} questions)"


@dataclass(frozen=True)
class Stored:
    """What was read of N questions."""

    scores: Any
    """Scores of options, or hidden states of them."""
    answers: np.ndarray
    """(N,) index of the right option."""
    ids: tuple[str, ...]
    groups: tuple[str, ...] = ()
    """(N,) the set of each question, where several are one; else empty."""

    def take(self, rows: np.ndarray) -> "Stored":
        """Return some of the questions."""
        ids = tuple(self.ids[row] for row in rows)
        groups = tuple(self.groups[row] for row in rows) if self.groups else ()
        return Stored(self.scores.take(rows), self.answers[rows], ids, groups)


def plain_readout(family: str, model: str) -> str:
    """Return the readout of a family that corrects nothing: letters in a chat only for a model that knows chats."""
    if family == "text":
        return "continuation:sum"
    return "label:letter-chat" if model.endswith("-instruct") else "label:letter"


def family_of(readout: str) -> str:
    """Return the family of a plain readout."""
    return "letters" if readout.startswith("label") else "text"


def plan(
    models: Sequence[str], families: Sequence[str], reference: str, sets: Mapping[str, Sequence[cw.Question]]
) -> list[Reading]:
    """Return what has to be read, smallest model first: what the others need, plain readings, then corrections."""
    sizes = {model.name: model.size for model in packaged_models()}
    wanted = {(reference, REFERENCE_READOUT): 0}
    for model in models:
        for family in families:
            plain = plain_readout(family, model)
            names = [plain, *(f"{around}:{plain}" for around in AROUND[family])]
            wanted |= {(model, name): 1 + (name != plain) for name in names if (model, name) not in wanted}
    order = sorted(wanted, key=lambda pair: (sizes[pair[0]], wanted[pair], pair))
    return [Reading(*pair, name, tuple(questions)) for pair in order for name, questions in sets.items()]


def knows(stored: Stored) -> bool:
    """Return whether a reading is right more often than a model that guesses would be."""
    hits = int((stored.scores.choice == stored.answers).sum())
    chance = float((1.0 / stored.scores.mask.sum(axis=1)).mean())
    return bool(binomtest(hits, len(stored.answers), chance, alternative="greater").pvalue < CHANCE)


def at_chance(reading: Reading, work: Path) -> bool:
    """Return whether a reading corrects letters that are kept, and that the model does not know."""
    plain = reading.plain
    if plain == reading or family_of(plain.readout) == "text" or not plain.path(work).exists():
        return False
    return not knows(kept(plain.path(work)))


def pooled(read: Mapping[str, Stored]) -> Stored | None:
    """Return the questions of all sets with as many options as most sets have, or None where that is one set.

    The set is the group of a question.
    """
    widths = {name: one.scores.mask.shape[1] for name, one in read.items()}
    usual_width = max(widths.values(), key=lambda width: (list(widths.values()).count(width), -width))
    names = [name for name, width in widths.items() if width == usual_width]
    if len(names) < 2:
        return None
    parts = [read[name] for name in names]
    ids = tuple(f"{name}:{one}" for name, part in zip(names, parts, strict=True) for one in part.ids)
    groups = tuple(name for name, part in zip(names, parts, strict=True) for _ in part.ids)
    return Stored(join([part.scores for part in parts]), np.concatenate([p.answers for p in parts]), ids, groups)


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
        if not reading.path(work).exists() and not at_chance(reading, work):
            by_model.setdefault(reading.model, []).append(reading)
    for model, left in by_model.items():
        with opened(model, threads) as lm:
            for reading in left:
                if at_chance(reading, work):
                    print(f"at chance, so that no correction is read: {reading}", file=sys.stderr, flush=True)
                    continue
                keep(reading.path(work), read(lm, reading, work))


def opened(model: str, threads: int) -> cw.CalibratedLM:
    """Return a packaged model in Transformers, in bfloat16; its logits are worked out in float32."""
    import torch

    torch.set_num_threads(threads)
    return cw.wrap(f"hf:{packaged_model(model)}", dtype=torch.bfloat16)


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
