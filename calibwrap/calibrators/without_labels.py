"""Every map of one confidence on the first choice, fitted to a reference's word in place of labels."""

from dataclasses import replace
from typing import Any

from calibwrap.calibrators._align import Scores
from calibwrap.calibrators._confidence_fits import CONFIDENCE_MAPS, fit_part
from calibwrap.calibrators.soft_labels import fit_matched_mean, soft_labels
from calibwrap.calibrators.temperature import Temperature
from calibwrap.calibrators.top_label import TopLabel
from calibwrap.errors import InputError

MEAN = "mean"
"""The method that matches the mean confidence by a temperature."""


def fit_without_labels(
    post: Scores, pre: Scores, method: str = MEAN, *, keeps_choice: bool = True, **options: Any
) -> Temperature | TopLabel:
    """Return the calibrator of the model's confidence that a reference asks for: no label is read.

    The reference's probability of the option that the model chooses says how often such a choice is right, see
    soft_labels.py. It is as good as the reference is calibrated on the model's choices; how often the two agree is in
    `report.agreement_rate`.

    Args:
        post: (N, K) log-probabilities or logits of the model, -inf where there is no option, or `OptionScores`; of
            those, truncated rows are used when their first choice is certain.
        pre: The same of the reference, for the same questions and options in the same order.
        method: "mean" for `fit_matched_mean`, or a map of the first choice's probability: "beta", "histogram",
            "isotonic", "platt" or "venn-abers".
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
    part, told = fit_part(method, rows.confidence, rows.correct, **options)
    report = replace(
        rows.report,
        objective_before=told.objective_before,
        objective_after=told.objective_after,
        converged=told.converged,
        notes=(*rows.report.notes, *told.notes),
    )
    return TopLabel(part, keeps_choice, report=report)
