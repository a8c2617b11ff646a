"""What a decoder is checked with: the toy model that serves its requests, and changes to what it is sent."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from calibwrap.base import Answer, Completion, Decoder, Sampling
from calibwrap.calibrators import Identity
from calibwrap.decoders.reading import completed
from calibwrap.testing.checks import CheckFailed, NotApplicable, expect
from calibwrap.testing.toy import ToyAdapter, ToyModel
from calibwrap.traces import AnswerRule

Change = Callable[[list[Completion]], list[Completion]]
"""What a check does to the completions of a round before the decoder sees them."""


@dataclass(frozen=True)
class DecoderProbe:
    """A decoder under check, the toy that serves it, and how long it may ask.

    >>> from calibwrap.decoders import Greedy
    >>> DecoderProbe(Greedy()).answer().text != ""
    True
    """

    decoder: Decoder
    """The part under check."""
    adapter: ToyAdapter = field(default_factory=lambda: ToyAdapter(ToyModel.random().sharpened(1.5)))
    """Where completions come from."""
    prompt: str = "In the morning the sun"
    """What is answered."""
    max_rounds: int = 32
    """More requests than this for one answer are too many."""

    def serve(self, sampling: Sampling, seed: int = 0) -> list[Completion]:
        """Return completions for one request, the same ones every time; `seed` shifts the decoder's own."""
        request = replace(sampling, seed=seed + (sampling.seed or 0))
        return completed(self.adapter, [self.prompt], request, Identity())[0]

    def answer(self, change: Change = list, seed: int = 0) -> Answer:
        """Return the decoder's answer when `change` is done to the completions of every round."""
        return self.run(change, seed)[0]

    def run(self, change: Change = list, seed: int = 0) -> tuple[Answer, list[Sampling]]:
        """Return the decoder's answer and all that it asked for.

        Raises:
            CheckFailed: it yields something else than Sampling, or does not come to an end.
        """
        flow = self.decoder.flow()
        requests: list[Sampling] = []
        try:
            request = next(flow)
            for _ in range(self.max_rounds):
                got = type(request).__name__
                expect(isinstance(request, Sampling), f"Expected the flow to yield Sampling requests. Got {got}.")
                requests.append(request)
                request = flow.send(change(self.serve(request, seed)))
        except StopIteration as end:
            answer = end.value
            expect(isinstance(answer, Answer), f"Expected the flow to return an Answer. Got {type(answer).__name__}.")
            return answer, requests
        raise CheckFailed(f"Expected an answer after at most {self.max_rounds} requests. Got another request.")

    def rule(self) -> AnswerRule:
        """Return how the decoder's traces name their answer.

        Raises:
            NotApplicable: it asks for free text.
        """
        request = next(self.decoder.flow())
        if request.answer is None:
            raise NotApplicable("it asks for free text")
        return request.answer


def expect_same(got: Answer, wanted: Answer, message: str) -> None:
    """Return nothing when both answers say the same with the same confidence.

    Raises:
        CheckFailed: `message`, and what differs.
    """
    for name in ("text", "confidence", "bounds"):
        one, other = getattr(got, name), getattr(wanted, name)
        same = one == other if name == "text" else bool(np.allclose(one, other, rtol=1e-9, atol=1e-12))
        expect(same, f"{message}: {name} {other!r}. Got {one!r}.")
