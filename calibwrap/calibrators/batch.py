"""Batch calibration: take out what a model likes about a place, whatever stands there; no label, no reference.

Zhou, Wan, Proleev, Mincu, Chen, Heller, Roy, "Batch Calibration: Rethinking Calibration for In-Context Learning and
Prompt Engineering", 2023 (ICLR 2024). With p(k | x) the model's probability of place k, the mean of p(k | x) over many
questions estimates its liking for the place, and p(k | x) is divided by it.
"""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._inputs import check_spread, check_uncut, fit_rows, today
from calibwrap.calibrators.vector_scaling import VectorScaling
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, OptionScores, checked_logits, log_softmax, logsumexp

FEW = 20
"""Rows below which a note says that the mean is not known well."""


def fit_batch(logprobs: OptionScores | ArrayLike) -> VectorScaling:
    """Return the biases that divide the probability of each place by its mean over these rows.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), -inf where there is no option, or
            `OptionScores`, none of them truncated.

    All weights are 1; the bias of place k is minus the log of the mean probability of that place, in units of what
    chance would give a row of its number of options. It moves probability between places and so may change the first
    choice; it knows nothing of how often the model is right, so that too sharp scores stay too sharp: a fit of a
    temperature belongs after it. It presumes that right answers are spread evenly over the places, and takes out most
    of a liking, not all, since the mean is that of probabilities that were already normalised. The objective in the
    report is the mean Kullback-Leibler divergence in nats of an even spread over each row's options from the
    probabilities: 0 where all rows are even.

    Raises:
        InputError: wrong shape or NaN.
        CapabilityError: truncated scores.

    >>> fitted = fit_batch(np.log([[0.8, 0.2], [0.4, 0.6]]))  # on average 0.6 and 0.4
    >>> np.exp(fitted(np.log([[0.6, 0.4]]))).round(4).tolist()
    [[0.5, 0.5]]
    """
    rows = fit_rows("logprobs", logprobs)
    check_uncut("batch", rows)
    logits, exists = checked_logits("logprobs", rows.logits)
    log_shares = log_softmax(logits) + np.log(exists.sum(axis=1, keepdims=True))  # 0 is what chance gives
    check_spread(log_shares)
    seen = exists.sum(axis=0)
    biases = np.log(np.maximum(seen, 1)) - np.where(seen > 0, logsumexp(log_shares.T), 0.0)
    notes = (
        (f"{len(logits)} rows are few for a mean of each place: a hundred are better.",) if len(logits) < FEW else ()
    )
    if not seen.all():
        unseen = ", ".join(str(place) for place in np.flatnonzero(seen == 0))
        notes = (*notes, f"No row has an option in place {unseen}, counted from 0: its bias is 0.")
    report = FitReport(
        method="batch",
        rows=len(logits),
        rows_used=len(logits),
        objective_before=_unevenness(log_shares),
        objective_after=_unevenness(log_softmax(logits + biases) + np.log(exists.sum(axis=1, keepdims=True))),
        notes=(*rows.notes, *notes),
        readout=rows.readout,
        date=today(),
    )
    return VectorScaling(np.ones(len(biases)), biases, report=report)


def _unevenness(log_shares: Floats) -> float:
    """Return the mean over rows of -log(share) of the options that exist; 0 where all rows are even.

    >>> round(_unevenness(np.log([[1.6, 0.4], [1.0, 1.0]])), 4)
    0.1116
    """
    exists = log_shares > -np.inf
    return float(-(np.where(exists, log_shares, 0.0).sum(axis=1) / exists.sum(axis=1)).mean())
