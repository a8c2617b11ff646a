"""The loop that drives a decoder for many prompts, and what a calibrator of one confidence does to its answers."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from calibwrap.base import Adapter, Answer, Calibrator, Decoder
from calibwrap.capabilities import check_needs
from calibwrap.decoders.fitness import check_steering
from calibwrap.decoders.reading import completed, signed
from calibwrap.decoders.rewording import together, worded
from calibwrap.errors import ProvenanceWarning
from calibwrap.questions import Prompt

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Where a function lies in memory: it differs from process to process."""


def answered(
    adapter: Adapter, prompts: Sequence[Prompt], decoder: Decoder, calibrator: Calibrator, steer: bool = False
) -> list[Answer]:
    """Return one answer a prompt; all flows run in lock-step, one adapter call a round for equal requests.

    With `steer` the calibrator also acts inside the drawing.

    Raises:
        CapabilityError: the backend cannot give what the decoder needs, the calibrator maps options and the decoder
            reads no labels, or nothing can steer.
    """
    check_needs(type(decoder).__name__, decoder.needs, adapter.name, adapter.provides)
    inside = check_steering(adapter, calibrator) if steer else None
    check_decoder(calibrator, decoder)
    flows = [decoder.flow() for _ in prompts]
    asked = {index: next(flow) for index, flow in enumerate(flows)}
    answers: dict[int, Answer] = {}
    while asked:
        for request, indices in together(asked).items():
            said = [worded(prompts[index], asked[index]) for index in indices]
            drawn = completed(adapter, said, request, calibrator, inside)
            for index, completions in zip(indices, drawn, strict=True):
                try:
                    asked[index] = flows[index].send(completions)
                except StopIteration as end:
                    del asked[index]
                    answers[index] = signed(end.value, calibrator)
    return [answers[index] for index in range(len(prompts))]


def decoder_label(decoder: Decoder) -> str:
    """Return the name and settings of a decoder in one text, the seed left out: confidences compare when it is equal.

    >>> from calibwrap.decoders import Greedy
    >>> decoder_label(Greedy(max_tokens=8))
    'Greedy(max_tokens=8, stop=())'
    """
    names: list[str] = []
    if is_dataclass(decoder):
        names = [one.name for one in fields(decoder) if one.name != "seed"]
    shown = ", ".join(f"{name}={getattr(decoder, name)!r}" for name in names)
    return f"{type(decoder).__name__}({_ADDRESS.sub('', shown)})"


def check_decoder(calibrator: Calibrator, decoder: Decoder) -> None:
    """Return nothing; warn where a calibrator of one confidence was fitted on the answers of another decoder."""
    if calibrator.level != "confidence" or calibrator.report is None:
        return
    fitted, here = calibrator.report.readout, decoder_label(decoder)
    if fitted not in ("", here):
        warnings.warn(
            f"This {calibrator.kind} calibrator was fitted on answers of {fitted}, and {here} is used, whose "
            "confidence may mean something else: fit it again with this decoder.",
            ProvenanceWarning,
            stacklevel=4,
        )
