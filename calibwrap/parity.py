"""How far two models, or two runtimes of one model, differ on the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.scores import Bools, OptionScores
from calibwrap.summary import BINS


@dataclass(frozen=True)
class Side:
    """One of the two: what it gave, and how good it was where answers are known."""

    accuracy: float | None
    """Share of right first choices; None without answers."""
    ece: float | None
    """Calibration error of the first choices, 15 bins of equal width, l1; None without answers."""
    mean_confidence: float
    """Mean probability of the first choice, over all questions."""
    label_mass: float | None
    """Mean probability that the model itself puts on the options; None where a readout does not define it."""
    missing: int
    """Options that the backend's list did not show."""
    uncertain: int
    """Questions whose first choice is not certain because of that."""


@dataclass(frozen=True)
class Parity:
    """Differences between two sets of scores of the same N questions; probabilities are those of options.

    All differences are absolute, over all options of all questions.
    """

    questions: int
    """N."""
    options: int
    """Options of all questions together."""
    largest: float
    """Largest difference of an option's probability."""
    mean: float
    """Mean difference."""
    percentile99: float
    """99th percentile of the differences."""
    beyond_bounds: float
    """Largest distance between the intervals of an option, which truncation cannot explain; `largest` when exact."""
    same_choice: float
    """Share of the questions whose first choice is the same."""
    furthest: int
    """Index of the question with the largest difference."""
    first: Side
    """The one that came first."""
    second: Side
    """The other one."""


def parity(scores: OptionScores, other: OptionScores, answers: Sequence[int | None] | None = None) -> Parity:
    """Return how far `scores` and `other`, of the same questions in the same order, are from each other.

    Args:
        scores: N questions with up to K options, raw or calibrated.
        other: the same questions, read in the same way by another model or runtime.
        answers: N indices of the right options, None where it is not known; accuracy and ECE count the known ones.

    Raises:
        InputError: other numbers of questions or options, another readout, or answers that do not fit.

    >>> one = OptionScores(np.log([[0.75, 0.25], [0.5, 0.5]]), readout="label")
    >>> two = OptionScores(np.log([[0.5, 0.5], [0.5, 0.5]]), readout="label")
    >>> found = parity(one, two, answers=[0, 1])
    >>> round(found.largest, 6), round(found.mean, 6), found.same_choice, found.furthest
    (0.25, 0.125, 1.0, 0)
    """
    _check(scores, other)
    right = _known(scores, answers)
    differences = np.abs(scores.probabilities - other.probabilities)
    over = differences[scores.mask]
    apart = np.maximum(scores.lower - other.upper, other.lower - scores.upper)[scores.mask]
    return Parity(
        questions=len(scores),
        options=int(scores.mask.sum()),
        largest=float(over.max()),
        mean=float(over.mean()),
        percentile99=float(np.quantile(over, 0.99)),
        beyond_bounds=float(max(0.0, apart.max())),
        same_choice=float(np.mean(scores.choice == other.choice)),
        furthest=int(np.argmax(np.where(scores.mask, differences, 0.0).max(axis=1))),
        first=_side(scores, *right),
        second=_side(other, *right),
    )


def _check(scores: OptionScores, other: OptionScores) -> None:
    """Return nothing when the two are about the same questions, read in the same way."""
    if scores.mask.shape != other.mask.shape or (scores.mask != other.mask).any():
        raise InputError(
            f"Both must be scores of the same questions with the same options. Got shapes {scores.mask.shape} and "
            f"{other.mask.shape}" + (", with other options existing." if scores.mask.shape == other.mask.shape else ".")
        )
    if scores.readout != other.readout:
        raise InputError(
            f"Both must be read in the same way, for only then do they compare. Got {scores.readout!r} and "
            f"{other.readout!r}: pass the same readout to both."
        )


def _known(scores: OptionScores, answers: Sequence[int | None] | None) -> tuple[Bools, Sequence[int]]:
    """Return which questions have an answer, and the answers of these."""
    if answers is None:
        return np.zeros(len(scores), dtype=np.bool_), []
    if len(answers) != len(scores):
        raise InputError(f"'answers' must have one entry for each of the {len(scores)} questions. Got {len(answers)}.")
    for row, answer in enumerate(answers):
        if answer is not None and not (0 <= answer < scores.mask.shape[1] and scores.mask[row, answer]):
            raise InputError(f"'answers[{row}]' must be the index of an option that exists, or None. Got {answer!r}.")
    known = np.array([answer is not None for answer in answers], dtype=np.bool_)
    return known, [int(answer) for answer in answers if answer is not None]


def _side(scores: OptionScores, known: Bools, answers: Sequence[int]) -> Side:
    """Return what one side gave."""
    correct = scores.choice[known] == np.array(answers, dtype=np.int64)
    confidence = np.minimum(scores.confidence, 1.0)  # exp of a rounded log may pass 1 by one unit in the last place
    masses = scores.label_mass[~np.isnan(scores.label_mass)]
    return Side(
        accuracy=float(correct.mean()) if len(correct) else None,
        ece=metrics.ece(confidence[known], correct, n_bins=BINS) if len(correct) else None,
        mean_confidence=float(confidence.mean()),
        label_mass=float(masses.mean()) if len(masses) else None,
        missing=int(scores.missing.sum()),
        uncertain=int((~scores.argmax_certified).sum()),
    )
