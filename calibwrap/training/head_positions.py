"""What a CATTO head is trained on: recorded rows of a frozen model, small on disk, and the recording of them.

A position of the vocabulary is kept as its most probable tokens and a sketch of all others: they are sorted, parted
into groups whose ranks grow by a constant factor, and of each group the mean probability is kept. The log of the
partition function follows to about a hundredth at any temperature, at temperature 1 exactly, from some fifty numbers
instead of fifty thousand.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.calibrators._inputs import checked_answers
from calibwrap.capabilities import Needs, check_needs
from calibwrap.errors import InputError, JournalError, SavedFileError
from calibwrap.files import replacing
from calibwrap.provenance import Provenance
from calibwrap.questions import CLOZE, Question, Template, answers_of, check_questions
from calibwrap.readouts import find_readout
from calibwrap.scores import Bools, Floats, Ints, OptionScores, TokenScores
from calibwrap.wrap import CalibratedLM

GROUPS = 32
"""Groups that the tokens outside the list are parted into."""
Wrong = Literal["none", "random", "all"]
Progress = Callable[[int, int], None]
_FORMAT = "calibwrap-positions-1"


@dataclass(frozen=True, eq=False)
class Positions:
    """N rows of a frozen model: positions of tokens in answers, or rows of options.

    Of a row of options, `chosen` is the right option; of a position, the token that the answer goes on with.
    """

    logprobs: Floats
    """(N, L) the most probable entries' log-probabilities in falling order, -inf where a row is shorter."""
    groups: Floats
    """(N, G) log of the mean probability of each group of the other entries; no groups in rows of options."""
    sizes: Floats
    """(G,) entries of each group."""
    chosen_logprob: Floats
    """(N,) log-probability of the chosen entry."""
    is_top: Bools
    """(N,) whether the chosen entry is the most probable one."""
    question: Ints
    """(N,) number of the question."""
    option: Ints
    """(N,) number of the option whose text was read; of a row of options the right one."""
    is_right: Bools
    """(N,) whether that option is the right one."""
    hidden: NDArray[np.floating[Any]] | None = None
    """(N, D) hidden states, where they were asked for."""
    level: Literal["token", "option"] = "token"
    readout: str = ""
    """Readout and template that the rows come from."""
    provenance: Provenance | None = None
    """The frozen model."""

    def __len__(self) -> int:
        """Return the number of rows N."""
        return len(self.logprobs)

    @property
    def listed(self) -> int:
        """Entries of a whole row: the vocabulary, or the most options."""
        return int(self.logprobs.shape[1] + self.sizes.sum())

    def take(self, rows: Any) -> "Positions":
        """Return the given rows: indices, or a boolean array of length N."""
        names = [f.name for f in fields(self) if f.name not in ("sizes", "level", "readout", "provenance")]
        return replace(self, **{name: getattr(self, name)[rows] for name in names if getattr(self, name) is not None})

    def cut(self, top: int) -> "Positions":
        """Return the rows as a list of the `top` most probable entries shows them, all others spread as one group."""
        others = np.concatenate([self.logprobs[:, top:], self.groups + np.log(self.sizes)], axis=1)
        count = self.logprobs.shape[1] - top + self.sizes.sum()
        with np.errstate(divide="ignore"):
            mean = np.log(np.exp(others).sum(axis=1, keepdims=True) / count)
        return replace(self, logprobs=self.logprobs[:, :top], groups=mean, sizes=np.array([count]))


def record_positions(
    lm: CalibratedLM,
    questions: Sequence[Question],
    *,
    level: Literal["token", "option"] = "token",
    wrong: Wrong = "random",
    top: int = 20,
    hidden: bool = False,
    readout: str = "continuation",
    template: Template = CLOZE,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Positions:
    """Return the rows of a frozen model that a head is trained on, read with one call a few questions.

    Args:
        lm: the model; its calibrator is not used.
        questions: with answers.
        level: "token": each position of the options' texts after `template`, as the continuation readout reads them;
            needs the whole vocabulary. "option": one row a question, read by `readout`; truncated rows are refused.
        wrong: which wrong options' texts are read beside the right one's, at level "token".
        top: entries of a position that are kept one by one.
        hidden: whether to keep the hidden states too (hf, opened with hidden=True).
        readout: how options are read, at level "option".
        template: how a question is written, at level "token".
        folder: where pieces are kept as they come, so that a stopped recording goes on; nowhere by default.
        seed: draws the random wrong options.
        progress: called with (questions done, questions in all).

    Raises:
        CapabilityError: the backend cannot give what is asked for; before any model call.
        QuestionError: a question has no answer.
        InputError: hidden states of options, or a `top` below 2.
        JournalError: `folder` holds another recording.
        SavedFileError: a piece in `folder` is broken.
    """
    check_questions(questions)
    answers_of(questions)
    if top < 2:
        raise InputError(f"'top' must be at least 2. Got {top}.")
    if hidden and level == "option":
        raise InputError(
            "Hidden states are those of positions: record them at level 'token', or rows of options without."
        )
    plan = _Plan(level, _drawn(questions, wrong, seed), top, hidden, readout, template)
    provides = lm.adapter.provides
    check_needs("recording positions", plan.needs, lm.adapter.name, provides)
    store = None if folder is None else _Store(Path(folder), plan.header(lm, questions))
    parts = []
    for start in range(0, len(questions), provides.batch_size):
        kept = None if store is None else store.piece(start)
        if kept is None:
            kept = plan.read(lm, questions, range(start, min(start + provides.batch_size, len(questions))))
            if store is not None:
                store.keep(start, kept)
        parts.append(kept)
        if progress is not None:
            progress(min(start + provides.batch_size, len(questions)), len(questions))
    label = find_readout(readout).label if level == "option" else f"continuation:sum:{template.label}"
    return replace(_joined(parts), level=level, readout=label, provenance=lm.adapter.fingerprint())


def group_edges(listed: int, vocabulary: int, groups: int = GROUPS) -> Ints:
    """Return the ranks at which groups begin, and the vocabulary's size: growing by a constant factor, none empty.

    >>> group_edges(20, 49152)[[0, 1, 2, -1]].tolist()
    [20, 26, 33, 49152]
    """
    return np.unique(np.geomspace(max(listed, 1), vocabulary, groups + 1).round().astype(np.int64))


@dataclass(frozen=True)
class _Plan:
    """What is recorded of each question."""

    level: Literal["token", "option"]
    wanted: Sequence[Sequence[int]]
    """For each question the options whose texts are read."""
    top: int
    hidden: bool
    readout: str
    template: Template

    @property
    def needs(self) -> Needs:
        if self.level == "option":
            return find_readout(self.readout).needs
        return Needs(score=True, full_vocabulary=True, hidden=self.hidden, plain=self.template.style == "plain")

    def header(self, lm: CalibratedLM, questions: Sequence[Question]) -> dict[str, Any]:
        """Return what a recording is determined by."""
        from calibwrap.adapters._shared import hash_texts

        asked = [text for question in questions for text in (question.prompt, *question.options, f"{question.answer}")]
        return {
            "format": _FORMAT,
            "model": asdict(lm.adapter.fingerprint()),
            "questions": hash_texts(asked),
            "count": len(questions),
            "batch": lm.adapter.provides.batch_size,
            "level": self.level,
            "read": hash_texts([str(list(options)) for options in self.wanted]),
            "top": self.top,
            "hidden": self.hidden,
            "readout": find_readout(self.readout).label if self.level == "option" else self.template.label,
        }

    def read(self, lm: CalibratedLM, questions: Sequence[Question], rows: range) -> Positions:
        """Return what the model says of some questions."""
        asked = [questions[row] for row in rows]
        if self.level == "option":
            found = positions_of_options(lm.scores(asked, self.readout), answers_of(asked))
            return _rounded(replace(found, question=np.array(rows)))
        prompts = [self.template.prompt(question) for question in asked]
        texts = [
            [self.template.separator + question.options[option] for option in self.wanted[row]]
            for row, question in zip(rows, asked, strict=True)
        ]
        scored = lm.adapter.score(prompts, texts, top=None)
        parts = [
            _sketched(tokens, self.top, row, option, option == questions[row].answer)
            for row, answers in zip(rows, scored, strict=True)
            for option, tokens in zip(self.wanted[row], answers, strict=True)
        ]
        return _rounded(_joined(parts))


def _drawn(questions: Sequence[Question], wrong: Wrong, seed: int) -> list[list[int]]:
    """Return for each question the options to read, the right one first."""
    random = np.random.default_rng(seed)
    found = []
    for question in questions:
        others = [option for option in range(len(question.options)) if option != question.answer]
        if wrong == "random" and others:
            others = [int(random.choice(others))]
        found.append([question.answer or 0, *(others if wrong != "none" else [])])
    return found


def positions_of_options(scores: OptionScores, answers: ArrayLike) -> Positions:
    """Return rows of options for training, of scores that were read before; no model call.

    Raises:
        InputError: answers that are no indices of the options, or scores that a backend cut off.

    >>> rows = positions_of_options(OptionScores(np.log([[0.2, 0.8]]), "label"), [0])
    >>> np.exp(rows.logprobs).round(1).tolist(), rows.is_top.tolist()
    ([[0.8, 0.2]], [False])
    """
    if not scores.is_exact:
        raise InputError(
            "A head is trained on exact option scores, and rows came that the backend cut off: use "
            "readout='continuation', or a backend that scores given tokens. It can be used on such rows all the same."
        )
    right = checked_answers(answers, *scores.logprobs.shape)
    return Positions(
        logprobs=-np.sort(-scores.logprobs, axis=1),
        groups=np.zeros((len(right), 0)),
        sizes=np.zeros(0),
        chosen_logprob=scores.logprobs[np.arange(len(right)), right],
        is_top=scores.choice == right,
        question=np.arange(len(right)),
        option=right,
        is_right=np.ones(len(right), dtype=np.bool_),
        level="option",
        readout=scores.readout,
    )


def _sketched(tokens: TokenScores, top: int, question: int, option: int, is_right: bool) -> Positions:
    """Return the positions of one option's text."""
    if tokens.chosen is None or tokens.chosen_logprob is None:
        raise InputError("Expected scores of given continuations to name their tokens. Got none: mend the adapter.")
    ordered = -np.sort(-tokens.logprobs, axis=1)
    listed = min(top, ordered.shape[1])
    edges = group_edges(listed, ordered.shape[1])
    sizes = np.diff(edges).astype(np.float64)
    with np.errstate(divide="ignore"):
        groups = np.log(np.add.reduceat(np.exp(ordered), edges[:-1], axis=1) / sizes) if len(sizes) else ordered[:, :0]
    count = len(tokens)
    return Positions(
        logprobs=ordered[:, :listed],
        groups=groups,
        sizes=sizes,
        chosen_logprob=tokens.chosen_logprob,
        is_top=tokens.chosen == tokens.logprobs.argmax(axis=1),
        question=np.full(count, question),
        option=np.full(count, option),
        is_right=np.full(count, is_right),
        hidden=None if tokens.hidden is None else tokens.hidden.astype(np.float32),
    )


def _joined(parts: Sequence[Positions]) -> Positions:
    """Return all rows as one; rows of options are filled up to the longest."""
    width = max(part.logprobs.shape[1] for part in parts)
    names = [f.name for f in fields(Positions) if f.name not in ("sizes", "level", "readout", "provenance", "logprobs")]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in names
        if getattr(parts[0], name) is not None
    }
    filled = [
        np.pad(part.logprobs, ((0, 0), (0, width - part.logprobs.shape[1])), constant_values=-np.inf) for part in parts
    ]
    return replace(parts[0], logprobs=np.concatenate(filled), **columns)


def _rounded(positions: Positions, kind: Any = np.float64) -> Positions:
    """Return the rows in 32-bit numbers, as they are kept, held as numbers of another kind."""
    names = ("logprobs", "groups", "chosen_logprob")
    return replace(positions, **{name: getattr(positions, name).astype(np.float32).astype(kind) for name in names})


class _Store:
    """A folder of pieces, one safetensors file each, of one recording."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Open the folder, or make it.

        Raises:
            JournalError: it holds another recording.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recording.json"
        if not file.exists():
            with replacing(file) as part:
                part.write_text(json.dumps(header, indent=1), encoding="utf-8")
        found = json.loads(file.read_text(encoding="utf-8"))
        different = sorted(name for name in header if found.get(name) != header[name])
        if different:
            raise JournalError(
                f"{folder} holds another recording; different are {', '.join(different)}. Choose another folder, or "
                "record what it was begun with."
            )

    def piece(self, start: int) -> Positions | None:
        """Return the piece that begins with question `start`, None when it is not there yet."""
        path = self._path(start)
        if not path.exists():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return _rounded(Positions(**load_file(path)))
        except (SafetensorError, TypeError) as error:
            raise SavedFileError(f"{path}: a broken piece of a recording. Remove it; it is then read anew.") from error

    def keep(self, start: int, positions: Positions) -> None:
        """Write one piece, whole or not at all."""
        from safetensors.numpy import save_file

        small = _rounded(positions, np.float32)
        arrays = {f.name: getattr(small, f.name) for f in fields(small)}
        with replacing(self._path(start)) as part:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items() if isinstance(v, np.ndarray)}, part)

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:07d}.safetensors"


def pieces(positions: Positions) -> Iterator[tuple[int, int, Positions]]:
    """Yield (question, option, its positions) in order."""
    keys = np.stack([positions.question, positions.option], axis=1)
    begins = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    for begin, end in zip(begins, [*begins[1:], len(keys)], strict=True):
        yield int(keys[begin, 0]), int(keys[begin, 1]), positions.take(np.arange(begin, end))
