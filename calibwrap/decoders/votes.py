"""Decoders that make one answer of all k traces: votes, weighted votes, the mean of their label probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from calibwrap.base import Answer
from calibwrap.decoders.reading import NOT_CALIBRATED
from calibwrap.decoders.trace import Trace, TraceDecoder, checked_answer
from calibwrap.scores import Floats


def summed(labels: Sequence[int], weights: Sequence[float], n_labels: int) -> Floats:
    """Return (K,) the sum of the weights of each label, the same in any order of the traces.

    >>> summed([0, 2, 0], [0.5, 0.25, 0.5], 3).tolist()
    [1.0, 0.0, 0.25]
    """
    pairs = list(zip(labels, weights, strict=True))
    return np.array([fsum(weight for label, weight in pairs if label == one) for one in range(n_labels)])


def share(of: float, others: float) -> float:
    """Return of / (of + others), 0 where both are 0.

    >>> share(1.0, 3.0), share(0.0, 0.0)
    (0.25, 0.0)
    """
    return float(of / (of + others)) if of > 0.0 else 0.0


@dataclass(frozen=True)
class MajorityVote(TraceDecoder):
    """Answers with the label that most traces name; among equals the one that comes first in `labels`.

    The confidence is its share of the votes. That is not a calibrated probability, and no calibrator of the model
    touches it: `calibrated_by` is "none".

    References:
        Wang et al.: Self-consistency improves chain of thought reasoning in language models (2023).

    >>> next(MajorityVote(k=16).flow()).n
    16
    """

    def settle(self, traces: Sequence[Trace]) -> Answer:
        """Return the label with the most votes and its share of them."""
        votes = summed([trace.label for trace in traces], [1.0] * len(traces), len(self.labels)) / len(traces)
        best = int(np.argmax(votes))
        shares = dict(zip(self.labels, votes.tolist(), strict=True))
        answer = checked_answer(self.labels[best], votes[best], (votes[best], votes[best]), shares)
        return replace(answer, calibrated_by=NOT_CALIBRATED)


@dataclass(frozen=True)
class ConfidenceWeightedVote(TraceDecoder):
    """Answers with the label of the largest summed confidence: argmax over y of the sum of c_i where y_i = y.

    c_i is the probability, calibrated when the model has a calibrator, of the label that trace i names. The confidence
    is the label's share of all c_i. Among equals the label that comes first in `labels` wins.

    References:
        Taubenfeld et al.: Confidence improves self-consistency in LLMs (2025), for votes weighted by confidence.

    >>> ConfidenceWeightedVote(k=4, labels=["A", "B"]).labels
    ('A', 'B')
    """

    def settle(self, traces: Sequence[Trace]) -> Answer:
        """Return the label of the largest weight and its share; its bounds hold for every weight in its own."""
        named = [trace.label for trace in traces]
        values = [(trace.confidence, *trace.bounds) for trace in traces]
        weights, least, most = (summed(named, column, len(self.labels)) for column in zip(*values, strict=True))
        best = int(np.argmax(weights))
        low = share(least[best], fsum(np.delete(most, best)))
        high = share(most[best], fsum(np.delete(least, best)))
        shares = {label: share(weights[one], fsum(np.delete(weights, one))) for one, label in enumerate(self.labels)}
        return checked_answer(self.labels[best], shares[self.labels[best]], (low, high), shares)


@dataclass(frozen=True)
class MeanPosterior(TraceDecoder):
    """Answers with the label of the largest mean probability over the traces: p(y | x), the traces averaged out.

    All labels' probabilities after each trace count, not only that of the label it names, so the answer may be a label
    that no trace names. The confidence is the mean probability; its bounds are the means of the bounds. Among equals
    the label that comes first in `labels` wins.

    >>> next(MeanPosterior(k=2, max_tokens=32).flow()).max_tokens
    32
    """

    def settle(self, traces: Sequence[Trace]) -> Answer:
        """Return the label of the largest mean probability."""
        mean, low, high = (
            np.array([fsum(column) / len(traces) for column in np.transpose(rows)])
            for rows in (
                [trace.probabilities for trace in traces],
                [trace.scores.lower[0] for trace in traces],
                [trace.scores.upper[0] for trace in traces],
            )
        )
        best = int(np.argmax(mean))
        probabilities = dict(zip(self.labels, mean.tolist(), strict=True))
        return checked_answer(
            self.labels[best], float(mean[best]), (float(low[best]), float(high[best])), probabilities
        )
