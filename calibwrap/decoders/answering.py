"""The loop that drives a decoder for many prompts, and what a calibrator of one confidence does to its answers."""

import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from calibwrap.base import Adapter, Answer, Calibrator, Decoder
from calibwrap.capabilities import check_needs
from calibwrap.decoders.fitness import check_steering, fitted_readouts
from calibwrap.decoders.functions import shown
from calibwrap.decoders.reading import completed, signed
from calibwrap.decoders.rewording import together, worded
from calibwrap.decoders.settings import check_prompt_list
from calibwrap.decoders.trace import TraceDecoder
from calibwrap.errors import ProvenanceMismatch, ProvenanceWarning
from calibwrap.questions import Prompt


def answered(
    adapter: Adapter, prompts: Sequence[Prompt], decoder: Decoder, calibrator: Calibrator, steer: bool = False
) -> list[Answer]:
    """Return one answer a prompt; all flows run in lock-step, one adapter call a round for equal requests.

    With `steer` the calibrator also acts inside the drawing.

    Raises:
        CapabilityError: the backend cannot give what the decoder needs, the calibrator maps options and the decoder
            reads no labels, or nothing can steer.
    """
    check_prompt_list(prompts)
    check_needs(type(decoder).__name__, decoder.needs, adapter.name, adapter.provides)
    inside = check_steering(adapter, calibrator) if steer else None
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
    """Return the name and settings of a decoder in one text: confidences compare when it is equal.

    Left out are the seed and, of decoders of traces, the labels, of which each question has its own.

    >>> from calibwrap.decoders import Greedy
    >>> decoder_label(Greedy(max_tokens=8))
    'Greedy(max_tokens=8, stop=())'
    """
    names: list[str] = []
    if is_dataclass(decoder):
        left_out = {"seed", "labels"} if isinstance(decoder, TraceDecoder) else {"seed"}
        names = [one.name for one in fields(decoder) if one.name not in left_out]
    settings = ", ".join(f"{name}={shown(getattr(decoder, name))}" for name in names)
    return f"{type(decoder).__name__}({settings})"


def fitted_on(decoder: Decoder, template: str = "") -> str:
    """Return what a calibrator of one confidence notes of its fit: the decoder, and the template's label where known.

    >>> from calibwrap.decoders import Greedy
    >>> fitted_on(Greedy(max_tokens=8), "short")
    'Greedy(max_tokens=8, stop=()) on short'
    """
    return f"{decoder_label(decoder)} on {template}" if template else decoder_label(decoder)


def check_decoder(calibrator: Calibrator, decoder: Decoder, *, strict: bool = False) -> None:
    """Return nothing; warn where a calibrator of one confidence was fitted on the answers of another decoder.

    Raises:
        ProvenanceMismatch: `strict`, in place of the warning.
    """
    for fitted, _ in _fitted_on(calibrator):
        here = decoder_label(decoder)
        if fitted != here:
            message = (
                f"This {calibrator.kind} calibrator was fitted on answers of {fitted}, and {here} is used, whose "
                "confidence may mean something else: use that decoder, or fit it again with this one."
            )
            _mismatch(message, strict)


def check_template(calibrator: Calibrator, template: str, *, strict: bool = False) -> None:
    """Return nothing; warn where a calibrator of one confidence was fitted on questions that were asked in another way.

    `template` is the label of what they are asked with now; a calibrator that names none is compared with none.

    Raises:
        ProvenanceMismatch: `strict`, in place of the warning.
    """
    for _, fitted in _fitted_on(calibrator):
        if fitted not in ("", template):
            message = (
                f"This {calibrator.kind} calibrator was fitted on questions asked with the template {fitted!r}, and "
                f"they are asked with {template!r}, so that its probabilities may be wrong here: ask with that "
                "template, or fit it again with this one."
            )
            _mismatch(message, strict)


def _mismatch(message: str, strict: bool) -> None:
    if strict:
        raise ProvenanceMismatch(message)
    warnings.warn(message, ProvenanceWarning, stacklevel=5)


def _fitted_on(calibrator: Calibrator) -> list[tuple[str, str]]:
    """Return decoder and template that a calibrator of one confidence, or each part of a chain, was fitted on.

    The template is "" where none is named; what does not say where it was fitted is left out.
    """
    return [] if calibrator.level != "confidence" else [_parts(readout) for readout in fitted_readouts(calibrator)]


def _parts(readout: str) -> tuple[str, str]:
    """Return decoder and template of what `fitted_on` wrote; a decoder's label ends in a bracket, a template's never.

    >>> _parts("Greedy(max_tokens=8, stop=()) on short"), _parts("Greedy(max_tokens=8, stop=(') on ',))")
    (('Greedy(max_tokens=8, stop=())', 'short'), ("Greedy(max_tokens=8, stop=(') on ',))", ''))
    """
    decoder, between, template = readout.rpartition(") on ")
    return (f"{decoder})", template) if between and not readout.endswith(")") else (readout, "")
