"""Run a model over questions in free text: answers drawn and journalled, judged, and given calibrated confidences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibwrap import saving
from calibwrap.answer_scores import OutcomeScores, outcome_scores
from calibwrap.base import Answer, Calibrator
from calibwrap.calibrators import CONFIDENCE_FITS
from calibwrap.decoders import FreeText
from calibwrap.decoders.answer_fits import fit_decoded, template_for
from calibwrap.decoders.answering import check_decoder, check_template, decoder_label
from calibwrap.decoders.free_text import FreeTextDecoder
from calibwrap.decoders.reading import signed
from calibwrap.decoders.referee import Referee, check_method, check_reference, is_without_labels
from calibwrap.decoders.settings import check_type
from calibwrap.errors import CapabilityError, InputError
from calibwrap.evaluate import RAW, Evaluation, output_folder, own_series, question_keys, spent, write
from calibwrap.evaluate_free_answers import collect_answers
from calibwrap.freetext.fitting import free_prompts
from calibwrap.freetext.judging import JUDGES, Judge, exact_match, f1_above_half, graded, references_of
from calibwrap.freetext.normalise import Normaliser, trivia_qa
from calibwrap.halves import held_out_rows
from calibwrap.questions import FreeQuestion, Question, Template
from calibwrap.wrap import CalibratedLM, Progress

ANSWERS = "answers.jsonl"
"""File of the raw answers in an evaluation's folder."""
OTHER = "another answer"
"""What stands for the wrong outcome of an answer that is right."""
SILENT = "(no answer)"
"""What stands for an answer that says nothing."""
_NORMALISED: Mapping[str, Callable[[str, Sequence[str], Normaliser], float]] = {
    "exact-match": exact_match,
    "f1-above-half": f1_above_half,
}


@dataclass(frozen=True)
class FreeEvaluation(Evaluation):
    """What came out of one model and one decoder on a set of questions in free text.

    `questions` are the outcomes that the figures count: of each answer that it is right, or that it is wrong.
    """

    asked: Sequence[FreeQuestion] = ()
    """The N questions as they were asked."""
    answers: Sequence[Answer] = ()
    """The N raw answers."""
    decoder: Mapping[str, Any] = field(default_factory=dict)
    """The decoder's name, the template's, the judge's, and the settings that the runtime says were in force."""

    def cost(self) -> dict[str, Any]:
        """Return what the answers cost, and how many completions and questions say nothing that could be read."""
        every = [one for answer in self.answers for one in answer.candidates]
        tokens, unparsed = sum(len(one.scores) for one in every), sum(answer.unparsed for answer in self.answers)
        return {
            "completions": len(every),
            "tokens": tokens,
            "tokens_per_question": tokens / len(self.asked),
            "unparsed": unparsed,
            "unparsed_share": unparsed / max(1, len(every)),
            "cut_at_max_tokens": sum(one.finish == "length" for one in every),
            "unanswered": sum(not answer.text for answer in self.answers),
        }

    def metrics(self) -> dict[str, Any]:
        """Return what metrics.json holds: that of any evaluation, and the decoder with its cost."""
        return {**super().metrics(), "decoder": {**self.decoder, **self.cost()}}

    def predictions(self) -> list[dict[str, Any]]:
        """Return what predictions.jsonl holds: question, answer, references, verdict, confidence by series."""
        last = list(self.scores.values())[-1]
        calibrated = None if len(self.scores) == 1 else last.confidence
        rows = zip(question_keys(self.asked), self.asked, self.answers, self.questions, strict=True)
        return [
            {
                "id": key,
                "prompt": asked.prompt,
                "context": asked.context,
                "references": list(asked.answers),
                "part": "held-out" if self.held_out[row] else "fit",
                "answer": answer.text,
                "correct": None if outcome.answer is None else outcome.answer == 0,
                "confidence": answer.confidence,
                "calibrated": None if calibrated is None else float(calibrated[row]),
                "bounds": list(answer.bounds),
                "confidences": {name: float(scores.confidence[row]) for name, scores in self.scores.items()},
                "unparsed": answer.unparsed,
                "candidates": [
                    {"text": one.text, "finish": one.finish, "tokens": len(one.scores)} for one in answer.candidates
                ],
            }
            for row, (key, asked, answer, outcome) in enumerate(rows)
        ]


def evaluate_free(
    lm: CalibratedLM,
    questions: Sequence[FreeQuestion],
    decoder: FreeTextDecoder | None = None,
    out: str | Path | None = None,
    *,
    template: Template | None = None,
    judge: str | Judge = "exact-match",
    fit: Sequence[str] = (),
    reference: CalibratedLM | None = None,
    reference_template: Template | None = None,
    fit_share: float = 0.5,
    seed: int = 0,
    strict: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> FreeEvaluation:
    """Return a model's answers in free text to a question set, judged, raw and calibrated, and write them to `out`.

    The answers are drawn once and journalled; every series is worked out from them. With `fit`, a random share of the
    questions fits and the rest is held out. The model's own calibrator (if it has one) is a series too.

    Args:
        lm: the model, with or without a calibrator of level "confidence".
        questions: the questions; those without references get an answer and take no part in figures.
        decoder: what makes an answer; `FreeText()` by default.
        out: folder for answers.jsonl, predictions.jsonl, metrics.json and the calibrators; None writes nothing.
        template: writes the prompts; by default the one that `template_for` gives for the model and the decoder.
        judge: "exact-match" or "f1-above-half", which normalise as the decoder does, or a function of yours.
        fit: "platt", "isotonic", ...; with a reference also "soft:platt", "daca", ..., which look at no references.
        reference: the pre-trained model of fits without labels; see `fit_answers_without_labels`.
        reference_template: writes the reference's prompts; by default what suits it.
        fit_share: share of the questions that fit, between 0 and 1.
        seed: of the split.
        strict: refuse a calibrator that was fitted on another model or decoder; else there is a warning.
        resume: go on where an earlier run into `out` ended.
        progress: called with (done, in all) of the questions.

    Raises:
        InputError: bad share, too few questions, an unknown judge or fit, a reference missing or given in vain, or a
            verdict between right and wrong.
        QuestionError: a fit with labels, and a question without references.
        CapabilityError: the backend cannot give what the decoder needs, or the calibrator maps options or tokens.
        JournalError: see `collect_answers`.
    """
    chosen = decoder or FreeText()
    check_type("decoder", chosen, FreeTextDecoder, "cw.SelfConsistency(k=8)")
    asked = template_for(template, lm.adapter.provides, type(chosen))
    free_prompts(questions, asked, lm.adapter.provides)  # a wrong question or template is told before anything else
    verdict, judged_by = find_judge(judge, chosen.normalise)
    check_free_fits(fit, chosen, has_reference=reference is not None)
    if reference is not None:
        check_reference([method for method in fit if is_without_labels(method)], reference.adapter)
    if any(not is_without_labels(method) for method in fit):
        references_of(questions)
    _check_calibrator(lm, chosen, asked, strict)
    held_out = held_out_rows(len(questions), fit, fit_share, seed)
    folder = None if out is None else output_folder(out)
    journal = None if folder is None else folder / ANSWERS
    drawn = collect_answers(lm, questions, chosen, asked, journal, resume=resume, progress=progress)
    answers, correct = [answer for answer, _ in drawn], verdicts([answer for answer, _ in drawn], questions, verdict)
    rows = [int(row) for row in np.flatnonzero(~held_out)]
    right = [float(bool(correct[row])) for row in rows]
    fitting = [answers[row] for row in rows]
    asked_of = [questions[row] for row in rows]
    referee = None if reference is None else Referee(reference.adapter, asked_of, fitting, chosen, reference_template)
    fitted = {method: fitted_answers(lm, chosen, asked, fitting, right, method, referee) for method in fit}
    calibrators = {**own_series(lm.calibrator, fit), **fitted}
    described = {"name": decoder_label(chosen), "template": asked.label, "judge": judged_by, "seed": chosen.seed}
    readout = f"{type(chosen).__name__}(k={chosen.k}) on {asked.label}"  # the full name is that of the decoder
    result = FreeEvaluation(
        outcome_questions(questions, answers, correct),
        held_out,
        {RAW: outcome_scores(answers, readout), **_calibrated(answers, calibrators, readout)},
        calibrators,
        lm.adapter.fingerprint(),
        usage=spent([lm.adapter, *([] if reference is None else [reference.adapter])]),
        asked=tuple(questions),
        answers=answers,
        decoder={**described, "in_force": dict(drawn[0][1])},
    )
    if folder is not None:
        write(result, folder)
    return result


def find_judge(judge: str | Judge, normalise: Normaliser = trivia_qa) -> tuple[Judge, str]:
    """Return a judge and the name that it goes by; one that is named judges by `normalise`.

    Raises:
        InputError: an unknown name.

    >>> find_judge("exact-match")[0]("the Mars", ["Mars"]), find_judge("exact-match")[1]
    (1.0, 'exact-match')
    """
    if not isinstance(judge, str):
        return judge, "a function of the caller's"
    if judge not in _NORMALISED:
        raise InputError(f"There is no judge {judge!r}. Known: {', '.join(JUDGES)}.")
    return (lambda text, references: _NORMALISED[judge](text, references, normalise)), judge


def check_free_fits(methods: Sequence[str], decoder: FreeTextDecoder, *, has_reference: bool = False) -> None:
    """Return nothing when all of these fits map one confidence, and have the reference that they need.

    Raises:
        InputError: one is for options, or unknown, or does not go with the decoder; a reference is missing, or is there
            in vain.

    >>> check_free_fits(["platt", "soft:isotonic"], FreeText(), has_reference=True)
    """
    without = [method for method in methods if is_without_labels(method)]
    for method in methods:
        if method in without:
            check_method(method, decoder)
        elif method not in CONFIDENCE_FITS:
            raise InputError(
                f"Answers in free text are calibrated with {' or '.join(sorted(CONFIDENCE_FITS))}, fitted on right "
                f"answers, or with soft:platt and its like on a reference. Got the fit {method!r}, which is not for "
                "one confidence."
            )
    if without and not has_reference:
        raise InputError(f"Method {without[0]!r} needs a reference, a pre-trained model whose word stands for labels.")
    if has_reference and not without:
        raise InputError(
            "A reference stands in for right answers in free text: fit 'soft:platt', 'soft:isotonic' or 'daca' with "
            f"it. Got {', '.join(methods) or 'no fit'}."
        )


def verdicts(answers: Sequence[Answer], questions: Sequence[FreeQuestion], judge: Judge) -> list[bool | None]:
    """Return for each answer whether it is right; None where its question has no references.

    Raises:
        InputError: a judge's verdict that is neither 0 nor 1: figures count right and wrong answers.
    """
    known = [row for row, question in enumerate(questions) if question.answers]
    found = graded([answers[row] for row in known], [questions[row] for row in known], judge)
    if known and not np.isin(found, (0.0, 1.0)).all():
        raise InputError(
            f"The figures of an evaluation count right and wrong answers, so a judge must give 0 or 1. Got "
            f"{found[~np.isin(found, (0.0, 1.0))][0]}: give it a threshold, as f1_above_half has."
        )
    right = dict(zip(known, found, strict=True))
    return [bool(right[row]) if row in right else None for row in range(len(answers))]


def fitted_answers(
    lm: CalibratedLM,
    decoder: FreeTextDecoder,
    template: Template,
    answers: Sequence[Answer],
    correct: Sequence[float],
    method: str,
    referee: Referee | None = None,
) -> Calibrator:
    """Return the calibrator that `method` fits on answers that were drawn before, with a full report.

    `correct` says which answers are right; methods without labels look at the word of `referee` instead.
    """
    origin = lm.adapter.fingerprint()
    if referee is not None and is_without_labels(method):
        return referee.fit(method, template.label, origin)
    return fit_decoded(answers, correct, method, decoder, template.label, origin)


def outcome_questions(
    asked: Sequence[FreeQuestion], answers: Sequence[Answer], correct: Sequence[bool | None]
) -> tuple[Question, ...]:
    """Return each question with the two outcomes as options: the answer that was given, and what is right otherwise.

    >>> mars = FreeQuestion("Red planet?", ["Mars", "the planet Mars"])
    >>> outcome_questions([mars], [Answer("Venus", 0.5, (0.5, 0.5))], [False])[0].answer_text
    'Mars, the planet Mars'
    """
    found = []
    for question, answer, right in zip(asked, answers, correct, strict=True):
        said, other = answer.text.strip() or SILENT, OTHER if right else ", ".join(question.answers) or OTHER
        options = (said, other if other.strip() != said else f"{OTHER}: {other}")
        index = None if right is None else int(not right)
        found.append(Question(question.prompt, options, index, question.id, question.context))
    return tuple(found)


def _calibrated(
    answers: Sequence[Answer], calibrators: Mapping[str, Calibrator], readout: str
) -> dict[str, OutcomeScores]:
    """Return the scores of the answers under each calibrator."""
    return {
        name: outcome_scores([signed(answer, calibrator) for answer in answers], readout)
        for name, calibrator in calibrators.items()
    }


def _check_calibrator(lm: CalibratedLM, decoder: FreeTextDecoder, template: Template, strict: bool) -> None:
    """Return nothing; warn, or refuse when strict, where the model's calibrator belongs to something else."""
    calibrator = lm.calibrator
    if calibrator.kind == "identity":
        return
    if calibrator.level != "confidence":
        raise CapabilityError(
            f"The calibrator {calibrator.kind!r} maps {calibrator.level}s, and answers in free text have one "
            "confidence: fit 'platt' or 'isotonic' on questions in free text."
        )
    saving.check_provenance(calibrator, lm.adapter.fingerprint(), "", strict=strict)
    check_decoder(calibrator, decoder, strict=strict)
    check_template(calibrator, template.label, strict=strict)
