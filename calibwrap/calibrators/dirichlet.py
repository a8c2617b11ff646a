"""Dirichlet calibration: a matrix on log-probabilities whose off-diagonal weights and biases are held back.

Kull, Perello-Nieto, Kaengsepp, Silva Filho, Song, Flach, "Beyond temperature scaling: obtaining well-calibrated
multiclass probabilities with Dirichlet calibration", 2019. On log-probabilities its family is that of matrix scaling,
so that the result is a `MatrixScaling`; what differs is the penalty, and that it is chosen by the data.
"""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import Penalty, checked_strength, fit_penalised
from calibwrap.calibrators._labelled import LabelledRows, affine_rows, fit_labelled_rows
from calibwrap.calibrators.matrix_scaling import MatrixScaling
from calibwrap.errors import FitError
from calibwrap.scores import Floats, Ints, OptionScores, log_softmax

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties that cross-validation compares."""
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
    losses = [
        _held_out(logprobs, right, Penalty(**{"off_diagonal": one, "intercept": one} | fixed)) for one in STRENGTHS
    ]
    return STRENGTHS[int(np.argmin(losses))] * len(kept) / len(order)  # as strong a belief beside more rows


def _sorted(logprobs: Floats, right: Ints) -> Ints:
    """Return an order of the rows that does not depend on the order in which they came: by answer, then by value."""
    return np.asarray(np.lexsort((*logprobs.T, right)))


def _held_out(logprobs: Floats, right: Ints, penalty: Penalty) -> float:
    """Return the mean log loss of rows that were left out; every `N_FOLDS`-th row is in one part."""
    which, targets, total = np.arange(len(right)) % N_FOLDS, np.eye(logprobs.shape[1])[right], 0.0
    for part in range(N_FOLDS):
        seen, left_out = which != part, which == part
        found = fit_penalised(logprobs[seen], targets[seen], full=True, penalty=penalty)
        mapped = log_softmax(found.apply(logprobs[left_out]))
        total -= float(mapped[np.arange(len(mapped)), right[left_out]].sum())
    return total / len(right)
