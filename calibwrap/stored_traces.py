"""Traces of a question set: drawn once, journalled, and read again by any decoder without another model call."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap.base import Answer, Calibrator, Completion
from calibwrap.calibrators import Identity
from calibwrap.capabilities import Provides, check_needs
from calibwrap.decoders import Trace, TraceDecoder, traces_of
from calibwrap.decoders.reading import completed
from calibwrap.decoders.replay import replayed
from calibwrap.decoders.settings import check_type
from calibwrap.errors import CalibrationWarning, InputError, JournalError
from calibwrap.evaluate import content_hash, naming, question_keys
from calibwrap.journal import Journal
from calibwrap.questions import LETTER_REASONED, LETTER_REASONED_CHAT, LETTERS, Question, Template
from calibwrap.score_records import row_record, row_scores
from calibwrap.scores import TokenScores
from calibwrap.traces import AnswerRule
from calibwrap.wrap import CalibratedLM, Progress

TRACE_TOKENS = 96
"""Most tokens of a trace when nobody says."""
PLAIN_STOPS = ("\nQuestion:", "\n\n")
"""Where a trace of plain text ends: a model without turns goes on with another question."""


@dataclass(frozen=True)
class Drawing:
    """How the traces of every question are drawn: all that a decoder asks for, and the template.

    >>> Drawing(k=4).decoder_settings()["max_tokens"]
    96
    """

    k: int = 8
    """Traces of each question."""
    template: Template = LETTER_REASONED
    """Writes the prompts; options are named by letters."""
    marker: str = "Answer:"
    """Text that announces the answer in a trace."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy, which is for one trace only."""
    max_tokens: int = TRACE_TOKENS
    """Most tokens of a trace."""
    stop: tuple[str, ...] = PLAIN_STOPS
    """Texts that end a trace."""
    seed: int = 0
    """Every question draws with a seed of its own, made of this one and its id."""

    @property
    def label(self) -> str:
        """Name of the label scores that are read: how the questions are asked, and where the answer is looked for."""
        return f"trace:{self.template.label}:{self.marker}"

    def decoder_settings(self) -> dict[str, Any]:
        """Return the fields that a decoder shares with the drawing; k and labels are its own."""
        names = ("marker", "temperature", "max_tokens", "stop", "seed")
        return {name: getattr(self, name) for name in names}

    def seed_of(self, key: str) -> int:
        """Return the seed of one question: it depends on nothing but `seed` and the question's key.

        >>> Drawing(seed=1).seed_of("q1") == Drawing(seed=1).seed_of("q1") != Drawing(seed=2).seed_of("q1")
        True
        """
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[:4], "big") >> 1

    def header(self) -> dict[str, Any]:
        """Return what decides the traces, as values that JSON knows."""
        return {**asdict(self), "template": self.template.label, "stop": list(self.stop)}


def drawing_of(decoder: TraceDecoder, template: Template) -> Drawing:
    """Return how the traces that a decoder asks for are drawn.

    Raises:
        InputError: no decoder of traces, no template, or a decoder without a seed, whose traces could not be drawn
            again.
    """
    check_type("decoder", decoder, TraceDecoder, "cw.ConfidenceAtK(k=8)")
    check_type("template", template, Template, "calibwrap.questions.LETTER_REASONED")
    if decoder.seed is None:
        raise InputError("An evaluation draws traces that can be drawn again: give the decoder a 'seed', not None.")
    shared = {name: getattr(decoder, name) for name in ("k", "marker", "temperature", "max_tokens", "stop", "seed")}
    return Drawing(template=template, **shared)


def warn_of_template(template: Template, marker: str) -> None:
    """Return nothing; warn where a template can hardly bring a trace to name a letter after the marker."""
    if not template.shows_options:
        why = "shows no options, so that a trace cannot know their letters"
    elif marker and (template.prefix if template.style == "chat" else template.body).rstrip().endswith(marker):
        why = f"ends in {marker!r} itself, and a label is looked for after {marker!r} in what the model adds"
    else:
        return
    warnings.warn(
        f"The template {template.name!r} {why}: take letter-reasoned, letter-reasoned-chat, or one of your own that "
        f"shows the options and asks for {marker!r} and a letter.",
        CalibrationWarning,
        stacklevel=3,
    )


def default_template(provides: Provides) -> Template:
    """Return how questions are asked for traces when nobody says: plain with examples where text goes on as it stands.

    >>> default_template(Provides(plain=False, chat=True)).name
    'letter-reasoned-chat'
    """
    return LETTER_REASONED if provides.plain else LETTER_REASONED_CHAT


def default_stops(template: Template) -> tuple[str, ...]:
    """Return the texts that end a trace when nobody says: none where a model ends its own turn."""
    return PLAIN_STOPS if template.style == "plain" else ()


def labels_of(question: Question) -> tuple[str, ...]:
    """Return the letters of a question's options.

    Raises:
        InputError: fewer than two options, or more than there are letters.

    >>> labels_of(Question("Red planet?", ["Mars", "Venus"]))
    ('A', 'B')
    """
    if not 2 <= len(question.options) <= len(LETTERS):
        raise InputError(
            f"Decoders choose among 2 to {len(LETTERS)} lettered options. Question {question.id!r} has "
            f"{len(question.options)}: leave it out."
        )
    return LETTERS[: len(question.options)]


def draw_traces(
    lm: CalibratedLM,
    questions: Sequence[Question],
    drawing: Drawing,
    decoder: TraceDecoder,
    journal: str | Path | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[tuple[Completion, ...]]:
    """Return k raw traces of each question, journalled: none that is in the journal is drawn again.

    One adapter call a question draws its k traces together. What comes back is what the journal holds, whether a
    question was drawn now or before: text, drawn tokens with their log-probabilities, and the label probabilities.

    Args:
        lm: the model; its calibrator has no part in it.
        questions: the questions; each must have an id of its own, or none.
        drawing: how to draw.
        decoder: any decoder of the drawing's settings; its `request` is what is asked for.
        journal: file to write and, with `resume`, to go on from; None keeps no journal.
        resume: go on from an existing journal instead of refusing to touch it.
        progress: called with (done, in all), the resumed ones included.

    Raises:
        CapabilityError: the backend cannot show the labels of traces; raised before any model call.
        JournalError: as `calibwrap.evaluate.collect`, or traces that another version of the answer rule has read.
    """
    check_needs(type(decoder).__name__, decoder.needs, lm.adapter.name, lm.adapter.provides)
    keys, labels = question_keys(questions), [labels_of(question) for question in questions]

    def record(index: int) -> dict[str, Any]:
        asked = replace(decoder, k=drawing.k, adaptive=False, labels=labels[index], seed=drawing.seed_of(keys[index]))
        prompt = drawing.template.prompt(questions[index], labels[index])
        with naming([keys[index]]):
            (drawn,) = completed(lm.adapter, [prompt], asked.request(0), Identity())
        return traces_record(keys[index], asked, drawn)

    done: Mapping[str, Mapping[str, Any]]
    if journal is None:
        done = {key: record(index) for index, key in _counted(keys, (), progress)}
    else:
        header = {"model": asdict(lm.adapter.fingerprint()), "traces": drawing.header(), "questions": len(questions)}
        with Journal.open(journal, {**header, "content": content_hash(questions)}, resume=resume) as written:
            for index, _ in _counted(keys, written.done, progress):
                written.append([record(index)])
            done = dict(written.done)
    found = [traces_from(done[key], drawing.label) for key in keys]
    for key, of in zip(keys, labels, strict=True):
        _check_rule(done[key], AnswerRule(of, drawing.marker))
    return found


def _check_rule(record: Mapping[str, Any], rule: AnswerRule) -> None:
    """Return nothing when the traces of a journal line name today what they named when their labels were read.

    Raises:
        JournalError: another version of the rule read them, so that their probabilities may be those of another place.
    """
    if any(trace["label"] != rule.named_in(trace["text"]) for trace in record["traces"]):
        raise JournalError(
            f"The traces of question {record['id']!r} were read by another version of calibwrap, which looked for "
            "answers in another way: draw them again, into another folder."
        )


def _counted(keys: Sequence[str], done: Any, progress: Progress | None) -> Any:
    """Yield (index, key) of what is left to do, and report each when the caller comes back for the next."""
    left = [(index, key) for index, key in enumerate(keys) if key not in done]
    for number, pair in enumerate((*left, None)):
        if progress is not None:
            progress(len(keys) - len(left) + number, len(keys))
        if pair is not None:
            yield pair


def traces_record(key: str, decoder: TraceDecoder, completions: Sequence[Completion]) -> dict[str, Any]:
    """Return one journal line: all that any decoder reads of a question's traces."""
    settings = {name: value for name, value in completions[0].settings.items() if name != "seed"}
    traces = []
    for one in completions:
        scores = one.scores
        label = decoder.rule.named_in(one.text)
        traces.append(
            {
                "text": one.text,
                "finish": one.finish,
                "tokens": [] if scores.chosen is None else scores.chosen.tolist(),
                "logprobs": None if scores.chosen_logprob is None else scores.chosen_logprob.tolist(),
                "label": label,
                "scores": None if one.labels is None else row_record(one.labels, 0, len(decoder.labels)),
            }
        )
    return {"id": key, "seed": decoder.seed, "settings": settings, "traces": traces}


def traces_from(record: Mapping[str, Any], readout: str) -> tuple[Completion, ...]:
    """Return the completions of one journal line, with label scores under the name `readout`.

    Of each token the drawn one is listed and nothing else.

    Raises:
        JournalError: a field is missing or has the wrong kind.
    """
    try:
        return tuple(_completion(trace, record, readout) for trace in record["traces"])
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"The journal's line of question {record.get('id')!r} is not complete: {error}.") from error


def _completion(trace: Mapping[str, Any], record: Mapping[str, Any], readout: str) -> Completion:
    tokens, logprobs = np.array(trace["tokens"], dtype=np.int64), trace["logprobs"]
    if logprobs is None:
        nothing = np.zeros((len(tokens), 0))
        scores = TokenScores(nothing, ids=nothing.astype(np.int64), chosen=tokens)
    else:
        drawn = np.array(logprobs, dtype=np.float64)
        scores = TokenScores(drawn[:, None], ids=tokens[:, None], chosen=tokens, chosen_logprob=drawn)
    labels = None if trace["scores"] is None else row_scores({"id": record["id"], **trace["scores"]}, readout)
    settings = {**record["settings"], "seed": record["seed"]}
    return Completion(trace["text"], scores, trace["finish"], settings, labels)


def decoded(
    decoder: TraceDecoder,
    questions: Sequence[Question],
    traces: Sequence[Sequence[Completion]],
    calibrator: Calibrator | None = None,
) -> list[Answer]:
    """Return the answers, each a letter, that a decoder makes of stored traces; no model call.

    Of eight stored traces a decoder with k = 2 reads the first two, so one drawing serves every k up to its own.

    Args:
        decoder: with the settings of the drawing; its labels are replaced by those of each question.
        questions: N questions.
        traces: the stored traces of each.
        calibrator: of level "option" or "confidence"; the model's own probabilities count without one.

    Raises:
        InputError: the decoder asks for more traces than there are, or for traces of another temperature.
    """
    drawn = {one.settings.get("temperature", decoder.temperature) for of in traces for one in of}
    if drawn - {decoder.temperature}:
        raise InputError(
            f"These traces were drawn at temperature {', '.join(map(str, sorted(drawn)))}, and the decoder asks for "
            f"{decoder.temperature}: give it the settings of the drawing."
        )
    chosen = Identity() if calibrator is None else calibrator
    return [
        replayed(replace(decoder, labels=labels_of(question)), of, chosen)
        for question, of in zip(questions, traces, strict=True)
    ]


def named_traces(
    decoder: TraceDecoder, questions: Sequence[Question], traces: Sequence[Sequence[Completion]]
) -> list[list[Trace]]:
    """Return the traces of each question that name one of its labels, at most the decoder's k."""
    rules = [replace(decoder, labels=labels_of(question)).rule for question in questions]
    return [traces_of(rule, of[: decoder.k]) for rule, of in zip(rules, traces, strict=True)]
