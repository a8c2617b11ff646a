"""Run a model over a question set: journalled and resumable, split into fit and held-out parts, written as files.

The model's raw scores go to a journal as they come; everything else (calibrators, figures, predictions) is worked out
from the journal afterwards, so that a run that was killed loses nothing that it had finished.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap import saving
from calibwrap.answer_scores import of_answers
from calibwrap.base import Adapter, Calibrator, Readout
from calibwrap.calibrators import Temperature, fit_for, fit_named, on_questions
from calibwrap.capabilities import check_reference
from calibwrap.errors import InputError, JournalError, PromptTooLong, QuestionError
from calibwrap.files import replacing
from calibwrap.halves import held_out_rows, over_halves
from calibwrap.journal import Journal
from calibwrap.provenance import Provenance
from calibwrap.questions import FreeQuestion, Question, answers_of, check_questions, groups_of
from calibwrap.readouts import find_readout, warn_of_little_mass
from calibwrap.readouts.defaults import default_reference_readout
from calibwrap.score_records import bounds_record, row_record, row_scores
from calibwrap.scores import Bools, OptionScores, join
from calibwrap.summary import Figure, figures
from calibwrap.wrap import CalibratedLM, Progress

RAW = "raw"
"""Name of the uncalibrated series in predictions and metrics."""
SAVED = "saved-"
"""What stands before the kind of the model's own calibrator, where others are fitted beside it."""


@dataclass(frozen=True)
class Evaluation:
    """What came out of one model on one question set."""

    questions: tuple[Question, ...]
    """The N questions."""
    held_out: Bools
    """(N,) True where no fit has seen the question; figures count these only."""
    scores: Mapping[str, OptionScores]
    """Scores of all N questions by series: "raw" first, then one for each calibrator."""
    calibrators: Mapping[str, Calibrator] = field(default_factory=dict)
    """The calibrators by the same names."""
    provenance: Provenance = field(default_factory=Provenance)
    """The model."""
    reference: Provenance | None = None
    """The reference model, where a fit used one."""
    halves: Mapping[str, Figure] = field(default_factory=dict)
    """Held-out ECE by series, averaged over random halves; empty without fits or answers."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """What model and reference spent together since they were loaded; empty where nothing is billed."""

    def part(self, series: str) -> tuple[tuple[Question, ...], OptionScores]:
        """Return the held-out questions and their scores in one series."""
        rows = np.flatnonzero(self.held_out)
        return tuple(self.questions[row] for row in rows), self.scores[series].take(rows)

    def metrics(self) -> dict[str, Any]:
        """Return what metrics.json holds: figures with intervals for each series, fits, and where they come from."""
        answered = self.held_out & np.array([question.answer is not None for question in self.questions])
        rows = np.flatnonzero(answered)
        answers = answers_of([self.questions[row] for row in rows])
        taken = {name: scores.take(rows) for name, scores in self.scores.items()} if answers else {}
        found = {name: of_answers(scores, figures(scores, answers)) for name, scores in taken.items()}
        return {
            "questions": len(self.questions),
            "held_out": int(self.held_out.sum()),
            "answered": len(answers),
            "readout": self.scores[RAW].readout,
            "label_mass": _mean_or_none(self.scores[RAW].label_mass),
            "series": {name: {key: asdict(figure) for key, figure in of.items()} for name, of in found.items()},
            "ece_over_random_halves": {name: asdict(figure) for name, figure in self.halves.items()},
            "fits": {name: describe(calibrator) for name, calibrator in self.calibrators.items()},
            "model": asdict(self.provenance),
            "reference": None if self.reference is None else asdict(self.reference),
            "usage": dict(self.usage),
        }

    def predictions(self) -> list[dict[str, Any]]:
        """Return what predictions.jsonl holds: one object a question, with everything that the report shows."""
        last = list(self.scores.values())[-1]
        raw = self.scores[RAW]
        return [
            {
                "id": key,
                "prompt": question.prompt,
                "options": list(question.options),
                "answer": question.answer,
                "context": question.context,
                **({"group": question.group} if question.group else {}),
                "part": "held-out" if self.held_out[row] else "fit",
                "choice": int(last.choice[row]),
                "confidence": float(last.confidence[row]),
                "label_mass": None if np.isnan(raw.label_mass[row]) else float(raw.label_mass[row]),
                "probabilities": {
                    name: scores.probabilities[row, : len(question.options)].tolist()
                    for name, scores in self.scores.items()
                },
                "truncated": {
                    name: bounds
                    for name, scores in self.scores.items()
                    if (bounds := bounds_record(scores, row, len(question.options)))
                },
            }
            for row, (key, question) in enumerate(zip(question_keys(self.questions), self.questions, strict=True))
        ]


def own_series(calibrator: Calibrator, fit: Sequence[str]) -> dict[str, Calibrator]:
    """Return the model's own calibrator under the name of its series beside these fits; nothing where it has none.

    >>> list(own_series(Temperature(2.0), ["temperature"])), list(own_series(Temperature(2.0), []))
    (['saved-temperature'], ['temperature'])
    """
    if calibrator.kind == "identity":
        return {}
    return {f"{SAVED}{calibrator.kind}" if fit else calibrator.kind: calibrator}


def describe(calibrator: Calibrator) -> dict[str, Any]:
    """Return a calibrator's kind, its temperature where it has one, and its fit report, ready for JSON.

    >>> from calibwrap.calibrators import Temperature
    >>> describe(Temperature(2.0))
    {'kind': 'temperature', 'temperature': 2.0}
    """
    number = {"temperature": calibrator.value} if isinstance(calibrator, Temperature) else {}
    report = {} if calibrator.report is None else asdict(calibrator.report)
    return {"kind": calibrator.kind, **number, **report}


def collect(
    lm: CalibratedLM,
    questions: Sequence[Question],
    journal: str | Path | None,
    *,
    readout: Readout | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> OptionScores:
    """Return the raw scores of N questions, journalled: none that is in the journal is asked again.

    Args:
        lm: the model.
        questions: the questions; each must have an id of its own, or none.
        journal: file to write and, with `resume`, to go on from; None keeps no journal.
        readout: how to read; the model's own by default.
        resume: go on from an existing journal instead of refusing to touch it.
        progress: called with (done, in all), the resumed ones included.

    Raises:
        JournalError: the journal exists and `resume` is false, belongs to another run, is broken, or the disk is full.
        QuestionError: two questions share an id.
    """
    readout = lm.readout if readout is None else readout
    if journal is None:
        return lm.scores(questions, readout, progress)
    keys = question_keys(questions)
    with Journal.open(journal, _header(lm, questions, readout), resume=resume) as written:
        left = [row for row, key in enumerate(keys) if key not in written.done]
        done = len(questions) - len(left)
        if progress is not None:
            progress(done, len(questions))
        for part in _parts(lm, [questions[row] for row in left], [keys[row] for row in left], readout):
            rows, left = left[: len(part)], left[len(part) :]
            written.append(
                [{"id": keys[row], **row_record(part, at, len(questions[row].options))} for at, row in enumerate(rows)]
            )
            done += len(part)
            if progress is not None:
                progress(done, len(questions))
        scores = join([row_scores(written.done[key], readout.label) for key in keys])
    warn_of_little_mass(readout, scores)
    return scores


@contextmanager
def naming(keys: Sequence[str]) -> Iterator[None]:
    """Add to an error about the length of a prompt which questions were asked.

    Raises:
        PromptTooLong: as it came, with their keys.
    """
    try:
        yield
    except PromptTooLong as error:
        one = f"the question {keys[0]!r}"
        told = one if len(keys) == 1 else f"one of the {len(keys)} questions from {keys[0]!r} to {keys[-1]!r}"
        raise PromptTooLong(f"{error} It came with {told}.") from error


def _parts(
    lm: CalibratedLM, questions: Sequence[Question], keys: Sequence[str], readout: Readout
) -> Iterator[OptionScores]:
    """Yield the scores of a few questions at a time, as `CalibratedLM.scores_by_part` does."""
    size = lm.adapter.provides.batch_size
    for start in range(0, len(questions), size):
        with naming(keys[start : start + size]):
            yield from lm.scores_by_part(questions[start : start + size], readout)


def evaluate(
    lm: CalibratedLM,
    questions: Sequence[Question],
    out: str | Path | None = None,
    *,
    fit: Sequence[str] = (),
    reference: CalibratedLM | None = None,
    readout: str | Readout | None = None,
    reference_readout: str | Readout | None = None,
    fit_share: float = 0.5,
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Return the raw and calibrated scores of a model on a question set, and write them to `out`.

    With `fit`, a random share of the questions fits the calibrators and the rest is held out. The model's own
    calibrator (if it has one) is a series too: alone by its kind, beside fits by "saved-" and its kind.

    Args:
        lm: the model, with or without a calibrator.
        questions: the questions; answers are needed for figures and for fits with labels.
        out: folder for journal.jsonl, predictions.jsonl, metrics.json and the calibrators; None writes nothing.
        fit: names of fits, such as ["temperature", "daca"].
        reference: the pre-trained model of fits without labels.
        readout: how to read the model; its own by default.
        reference_readout: how to read the reference; `default_reference_readout` by default.
        fit_share: share of the questions that fit, between 0 and 1.
        seed: of the split.
        resume: go on where an earlier run into `out` ended.
        progress: called with (done, in all) of both models' questions.

    Raises:
        InputError: bad share, too few questions, or a reference missing or given in vain.
        QuestionError: an answer that a fit needs is missing, or a group.
        JournalError: see `collect`.
    """
    check_questions(questions)
    chosen = lm.readout if readout is None else find_readout(readout)
    fits = [fit_named(method) for method in fit]
    if any(one.needs_reference for one in fits) != (reference is not None):
        raise InputError(
            f"The fits {list(fit)} {'take no' if reference else 'need a'} 'reference', a pre-trained model."
        )
    if any(one.needs_answers for one in fits):
        answers_of(questions)
    if any(one.needs_groups for one in fits):
        groups_of(questions)
    saving.check_provenance(lm.calibrator, lm.adapter.fingerprint(), chosen.label)
    held_out = held_out_rows(len(questions), fit, fit_share, seed)
    folder = None if out is None else output_folder(out)
    asked = [(lm, chosen, "journal.jsonl")]
    if reference is not None:
        how = default_reference_readout(chosen) if reference_readout is None else find_readout(reference_readout)
        check_reference(f"readout {how.label!r}", how.needs, reference.adapter.name, reference.adapter.provides)
        asked.append((reference, how, "reference.jsonl"))
    read = []
    for turn, (model, how, name) in enumerate(asked):
        journal = None if folder is None else folder / name
        shown = None if progress is None else _shifted(progress, turn * len(questions), len(asked) * len(questions))
        read.append(collect(model, questions, journal, readout=how, resume=resume, progress=shown))
    calibrators = {**own_series(lm.calibrator, fit), **_fit_all(lm, questions, fit, ~held_out, read, reference)}
    mapped = {name: on_questions(calibrator, questions)(read[0]) for name, calibrator in calibrators.items()}
    scores = {RAW: read[0], **mapped}
    origin = None if reference is None else reference.adapter.fingerprint()
    halves = _over_halves(questions, fit, read)
    usage = spent([model.adapter for model, _, _ in asked])
    result = Evaluation(
        tuple(questions), held_out, scores, calibrators, lm.adapter.fingerprint(), origin, halves, usage
    )
    if folder is not None:
        write(result, folder)
    return result


def write(result: Evaluation, folder: Path) -> None:
    """Write predictions.jsonl, metrics.json and one file for each calibrator that was fitted."""
    lines = [json.dumps(line, ensure_ascii=False) for line in result.predictions()]
    _write(folder / "predictions.jsonl", "\n".join(lines) + "\n")
    _write(folder / "metrics.json", json.dumps(result.metrics(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for old in folder.glob("calibrator-*.json"):  # of an earlier run with other fits
        if old.stem.removeprefix("calibrator-") not in result.calibrators:
            old.unlink()
    for name, calibrator in result.calibrators.items():
        saving.save(calibrator, folder / f"calibrator-{name}.json", provenance=result.provenance)


def _fit_all(
    lm: CalibratedLM,
    questions: Sequence[Question],
    methods: Sequence[str],
    rows: Bools,
    read: Sequence[OptionScores],
    reference: CalibratedLM | None,
) -> dict[str, Calibrator]:
    """Return the calibrators fitted on `rows`; a fit without labels is not handed any."""
    fitted, asked = {}, [questions[row] for row in np.flatnonzero(rows)]
    for method in methods:
        spec, options = fit_for(method, {}, asked)
        data = dict[str, Any](options)
        if spec.needs_answers:
            data["answers"] = answers_of(asked)
        elif spec.needs_reference:
            origin = None if reference is None else reference.adapter.fingerprint()
            data |= {"reference": read[1].take(rows), "provenance": origin}
        fitted[method] = lm.fitted(method, read[0].take(rows), **data).calibrator
    return fitted


def _over_halves(
    questions: Sequence[Question], methods: Sequence[str], read: Sequence[OptionScores]
) -> dict[str, Figure]:
    """Return the figures over random halves; none without fits, or with fewer than two answers a half."""
    rows = np.array([row for row, question in enumerate(questions) if question.answer is not None], dtype=np.int64)
    if not methods or len(rows) < 4:
        return {}
    reference = read[1].take(rows) if len(read) > 1 else None
    asked = [questions[row] for row in rows]
    groups = [question.group for question in asked]
    return over_halves(read[0].take(rows), answers_of(asked), methods, reference, groups)


def spent(adapters: Sequence[Adapter]) -> dict[str, int]:
    """Return the summed usage of different adapters."""
    total: dict[str, int] = {}
    for adapter in {id(adapter): adapter for adapter in adapters}.values():
        for name, number in adapter.usage().items():
            total[name] = total.get(name, 0) + number
    return total


def _shifted(progress: Progress, start: int, total: int) -> Progress:
    """Return a progress of one model as progress of all."""
    return lambda done, _: progress(start + done, total)


def question_keys(questions: Sequence[Question | FreeQuestion]) -> list[str]:
    """Return a key for each question: its id, or its place in the set."""
    keys = [question.id or f"#{index}" for index, question in enumerate(questions)]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise QuestionError(f"Two questions have the id {twice!r}; ids must be unique in a set.")
    return keys


def _header(lm: CalibratedLM, questions: Sequence[Question], readout: Readout) -> dict[str, Any]:
    """Return what makes two runs the same run."""
    model = asdict(lm.adapter.fingerprint())
    return {"model": model, "readout": readout.label, "questions": len(questions), "content": content_hash(questions)}


def content_hash(questions: Sequence[Question | FreeQuestion]) -> str:
    """Return a hash of what the model reads of the questions; their answers do not count."""
    options = [list(question.options) if isinstance(question, Question) else None for question in questions]
    read = [[q.prompt, of, q.context, q.id] for q, of in zip(questions, options, strict=True)]
    content = json.dumps(read, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _mean_or_none(values: Any) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def output_folder(out: str | Path) -> Path:
    """Return the folder of an evaluation's files, made where there is none."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"The output folder {folder} cannot be made: {error.strerror}; pass another one.") from error
    return folder


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JournalError(
            f"{path} cannot be written: {error.strerror}. The journal beside it is whole; make room and run again with "
            "--resume, which asks no question twice."
        ) from error
