"""The conformance checks that a decoder of free text has to itself; `DECODER_CHECKS` holds them."""

from dataclasses import replace
from itertools import count

from calibwrap.base import Completion
from calibwrap.decoders import FreeTextDecoder
from calibwrap.testing.checks import NotApplicable, expect
from calibwrap.testing.decoder_probe import Change, DecoderProbe, expect_same


def check_silent_texts_have_no_vote(probe: DecoderProbe) -> None:
    """Return nothing when free texts that say nothing are kept and counted, and the others decide."""
    if not isinstance(probe.decoder, FreeTextDecoder) or next(probe.decoder.flow()).n < 2:
        raise NotApplicable("it draws no several free texts")
    asked = next(probe.decoder.flow()).n
    for seed in range(5):
        answer = probe.answer(_first_round(_every_other_empty), seed)
        others = probe.answer(_first_round(lambda drawn: drawn[1::2]), seed)
        empty = sum(one.text == "" for one in answer.candidates[:asked])  # a later round may draw an empty text itself
        expect(
            empty == asked // 2 and answer.unparsed == others.unparsed + empty,
            f"Expected the empty texts among the candidates, and counted. Got {empty} of them and {answer.unparsed} "
            f"unparsed, beside {others.unparsed} without them.",
        )
        expect_same(answer, others, "Expected texts that say nothing to have no vote")


def check_nothing_said_is_no_answer(probe: DecoderProbe) -> None:
    """Return nothing when free texts that all say nothing give the empty text and confidence 0."""
    if not isinstance(probe.decoder, FreeTextDecoder):
        raise NotApplicable("it is no FreeTextDecoder")
    answer = probe.answer(_first_round(lambda drawn: [replace(one, text="") for one in drawn]))
    expect(
        answer.text == "" and answer.confidence == 0.0,
        f"Expected the empty text with confidence 0 where nothing is said. Got {answer.text!r}, {answer.confidence}.",
    )


def _first_round(change: Change) -> Change:
    """Return what does `change` to the completions of the first round, and nothing to those of later ones."""
    rounds = count()
    return lambda drawn: drawn if next(rounds) else change(drawn)


def _every_other_empty(drawn: list[Completion]) -> list[Completion]:
    return [one if index % 2 else replace(one, text="") for index, one in enumerate(drawn)]
