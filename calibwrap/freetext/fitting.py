"""A calibrator of one confidence, fitted on free-text answers and how right they were."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from calibwrap.base import Answer, Calibrator
from calibwrap.calibrators import confidence_fit, with_report
from calibwrap.capabilities import Provides
from calibwrap.errors import FitError, InputError
from calibwrap.freetext.judging import check_each_is_free
from calibwrap.provenance import Provenance
from calibwrap.questions import SHORT, SHORT_CHAT, FreeQuestion, Prompt, Template


def free_template(template: Template | None, provides: Provides) -> Template:
    """Return the template that asks: the given one, else `SHORT_CHAT` for a model with a chat template, else `SHORT`.

    >>> free_template(None, Provides(chat=True)).name
    'short-chat'
    """
    chosen = template or (SHORT_CHAT if provides.chat else SHORT)
    if not isinstance(chosen, Template):
        raise InputError(f"'template' must be one, such as calibwrap.questions.SHORT. Got {template!r}.")
    return chosen


def free_prompts(questions: Sequence[FreeQuestion], template: Template | None, provides: Provides) -> list[Prompt]:
    r"""Return what the model reads for each question: in its chat template where it has one, unless `template` says.

    Raises:
        InputError: no questions, or one that is not a `FreeQuestion`.

    >>> free_prompts([FreeQuestion("Red planet?")], Template(), Provides())
    ['Question: Red planet?\nAnswer:']
    """
    if isinstance(questions, str) or not isinstance(questions, Sequence) or not questions:
        raise InputError(f"'questions' must be a list of at least one FreeQuestion. Got {questions!r}.")
    check_each_is_free(questions)
    chosen = free_template(template, provides)
    return [chosen.prompt(question) for question in questions]


def fit_on_answers(
    answers: Sequence[Answer],
    correct: ArrayLike,
    method: str = "platt",
    *,
    decoder: str = "",
    provenance: Provenance | None = None,
    **options: Any,
) -> Calibrator:
    """Return the calibrator that maps the confidence of such answers to the probability of being right.

    An answer without text says nothing, is certainly not right, and keeps confidence 0: it is left out, counted in
    `report.rows`, and noted.

    Args:
        answers: N answers with their raw confidences.
        correct: (N,) in [0, 1], how right each one is.
        method: "platt", "isotonic", "auto-confidence", ...; `calibrators.CONFIDENCE_FITS` holds all.
        decoder: label of the decoder that they come from, for the report.
        provenance: the model that they come from, for the report.
        options: passed to the method, such as `smoothing=True`.

    Raises:
        InputError: unknown method, or not N numbers in [0, 1].
        FitError: no answer has a text.

    >>> said = [Answer("a", 0.9, (0.9, 0.9)), Answer("b", 0.8, (0.8, 0.8)), Answer("c", 0.7, (0.7, 0.7))]
    >>> fit_on_answers([*said, Answer("", 0.0, (0.0, 0.0))], [1, 0, 1, 0]).report.rows_used
    3
    """
    from calibwrap.calibrators._confidence import checked_confidence  # loaded when something is fitted

    fit = confidence_fit(method)
    right = checked_confidence("correct", correct)
    if right.shape != (len(answers),):
        raise InputError(f"'correct' must be {len(answers)} numbers, one an answer. Got shape {right.shape}.")
    spoken = [index for index, answer in enumerate(answers) if answer.text]
    if not spoken:
        raise FitError(
            f"None of the {len(answers)} answers says anything that could be read: look at Answer.candidates, and "
            "change the prompt, 'max_tokens' or how the confidence is asked for."
        )
    fitted = fit([answers[index].confidence for index in spoken], right[spoken], **options)
    if fitted.report is None:
        return fitted
    silent = len(answers) - len(spoken)
    unread = sum(answer.unparsed for answer in answers)
    drawn = sum(len(answer.candidates) for answer in answers)
    notes = list(fitted.report.notes)
    if silent:
        notes.append(f"{silent} of {len(answers)} answers say nothing that could be read: they keep confidence 0.")
    if unread:
        notes.append(f"{unread} of {drawn} completions were malformed or said nothing.")
    report = replace(fitted.report, rows=len(answers), readout=decoder, provenance=provenance, notes=tuple(notes))
    return with_report(fitted, report)
