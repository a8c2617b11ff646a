"""Decoders on traces that are there already: no model call, so many decoders can share one drawing."""

from collections.abc import Sequence
from dataclasses import replace

from calibwrap.base import Answer, Calibrator, Completion, Decoder
from calibwrap.decoders.reading import signed
from calibwrap.errors import CapabilityError, InputError


def replayed(decoder: Decoder, completions: Sequence[Completion], calibrator: Calibrator) -> Answer:
    """Return the answer that `decoder` makes of stored raw completions of one prompt, calibrated.

    Every request takes as many of the completions as it asks for, in order. So of eight stored traces
    `ConfidenceAtK(k=2)` sees the first two, and an adaptive decoder as many as it needs. What the completions were
    drawn with is the caller's to match.

    Args:
        decoder: any decoder.
        completions: as the model gave them, `labels` filled with its raw probabilities where a decoder reads labels.
        calibrator: of level "option" (each trace's labels) or "confidence" (the answer's confidence).

    Raises:
        InputError: the decoder asks for more than there are.
        CapabilityError: a calibrator of tokens, which needs the whole distribution at each position.
    """
    if calibrator.level == "token":
        raise CapabilityError(
            f"The calibrator {calibrator.kind!r} maps whole distributions, which stored traces do not hold: use one of "
            "level 'option' or 'confidence', or decode anew with lm.batch(...)."
        )
    mapped = [_mapped(completion, calibrator) for completion in completions]
    flow = decoder.flow()
    request, used = next(flow), 0
    while True:
        if used + request.n > len(mapped):
            raise InputError(
                f"{type(decoder).__name__} asks for {used + request.n} completions. Got {len(mapped)} stored ones: "
                "store more, or lower 'k'."
            )
        try:
            used, request = used + request.n, flow.send(mapped[used : used + request.n])
        except StopIteration as end:
            return signed(end.value, calibrator)


def _mapped(completion: Completion, calibrator: Calibrator) -> Completion:
    """Return the completion with its label probabilities calibrated."""
    if completion.labels is None or calibrator.level != "option":
        return completion
    return replace(completion, labels=calibrator(completion.labels))
