"""Dirichlet calibration: a matrix on log-probabilities whose off-diagonal weights and biases are held back.

Kull, Perello-Nieto, Kaengsepp, Silva Filho, Song, Flach, "Beyond temperature scaling: obtaining well-calibrated
multiclass probabilities with Dirichlet calibration", 2019. On log-probabilities its family is that of matrix scaling,
so that the result is a `MatrixScaling`; what differs is the penalty, and that it is chosen by the data.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import Affine, Penalty, checked_strength, fit_penalised
from calibwrap.calibrators._labelled import LabelledRows, affine_rows, fit_labelled_rows
from calibwrap.calibrators.matrix_scaling import MatrixScaling
from calibwrap.errors import FitError
from calibwrap.scores import Bools, Floats, Ints, OptionScores, log_softmax

STRENGTHS = (1e6, 1e5, 1e4, 1e3, 1e2, 10.0, 1.0, 1e-1, 1e-2, 1e-3)
"""Penalties that cross-validation compares, strongest first: each search begins where the one before ended."""
PATIENCE = 2
"""Penalties in a row that were worse than the best, after which weaker ones are not tried."""
GOOD_ENOUGH = 1e-9
"""Nats that a fit which is only compared may leave to gain."""
N_FOLDS = 5
"""Parts of the rows, each of which is left out once."""
ENOUGH_ROWS = 50
"""Rows for each fitted number, and at least 1000 in all, that cross-validation looks at."""


def fit_dirichlet(
    logprobs: OptionScores | ArrayLike,
    answers: ArrayLike,
    *,
    off_diagonal: float | None = None,
    intercept: float | None = None,
) -> MatrixScaling:
    """Return the weights W (K, K) and biases b of least mean -log softmax(W log p + b) of the right answer + penalty.

    The penalty is off_diagonal * mean(W_jk squared, j other than k) + intercept * mean(b_j squared). The problem is
    convex. What is not given is one common strength out of `STRENGTHS`, that of least log loss in cross-validation
    over `N_FOLDS` parts. Of many rows a part is looked at, and beside all of them its strength counts that much
    less. A note in the report names it.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), all finite, or `OptionScores`, none of
            them truncated.
        answers: (N,) index of each row's right option.
        off_diagonal: strength of the penalty on weights off the diagonal; None lets the data choose.
        intercept: strength of the penalty on biases; None lets the data choose.

    Fewer than 5 (K^2 + K) rows, or answers that are all of one place, give a note in the report and a
    `CalibrationWarning`.

    Raises:
        InputError: wrong shapes, NaN, a row with fewer than K options, or an answer out of range.
        CapabilityError: truncated scores.
        FitError: every right answer has probability 0, or fewer rows than parts and a strength to choose.

    >>> rows = np.log([[0.8, 0.2]] * 18 + [[0.3, 0.7]] * 18)
    >>> fitted = fit_dirichlet(rows, [0, 0, 0, 0, 1, 1] * 6, off_diagonal=0.1, intercept=0.1)
    >>> np.exp(fitted(rows[:1])).round(2).tolist(), fitted.kind
    ([[0.67, 0.33]], 'matrix-scaling')
    """
    given = {"off_diagonal": off_diagonal, "intercept": intercept}
    strengths = {name: checked_strength(name, value) for name, value in given.items() if value is not None}
    rows = affine_rows("dirichlet", logprobs, answers, full=True)
    notes: tuple[str, ...] = ()
    if len(strengths) < len(given):
        chosen = _least_loss(rows, strengths)
        notes = (f"Cross-validation chose {chosen:g} for {' and '.join(sorted(given.keys() - strengths.keys()))}.",)
        strengths = dict.fromkeys(given, chosen) | strengths
    found, report = fit_labelled_rows(rows, "dirichlet", full=True, penalty=Penalty(**strengths), notes=notes)
    return MatrixScaling(found.weights, found.biases, report=report)


def _least_loss(rows: LabelledRows, fixed: dict[str, float]) -> float:
    """Return the strength of least mean held-out log loss; `fixed` ones are kept."""
    if len(rows.right) < N_FOLDS:
        raise FitError(
            f"Choosing a penalty takes at least {N_FOLDS} rows. Got {len(rows.right)}: give 'off_diagonal' and "
            "'intercept', or use fit_temperature, which has one number."
        )
    order = _sorted(rows.logprobs, rows.right)
    k = rows.logprobs.shape[1]
    kept = order[:: max(1, len(order) // max(1000, ENOUGH_ROWS * (k * k + k)))]
    logprobs, right = rows.logprobs[kept], rows.right[kept]
    parts = [_Part.of(logprobs, right, np.arange(len(right)) % N_FOLDS == part) for part in range(N_FOLDS)]
    best, least, worse = STRENGTHS[0], np.inf, 0
    for strength in STRENGTHS:
        penalty = Penalty(**{"off_diagonal": strength, "intercept": strength} | fixed)
        loss = sum(part.loss(penalty) for part in parts)
        best, least, worse = (strength, loss, 0) if loss < least else (best, least, worse + 1)
        if worse == PATIENCE:
            break
    return best * len(kept) / len(order)  # as strong a belief beside more rows


def _sorted(logprobs: Floats, right: Ints) -> Ints:
    """Return an order of the rows that does not depend on the order in which they came: by answer, then by value."""
    return np.asarray(np.lexsort((*logprobs.T, right)))


@dataclass
class _Part:
    """Rows that are left out, those that are seen, and the map that was last fitted to them."""

    seen: Floats
    targets: Floats
    left_out: Floats
    right: Ints
    last: Affine | None = None

    @classmethod
    def of(cls, logprobs: Floats, right: Ints, is_left_out: Bools) -> "_Part":
        targets = np.eye(logprobs.shape[1])[right[~is_left_out]]
        return cls(logprobs[~is_left_out], targets, logprobs[is_left_out], right[is_left_out])

    def loss(self, penalty: Penalty) -> float:
        """Return the summed log loss of the rows that are left out."""
        self.last = fit_penalised(
            self.seen, self.targets, full=True, penalty=penalty, begin=self.last, tolerance=GOOD_ENOUGH
        )
        mapped = log_softmax(self.last.apply(self.left_out))
        return -float(mapped[np.arange(len(mapped)), self.right].sum())
