"""Decoders by the names that commands take, such as "confidence@8"."""

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from calibwrap.decoders.confidence_at_k import BestOfN, ConfidenceAtK
from calibwrap.decoders.trace import TraceDecoder
from calibwrap.decoders.votes import ConfidenceWeightedVote, MajorityVote, MeanPosterior
from calibwrap.errors import InputError

GREEDY = "greedy"
"""Name of the decoder that draws one trace at temperature 0."""

DECODERS: Mapping[str, type[TraceDecoder]] = MappingProxyType(
    {
        "best-of": BestOfN,
        "confidence": ConfidenceAtK,
        "majority": MajorityVote,
        "posterior": MeanPosterior,
        "weighted": ConfidenceWeightedVote,
    }
)
"""What stands before the "@" in the name of a decoder of k traces."""


def find_decoder(name: str, **settings: Any) -> TraceDecoder:
    """Return the decoder called `name`, such as "confidence@8", which draws 8 traces, or "greedy".

    The others are "majority", "weighted", "posterior" and "best-of", each followed by "@" and k; "best-of" picks the
    trace of the largest log-probability. "greedy" draws one trace at temperature 0 and answers with its label at the
    probability of that label, so it compares with the others; the decoder `Greedy` states that of the whole text.

    Args:
        name: name and k.
        settings: fields of the decoder, such as `labels=("A", "B")` or `max_tokens=96`.

    Raises:
        InputError: unknown name, no k, or a setting that is out of range.

    >>> find_decoder("majority@4", labels=("A", "B")).k
    4
    >>> find_decoder("greedy").temperature
    0.0
    """
    if name == GREEDY:
        return ConfidenceAtK(**{**settings, "k": 1, "temperature": 0.0})
    kind, _, number = name.partition("@")
    if kind not in DECODERS:
        near = difflib.get_close_matches(kind, [*DECODERS, GREEDY], n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        known = ", ".join([*(f"{one}@K" for one in DECODERS), GREEDY])
        raise InputError(f"There is no decoder {name!r}. {hint}Known: {known}.")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", number):
        raise InputError(
            f"The decoder {kind!r} needs the number of traces, such as '{kind}@8'. Got {name!r}; k is a whole number "
            "of at least 1."
        )
    return DECODERS[kind](**{**settings, "k": int(number)})


def decoder_name(decoder: TraceDecoder) -> str:
    """Return the name under which `find_decoder` finds a decoder of this kind and k, or that of its class.

    >>> decoder_name(find_decoder("weighted@4")), decoder_name(find_decoder("greedy"))
    ('weighted@4', 'greedy')
    """
    kinds = {kind: name for name, kind in DECODERS.items()}
    if type(decoder) is ConfidenceAtK and decoder.k == 1 and decoder.temperature == 0.0:
        return GREEDY
    return f"{kinds.get(type(decoder), type(decoder).__name__)}@{decoder.k}"
