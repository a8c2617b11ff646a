"""Scores of single answers, averaged: accuracy, Brier score and negative log-likelihood."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.metrics._bins import chunks
from calibwrap.metrics._checks import checked_correct, checked_logprobs, checked_pair, checked_probabilities


def accuracy(correct: ArrayLike) -> float:
    """Return the mean correctness of (N,) answers: bool, 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: no rows, NaN, or values outside [0, 1].

    >>> accuracy([True, False, True, True])
    0.75
    """
    return float(np.mean(checked_correct(correct), dtype=np.float64))


def brier(probabilities: ArrayLike, answers: ArrayLike) -> float:
    """Return the multiclass Brier score in its sum form: mean over rows of sum_k (p_k - [k is the answer])^2.

    It lies in [0, 2]; on two options it is twice the binary score. An option that does not exist has probability 0
    and adds nothing.

    Args:
        probabilities: (N, K) probabilities, each row summing to 1 within 1e-3.
        answers: (N,) indices of the right options.

    Raises:
        InputError: malformed probabilities or answers.

    References:
        Brier: Verification of forecasts expressed in terms of probability (1950).

    >>> round(brier([[0.7, 0.2, 0.1]], [0]), 6)  # 0.09 + 0.04 + 0.01
    0.14
    """
    chances, truth = checked_probabilities(probabilities, answers)
    difference = chances.copy()
    difference[np.arange(len(truth)), truth] -= 1
    return float(np.vdot(difference, difference) / len(truth))


def squared_error_sum(confidence: NDArray[np.floating], correct: NDArray[np.bool_ | np.floating]) -> float:
    """Return sum (confidence - correct)^2 of checked arrays, in cache-sized pieces.

    >>> round(squared_error_sum(np.array([0.9, 0.5]), np.array([True, False])), 6)
    0.26
    """
    total = 0.0
    for part in chunks(len(confidence)):
        difference = np.subtract(confidence[part], correct[part], dtype=np.float64)
        total += float(np.dot(difference, difference))
    return total


def squared_sum(values: NDArray[np.floating | np.bool_]) -> float:
    """Return sum values^2 of a checked array, in cache-sized pieces.

    >>> squared_sum(np.array([True, False, True]))
    2.0
    """
    if values.dtype == np.bool_:
        return float(np.count_nonzero(values))
    pieces = (values[part].astype(np.float64, copy=False) for part in chunks(len(values)))
    return sum(float(np.dot(piece, piece)) for piece in pieces)


def top_label_brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return mean (confidence - correct)^2 over the answers given; in [0, 1].

    Args:
        confidence: (N,) probabilities of the answers given.
        correct: (N,) bool or 0/1, or soft correctness in [0, 1].

    Raises:
        InputError: shapes differ, no rows, NaN, or values outside [0, 1].

    >>> round(top_label_brier([0.9, 0.5], [1, 0]), 6)  # (0.01 + 0.25) / 2
    0.13
    """
    chances, hits = checked_pair(confidence, correct)
    return squared_error_sum(chances, hits) / len(chances)


def nll(logprobs: ArrayLike, answers: ArrayLike) -> float:
    """Return the mean negative log-likelihood of the right options, in nats.

    When any answer has log-probability -inf (probability 0, or an option that does not exist in that row) the result
    is +inf, never NaN: the model ruled out what happened, and no constant is imputed. Options that do not exist
    elsewhere in a row are -inf and add nothing.

    Args:
        logprobs: (N, K) natural-log probabilities, each row summing to 1 within 1e-3 after exp.
        answers: (N,) indices of the right options.

    Raises:
        InputError: NaN, +inf, rows that are not normalised (logits, say), or malformed answers.

    >>> round(nll(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 0]), 6)  # (ln 2 + ln 4) / 2
    1.039721
    """
    logs, truth = checked_logprobs(logprobs, answers)
    return float(-np.mean(logs[np.arange(len(truth)), truth]))
