"""What calibrators of one confidence share: what they take, what they refuse, and what their fits are handed."""

from abc import abstractmethod
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator, Level
from calibwrap.errors import CapabilityError, InputError
from calibwrap.real_numbers import real_array
from calibwrap.scores import Floats, OptionScores, TokenScores

CLIP = 1e-6
"""Confidences are taken as at least this and at most 1 - this where their logarithm is needed."""


class ConfidenceCalibrator(Calibrator):
    """Maps one confidence to the probability of being right, whatever the confidence was made of.

    Calling it takes confidences of any shape, such as one number or (N,), and gives float64 of that shape in [0, 1].
    It has no say in what is answered.
    """

    level: Level = "confidence"
    keeps_argmax = True

    @property
    def is_one_way(self) -> bool:
        """Whether the map never falls, or never rises: bounds of a confidence then map to bounds."""
        return True

    @abstractmethod
    def mapped(self, confidence: Floats) -> Floats:
        """Return probabilities of the shape of `confidence`, whose values are finite and in [0, 1]."""

    def __call__(self, scores: Any) -> Any:
        """Return the probability of being right for each confidence.

        Raises:
            InputError: a confidence is not a number in [0, 1].
            CapabilityError: scores of options or tokens, which one confidence calibrator cannot map.
        """
        if isinstance(scores, (OptionScores, TokenScores)):
            self._refuse(type(scores).__name__)
        confidence = checked_confidence("confidence", scores)
        return np.clip(self.mapped(confidence), 0.0, 1.0)

    def logits(self, logprobs: Floats) -> Floats:
        """Return nothing: log-probabilities of options are not one confidence.

        Raises:
            CapabilityError: always.
        """
        self._refuse("log-probabilities")

    def _refuse(self, what: str) -> NoReturn:
        raise CapabilityError(
            f"The calibrator '{self.kind}' maps one confidence, and {what} came: use it on answers, as in "
            "lm(prompt, decoder), or fit a calibrator of options, such as 'temperature'."
        )


def checked_confidence(name: str, values: ArrayLike) -> Floats:
    """Return `values` as float64 in [0, 1].

    Raises:
        InputError: something else than numbers, NaN, or a number outside [0, 1].

    >>> checked_confidence("confidence", [0, 0.5]).tolist()
    [0.0, 0.5]
    """
    try:
        array = real_array(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"'{name}' must be numbers from 0 to 1. Got {type(values).__name__}: {error}.") from error
    outside = ~((array >= 0.0) & (array <= 1.0))
    if outside.any():
        raise InputError(f"'{name}' must be numbers from 0 to 1. Got {array[outside].flat[0]}.")
    return array


def checked_pairs(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    """Return confidences and how right the answers were, both (N,) float64 in [0, 1].

    Raises:
        InputError: not N numbers each, N at least 1, or a number outside [0, 1].
    """
    said, right = checked_confidence("confidence", confidence), checked_confidence("correct", correct)
    if said.ndim != 1 or said.shape != right.shape or not said.size:
        raise InputError(
            "'confidence' and 'correct' must be (N,) numbers each, N at least 1. "
            f"Got shapes {said.shape} and {right.shape}."
        )
    return said, right


def log_odds(confidence: Floats, clip: float = CLIP) -> Floats:
    """Return log(c / (1 - c)) of confidences that are first brought into [clip, 1 - clip].

    >>> log_odds(np.array([0.5, 0.75])).round(4).tolist()
    [0.0, 1.0986]
    """
    inside = np.clip(confidence, clip, 1.0 - clip)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def tied(probability: Floats) -> Floats:
    """Return probabilities that came out of logarithms, those that rounding alone tells apart made equal.

    Options of probability 0.6 come back from their normalised logarithms as 0.6 or as its neighbours, by what the other
    options are; a map of steps would part them.

    >>> tied(np.array([0.6, 0.6000000000000001, 1.0000000000000002])).tolist()
    [0.6, 0.6, 1.0]
    """
    return np.asarray(np.minimum(np.round(probability, 12), 1.0))


def few_rows(came: int, needed: int) -> tuple[str, ...]:
    """Return a note where fewer rows came than a map of few numbers asks for, by rule of thumb.

    >>> few_rows(12, 20), few_rows(20, 20)
    (('12 rows are few: 20 and more are better.',), ())
    """
    return (f"{came} rows are few: {needed} and more are better.",) if came < needed else ()


def alike_answers(correct: Floats) -> tuple[str, ...]:
    """Return a note where all answers (N,) are equally right, so that a map has one value.

    >>> alike_answers(np.zeros(3))
    ('All answers are equally right: the map says the same of every confidence.',)
    """
    told = "All answers are equally right: the map says the same of every confidence."
    return (told,) if np.ptp(correct) == 0.0 else ()


def cross_entropy(probability: Floats, correct: Floats, clip: float = CLIP) -> float:
    """Return the mean negative log-likelihood in nats of `correct` in [0, 1], probabilities clipped.

    >>> round(cross_entropy(np.array([0.5]), np.array([1.0])), 4)
    0.6931
    """
    inside = np.clip(probability, clip, 1.0 - clip)
    return float(-(correct * np.log(inside) + (1.0 - correct) * np.log1p(-inside)).mean())


Separation = Literal["", "constant", "separable"]
"""Why the likelihood of a line through the log-odds may have no maximum."""


def separation(position: Floats, correct: Floats) -> Separation:
    """Return whether some threshold of `position` (N,) parts all that is wrong from all that is right.

    "constant" when all positions are equal, which leaves the slope open; "separable" when the wrong parts lie on one
    side and the right ones on the other, or only one kind is there: the best slope or intercept is then infinite.

    >>> separation(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]))
    'separable'
    """
    wrong, right = position[correct < 1.0], position[correct > 0.0]
    if not wrong.size or not right.size or (wrong.max() <= right.min() and wrong.min() < right.max()):
        return "separable"
    if position.min() == position.max():
        return "constant"
    return "separable" if right.max() <= wrong.min() else ""
