"""Answers of decoders as scores of options, so that figures and reports read them like any others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibwrap.base import Answer
from calibwrap.errors import InputError
from calibwrap.scores import Floats, Ints, OptionScores
from calibwrap.summary import Figure

UNANSWERED = -1
"""The choice where a decoder gave no answer: it equals no option, so it counts as wrong."""


@dataclass(frozen=True, eq=False)
class AnswerScores(OptionScores):
    """Scores of N questions whose choice is what a decoder answered, which need not be the most probable option.

    A trace may name one label and leave another one more probable; a decoder that picks the trace answers with the
    named one. A question without an answer has the choice -1, confidence 0, and equal probabilities for all options.

    >>> s = AnswerScores(np.log([[0.6, 0.4]]), "confidence@1", picked=[1], stated=[0.4])
    >>> s.choice.tolist(), s.confidence.tolist()
    ([1], [0.4])
    """

    picked: Ints = None  # type: ignore[assignment]  # checked below
    """(N,) index of the option that was answered, -1 for none."""
    stated: Floats = None  # type: ignore[assignment]  # checked below
    """(N,) the confidence of that answer."""

    def __post_init__(self) -> None:
        """Check the picks and lock them."""
        super().__post_init__()
        if self.picked is None or self.stated is None:
            raise InputError("AnswerScores needs 'picked' and 'stated', one of each a question.")
        n, k = self.logprobs.shape
        self._lock("picked", np.int64, (n,))
        self._lock("stated", np.float64, (n,))
        if ((self.picked < UNANSWERED) | (self.picked >= k)).any():
            raise InputError(f"'picked' must be indices from 0 to {k - 1}, or -1 for none. Got {self.picked.tolist()}.")
        if not ((self.stated >= 0.0) & (self.stated <= 1.0)).all():
            raise InputError(f"'stated' must be confidences from 0 to 1. Got {self.stated.tolist()}.")

    @property
    def choice(self) -> Ints:
        """(N,) index of the option that was answered, -1 for none."""
        return self.picked

    @property
    def confidence(self) -> Floats:
        """(N,) the confidence of the answer, 0 where there is none."""
        return self.stated


def answer_scores(
    answers: Sequence[Answer], labels: Sequence[Sequence[str]], readout: str, label_mass: Floats | None = None
) -> AnswerScores:
    """Return the scores of N answers whose texts are labels of options.

    The answered option has the confidence; the others share the rest as the answer's probabilities say, evenly where
    they say nothing.

    Args:
        answers: N answers; an empty text is none.
        labels: the labels of each question's options, in their order.
        readout: name of the scores.
        label_mass: (N,) probability of all labels together, NaN where unknown.

    Raises:
        InputError: an answer that is not one of its question's labels.

    >>> said = [Answer("B", 0.75, (0.75, 0.75), {"A": 0.25, "B": 0.75}), Answer("", 0.0, (0.0, 0.0))]
    >>> scores = answer_scores(said, [("A", "B")] * 2, "confidence@4")
    >>> scores.choice.tolist(), scores.probabilities.round(2).tolist()
    ([1, -1], [[0.25, 0.75], [0.5, 0.5]])
    """
    width = max(map(len, labels))
    logprobs, lower, upper = np.full((len(answers), width), -np.inf), *np.zeros((2, len(answers), width))
    picked = [_index(answer.text, of) for answer, of in zip(answers, labels, strict=True)]
    for row, (answer, of, pick) in enumerate(zip(answers, labels, picked, strict=True)):
        shares, count = _shares(answer, of, pick), len(of)
        with np.errstate(divide="ignore"):
            logprobs[row, :count] = np.log(shares)
        lower[row, :count], upper[row, :count] = shares, shares
        low, high = answer.bounds
        if pick != UNANSWERED and low < high:
            lower[row, :count], upper[row, :count] = 0.0, 1.0 - low
            lower[row, pick], upper[row, pick] = low, high
    mask = np.arange(width) < np.array([[len(of)] for of in labels])
    stated = np.array([answer.confidence if answer.text else 0.0 for answer in answers])
    return AnswerScores(
        logprobs,
        readout,
        mask,
        label_mass=label_mass,  # type: ignore[arg-type]  # None is filled
        lower=lower,
        upper=upper,
        picked=np.array(picked, dtype=np.int64),
        stated=stated,
    )


@dataclass(frozen=True, eq=False)
class OutcomeScores(AnswerScores):
    """Scores of N answers in free text: the two columns are "this answer is right" and "it is wrong".

    The choice is 0, that the answer is right, wherever there is an answer; the confidence is the decoder's.
    """


def outcome_scores(answers: Sequence[Answer], readout: str) -> OutcomeScores:
    """Return the scores (N, 2) of answers in free text; an empty one has the choice -1 and is certainly wrong.

    >>> said = [Answer("Mars", 0.75, (0.75, 0.75)), Answer("", 0.0, (0.0, 0.0))]
    >>> outcome_scores(said, "freetext").probabilities.round(2).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    stated = np.array([answer.confidence if answer.text else 0.0 for answer in answers], dtype=np.float64)
    low, high = np.array([answer.bounds if answer.text else (0.0, 0.0) for answer in answers], dtype=np.float64).T
    with np.errstate(divide="ignore"):
        logprobs = np.log(np.column_stack([stated, 1.0 - stated]))
    return OutcomeScores(
        logprobs,
        readout,
        np.ones(logprobs.shape, dtype=np.bool_),
        lower=np.column_stack([low, 1.0 - high]),
        upper=np.column_stack([high, 1.0 - low]),
        picked=np.array([0 if answer.text else UNANSWERED for answer in answers], dtype=np.int64),
        stated=stated,
    )


def unread(scores: OptionScores) -> int:
    """Return how many of N questions have no answer that could be read.

    >>> unread(outcome_scores([Answer("Mars", 0.75, (0.75, 0.75)), Answer("", 0.0, (0.0, 0.0))], "freetext"))
    1
    """
    return int((scores.choice == UNANSWERED).sum())


def of_answers(scores: OptionScores, found: Mapping[str, Figure]) -> dict[str, Figure]:
    """Return figures, or changes of figures, as `of_one_outcome` does, less those that missing answers make good.

    A question without an answer is wrong at confidence 0, which is never off. Where that is so for more than half of
    the questions, the calibration errors are not defined; nor are, for answers in free text, Brier score and NLL.

    >>> silent = outcome_scores([Answer("", 0.0, (0.0, 0.0))] * 2, "freetext")
    >>> of_answers(silent, {"ece": Figure(0.0, 0.0, 0.0), "brier": Figure(0.0, 0.0, 0.0)})["ece"].reason
    'not defined: 2 of 2 questions have no readable answer'
    """
    kept, silent = of_one_outcome(scores, found), unread(scores)
    if 2 * silent <= len(scores):
        return kept
    gone = Figure(None, None, None, f"not defined: {silent} of {len(scores)} questions have no readable answer")
    names = ("ece", "smooth_ece", *(("brier", "nll") if isinstance(scores, OutcomeScores) else ()))
    return {**kept, **{name: gone for name in names if name in kept}}


def of_one_outcome(scores: OptionScores, found: Mapping[str, Figure]) -> dict[str, Figure]:
    """Return figures, or changes of figures, with the Brier score that fits the scores.

    Options have the sum over all of them. Answers in free text have the mean squared difference between confidence
    and correctness, from 0 to 1, which is half of the sum over both outcomes.

    >>> free = outcome_scores([Answer("Mars", 0.75, (0.75, 0.75))], "freetext")
    >>> of_one_outcome(free, {"brier": Figure(0.125, 0.0, None)})["brier"]
    Figure(value=0.0625, low=0.0, high=None, reason='')
    """
    if not isinstance(scores, OutcomeScores) or "brier" not in found:
        return dict(found)
    brier = found["brier"]
    halved = replace(brier, value=_half(brier.value), low=_half(brier.low), high=_half(brier.high))
    return {**found, "brier": halved}


def _half(value: float | None) -> float | None:
    return None if value is None else value / 2.0


def _index(text: str, labels: Sequence[str]) -> int:
    """Return the place of an answer among the labels."""
    if text and text not in labels:
        raise InputError(f"An answer must be one of the labels {tuple(labels)}, or empty. Got {text!r}.")
    return labels.index(text) if text else UNANSWERED


def _shares(answer: Answer, labels: Sequence[str], pick: int) -> Floats:
    """Return (K,) probabilities that sum to 1 and give the picked label the stated confidence."""
    if pick == UNANSWERED:
        return np.full(len(labels), 1.0 / len(labels))
    others = np.array([answer.probabilities.get(label, 0.0) for label in labels])
    others[pick] = 0.0
    if not others.sum():
        others = np.where(np.arange(len(labels)) == pick, 0.0, 1.0)
    shares = others / others.sum() * (1.0 - answer.confidence)
    shares[pick] = answer.confidence
    return np.asarray(shares)
