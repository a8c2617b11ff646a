"""Vector scaling: one weight and one bias for each option's place, so that a liking for a letter can be taken out.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._affine import RIDGE, STRONGEST, Penalty, checked_parameters
from calibwrap.calibrators._labelled import fit_affine_to_answers
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, OptionScores


@dataclass(frozen=True, eq=False)
class VectorScaling(Calibrator):
    """Maps option k's log-probability to `weights[k] * logprob + biases[k]`; the first choice may change.

    The k-th number belongs to the k-th place, whatever stands there. A question with fewer than K options uses the
    first ones, since no place looks at another; one with more is refused.

    Raises:
        InputError: `weights` and `biases` are not finite and of one shape (K,).

    >>> np.exp(VectorScaling([1.0, 1.0], [0.0, np.log(4.0)])(np.log([[0.8, 0.2]]))).round(4).tolist()
    [[0.5, 0.5]]
    """

    kind: ClassVar[str] = "vector-scaling"
    weights: Floats
    """(K,) factor of each place's log-probability."""
    biases: Floats
    """(K,) added to it, in nats."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check and lock the arrays."""
        weights = checked_parameters("VectorScaling", "weights", self.weights, None)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", checked_parameters("VectorScaling", "biases", self.biases, weights.shape))

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are equal."""
        if not isinstance(other, VectorScaling):
            return NotImplemented
        return np.array_equal(self.weights, other.weights) and np.array_equal(self.biases, other.biases)

    def __hash__(self) -> int:
        return hash((self.weights.tobytes(), self.biases.tobytes()))

    def logits(self, logprobs: Floats) -> Floats:
        """Return `weights * logprobs + biases`; -inf stays -inf.

        Raises:
            InputError: more options than there are weights.
        """
        k = logprobs.shape[-1]
        if k > len(self.weights):
            raise InputError(
                f"This VectorScaling was fitted on {len(self.weights)} options and {k} came: fit it on questions with "
                "as many, or use Temperature, which takes any number."
            )
        exists = logprobs > -np.inf
        inputs = np.where(exists, np.maximum(logprobs, -STRONGEST), 0.0)
        return np.where(exists, self.weights[:k] * inputs + self.biases[:k], -np.inf)


def fit_vector_scaling(
    logprobs: OptionScores | ArrayLike, answers: ArrayLike, *, ridge: float = RIDGE, intercept: float = 0.0
) -> VectorScaling:
    """Return the weights and biases of greatest likelihood of the right `answers`.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), -inf where there is no option, or
            `OptionScores`, none of them truncated.
        answers: (N,) index of each row's right option.
        ridge: Weight of half the squared distance from the identity; it settles the one direction that the data leave
            open (a constant added to all biases) and keeps separable data finite.
        intercept: Weight of the mean square of the biases: with more of it, none.

    Fewer than 10 rows for each fitted number, or answers that are all of one place, give a note in the report and a
    `CalibrationWarning`.

    Raises:
        InputError: wrong shapes, NaN, or an answer that is no index of an existing option.
        CapabilityError: truncated scores.
        FitError: every right answer has probability 0.

    >>> fitted = fit_vector_scaling(np.zeros((40, 2)), [0, 0, 0, 1] * 10)  # no information but 3 : 1
    >>> np.exp(fitted(np.zeros((1, 2)))).round(3).tolist()
    [[0.75, 0.25]]
    """
    found, report = fit_affine_to_answers(logprobs, answers, full=False, penalty=Penalty(ridge, intercept=intercept))
    return VectorScaling(found.weights, found.biases, report=report)
