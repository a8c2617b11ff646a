"""The part that vector, matrix and Dirichlet scaling share when they are fitted to right answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import Affine, Penalty, check_full, convergence_notes, fit_penalised
from calibwrap.calibrators._inputs import check_spread, check_uncut, checked_answers, fit_rows, labelled_rows, today
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, Ints, OptionScores, checked_logits, log_softmax


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
    """Return the affine map of least penalised cross-entropy on `rows`, and the report on it with `notes`."""
    found = fit_penalised(rows.logprobs, np.eye(rows.logprobs.shape[1])[rows.right], full=full, penalty=penalty)
    report = FitReport(
        method=method,
        rows=rows.came,
        rows_used=len(rows.right),
        objective_before=found.before,
        objective_after=found.after,
        converged=found.converged,
        notes=(*rows.notes, *notes, *convergence_notes(found)),
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
