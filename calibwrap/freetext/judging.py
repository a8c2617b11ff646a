"""Whether a free text is right: judges compare an answer with its references, and give a number from 0 to 1."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from calibwrap.base import Answer
from calibwrap.errors import InputError, QuestionError
from calibwrap.freetext.normalise import Normaliser, trivia_qa
from calibwrap.questions import FreeQuestion
from calibwrap.scores import Floats

Judge = Callable[[str, Sequence[str]], float]
"""Takes an answer and its references; gives how right it is, from 0 (wrong) to 1 (right)."""


def exact_match(text: str, references: Sequence[str], normalise: Normaliser = trivia_qa) -> float:
    """Return 1.0 where `text` equals a reference, both normalised, else 0.0; a text that says nothing is wrong.

    >>> exact_match("the Sunset Boulevard.", ["Sunset Blvd", "Sunset Boulevard"])
    1.0
    """
    said, references = normalise(text), _several(references)
    return float(said != "" and any(said == normalise(reference) for reference in references))


def token_f1(text: str, reference: str, normalise: Normaliser = trivia_qa) -> float:
    """Return the harmonic mean of precision and recall of the words of `text`, both texts normalised.

    References:
        Rajpurkar, Zhang, Lopyrev, Liang: SQuAD (2016).

    >>> token_f1("in Paris, France", "Paris")  # 1 of 3 words, 1 of 1
    0.5
    """
    said, wanted = Counter(normalise(text).split()), Counter(normalise(reference).split())
    shared = (said & wanted).total()
    return 2.0 * shared / (said.total() + wanted.total()) if shared else 0.0


def f1_above_half(text: str, references: Sequence[str], normalise: Normaliser = trivia_qa) -> float:
    """Return 1.0 where the token F1 with some reference is above 0.5, else 0.0.

    It forgives a word too many, as in "the Eiffel Tower Paris" for "Eiffel Tower", and a wrong one too.

    >>> f1_above_half("Eiffel Tower Paris", ["Eiffel Tower"]), f1_above_half("in Paris, France", ["Paris"])
    (1.0, 0.0)
    """
    return float(any(token_f1(text, reference, normalise) > 0.5 for reference in _several(references)))


def _several(references: Sequence[str]) -> Sequence[str]:
    """Return the references; a single text, whose letters would be compared one by one, is refused."""
    if isinstance(references, str):
        raise InputError(f"'references' must be a list of texts: write [{references!r}]. Got {references!r} alone.")
    return references


JUDGES: Mapping[str, Judge] = MappingProxyType({"exact-match": exact_match, "f1-above-half": f1_above_half})
"""The judges by name."""


def check_judge(judge: object) -> None:
    """Return nothing when `judge` can judge.

    Raises:
        InputError: something else, such as the name of a judge.

    >>> check_judge(JUDGES["exact-match"])
    """
    if not callable(judge):
        raise InputError(
            f"'judge' must be a function, such as calibwrap.freetext.exact_match. Got {judge!r}; those with names are "
            f"in calibwrap.freetext.JUDGES: {', '.join(JUDGES)}."
        )


def check_each_is_free(questions: Sequence[FreeQuestion]) -> None:
    """Return nothing when each of these is a question in free text.

    Raises:
        InputError: one is not; the first is shown.

    >>> check_each_is_free([FreeQuestion("Red planet?")])
    """
    for index, question in enumerate(questions):
        if not isinstance(question, FreeQuestion):
            raise InputError(
                f"'questions[{index}]' must be a FreeQuestion: cw.FreeQuestion(prompt=..., answers=[...]). "
                f"Got {question!r}; for questions with options there are choose() and fit()."
            )


def references_of(questions: Sequence[FreeQuestion]) -> list[Sequence[str]]:
    """Return the texts that are right for each question.

    Raises:
        InputError: something that is no `FreeQuestion`.
        QuestionError: a question has none; the first is named.

    >>> references_of([FreeQuestion("Red planet?", ["Mars"])])
    [('Mars',)]
    """
    check_each_is_free(questions)
    unknown = [question.id or f"number {index + 1}" for index, question in enumerate(questions) if not question.answers]
    if unknown:
        raise QuestionError(
            f"References are needed, and {len(unknown)} of {len(questions)} questions have none (first: {unknown[0]}): "
            "add 'answers', the texts that count as right."
        )
    return [question.answers for question in questions]


def graded(answers: Sequence[Answer], questions: Sequence[FreeQuestion], judge: Judge = exact_match) -> Floats:
    """Return (N,) how right each answer is, from 0 to 1; an empty answer is wrong.

    Raises:
        InputError: another number of answers than of questions, or a judge's verdict outside 0 to 1.
        QuestionError: a question has no references; the first is named.

    >>> graded([Answer("Mars", 0.9, (0.9, 0.9))], [FreeQuestion("Red planet?", ["Mars"])]).tolist()
    [1.0]
    """
    if len(answers) != len(questions):
        raise InputError(f"Expected one answer a question. Got {len(answers)} answers and {len(questions)} questions.")
    check_judge(judge)
    references = references_of(questions)
    pairs = zip(answers, references, strict=True)
    verdicts = np.array([float(judge(one.text, known)) if one.text else 0.0 for one, known in pairs])
    if not ((verdicts >= 0.0) & (verdicts <= 1.0)).all():
        raise InputError(f"A judge must give a number from 0 to 1. Got {verdicts.tolist()}.")
    return verdicts
