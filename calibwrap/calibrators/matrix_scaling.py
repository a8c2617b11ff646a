"""Matrix scaling: every option's place may look at every other; for many rows and few options.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017. K * K + K numbers overfit where vector
scaling does not: compare both on held-out questions.
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
class MatrixScaling(Calibrator):
    """Maps a row of K log-probabilities x to `weights @ x + biases`; the first choice may change.

    Every row must have exactly K options: with one absent its log-probability is not a number that could be mixed into
    the others.

    Raises:
        InputError: `weights` is not finite and (K, K), or `biases` not finite and (K,).

    >>> swapped = MatrixScaling([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0])
    >>> np.exp(swapped(np.log([[0.8, 0.2]]))).round(4).tolist()
    [[0.2, 0.8]]
    """

    kind: ClassVar[str] = "matrix-scaling"
    weights: Floats
    """(K, K): row k holds what place k takes of each place's log-probability."""
    biases: Floats
    """(K,) added to it, in nats."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check and lock the arrays."""
        biases = checked_parameters("MatrixScaling", "biases", self.biases, None)
        object.__setattr__(self, "biases", biases)
        square = (len(biases), len(biases))
        object.__setattr__(self, "weights", checked_parameters("MatrixScaling", "weights", self.weights, square))

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are equal."""
        if not isinstance(other, MatrixScaling):
            return NotImplemented
        return np.array_equal(self.weights, other.weights) and np.array_equal(self.biases, other.biases)

    def __hash__(self) -> int:
        return hash((self.weights.tobytes(), self.biases.tobytes()))

    def logits(self, logprobs: Floats) -> Floats:
        """Return `weights @ x + biases` for each row x.

        Raises:
            InputError: a row does not have exactly K options, all of probability above 0.
        """
        if logprobs.shape[-1] != len(self.biases) or not np.isfinite(logprobs).all():
            fewest = int(np.isfinite(logprobs).sum(axis=-1).min())
            raise InputError(
                f"This MatrixScaling mixes exactly {len(self.biases)} options and needs each above probability 0; a "
                f"row with {fewest} came. Use VectorScaling or Temperature for questions of different lengths."
            )
        return np.asarray(np.maximum(logprobs, -STRONGEST) @ self.weights.T + self.biases)


def fit_matrix_scaling(
    logprobs: OptionScores | ArrayLike,
    answers: ArrayLike,
    *,
    ridge: float = RIDGE,
    off_diagonal: float = 0.0,
    intercept: float = 0.0,
) -> MatrixScaling:
    """Return the weights and biases of greatest likelihood of the right `answers`.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), all finite, or `OptionScores`, none of
            them truncated.
        answers: (N,) index of each row's right option.
        ridge: Weight of half the squared distance from the identity; it settles the directions that the data leave open
            and keeps separable data finite.
        off_diagonal: Weight of the mean square of the weights off the diagonal: with more of it, vector scaling.
        intercept: Weight of the mean square of the biases. `fit_dirichlet` chooses both by cross-validation.

    Fewer than 10 rows for each fitted number, or answers that are all of one place, give a note in the report and a
    `CalibrationWarning`.

    Raises:
        InputError: wrong shapes, NaN, a row with fewer than K options, or an answer out of range.
        CapabilityError: truncated scores.
        FitError: every right answer has probability 0.

    >>> fitted = fit_matrix_scaling(np.zeros((60, 2)), [0, 0, 0, 1] * 15)  # no information but 3 : 1
    >>> np.exp(fitted(np.zeros((1, 2)))).round(3).tolist()
    [[0.75, 0.25]]
    """
    found, report = fit_affine_to_answers(logprobs, answers, full=True, penalty=Penalty(ridge, off_diagonal, intercept))
    return MatrixScaling(found.weights, found.biases, report=report)
