"""A study carried out: model after model, probe after probe, journalled, whatever happens to one of them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from calibwrap.base import Readout
from calibwrap.data import load_questions
from calibwrap.data.packaged import is_packaged
from calibwrap.errors import InputError, JournalError, ModelError
from calibwrap.journal import Journal
from calibwrap.lifecycle.corpora import Document, first_documents
from calibwrap.lifecycle.ledger import Ledger, Sums
from calibwrap.lifecycle.page import write_page
from calibwrap.lifecycle.probes import Seen, factuality, generation, understanding, with_shots
from calibwrap.lifecycle.result import Finding, Study
from calibwrap.lifecycle.settings import (
    FactualityProbe,
    GenerationProbe,
    Stage,
    StudySettings,
    TextProbe,
    UnderstandingProbe,
    checked_study,
    read_study,
    stages_of,
)
from calibwrap.opening import file_of
from calibwrap.provenance import Provenance
from calibwrap.questions import Question, Template, answers_of
from calibwrap.readouts import Continuation, Label, find_readout
from calibwrap.wrap import CalibratedLM, Progress, wrap

PIECE = 50
"""Texts or questions that are read before what was seen is kept."""
JOURNAL, REPORT = "study.jsonl", "report.html"
_TOKEN = 4
"""Characters that count as a token before any tokenizer is asked."""
_SUFFIXES = (".safetensors", ".bin", ".gguf")
_NOTHING = (
    "No text of {0.source} goes on behind its first {0.least_context} tokens, where the probe 'generation' begins: "
    "take longer texts, or a smaller 'least_context'.",
    "No text of {0.source} names an entity or an answer behind its first {0.least_context} tokens, where the probe "
    "'factuality' begins: take sciq, squad, or a file whose objects have 'entities', or a smaller 'least_context'.",
)
"""What a source without events is told, for generation and for factuality."""
Unit = Document | Question
Keep = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True)
class Task:
    """One probe, and what it reads: the same for every model."""

    name: str
    probe: TextProbe | UnderstandingProbe
    units: tuple[Unit, ...]

    @property
    def pieces(self) -> list[tuple[Unit, ...]]:
        """The units a piece at a time."""
        return [self.units[start : start + PIECE] for start in range(0, len(self.units), PIECE)]

    def seen(self, lm: CalibratedLM, units: Sequence[Any], seed: int) -> Iterator[Seen]:
        """Yield what a model shows in some of the units."""
        if isinstance(self.probe, UnderstandingProbe):
            return understanding(replace(lm, readout=readout_of(self.probe)), units)
        least = self.probe.least_context
        if isinstance(self.probe, GenerationProbe):
            return generation(lm.adapter, units, least_context=least, positions=self.probe.positions, seed=seed)
        return factuality(lm.adapter, units, least_context=least)


def study(
    settings: StudySettings | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Study:
    """Return how calibration moves over the models of a study, and write its tables and report to `out`.

    Models are opened one after the other, and see the same texts and questions in the same order. What a probe saw is
    kept in sums, so that memory does not grow with the number of events, and journalled every 50 texts. A model that
    cannot be opened, or a probe that fails with it, is told in `failures`, and the others go on; with `resume` it is
    tried again.

    Args:
        settings: a `StudySettings`, a mapping of its fields, or the path of a YAML file.
        out: folder for the journal, table.csv, table.parquet, study.json and report.html; None writes
            nothing.
        resume: go on where an earlier run into `out` ended.
        progress: called with (pieces done, in all).
        command: the command line that made the numbers, for the report.

    Raises:
        InputError: settings that are none, a text or question set that cannot be read, or two models of one name.
        JournalError: `out` holds an earlier run and `resume` is false, or another study's; or the disk is full.

    References:
        Zhu, Xu, Wang, Zhang, Mao: On the Calibration of Large Language Models and Alignment (2023).
    """
    asked = settings if isinstance(settings, StudySettings) else _read(settings)
    stages, tasks = stages_of(asked), tuple(tasks_of(asked))
    folder, ledger = None if out is None else Path(out), Ledger()
    if folder is None:
        return _carried_out(asked, stages, tasks, ledger, ledger.add, progress)
    folder.mkdir(parents=True, exist_ok=True)
    with Journal.open(folder / JOURNAL, _header(asked, tasks), resume, ledger.add) as journal:
        found = _carried_out(asked, stages, tasks, ledger, lambda record: journal.append([record]), progress)
    rows = found.write(folder)
    write_page(found, rows, folder / REPORT, command)
    return found


def tasks_of(settings: StudySettings) -> Iterator[Task]:
    """Yield the probes with what they read.

    Raises:
        InputError: a text or question set that cannot be read.
    """
    for name, probe in settings.probes.by_name().items():
        if isinstance(probe, UnderstandingProbe):
            yield Task(name, probe, tuple(_questions(probe, settings.seed)))
        else:
            chosen = first_documents(
                probe.source,
                probe.events,
                partial(_events, probe),
                split=probe.split,
                seed=settings.seed,
                longest=probe.longest,
            )
            if not chosen:
                raise InputError(_NOTHING[isinstance(probe, FactualityProbe)].format(probe))
            yield Task(name, probe, tuple(chosen))


def _events(probe: TextProbe, document: Document) -> int:
    """Return about how many events a text has, by what no tokenizer has a say in; 0 for one that is too short."""
    first = _TOKEN * probe.least_context
    if isinstance(probe, FactualityProbe):
        return sum(start > first for start, _ in document.spans)
    if len(document.text) <= first:
        return 0
    if isinstance(probe, GenerationProbe) and probe.positions is not None:
        return probe.positions
    return 1 + (len(document.text) - first) // _TOKEN


def _questions(probe: UnderstandingProbe, seed: int) -> list[Question]:
    readout = readout_of(probe)  # before a set is fetched
    questions = load_questions(probe.source, split=probe.split, limit=probe.questions, seed=seed)
    if not all(isinstance(one, Question) for one in questions):
        raise InputError(
            f"The probe 'understanding' asks questions with options, and those of {probe.source} have none."
        )
    answers_of(questions)
    if not probe.shots and not probe.header:
        return questions
    if not isinstance(readout, (Label, Continuation)):
        raise InputError(f"'shots' and 'header' go with a label or continuation readout. Got {probe.readout!r}.")
    return with_shots(questions, _examples(probe), readout, probe.shots, probe.header)


def _examples(probe: UnderstandingProbe) -> list[Question]:
    """Return the solved examples of a probe that shows some."""
    if not probe.shots:
        return []
    if not probe.shots_source and not is_packaged(probe.source):
        raise InputError(
            f"'shots' before questions of your own, {probe.source}, need 'shots_source': a file with other questions "
            "and their answers."
        )
    split = probe.shots_split if probe.shots_split is not None else "" if probe.shots_source else "dev"
    return load_questions(probe.shots_source or probe.source, split=split)


def readout_of(probe: UnderstandingProbe) -> Readout:
    """Return how a probe's questions are read.

    Raises:
        InputError: an unknown readout, or a template with unknown fields or values of another kind.
    """
    known = {field.name for field in fields(Template)}
    if not set(probe.template) <= known:
        raise InputError(
            f"'template' may have the fields {sorted(known)}. Got {', '.join(sorted(set(probe.template) - known))}."
        )
    for name, value in probe.template.items():
        kind = type(getattr(Template(), name))
        if not isinstance(value, kind):
            raise InputError(f"{name!r} of 'template' must be {kind.__name__}. Got {value!r}.")
    return find_readout(probe.readout, Template(**probe.template) if probe.template else None)


def _carried_out(
    settings: StudySettings,
    stages: Sequence[Stage],
    tasks: Sequence[Task],
    ledger: Ledger,
    keep: Keep,
    progress: Progress | None,
) -> Study:
    total = len(stages) * sum(len(task.pieces) for task in tasks)
    findings, failures = list[Finding](), dict[str, str]()
    for number, stage in enumerate(stages):
        before = number * total // len(stages)

        def told(done: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        troubles = dict[str, Exception]()
        try:
            _read_model(settings, stage, tasks, ledger, keep, troubles, told)
            findings += list(_findings(stage, tasks, ledger, troubles))
        except JournalError:
            raise
        except Exception as error:  # whatever one model dies of, the others are asked
            troubles = {"": error}
        if troubles:
            failures[stage.name] = "; ".join(_trouble(name, error) for name, error in troubles.items())
        told(total // len(stages))
    return Study(settings, tuple(findings), failures)


def _trouble(probe: str, error: Exception) -> str:
    """Return what went wrong with a model, or with one probe of it."""
    return f"{f'probe {probe!r}: ' if probe else ''}{type(error).__name__}: {error}"


def _read_model(
    settings: StudySettings,
    stage: Stage,
    tasks: Sequence[Task],
    ledger: Ledger,
    keep: Keep,
    troubles: dict[str, Exception],
    progress: Callable[[int], None],
) -> None:
    """Read what is left of one model, which is opened only for that; a probe that fails leaves the others be.

    Raises:
        ModelError: the journal knows another model by this name.
    """
    places = [(task, place, _id(stage, task, place)) for task in tasks for place in range(len(task.pieces))]
    left = [one for one in places if one[2] not in ledger.done]
    progress(len(places) - len(left))
    asked = {"spec": stage.spec, "settings": stage.settings, "files": _weights(stage.spec)}
    earlier = list(ledger.sources.get(stage.name, ()))
    for source in earlier:
        _check_same(source["asked"], asked, stage)  # also where nothing is left to read, and nothing is opened
    if not left:
        return
    spec = _spec_of(stage)
    _check_size(spec, settings.memory_gb)
    with wrap(spec, **stage.settings) as lm:
        origin = asdict(lm.adapter.fingerprint())
        for source in earlier:
            _check_same(source["origin"], origin, stage)
        for done, (task, place, name) in enumerate(left, len(places) - len(left) + 1):
            if task.name not in troubles:
                try:
                    sums = Sums.of(task.seen(lm, task.pieces[place], settings.seed), settings.bins)
                except Exception as error:  # such as a runtime that has no log-probabilities of a text
                    troubles[task.name] = error
                else:
                    keep({"id": name, "asked": asked, "origin": origin, **sums.told()})
            progress(done)


def _findings(stage: Stage, tasks: Sequence[Task], ledger: Ledger, troubles: dict[str, Exception]) -> Iterator[Finding]:
    """Yield what each probe saw of one model; one that saw nothing joins the troubles."""
    for task in (one for one in tasks if one.name not in troubles):
        sums = ledger.sums[stage.name, task.name]
        if sums.tally.n:
            origin = Provenance(**ledger.sources[stage.name][0]["origin"])
            yield Finding(stage, task.name, sums.tally, sums.groups, origin, sums.events, sums.cut)
        else:
            troubles[task.name] = InputError(
                f"it saw no events: none of the {len(task.units)} texts that were read has more than 'least_context' "
                "tokens, as this model counts."
            )


def _id(stage: Stage, task: Task, place: int) -> str:
    return f"{stage.name}\0{task.name}\0{place}"


def _check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], stage: Stage) -> None:
    """Return nothing when an earlier run read the same model, by how it was named or by what it was."""
    differ = [name for name, value in now.items() if earlier.get(name) != value]
    if differ:
        raise ModelError(
            f"{stage.spec} is not the model that the journal was begun with ({', '.join(differ)} differ): take another "
            "folder for the new one."
        )


def _spec_of(stage: Stage) -> str:
    """Return the spec that opens a model, the file of a packaged one in place of its name; it is fetched once."""
    runtime, _, target = stage.spec.partition(":")
    return f"{runtime}:{file_of(runtime, target)}"


def _weights(spec: str) -> dict[str, list[int]]:
    """Return size and time of change of each file of weights on the disk; nothing for a name."""
    target = Path(spec.partition(":")[2])
    files = [target] if target.is_file() else sorted(target.glob("*")) if target.is_dir() else []
    told = {file.name: file.stat() for file in files if file.suffix in _SUFFIXES}
    return {name: [one.st_size, one.st_mtime_ns] for name, one in told.items()}


def _check_size(spec: str, most: float | None) -> None:
    """Return nothing when the weights on the disk are within the limit; what is not on the disk is not known."""
    size = sum(size for size, _ in _weights(spec).values())
    if most is not None and size > most * 1e9:
        raise ModelError(f"its weights are {size / 1e9:.3g} GB, and 'memory_gb' of the study is {most:g}.")


def _header(settings: StudySettings, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return what a study's numbers are determined by, besides its models, of which more may be added."""
    told = settings.model_dump(mode="json", include={"probes", "bins", "seed"})
    return {**told, "content": {task.name: _hash(task.units) for task in tasks}}


def _written(unit: Unit) -> Any:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(unit).items()}


def _hash(units: Sequence[Unit]) -> str:
    """Return a digest of what is read, made a unit at a time."""
    found = hashlib.sha256(b"[")
    for place, unit in enumerate(units):
        found.update(f"{', ' if place else ''}{json.dumps(_written(unit), sort_keys=True)}".encode())
    found.update(b"]")
    return found.hexdigest()[:16]


def _read(settings: Mapping[str, Any] | str | Path) -> StudySettings:
    return checked_study(settings) if isinstance(settings, Mapping) else read_study(settings)
