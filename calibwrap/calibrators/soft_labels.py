"""A reference's probability of the given answer, in place of a label.

A calibrated reference model that gives the chosen answer the probability p says: of answers like this one, a share p is
right. Whatever is fitted to how right an answer was, from 0 to 1, can be fitted to p, and then needs no label. What
comes out is as well calibrated as the reference is on the answers of the model, and no better: where the model knows
what the reference does not, it is underrated, and no data without labels tell that. "BaseCal" (arXiv 2601.03042, 2026)
proposes it for free text, see `freetext.reevaluated`; this file does the same for options.
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np

from calibwrap.calibrators._align import Interval, Scores, check_counts, paired
from calibwrap.calibrators._bootstrap import interval_of_roots, nodes_around
from calibwrap.calibrators._confidence import cross_entropy
from calibwrap.calibrators._inputs import check_some, checked_bounds, today
from calibwrap.calibrators._newton import mean_gap, tied_tops
from calibwrap.calibrators.temperature import Temperature
from calibwrap.errors import CalibrationWarning
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats

BOUNDS = (0.01, 100.0)
"""Lowest and highest temperature that are considered, where nobody says."""
_CLOSE = 1e-12  # in log T: where the search for the root ends


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """The rows of a model that can be compared with a reference, and what the reference says of the model's choices."""

    gaps: Floats
    """(K, n) log-probabilities of the model less each row's largest."""
    correct: Floats
    """(n,) in [0, 1]: the reference's probability of the option that the model chooses."""
    report: FitReport
    """What is known before any fit: rows, agreement, notes, readouts."""

    @property
    def confidence(self) -> Floats:
        """(n,) the model's own probability of its choice."""
        return confidence_at(self.gaps, 1.0)


def soft_labels(post: Scores, pre: Scores, method: str) -> SoftLabels:
    """Return the reference's probability of each option that the model chooses, and the rows that say it.

    Args:
        post: (N, K) log-probabilities or logits of the model, -inf where there is no option, or `OptionScores`.
        pre: The same of the reference, for the same questions and options in the same order.
        method: Name of the fit, for its report.

    Rows whose first choice truncation leaves open are left out; the others count with their point values, as in
    `fit_daca`. Where best options are tied, the first is the choice.

    Raises:
        InputError: shapes or existing options differ, or NaN.
        FitError: no row is left.

    >>> soft_labels(np.log([[0.9, 0.1]]), np.log([[0.7, 0.3]]), "mean").correct.round(4).tolist()
    [0.7]
    """
    pair = paired(post, pre)
    check_some(pair.usable, pair.notes)
    gaps, reference = (np.compress(pair.usable, side, axis=1) for side in (pair.post, pair.pre))
    choice = gaps.argmax(axis=0)
    weights = np.exp(reference)
    correct = weights[choice, np.arange(len(choice))] / weights.sum(axis=0)
    own = (weights.max(axis=0) / weights.sum(axis=0)).mean()
    word = f"By the reference's word the model is right in {correct.mean():.0%} of the questions, itself in {own:.0%}."
    report = FitReport(
        method=method,
        rows=len(pair.usable),
        rows_used=len(correct),
        objective_before=math.nan,
        objective_after=math.nan,
        agreement_rate=float(tied_tops(gaps, reference).mean()),
        notes=(*pair.notes, f"{word} If the model is the abler one, its confidence comes out too low."),
        readout=pair.sources[0].readout,
        reference_readout=pair.sources[1].readout,
        date=today(),
    )
    return SoftLabels(gaps, np.asarray(correct), report)


def confidence_at(gaps: Floats, beta: float) -> Floats:
    """Return (n,) the largest probability of softmax(beta * gaps), for gaps (K, n) of which one a row is 0.

    >>> confidence_at(np.log([[1.0], [0.25]]), 0.5).round(4).tolist()  # 1 beside one half
    [0.6667]
    """
    return np.asarray(1.0 / np.exp(beta * gaps).sum(axis=0))


def fit_matched_mean(
    post: Scores,
    pre: Scores,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
    bounds: Interval = BOUNDS,
) -> Temperature:
    """Return the temperature at which the mean confidence equals the reference's mean probability of the given answers.

    With p(c) the reference's probability of the model's choice c, T solves mean max softmax(z / T) = mean p(c). Unlike
    DACA it uses every row, and it asks the reference for one number a question: how often the model is right.

    Args:
        post: (N, K) log-probabilities or logits of the model, -inf where there is no option, or `OptionScores`; of
            those, truncated rows are used when their first choice is certain.
        pre: The same of the reference, for the same questions and options in the same order.
        n_bootstrap: Resamples for the interval of the temperature; 0 for none.
        seed: Of the resamples; same seed, same interval.
        bounds: Lowest and highest temperature to consider; hit ones are in `report.at_bound`, with a warning.

    The mean confidence falls strictly in T unless every row is constant; then T stays 1. `report.objective_before` and
    `report.objective_after` are the mean cross-entropy in nats of the confidence against p(c).

    Raises:
        InputError: shapes or existing options differ, NaN, or bad `bounds`, `n_bootstrap` or `seed`.
        FitError: truncation leaves no row to fit.

    >>> post, pre = [[4.0, 0.0], [2.0, 0.0]], np.log([[0.8, 0.2], [0.6, 0.4]])  # softmax(z / T) must be 0.7 on average
    >>> fitted = fit_matched_mean(post, pre)
    >>> fitted.value.__round__(4), float(np.exp(fitted(post)).max(axis=1).mean().round(6))
    (3.4725, 0.7)
    """
    interval = checked_bounds(bounds)
    check_counts(n_bootstrap=n_bootstrap, seed=seed)
    return matched_mean(soft_labels(post, pre, "matched-mean"), interval, n_bootstrap=n_bootstrap, seed=seed)


def matched_mean(rows: SoftLabels, bounds: Interval = BOUNDS, *, n_bootstrap: int = 0, seed: int = 0) -> Temperature:
    """Return the temperature of `fit_matched_mean` for soft labels that are known already; settings are not checked.

    >>> rows = soft_labels([[4.0, 0.0], [2.0, 0.0]], np.log([[0.8, 0.2], [0.6, 0.4]]), "matched-mean")
    >>> matched_mean(rows).value.__round__(4)
    3.4725
    """
    beta, at_bound = _root(rows.gaps, float(rows.correct.mean()), bounds)
    notes = _notes(rows.gaps, at_bound, 1.0 / beta)
    slopes = confidence_at(rows.gaps, beta) - rows.correct
    resampled = None
    if n_bootstrap and (rows.gaps < 0.0).any():
        rise = -beta * float((confidence_at(rows.gaps, beta) * mean_gap(rows.gaps, beta)).mean())
        nodes = nodes_around(beta, slopes, rise, bounds)
        resampled = interval_of_roots(
            lambda node: confidence_at(rows.gaps, node) - rows.correct, nodes, n_bootstrap, seed
        )
    return Temperature(
        1.0 / beta,
        report=replace(
            rows.report,
            objective_before=cross_entropy(rows.confidence, rows.correct),
            objective_after=cross_entropy(confidence_at(rows.gaps, beta), rows.correct),
            at_bound=at_bound,
            interval=resampled,
            notes=(*rows.report.notes, *notes),
        ),
    )


def _root(gaps: Floats, target: float, bounds: Interval) -> tuple[float, str]:
    """Return the 1/T at which the mean confidence is `target`, and which bound of T was hit, if one was."""
    from scipy.optimize import brentq

    def excess(log_beta: float) -> float:
        return float(confidence_at(gaps, math.exp(log_beta)).mean()) - target

    low, high = -math.log(bounds[1]), -math.log(bounds[0])
    if not (gaps < 0.0).any():
        return 1.0, ""
    if excess(low) >= 0.0:
        return 1.0 / bounds[1], "upper"
    if excess(high) <= 0.0:
        return 1.0 / bounds[0], "lower"
    return math.exp(brentq(excess, low, high, xtol=_CLOSE)), ""


def _notes(gaps: Floats, at_bound: str, temperature: float) -> tuple[str, ...]:
    """Return what a reader should know of the root, and warn of a bound that was hit."""
    if not (gaps < 0.0).any():
        return ("The confidence does not depend on the temperature on these rows; 1 was kept.",)
    if not at_bound:
        return ()
    asks = "more confidence than" if at_bound == "lower" else "no more confidence than guessing, or less than"
    note = f"The reference asks for {asks} T = {temperature:g} gives, the {at_bound} bound."
    warnings.warn(
        f"{note} Look whether both models saw the same questions, options and order, or use another reference.",
        CalibrationWarning,
        stacklevel=4,
    )
    return (note,)
