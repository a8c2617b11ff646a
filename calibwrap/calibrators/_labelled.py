"""The part that vector, matrix and Dirichlet scaling share when they are fitted to right answers."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import Affine, Penalty, check_full, convergence_notes, fit_penalised
from calibwrap.calibrators._inputs import check_spread, check_uncut, checked_answers, fit_rows, labelled_rows, today
from calibwrap.errors import CalibrationWarning
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, Ints, OptionScores, checked_logits, log_softmax

ROWS_NEEDED: Mapping[str, Callable[[int], int]] = {
    "vector": lambda k: 10 * 2 * k,
    "matrix": lambda k: 10 * (k * k + k),
    "dirichlet": lambda k: 5 * (k * k + k),
}
"""Least number of rows for K options below which a fit warns: ten for each fitted number, five where the fit holds them
back itself. Rules of thumb, not theorems."""


@dataclass(frozen=True)
class LabelledRows:
    """Rows that an affine map can be fitted to."""

    logprobs: Floats
    """(n, K) log-probabilities of the rows used, -inf where there is no option."""
    right: Ints
    """(n,) their right options."""
    came: int
    """Rows that came in."""
    notes: tuple[str, ...]
    """What was left out."""
    readout: str
    """Readout and template, where known."""


def affine_rows(method: str, logprobs: OptionScores | ArrayLike, answers: ArrayLike, *, full: bool) -> LabelledRows:
    """Return the rows whose right answer is possible; a full matrix also needs every option in every row.

    Raises:
        InputError: wrong shapes, NaN, a row with fewer than K options for a full matrix, or an answer out of range.
        CapabilityError: truncated scores.
        FitError: every right answer has probability 0.
    """
    rows = fit_rows("logprobs", logprobs)
    check_uncut(method, rows)
    logits, exists = checked_logits("logprobs", rows.logits)
    n, k = logits.shape
    right = checked_answers(answers, n, k)
    if full:
        check_full(exists)
    used, notes = labelled_rows(rows, right, exists[np.arange(n), right])
    logprobs = log_softmax(logits[used])
    check_spread(logprobs)
    return LabelledRows(logprobs, right[used], n, notes, rows.readout)


def fit_labelled_rows(
    rows: LabelledRows, method: str, *, full: bool, penalty: Penalty, notes: tuple[str, ...] = ()
) -> tuple[Affine, FitReport]:
    """Return the affine map of least penalised cross-entropy on `rows`, and the report on it with `notes`.

    Warns of too few rows for the method, and of answers that are all of one place.
    """
    doubts = _doubts(rows, method)
    if doubts:
        advice = "Fit on more rows, or use a temperature, which is one number."
        warnings.warn(" ".join([*doubts, advice]), CalibrationWarning, stacklevel=4)
    found = fit_penalised(rows.logprobs, np.eye(rows.logprobs.shape[1])[rows.right], full=full, penalty=penalty)
    report = FitReport(
        method=method,
        rows=rows.came,
        rows_used=len(rows.right),
        objective_before=found.before,
        objective_after=found.after,
        converged=found.converged,
        notes=(*rows.notes, *notes, *doubts, *convergence_notes(found)),
        readout=rows.readout,
        date=today(),
    )
    return found, report


def fit_affine_to_answers(
    logprobs: OptionScores | ArrayLike, answers: ArrayLike, *, full: bool, penalty: Penalty
) -> tuple[Affine, FitReport]:
    """Return the affine map of greatest penalised likelihood of `answers`, and the report on it."""
    method = "matrix" if full else "vector"
    return fit_labelled_rows(affine_rows(method, logprobs, answers, full=full), method, full=full, penalty=penalty)


def _doubts(rows: LabelledRows, method: str) -> tuple[str, ...]:
    """Return why the rows do not determine the map, where they do not.

    >>> _doubts(LabelledRows(np.zeros((8, 2)), np.zeros(8, dtype=np.int64), 8, (), ""), "vector")
    ("Method 'vector' needs 40 rows for 2 options, and 8 came.", 'All answers are option 0: how others count is open.')
    """
    needed, came = ROWS_NEEDED[method](rows.logprobs.shape[1]), len(rows.right)
    few = (f"Method {method!r} needs {needed} rows for {rows.logprobs.shape[1]} options, and {came} came.",)
    alike = (f"All answers are option {rows.right[0]}: how others count is open.",)
    is_alike = rows.logprobs.shape[1] > 1 and bool((rows.right == rows.right[0]).all())
    return (few if came < needed else ()) + (alike if is_alike else ())
