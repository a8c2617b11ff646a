"""What a report is about: question sets, and the states of calibration that they were answered in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibwrap.answer_scores import OutcomeScores
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport
from calibwrap.questions import Question
from calibwrap.scores import Bools, Floats, Ints, OptionScores


@dataclass(frozen=True)
class Series:
    """One state of calibration of one question set.

    >>> Series("as the model says it", OptionScores([[0.0, -1.0]], readout="label")).name
    'as the model says it'
    """

    name: str
    """How the reader shall call it: "as the model says it", "DACA, no labels"."""
    scores: OptionScores
    """What the model says in this state, one row for each question of the section."""
    fit: FitReport | None = None
    """How the calibrator was fitted; None where there is none."""
    keeps_argmax: bool | None = None
    """Whether the calibrator always keeps the first choice, and so the accuracy; None where there is none."""


@dataclass(frozen=True)
class Section:
    """One question set with its held-out questions and their scores before and after calibration.

    The first series is the state before; the others are compared with it. A question without an answer counts for
    confidence and label mass only; a section without any series says that nothing was scored.

    Raises:
        InputError: a series whose rows or options are not those of the questions, or two series of one name.

    >>> question = Question("Red planet?", ["Mars", "Venus"], answer=0)
    >>> section = Section("Planets", (question,), (Series("raw", OptionScores([[0.0, -1.0]], readout="label")),))
    >>> section.answered.tolist(), section.answers.tolist()
    ([True], [0])
    """

    title: str
    """Name of the question set."""
    questions: Sequence[Question]
    """The held-out questions, in the order of the rows."""
    series: Sequence[Series]
    """The state before calibration, then the states after it."""
    note: str = ""
    """What the reader should know about this set; may be empty."""

    def __post_init__(self) -> None:
        """Check that rows and options fit, once."""
        object.__setattr__(self, "questions", tuple(self.questions))
        object.__setattr__(self, "series", tuple(self.series))
        names = [one.name for one in self.series]
        if len(set(names)) < len(names):
            raise InputError(f"The series of section {self.title!r} must have different names. Got {names}.")
        for one in self.series:
            self._check(one)

    def _check(self, one: Series) -> None:
        if len(one.scores) != len(self.questions):
            raise InputError(
                f"Series {one.name!r} of section {self.title!r} must have one row for each of the "
                f"{len(self.questions)} questions. Got {len(one.scores)} rows."
            )
        for row, question in enumerate(self.questions):
            options = len(question.options)
            if options > one.scores.mask.shape[1] or one.scores.mask[row, options:].any():
                raise InputError(
                    f"Row {row} of series {one.name!r} must be scores of the {options} options of question "
                    f"{question.id!r}. Got {int(one.scores.mask[row].sum())} in {one.scores.mask.shape[1]} columns."
                )

    @property
    def is_free(self) -> bool:
        """Whether the answers are free text: options are then the two outcomes of an answer, right and wrong."""
        return bool(self.series) and isinstance(self.series[0].scores, OutcomeScores)

    @property
    def answered(self) -> Bools:
        """(N,) True where the right option is known."""
        return np.array([question.answer is not None for question in self.questions], dtype=np.bool_)

    @property
    def answers(self) -> Ints:
        """(M,) indices of the right options of the M questions that have one."""
        return np.array([q.answer for q in self.questions if q.answer is not None], dtype=np.int64)

    def stated(self, one: Series) -> tuple[Floats, Bools]:
        """Return confidence and correctness (M,) of one series on the M questions that have an answer."""
        scores = one.scores.take(self.answered)
        return np.minimum(scores.confidence, 1.0), np.asarray(scores.choice == self.answers)
