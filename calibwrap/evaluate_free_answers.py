"""Answers in free text of a question set: drawn once, journalled, and judged and calibrated from there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap.base import Answer, Completion
from calibwrap.calibrators import Identity
from calibwrap.capabilities import check_needs
from calibwrap.decoders import Stated
from calibwrap.decoders.answering import decoder_label
from calibwrap.decoders.free_text import FreeTextDecoder
from calibwrap.errors import InputError, JournalError
from calibwrap.evaluate import content_hash, naming, question_keys
from calibwrap.freetext.fitting import free_prompts
from calibwrap.journal import Journal
from calibwrap.questions import FreeQuestion, Prompt, Template
from calibwrap.stored_traces import PLAIN_STOPS, Drawing, traces_from
from calibwrap.wrap import CalibratedLM, Progress


def default_free_stops(template: Template, decoder: type[FreeTextDecoder]) -> tuple[str, ...]:
    """Return the texts that end an answer when nobody says: the line's end of plain text, none of a chat."""
    if template.style == "chat":
        return ()
    return PLAIN_STOPS if issubclass(decoder, Stated) else ("\n",)


def collect_answers(
    lm: CalibratedLM,
    questions: Sequence[FreeQuestion],
    decoder: FreeTextDecoder,
    template: Template,
    journal: str | Path | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[tuple[Answer, Mapping[str, Any]]]:
    """Return the raw answers to N questions, journalled, each with the settings that were in force for its texts.

    None that is in the journal is drawn again. A decoder that samples draws for every question with a seed of the
    question's own, made of its seed and the question's id; a greedy one asks several questions at a time.

    Args:
        lm: the model; its calibrator has no part in it.
        questions: the questions; each must have an id of its own, or none.
        decoder: what makes an answer; it must have a seed.
        template: writes the prompts.
        journal: file to write and, with `resume`, to go on from; None keeps no journal.
        resume: go on from an existing journal instead of refusing to touch it.
        progress: called with (done, in all), the resumed ones included.

    Raises:
        InputError: a decoder without a seed, or a template that shows options.
        CapabilityError: the backend cannot give what the decoder needs; raised before any model call.
        JournalError: as `calibwrap.evaluate.collect`.
    """
    if decoder.seed is None:
        raise InputError("An evaluation draws answers that can be drawn again: give the decoder a 'seed', not None.")
    check_needs(type(decoder).__name__, decoder.needs, lm.adapter.name, lm.adapter.provides)
    keys, prompts = question_keys(questions), free_prompts(questions, template, lm.adapter.provides)
    asked = _Asked(replace(lm, calibrator=Identity()), decoder, keys, prompts)
    if journal is None:
        done = {record["id"]: record for part in _counted(asked, keys, progress) for record in part}
        return [_answer_from(done[key]) for key in keys]
    header = {
        "model": asdict(lm.adapter.fingerprint()),
        "decoder": {"name": decoder_label(decoder), "seed": decoder.seed},
        "template": template.label,
        "questions": len(questions),
        "content": content_hash(questions),
    }
    with Journal.open(journal, header, resume=resume) as written:
        left = [key for key in keys if key not in written.done]
        for part in _counted(asked, left, progress):
            written.append(part)
        return [_answer_from(written.done[key]) for key in keys]


class _Asked:
    """A model, a decoder, and the prompts by their keys."""

    def __init__(self, lm: CalibratedLM, decoder: FreeTextDecoder, keys: Sequence[str], prompts: Sequence[Prompt]):
        self.lm, self.decoder, self.prompts = lm, decoder, dict(zip(keys, prompts, strict=True))
        self.size = 1 if decoder.temperature > 0.0 else lm.adapter.provides.batch_size

    def records(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return the journal lines of some questions, asked together; one at a time where texts are sampled."""
        seed = self.decoder.seed or 0
        own = replace(self.decoder, seed=Drawing(seed=seed).seed_of(keys[0]) if self.size == 1 else seed)
        with naming(keys):
            answers = self.lm.batch([self.prompts[key] for key in keys], own)
        return [_record(key, own.seed, answer) for key, answer in zip(keys, answers, strict=True)]


def _counted(asked: _Asked, left: Sequence[str], progress: Progress | None) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of what is left to do, and report when the caller, who has kept them, comes back."""
    total = len(asked.prompts)
    for start in range(0, len(left), asked.size):
        if progress is not None:
            progress(total - len(left) + start, total)
        yield asked.records(left[start : start + asked.size])
    if progress is not None:
        progress(total, total)


def _record(key: str, seed: int | None, answer: Answer) -> dict[str, Any]:
    """Return one journal line: the raw answer, and the texts that it was made of."""
    settings = answer.candidates[0].settings if answer.candidates else {}
    return {
        "id": key,
        "seed": seed,
        "settings": {name: value for name, value in settings.items() if name != "seed"},
        "traces": [_text_record(one) for one in answer.candidates],
        "answer": {
            "text": answer.text,
            "confidence": answer.confidence,
            "bounds": list(answer.bounds),
            "calibrated_by": answer.calibrated_by,
            "unparsed": answer.unparsed,
        },
    }


def _text_record(one: Completion) -> dict[str, Any]:
    """Return one drawn text in the form that `traces_from` reads."""
    drawn = one.scores.chosen_logprob
    return {
        "text": one.text,
        "finish": one.finish,
        "tokens": [] if one.scores.chosen is None else one.scores.chosen.tolist(),
        "logprobs": None if drawn is None or np.isnan(drawn).any() else drawn.tolist(),
        "scores": None,
    }


def _answer_from(record: Mapping[str, Any]) -> tuple[Answer, Mapping[str, Any]]:
    """Return the answer of one journal line and the settings in force.

    Raises:
        JournalError: a field is missing or has the wrong kind.
    """
    try:
        said = record["answer"]
        low, high = map(float, said["bounds"])
        answer = Answer(
            str(said["text"]),
            float(said["confidence"]),
            (low, high),
            candidates=traces_from(record, "free text"),
            calibrated_by=str(said["calibrated_by"]),
            unparsed=int(said["unparsed"]),
        )
        return answer, dict(record["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"The journal's line of question {record.get('id')!r} is not complete: {error}.") from error
