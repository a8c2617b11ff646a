"""Decoders: ways from a prompt to an answer with a confidence."""

from typing import TYPE_CHECKING

from calibwrap.on_demand import door

if TYPE_CHECKING:
    from calibwrap.decoders.answer_fits import fit_decoded, template_for
    from calibwrap.decoders.answering import answered, check_decoder, check_template, decoder_label
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
    from calibwrap.decoders.fitness import check_steering, fitted_on_traces, fitted_readouts, warn_of_other_use
    from calibwrap.decoders.free_text import FreeText, FreeTextDecoder, SelfConsistency, SemanticEntropy
    from calibwrap.decoders.greedy import Greedy
    from calibwrap.decoders.judgement import fit_daca_judged, judgements, own_judgements
    from calibwrap.decoders.named import decoder_name, find_decoder
    from calibwrap.decoders.posterior import label_posterior
    from calibwrap.decoders.replay import replayed
    from calibwrap.decoders.rewording import Reworded
    from calibwrap.decoders.settings import check_calibrator_type, check_decoder_type
    from calibwrap.decoders.stated import PTrue, Stated
    from calibwrap.decoders.trace import Trace, TraceDecoder, traces_of
    from calibwrap.decoders.votes import ConfidenceWeightedVote, MajorityVote, MeanPosterior

__all__ = [
    "BestOfN",
    "ConfidenceAtK",
    "ConfidenceWeightedVote",
    "FreeText",
    "FreeTextDecoder",
    "Greedy",
    "MajorityVote",
    "MeanPosterior",
    "PTrue",
    "PickingDecoder",
    "Reworded",
    "SelfConsistency",
    "SemanticEntropy",
    "Stated",
    "Trace",
    "TraceDecoder",
    "answered",
    "check_calibrator_type",
    "check_decoder",
    "check_decoder_type",
    "check_steering",
    "check_template",
    "decoder_label",
    "decoder_name",
    "find_decoder",
    "fit_daca_judged",
    "fit_decoded",
    "fitted_on_traces",
    "fitted_readouts",
    "judgements",
    "label_confidence",
    "label_posterior",
    "least_logprob",
    "mean_logprob",
    "own_judgements",
    "replayed",
    "selected_scores",
    "template_for",
    "total_logprob",
    "traces_of",
    "warn_of_other_use",
]

_HOMES = {
    "answer_fits": ["fit_decoded", "template_for"],
    "answering": ["answered", "check_decoder", "check_template", "decoder_label"],
    "confidence_at_k": [
        "BestOfN",
        "ConfidenceAtK",
        "PickingDecoder",
        "label_confidence",
        "least_logprob",
        "mean_logprob",
        "selected_scores",
        "total_logprob",
    ],
    "fitness": ["check_steering", "fitted_on_traces", "fitted_readouts", "warn_of_other_use"],
    "free_text": ["FreeText", "FreeTextDecoder", "SelfConsistency", "SemanticEntropy"],
    "greedy": ["Greedy"],
    "judgement": ["fit_daca_judged", "judgements", "own_judgements"],
    "named": ["decoder_name", "find_decoder"],
    "posterior": ["label_posterior"],
    "replay": ["replayed"],
    "rewording": ["Reworded"],
    "settings": ["check_calibrator_type", "check_decoder_type"],
    "stated": ["PTrue", "Stated"],
    "trace": ["Trace", "TraceDecoder", "traces_of"],
    "votes": ["ConfidenceWeightedVote", "MajorityVote", "MeanPosterior"],
}
"""Public names by the file that holds them, which is imported when one is first used."""

__getattr__, __dir__ = door(__name__, _HOMES)
