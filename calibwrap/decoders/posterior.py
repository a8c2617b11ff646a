"""How sure a few traces make us of a label: when to stop drawing more."""

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.scores import Floats, log_softmax

CERTAIN = 1e-6
"""No trace is believed more than 1 - CERTAIN, or less than CERTAIN: two certain ones may contradict each other."""


def label_posterior(labels: ArrayLike, confidence: ArrayLike, n_labels: int) -> Floats:
    """Return the probability (K,) of each label being right, given traces that name labels with confidences.

    Bayes' rule with equal priors, as if the traces were independent: trace i, which names label y_i with confidence
    c_i, has likelihood c_i where y_i is right and (1 - c_i) / (K - 1) where another label is. Traces of one model
    are not independent, so this number grows too sure too fast: it says when to stop, and is never an answer's
    confidence. Without traces all labels are alike.

    Args:
        labels: (n,) index of the label that each trace names.
        confidence: (n,) probability that it is right.
        n_labels: K, at least 2.

    References:
        Aghazadeh, Ghasemi, Beyhaghi, Pishro-Nik: CGES: Confidence-Guided Early Stopping for Efficient and Accurate
        Self-Consistency (2025), for stopping at a posterior made of confidences.

    >>> label_posterior([0, 0, 1], [0.8, 0.8, 0.8], 2).round(4).tolist()  # 0.8 0.8 0.2 : 0.2 0.2 0.8 = 4 : 1
    [0.8, 0.2]
    """
    named = np.asarray(labels, dtype=np.int64)
    sure = np.clip(np.asarray(confidence, dtype=np.float64), CERTAIN, 1.0 - CERTAIN)
    against = np.log((1.0 - sure) / (n_labels - 1))
    speaks = named[:, None] == np.arange(n_labels)
    return np.exp(log_softmax(np.where(speaks, np.log(sure)[:, None], against[:, None]).sum(axis=0)))
