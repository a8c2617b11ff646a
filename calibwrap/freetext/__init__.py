"""Answers in free text: which are equal, which are right, and how sure a model is of them. Pure functions."""

from typing import TYPE_CHECKING

from calibwrap.on_demand import door

if TYPE_CHECKING:
    from calibwrap.freetext.clusters import (
        Cluster,
        clusters_of,
        counts,
        entropy_confidence,
        semantic_entropy,
        spelling,
        summed_probabilities,
    )
    from calibwrap.freetext.confidences import (
        SEQUENCE_CONFIDENCES,
        drawn_logprobs,
        least_probability,
        mean_probability,
        sequence_probability,
    )
    from calibwrap.freetext.fitting import free_prompts
    from calibwrap.freetext.judging import (
        JUDGES,
        Judge,
        check_judge,
        exact_match,
        f1_above_half,
        graded,
        references_of,
        token_f1,
    )
    from calibwrap.freetext.normalise import NORMALISERS, Normaliser, exact, number, option_letter, trivia_qa
    from calibwrap.freetext.reevaluation import reevaluated
    from calibwrap.freetext.stated import (
        ONE_STEP,
        REWARDING_DOUBT,
        TWO_STEP,
        Elicitation,
        Statement,
        parse_guess,
        parse_guesses,
        parse_lettered_scale,
        parse_probability,
        parse_scale,
        top_guesses,
    )

__all__ = [
    "JUDGES",
    "NORMALISERS",
    "ONE_STEP",
    "REWARDING_DOUBT",
    "SEQUENCE_CONFIDENCES",
    "TWO_STEP",
    "Cluster",
    "Elicitation",
    "Judge",
    "Normaliser",
    "Statement",
    "check_judge",
    "clusters_of",
    "counts",
    "drawn_logprobs",
    "entropy_confidence",
    "exact",
    "exact_match",
    "f1_above_half",
    "free_prompts",
    "graded",
    "least_probability",
    "mean_probability",
    "number",
    "option_letter",
    "parse_guess",
    "parse_guesses",
    "parse_lettered_scale",
    "parse_probability",
    "parse_scale",
    "reevaluated",
    "references_of",
    "semantic_entropy",
    "sequence_probability",
    "spelling",
    "summed_probabilities",
    "token_f1",
    "top_guesses",
    "trivia_qa",
]

_HOMES = {
    "clusters": [
        "Cluster",
        "clusters_of",
        "counts",
        "entropy_confidence",
        "semantic_entropy",
        "spelling",
        "summed_probabilities",
    ],
    "confidences": [
        "SEQUENCE_CONFIDENCES",
        "drawn_logprobs",
        "least_probability",
        "mean_probability",
        "sequence_probability",
    ],
    "fitting": ["free_prompts"],
    "judging": [
        "JUDGES",
        "Judge",
        "check_judge",
        "exact_match",
        "f1_above_half",
        "graded",
        "references_of",
        "token_f1",
    ],
    "normalise": ["NORMALISERS", "Normaliser", "exact", "number", "option_letter", "trivia_qa"],
    "reevaluation": ["reevaluated"],
    "stated": [
        "ONE_STEP",
        "REWARDING_DOUBT",
        "TWO_STEP",
        "Elicitation",
        "Statement",
        "parse_guess",
        "parse_guesses",
        "parse_lettered_scale",
        "parse_probability",
        "parse_scale",
        "top_guesses",
    ],
}
"""Public names by the file that holds them, which is imported when one is first used."""

__getattr__, __dir__ = door(__name__, _HOMES)
