"""The part that vector and matrix scaling share when they are fitted to right answers."""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import Affine, check_full, convergence_notes, fit_affine
from calibwrap.calibrators._inputs import check_uncut, checked_answers, fit_rows, labelled_rows, today
from calibwrap.provenance import FitReport
from calibwrap.scores import OptionScores, checked_logits, log_softmax


def fit_affine_to_answers(
    logprobs: OptionScores | ArrayLike, answers: ArrayLike, *, full: bool, ridge: float
) -> tuple[Affine, FitReport]:
    """Return the affine map of greatest likelihood of `answers`, and the report on it."""
    method = "matrix" if full else "vector"
    rows = fit_rows("logprobs", logprobs)
    check_uncut(method, rows)
    logits, exists = checked_logits("logprobs", rows.logits)
    n, k = logits.shape
    right = checked_answers(answers, n, k)
    if full:
        check_full(exists)
    used, notes = labelled_rows(rows, right, exists[np.arange(n), right])
    found = fit_affine(log_softmax(logits[used]), np.eye(k)[right[used]], full=full, ridge=ridge)
    report = FitReport(
        method=method,
        rows=n,
        rows_used=int(used.sum()),
        objective_before=found.before,
        objective_after=found.after,
        converged=found.converged,
        notes=(*notes, *convergence_notes(found)),
        readout=rows.readout,
        date=today(),
    )
    return found, report
