"""What a CATTO head looks at: a few numbers of a row's sorted probabilities, and intervals of them.

All are finite, bounded by `_MOST` nats, the same in any order of the row, and untouched by a constant that is added to
its logits. Only the `top` most probable entries count, and the mass of all others together, so that a list of that
length says as much as the whole vocabulary.
"""

import numpy as np

from calibwrap.scores import Bools, Floats, OptionScores

NAMES = ("top", "margin", "log gap", "surprise", "entropy", "tail", "log count")
"""The features in order: the largest probability; how far it is ahead of the second, and the log of one plus the same
in nats; its negative log; the entropy in nats, all that is not among the top counted as one; their mass; and the log of
how many entries there are, at most `top`."""

_MOST = 50.0
_PEAK = float(np.exp(-1.0))  # where -p log p is largest


def score_features(logprobs: Floats, top: int) -> Floats:
    """Return (N, 7) features of rows (N, L) of log-probabilities, normalised over at least what is listed.

    >>> score_features(np.log([[0.5, 0.25, 0.25]]), top=2).round(3).tolist()  # entropy of 0.5, 0.25 and a rest of 0.25
    [[0.5, 0.25, 0.527, 0.693, 1.04, 0.25, 0.693]]
    """
    probabilities = largest(np.exp(logprobs), top)
    tail = _rest(logprobs, probabilities, top)
    return _stacked(probabilities, probabilities, tail, tail, _count(logprobs > -np.inf, top))[0]


def feature_bounds(scores: OptionScores, top: int) -> tuple[Floats, Floats]:
    """Return lower and upper bounds (N, 7) of the features of every full row behind truncated `scores`.

    The k-th largest probability lies between the k-th largest lower and the k-th largest upper bound; each feature is
    bounded from these alone, which is sound and not always tight.
    """
    low, high = largest(scores.lower, top), largest(scores.upper, top)
    all_count = scores.logprobs.shape[1] <= top
    rest = np.zeros(len(scores))
    least, most = (rest, rest) if all_count else (1.0 - np.minimum(1.0, b.sum(axis=1)) for b in (high, low))
    return _stacked(low, high, least, most, _count(scores.mask, top))


def largest(values: Floats, top: int) -> Floats:
    """Return the `top` largest of each row, in falling order; zeros where a row is shorter, two columns at least.

    >>> largest(np.array([[0.1, 0.7, 0.2]]), 2).tolist()
    [[0.7, 0.2]]
    """
    if values.shape[-1] > top:
        values = np.partition(values, values.shape[-1] - top, axis=-1)[..., -top:]
    values = np.sort(values, axis=-1)[..., ::-1]
    missing = max(0, 2 - values.shape[-1])
    return np.asarray(np.pad(values, ((0, 0), (0, missing))) if missing else values)


def _rest(logprobs: Floats, probabilities: Floats, top: int) -> Floats:
    """Return (N,) the mass outside the top entries; none where a row has no others."""
    rest = np.clip(1.0 - probabilities.sum(axis=1), 0.0, 1.0)
    return np.asarray(rest if logprobs.shape[-1] >= top else np.zeros(len(logprobs)))


def _count(exists: Bools, top: int) -> Floats:
    return np.asarray(np.log(np.clip(exists.sum(axis=1), 1.0, top)))


def _stacked(low: Floats, high: Floats, least: Floats, most: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Return both ends of all features, from both ends of sorted probabilities and of the tail."""
    lower = [
        low[:, 0],
        np.maximum(low[:, 0] - high[:, 1], 0.0),
        np.log1p(_gap(low[:, 0], high[:, 1])),
        _surprise(high[:, 0]),
        _least_entropy(low, high).sum(axis=1) + _least_entropy(least, most),
        least,
        count,
    ]
    upper = [
        high[:, 0],
        np.maximum(high[:, 0] - low[:, 1], 0.0),
        np.log1p(_gap(high[:, 0], low[:, 1])),
        _surprise(low[:, 0]),
        _most_entropy(low, high).sum(axis=1) + _most_entropy(least, most),
        most,
        count,
    ]
    return np.stack(lower, axis=1), np.stack(upper, axis=1)


def _gap(first: Floats, second: Floats) -> Floats:
    """Return (N,) how many nats `first` is ahead of `second`: from 0 to `_MOST`."""
    return np.clip(_surprise(second) - _surprise(first), 0.0, _MOST)


def _surprise(values: Floats) -> Floats:
    """Return -log p, at most `_MOST`."""
    return np.asarray(-np.log(np.maximum(values, np.exp(-_MOST))))


def _entropy(values: Floats) -> Floats:
    return np.asarray(values * -np.log(np.where(values > 0.0, values, 1.0)))


def _least_entropy(low: Floats, high: Floats) -> Floats:
    return np.minimum(_entropy(low), _entropy(high))


def _most_entropy(low: Floats, high: Floats) -> Floats:
    return _entropy(np.clip(_PEAK, low, high))
