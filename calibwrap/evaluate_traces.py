"""Run a decoder over a question set: traces drawn once and journalled, answers worked out from them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap import saving
from calibwrap.answer_scores import UNANSWERED, AnswerScores, answer_scores
from calibwrap.base import Answer, Calibrator, Completion
from calibwrap.calibrators import CONFIDENCE_FITS, groupless_fit
from calibwrap.decoders import Trace, TraceDecoder
from calibwrap.decoders.answer_fits import fit_decoded
from calibwrap.decoders.answering import check_decoder, check_template
from calibwrap.decoders.named import decoder_name
from calibwrap.errors import CapabilityError, FitError, InputError, QuestionError
from calibwrap.evaluate import RAW, Evaluation, output_folder, own_series, question_keys, spent, write
from calibwrap.halves import held_out_rows
from calibwrap.questions import Question, Template, answers_of, check_questions
from calibwrap.scores import Bools, Floats, OptionScores, join
from calibwrap.stored_traces import (
    Drawing,
    decoded,
    default_template,
    draw_traces,
    drawing_of,
    labels_of,
    named_traces,
    warn_of_template,
)
from calibwrap.wrap import CalibratedLM, Progress

TRACES = "traces.jsonl"
"""File of the traces in an evaluation's folder."""
ANSWER_FITS = tuple(CONFIDENCE_FITS)
"""Fits that map the confidence of a decoder's answer; the other ones map the label probabilities of each trace."""


@dataclass(frozen=True)
class DecodedEvaluation(Evaluation):
    """What came out of one model and one decoder on one question set."""

    decoder: str = ""
    """Name of the decoder, such as "confidence@8"."""
    threshold: float | None = None
    """Posterior at which it draws no more traces; None where it is not adaptive."""
    drawing: Mapping[str, Any] = field(default_factory=dict)
    """How the traces were drawn, and the settings that the runtime says were in force."""
    traces: Sequence[Sequence[Completion]] = ()
    """The traces that the decoder read, of each question."""
    named: Sequence[Sequence[Trace]] = ()
    """Those of them that name a label."""

    def cost(self) -> dict[str, Any]:
        """Return what the answers cost and how many traces had no vote.

        `traces_saved` counts those of the k for each question that an adaptive decoder did without; an evaluation draws
        all of them all the same. `unanswered` counts questions without any label by name; they are counted as wrong,
        with confidence 0.
        """
        every = [one for of in self.traces for one in of]
        tokens = sum(len(one.scores) for one in every)
        named = sum(map(len, self.named))
        return {
            "traces": len(every),
            "traces_per_question": len(every) / len(self.questions),
            "traces_saved": int(self.drawing["k"]) * len(self.questions) - len(every),
            "tokens": tokens,
            "tokens_per_question": tokens / len(self.questions),
            "unparsed": len(every) - named,
            "unparsed_share": 1.0 - named / len(every),
            "cut_at_max_tokens": sum(one.finish == "length" for one in every),
            "unanswered": sum(not of for of in self.named),
        }

    def metrics(self) -> dict[str, Any]:
        """Return what metrics.json holds: that of any evaluation, and the decoder with its cost."""
        told = {"name": self.decoder, "threshold": self.threshold, **self.cost(), "drawing": dict(self.drawing)}
        return {**super().metrics(), "decoder": told}

    def predictions(self) -> list[dict[str, Any]]:
        """Return what predictions.jsonl holds: the answers of each series, and the candidates they were made of."""
        lines = super().predictions()
        for row, (line, question) in enumerate(zip(lines, self.questions, strict=True)):
            line["choice"] = _or_none(line["choice"])
            line["choices"] = {name: _or_none(int(of.choice[row])) for name, of in self.scores.items()}
            line["confidences"] = {name: float(of.confidence[row]) for name, of in self.scores.items()}
            line["candidates"] = [_candidate(one, self.named[row], labels_of(question)) for one in self.traces[row]]
        return lines


def evaluate_decoder(
    lm: CalibratedLM,
    questions: Sequence[Question],
    decoder: TraceDecoder,
    out: str | Path | None = None,
    *,
    template: Template | None = None,
    fit: Sequence[str] = (),
    fit_share: float = 0.5,
    seed: int = 0,
    strict: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> DecodedEvaluation:
    """Return a decoder's answers to a question set, raw and calibrated, and write them to `out`.

    The traces of each question are drawn once, with a seed of the question's own, and journalled; every series is
    worked out from them. With `fit`, a random share of the questions fits and the rest is held out: "temperature",
    "vector" and "matrix" are fitted on the label probabilities of all traces that name a label, "platt" and "isotonic"
    on the confidence of the raw answers. The model's own calibrator (if it has one) is a series too.

    Args:
        lm: the model, with or without a calibrator of level "option" or "confidence".
        questions: the questions; answers are needed for figures and for fits.
        decoder: what makes an answer of the traces; its labels are replaced by letters for each question's options.
        out: folder for traces.jsonl, predictions.jsonl, metrics.json and the calibrators; None writes nothing.
        template: writes the prompts; `default_template` by default.
        fit: names of fits.
        fit_share: share of the questions that fit, between 0 and 1.
        seed: of the split.
        strict: refuse a calibrator that was fitted on another model or in another way; else there is a warning.
        resume: go on where an earlier run into `out` ended.
        progress: called with (done, in all) of the questions.

    Raises:
        InputError: bad share, too few questions, or a fit that needs a reference or cross-validates over traces.
        CapabilityError: the backend cannot show the labels of traces, or the calibrator maps tokens.
        FitError: no trace names a label.
        JournalError: see `draw_traces`.
    """
    check_questions(questions)
    for method in fit:
        _check_fit(method)
    if fit:
        _check_answers(questions)
    drawing = drawing_of(decoder, template or default_template(lm.adapter.provides))
    warn_of_template(drawing.template, drawing.marker)
    _check_calibrator(lm, decoder, drawing, strict)
    held_out = held_out_rows(len(questions), fit, fit_share, seed)
    folder = None if out is None else output_folder(out)
    journal = None if folder is None else folder / TRACES
    traces = draw_traces(lm, questions, drawing, decoder, journal, resume=resume, progress=progress)
    read = _Read(lm, decoder, drawing, tuple(questions), traces)
    calibrators = {**own_series(lm.calibrator, fit), **{method: read.fitted(method, ~held_out) for method in fit}}
    result = _result(read, held_out, calibrators)
    if folder is not None:
        write(result, folder)
    return result


@dataclass(frozen=True)
class _Read:
    """The traces of a question set and what is worked out from them."""

    lm: CalibratedLM
    decoder: TraceDecoder
    drawing: Drawing
    questions: tuple[Question, ...]
    traces: Sequence[Sequence[Completion]]

    @functools.cached_property
    def raw(self) -> list[Answer]:
        return decoded(self.decoder, self.questions, self.traces)

    @functools.cached_property
    def named(self) -> list[list[Trace]]:
        used = [answer.candidates for answer in self.raw]
        return named_traces(self.decoder, self.questions, used)

    def scores(self, calibrator: Calibrator | None = None) -> AnswerScores:
        """Return the answers' scores under one calibrator, or raw."""
        answers = self.raw if calibrator is None else decoded(self.decoder, self.questions, self.traces, calibrator)
        labels = [labels_of(question) for question in self.questions]
        readout = f"{decoder_name(self.decoder)} after {self.drawing.label}"
        return answer_scores(answers, labels, readout, self._label_mass())

    def _label_mass(self) -> Floats:
        """Return (N,) the mean mass of the labels where the traces name one; NaN where none does."""
        masses = [[float(trace.scores.label_mass[0]) for trace in of] for of in self.named]
        return np.array([np.mean(of) if of else np.nan for of in masses])

    def fitted(self, method: str, rows: Bools) -> Calibrator:
        """Return the calibrator that a method fits on the questions in `rows`."""
        chosen = [int(row) for row in np.flatnonzero(rows)]
        right = answers_of([self.questions[row] for row in chosen])
        if method in ANSWER_FITS:
            answers = [self.raw[row] for row in chosen]
            pairs = zip(chosen, answers, right, strict=True)
            correct = [answer.text == labels_of(self.questions[row])[truth] for row, answer, truth in pairs]
            origin = self.lm.adapter.fingerprint()
            return fit_decoded(answers, correct, method, self.decoder, self.drawing.template.label, origin)
        scores, answered = trace_scores([self.named[row] for row in chosen], right)
        return self.lm.fitted(method, scores, answers=answered).calibrator


def trace_scores(named: Sequence[Sequence[Trace]], answers: Sequence[int]) -> tuple[OptionScores, list[int]]:
    """Return the label scores (M, K) of all M traces that name a label, and the right label of each: what to fit on.

    Args:
        named: for each question the traces that name a label.
        answers: for each question the index of the right one.

    Raises:
        FitError: there is no such trace.
    """
    pairs = [(trace.scores, answer) for of, answer in zip(named, answers, strict=True) for trace in of]
    if not pairs:
        raise FitError(
            f"None of the traces of {len(named)} questions names a label, so there is nothing to fit on: choose a "
            "template that the model follows, such as letter-reasoned, or more tokens a trace."
        )
    return join([scores for scores, _ in pairs]), [answer for _, answer in pairs]


def _check_fit(method: str) -> None:
    """Return nothing when a decoder's answers can be fitted in this way.

    Raises:
        InputError: it needs a reference, or deals rows to folds: the traces of one question would be in several.
    """
    known = f"A decoder's answers are calibrated with labels: temperature, vector, matrix, {', '.join(ANSWER_FITS)}."
    if method in ANSWER_FITS:
        return
    if method == "auto":
        raise InputError(
            f"{known} Got the fit 'auto', which compares methods on held-out rows: the traces of one question are no "
            "independent rows. Take 'auto-confidence', which has one row a question, or name a method."
        )
    if groupless_fit(method).needs_reference:
        raise InputError(
            f"{known} Got the fit {method!r}, which needs a reference model: fit it with a readout instead."
        )


def _check_answers(questions: Sequence[Question]) -> None:
    """Return nothing when all questions have an answer: a decoder's fits all need them.

    Raises:
        QuestionError: names the first question without one.
    """
    pairs = zip(question_keys(questions), questions, strict=True)
    unknown = [key for key, question in pairs if question.answer is None]
    if unknown:
        raise QuestionError(
            f"A decoder's answers are calibrated with labels, and {len(unknown)} of {len(questions)} questions have no "
            f"answer (first: {unknown[0]}): add them, leave these questions out, or evaluate without a fit."
        )


def _check_calibrator(lm: CalibratedLM, decoder: TraceDecoder, drawing: Drawing, strict: bool) -> None:
    """Return nothing; warn, or refuse when strict, where the model's calibrator belongs to something else."""
    calibrator = lm.calibrator
    if calibrator.level == "token":
        raise CapabilityError(
            f"The calibrator {calibrator.kind!r} maps whole distributions, which journalled traces do not hold: use "
            "one of level 'option' or 'confidence', or decode with lm.batch(...)."
        )
    compared = "" if calibrator.level == "confidence" else drawing.label
    saving.check_provenance(calibrator, lm.adapter.fingerprint(), compared, strict=strict)
    check_decoder(calibrator, decoder, strict=strict)
    check_template(calibrator, drawing.template.label, strict=strict)


def _result(read: _Read, held_out: Bools, calibrators: Mapping[str, Calibrator]) -> DecodedEvaluation:
    """Return the evaluation of what was read."""
    scores = {RAW: read.scores(), **{name: read.scores(calibrator) for name, calibrator in calibrators.items()}}
    settings = {name: value for name, value in read.traces[0][0].settings.items() if name != "seed"}
    return DecodedEvaluation(
        read.questions,
        held_out,
        scores,
        calibrators,
        read.lm.adapter.fingerprint(),
        usage=spent([read.lm.adapter]),
        decoder=decoder_name(read.decoder),
        threshold=read.decoder.threshold if read.decoder.adaptive else None,
        drawing={**read.drawing.header(), "in_force": settings},
        traces=[answer.candidates for answer in read.raw],
        named=read.named,
    )


def _candidate(one: Completion, named: Sequence[Trace], labels: Sequence[str]) -> dict[str, Any]:
    """Return what predictions.jsonl says of one trace; label and probability are null where it names none."""
    trace = next((trace for trace in named if trace.completion is one), None)
    return {
        "text": one.text,
        "finish": one.finish,
        "tokens": len(one.scores),
        "choice": None if trace is None else trace.label,
        "probability": None if trace is None else trace.confidence,
        "probabilities": None if trace is None else trace.probabilities[: len(labels)].tolist(),
    }


def _or_none(choice: int) -> int | None:
    return None if choice == UNANSWERED else choice
