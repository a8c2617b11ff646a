"""Models that answer or abstain, and models that answer with sets; both keep a promise and are saved with it."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from calibwrap.base import Answer
from calibwrap.errors import InputError, ProvenanceMismatch, ProvenanceWarning, SavedFileError
from calibwrap.guarantees import (
    Abstention,
    AnswerSet,
    ConformalSets,
    Guard,
    SavedGuarantee,
    fit_guard,
    fit_sets,
    load_guarantee,
    save_guarantee,
)
from calibwrap.provenance import Provenance
from calibwrap.questions import Question, answers_of
from calibwrap.readouts import find_readout
from calibwrap.saving import mismatch
from calibwrap.scores import Floats

if TYPE_CHECKING:
    from calibwrap.wrap import CalibratedLM, Progress

G = TypeVar("G", Guard, ConformalSets)


@dataclass(frozen=True)
class GuardedLM:
    """A calibrated model that answers where the promise of its guard holds, and abstains elsewhere.

    >>> import calibwrap as cw
    >>> from calibwrap.testing import ToyAdapter, toy_questions
    >>> lm = cw.CalibratedLM(ToyAdapter(), readout=cw.Label(min_mass=0.0))
    >>> guarded = lm.guard(toy_questions(800, seed=5), risk=0.3)
    >>> sorted({type(answer).__name__ for answer in guarded.choose_batch(toy_questions(40))})
    ['Abstention', 'Answer']
    """

    lm: "CalibratedLM"
    """The model with the calibrator and readout that the guard was fitted with."""
    guard: Guard

    def choose(self, prompt: str, options: Sequence[str], context: str = "") -> Answer | Abstention:
        """Return the option that the model holds most probable, or an abstention.

        Raises:
            QuestionError: an empty prompt, or empty or repeated options.
        """
        return self.choose_batch([Question(prompt, options, context=context)])[0]

    def choose_batch(
        self, questions: Sequence[Question], progress: "Progress | None" = None
    ) -> list[Answer | Abstention]:
        """Return one answer or abstention a question, in order."""
        return [self.guard(answer) for answer in self.lm.choose_batch(questions, progress)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write guard, calibrator, and the model and readout they are good for, to one file."""
        _save(self.lm, self.guard, path)

    @classmethod
    def load(cls, lm: "CalibratedLM", path: str | os.PathLike[str], *, strict: bool = True) -> Self:
        """Return `lm` with the calibrator, readout and guard of the file `path`.

        Raises:
            ProvenanceMismatch: it was fitted on another model or readout; with `strict=False` a `ProvenanceWarning`.
            SavedFileError: no such file, or not the file of a guard.
        """
        return cls(*_loaded(lm, path, Guard, strict))


@dataclass(frozen=True)
class SetLM:
    """A calibrated model that answers with sets of options, which hold the right one with the promised chance.

    >>> import calibwrap as cw
    >>> from calibwrap.testing import ToyAdapter, toy_questions
    >>> lm = cw.CalibratedLM(ToyAdapter(), readout=cw.Label(min_mass=0.0)).sets(toy_questions(200, seed=5))
    >>> [answers.options for answers in lm.answer_sets(toy_questions(2))]
    [('first', 'second', 'third'), ('third', 'second')]
    """

    lm: "CalibratedLM"
    """The model with the calibrator and readout that the sets were fitted with."""
    rule: ConformalSets

    def answer_set(self, prompt: str, options: Sequence[str], context: str = "") -> AnswerSet:
        """Return the options that may be right, the most probable first.

        Raises:
            QuestionError: an empty prompt, or empty or repeated options.
        """
        return self.answer_sets([Question(prompt, options, context=context)])[0]

    def answer_sets(self, questions: Sequence[Question], progress: "Progress | None" = None) -> list[AnswerSet]:
        """Return one set a question, in order."""
        scores = self.lm.calibrated_scores(questions, progress)
        sets = []
        for question, inside, row in zip(questions, self.rule(scores), scores.probabilities, strict=True):
            kept = [int(index) for index in _falling(row) if inside[index]]
            chances = {option: float(chance) for option, chance in zip(question.options, row, strict=False)}
            sets.append(AnswerSet(tuple(question.options[index] for index in kept), chances, self.rule.coverage))
        return sets

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rule, the calibrator, and the model and readout they are good for, to one file."""
        _save(self.lm, self.rule, path)

    @classmethod
    def load(cls, lm: "CalibratedLM", path: str | os.PathLike[str], *, strict: bool = True) -> Self:
        """Return `lm` with the calibrator, readout and rule of the file `path`.

        Raises:
            ProvenanceMismatch: it was fitted on another model or readout; with `strict=False` a `ProvenanceWarning`.
            SavedFileError: no such file, or not the file of sets.
        """
        return cls(*_loaded(lm, path, ConformalSets, strict))


def guarded(
    lm: "CalibratedLM", questions: Sequence[Question], progress: "Progress | None", **options: Any
) -> GuardedLM:
    """Return `lm` behind a guard fitted on its answers to `questions`; `options` are those of `fit_guard`.

    Raises:
        QuestionError: a question has no answer.
        FitError: too few questions.
    """
    answers = answers_of(questions)  # before any model call
    given = lm.choose_batch(questions, progress)
    correct = [
        one.text == question.options[right] for one, question, right in zip(given, questions, answers, strict=True)
    ]
    return GuardedLM(lm, fit_guard([one.confidence for one in given], correct, **options))


def in_sets(lm: "CalibratedLM", questions: Sequence[Question], progress: "Progress | None", **options: Any) -> SetLM:
    """Return `lm` with a rule for sets fitted on `questions`; `options` are those of `fit_sets`.

    Raises:
        QuestionError: a question has no answer.
    """
    answers = answers_of(questions)  # before any model call
    return SetLM(lm, fit_sets(lm.calibrated_scores(questions, progress), answers, **options))


def _falling(probabilities: Floats) -> list[int]:
    """Return the indices of options, the most probable first, the first among equals first."""
    return [int(index) for index in (-probabilities).argsort(kind="stable")]


def _save(lm: "CalibratedLM", guarantee: Guard | ConformalSets, path: str | os.PathLike[str]) -> None:
    save_guarantee(SavedGuarantee(guarantee, lm.calibrator, lm.adapter.fingerprint(), lm.readout.label), path)


def _loaded(lm: "CalibratedLM", path: str | os.PathLike[str], kind: type[G], strict: bool) -> tuple["CalibratedLM", G]:
    """Return the model read and calibrated as in the file, and the guarantee in it."""
    saved = load_guarantee(path)
    if not isinstance(saved.guarantee, kind):
        wanted = "GuardedLM" if saved.guarantee.kind == Guard.kind else "SetLM"
        raise SavedFileError(f"{path}: a saved {saved.guarantee.kind}, to be opened with {wanted}.load.")
    readout = lm.readout
    if readout.label != saved.readout:
        with suppress(InputError):  # a readout of the user's own: it must be set by hand, and is compared below
            readout = find_readout(saved.readout)
    check_origin(saved, lm.adapter.fingerprint(), readout.label, strict=strict)
    return replace(lm, calibrator=saved.calibrator, readout=readout), saved.guarantee


def check_origin(saved: SavedGuarantee, provenance: Provenance, readout: str, *, strict: bool) -> None:
    """Return nothing; warn where a guarantee was fitted on another model, or on answers that were read otherwise.

    Raises:
        ProvenanceMismatch: `strict`, in place of the warning.
    """
    what = f"{saved.guarantee.kind} guarantee"
    told = mismatch(what, saved.provenance, saved.readout, provenance, readout)
    if told and strict:
        raise ProvenanceMismatch(told)
    if told:
        warnings.warn(told, ProvenanceWarning, stacklevel=4)
