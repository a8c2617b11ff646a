"""Decoders: ways from a prompt to an answer with a confidence."""

from calibwrap.decoders.confidence_at_k import (
    BestOfN,
    ConfidenceAtK,
    PickingDecoder,
    label_confidence,
    least_logprob,
    mean_logprob,
    selected_scores,
    total_logprob,
)
from calibwrap.decoders.greedy import Greedy
from calibwrap.decoders.posterior import label_posterior
from calibwrap.decoders.trace import Trace, TraceDecoder, traces_of
from calibwrap.decoders.votes import ConfidenceWeightedVote, MajorityVote, MeanPosterior

__all__ = [
    "BestOfN",
    "ConfidenceAtK",
    "ConfidenceWeightedVote",
    "Greedy",
    "MajorityVote",
    "MeanPosterior",
    "PickingDecoder",
    "Trace",
    "TraceDecoder",
    "label_confidence",
    "label_posterior",
    "least_logprob",
    "mean_logprob",
    "selected_scores",
    "total_logprob",
    "traces_of",
]
