"""Every map of one confidence on the first choice, fitted to a reference's word in place of labels."""

from dataclasses import replace
from typing import Any

from calibwrap.calibrators._align import Scores
from calibwrap.calibrators._confidence import tied
from calibwrap.calibrators._confidence_fits import CONFIDENCE_MAPS, fit_part
from calibwrap.calibrators.chain import Chain
from calibwrap.calibrators.soft_labels import confidence_at, fit_matched_mean, matched_mean, soft_labels
from calibwrap.calibrators.temperature import Temperature
from calibwrap.calibrators.top_label import TopLabel
from calibwrap.errors import InputError

MEAN = "mean"
"""The method that matches the mean confidence by a temperature, and nothing else."""


def fit_without_labels(
    post: Scores, pre: Scores, method: str = MEAN, *, keeps_choice: bool = True, **options: Any
) -> Temperature | Chain:
    """Return the calibrator of the model's confidence that a reference asks for: no label is read.

    The reference's probability of the option that the model chooses says how often such a choice is right, see
    soft_labels.py. A temperature that matches the mean comes first; a map of the first choice's probability, fitted to
    the reference's word row by row, may follow. Without the temperature the other options would stay as sharp as they
    are, and the log loss with them (benchmarks/shootout.py). `report.agreement_rate` says how often the two agree.

    Args:
        post: (N, K) log-probabilities or logits of the model, -inf where there is no option, or `OptionScores`; of
            those, truncated rows are used when their first choice is certain.
        pre: The same of the reference, for the same questions and options in the same order.
        method: "mean" for `fit_matched_mean`, or the map that follows it: "beta", "histogram", "isotonic", "platt" or
            "venn-abers".
        keeps_choice: of a map, whether the first choice always stays, as in `TopLabel`; a temperature keeps it anyway.
        options: passed to the method, such as `n_bins=`.

    Raises:
        InputError: an unknown method, shapes or existing options that differ, or NaN.
        FitError: truncation leaves no row, or the method asks for more.

    >>> import numpy as np
    >>> post = np.log([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 2)
    >>> pre = np.log([[0.7, 0.3], [0.8, 0.2], [0.5, 0.5], [0.6, 0.4]])  # 0.75 where the model says 0.9, 0.55 at 0.6
    >>> fitted = fit_without_labels(post, pre, "isotonic")
    >>> np.exp(fitted(post[[0, 2]])).round(4).tolist(), fitted.report.method
    ([[0.75, 0.25], [0.55, 0.45]], 'soft:isotonic')
    """
    if method == MEAN:
        return fit_matched_mean(post, pre, **options)
    if method not in CONFIDENCE_MAPS:
        raise InputError(f"'method' must be one of {', '.join([MEAN, *CONFIDENCE_MAPS])}. Got {method!r}.")
    rows = soft_labels(post, pre, f"soft:{method}")
    first = matched_mean(rows)
    part, told = fit_part(method, tied(confidence_at(rows.gaps, 1.0 / first.value)), rows.correct, **options)
    before = first.report or rows.report
    report = replace(
        rows.report,
        objective_before=before.objective_before,
        objective_after=told.objective_after,
        at_bound=before.at_bound,
        converged=told.converged,
        notes=(*before.notes, *told.notes),
    )
    return Chain((replace(first, report=None), TopLabel(part, keeps_choice)), report=report)
