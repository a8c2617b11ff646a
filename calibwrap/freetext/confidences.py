"""How probable a model finds a text that it wrote, as one number in [0, 1]. Pure functions of one completion."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from calibwrap.base import Completion
from calibwrap.errors import CapabilityError
from calibwrap.scores import Floats


def drawn_logprobs(completion: Completion) -> Floats:
    """Return (T,) the log-probability of each drawn token, the end token included.

    Raises:
        CapabilityError: the backend did not report them.
    """
    values = completion.scores.chosen_logprob
    if values is None or np.isnan(values).any():
        raise CapabilityError(
            "The probability of a text needs the log-probability of each drawn token, and the completion lacks some: "
            "use SelfConsistency or Stated, or a backend that reports log-probabilities."
        )
    return values


def sequence_probability(completion: Completion) -> float:
    """Return the probability of exactly this text; it falls with length."""
    return _probability(float(drawn_logprobs(completion).sum()))


def mean_probability(completion: Completion) -> float:
    """Return the geometric mean of the tokens' probabilities: the sequence probability with the length taken out."""
    return _probability(float(drawn_logprobs(completion).mean()))


def least_probability(completion: Completion) -> float:
    """Return the probability of the most surprising token."""
    return _probability(float(drawn_logprobs(completion).min()))


def _probability(logprob: float) -> float:
    """Return exp(logprob), at most 1: single-precision runtimes report values a little above log 1."""
    return min(1.0, math.exp(min(0.0, logprob)))


SEQUENCE_CONFIDENCES: Mapping[str, Callable[[Completion], float]] = MappingProxyType(
    {"sum": sequence_probability, "mean": mean_probability, "least": least_probability}
)
"""The three by name: how the tokens' log-probabilities are taken together."""
