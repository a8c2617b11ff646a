"""Answers in free text behind a guard: given where few like them are wrong, withheld elsewhere."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from calibwrap.base import Answer, Decoder
from calibwrap.decoders import FreeText
from calibwrap.decoders.answer_fits import template_for
from calibwrap.decoders.answering import fitted_on
from calibwrap.errors import InputError, SavedFileError
from calibwrap.freetext import Judge, check_judge, exact_match, graded, references_of
from calibwrap.guarantees import Abstention, Guard, SavedGuarantee, fit_guard, load_guarantee, save_guarantee
from calibwrap.guarded import check_origin
from calibwrap.questions import FreeQuestion, Template
from calibwrap.wrap import CalibratedLM, Progress


@dataclass(frozen=True)
class GuardedAnswers:
    """A model that answers in free text where the promise of its guard holds, and abstains elsewhere.

    >>> from calibwrap.testing import ToyAdapter
    >>> lm = CalibratedLM(ToyAdapter())
    >>> asked = [FreeQuestion(f"{n} comes after {last}", ["A", "B"]) for n in range(30) for last in ("A", "sun")]
    >>> guarded = guard_answers(lm, asked, FreeText(max_tokens=1), risk=0.9)
    >>> sorted({type(one).__name__ for one in guarded.answer_batch(asked)})
    ['Answer']
    """

    lm: CalibratedLM
    """The model with the calibrator that the guard was fitted with."""
    guard: Guard
    decoder: Decoder
    """What answers."""
    template: Template
    """Writes the prompts."""

    def answer_batch(
        self, questions: Sequence[FreeQuestion], progress: Progress | None = None
    ) -> list[Answer | Abstention]:
        """Return one answer or abstention a question, in order."""
        answers = self.lm.answer_batch(questions, self.decoder, template=self.template, progress=progress)
        return [self.guard(answer) for answer in answers]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write guard, calibrator, and the model, decoder and template that they are good for, to one file."""
        made_by = fitted_on(self.decoder, self.template.label)
        save_guarantee(SavedGuarantee(self.guard, self.lm.calibrator, self.lm.adapter.fingerprint(), made_by), path)

    @classmethod
    def load(
        cls,
        lm: CalibratedLM,
        path: str | os.PathLike[str],
        decoder: Decoder | None = None,
        template: Template | None = None,
        *,
        strict: bool = True,
    ) -> Self:
        """Return `lm` with the calibrator and guard of the file `path`; decoder and template are those of the fit.

        Raises:
            ProvenanceMismatch: it was fitted on another model, decoder or template; with `strict=False` a
                `ProvenanceWarning`.
            SavedFileError: no such file, or not the file of a guard.
        """
        chosen, asked = _asked(lm, decoder, template)
        saved = load_guarantee(path)
        if not isinstance(saved.guarantee, Guard):
            raise SavedFileError(f"{path}: a saved {saved.guarantee.kind}, to be opened with SetLM.load.")
        check_origin(saved, lm.adapter.fingerprint(), fitted_on(chosen, asked.label), strict=strict)
        return cls(replace(lm, calibrator=saved.calibrator, strict=strict), saved.guarantee, chosen, asked)


def guard_answers(
    lm: CalibratedLM,
    questions: Sequence[FreeQuestion],
    decoder: Decoder | None = None,
    risk: float = 0.1,
    delta: float = 0.05,
    *,
    judge: Judge = exact_match,
    template: Template | None = None,
    progress: Progress | None = None,
) -> GuardedAnswers:
    """Return the model behind a guard fitted on its answers in free text: few of those that it gives are wrong.

    Args:
        lm: the model, with the calibrator of the same decoder's answers that the guard stands on.
        questions: with `answers`, like those to come, and not those that the calibrator was fitted on.
        decoder: what answers, `FreeText()` by default.
        risk: largest share of wrong answers among those given.
        delta: chance, over the draw of `questions`, that the promise fails.
        judge: says 1 for a right answer and 0 for a wrong one, such as `exact_match` or `f1_above_half`.
        template: writes the prompts, as in `CalibratedLM.answer_batch`.
        progress: called with (done, in all).

    Raises:
        QuestionError: a question has no references.
        InputError: a verdict between right and wrong.
        FitError: too few questions for that risk, even without an error.
    """
    references_of(questions)  # before any model call
    check_judge(judge)
    chosen, asked = _asked(lm, decoder, template)
    answers = lm.answer_batch(questions, chosen, template=asked, progress=progress)
    guard = fit_guard_on(answers, questions, judge, risk=risk, delta=delta)
    return GuardedAnswers(lm, guard, chosen, asked)


def fit_guard_on(
    answers: Sequence[Answer],
    questions: Sequence[FreeQuestion],
    judge: Judge,
    *,
    risk: float,
    delta: float,
    seed: int = 0,
) -> Guard:
    """Return the guard of calibrated answers that were drawn before; an answer that says nothing is wrong.

    Raises:
        InputError: a verdict between right and wrong.
        FitError: too few answers for that risk.
    """
    correct = graded(answers, questions, judge)
    between = correct[~np.isin(correct, (0.0, 1.0))]
    if len(between):
        raise InputError(
            f"A guard counts wrong answers, so a judge must give 0 or 1. Got {between[0]}: give it a threshold, as "
            "f1_above_half has."
        )
    return fit_guard([one.confidence for one in answers], correct == 1.0, risk=risk, delta=delta, seed=seed)


def _asked(lm: CalibratedLM, decoder: Decoder | None, template: Template | None) -> tuple[Decoder, Template]:
    """Return decoder and template, the defaults in place of None."""
    chosen = decoder or FreeText()
    return chosen, template_for(template, lm.adapter.provides, type(chosen))
