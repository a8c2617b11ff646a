"""The conformance checks of a decoder: a generator of requests, without I/O, that ends with an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from calibwrap.base import Answer, Completion, Decoder, Sampling
from calibwrap.testing.checks import Check, CheckFailed, NotApplicable, expect, run_checks
from calibwrap.testing.toy import ToyAdapter, ToyModel

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
        """Return completions for one request, the same ones every time."""
        return self.adapter.generate([self.prompt], replace(sampling, seed=seed))[0]

    def answer(self, change: Change = list, seed: int = 0) -> Answer:
        """Return the decoder's answer when `change` is done to the completions of every round.

        Raises:
            CheckFailed: it yields something else than Sampling, or does not come to an end.
        """
        flow = self.decoder.flow()
        try:
            request = next(flow)
            for _ in range(self.max_rounds):
                got = type(request).__name__
                expect(isinstance(request, Sampling), f"Expected the flow to yield Sampling requests. Got {got}.")
                request = flow.send(change(self.serve(request, seed)))
        except StopIteration as end:
            answer = end.value
            expect(isinstance(answer, Answer), f"Expected the flow to return an Answer. Got {type(answer).__name__}.")
            return answer  # type: ignore[no-any-return]
        raise CheckFailed(f"Expected an answer after at most {self.max_rounds} requests. Got another request.")


def check_flow_comes_to_an_answer(probe: DecoderProbe) -> None:
    """Return nothing when the flow yields Sampling only, a bounded number of them, and returns an Answer."""
    for seed in range(3):
        expect(isinstance(probe.answer(seed=seed).text, str), "Expected a text in the answer. Got none.")


def check_flows_are_fresh(probe: DecoderProbe) -> None:
    """Return nothing when two flows of one decoder run side by side without touching each other."""
    alone = next(probe.decoder.flow())
    one, other = probe.decoder.flow(), probe.decoder.flow()
    expect(one is not other, "Expected a fresh generator from each flow(). Got the same one twice.")
    requests = next(one), next(other)
    expect(
        requests == (alone, alone), f"Expected {alone} from each fresh flow. Got {requests}: keep state inside flow()."
    )
    for flow in (one, other):
        flow.close()
    _same(probe.answer(), probe.answer(), "Expected a second flow to answer like the first")


def check_answer_is_deterministic(probe: DecoderProbe) -> None:
    """Return nothing when the same completions give the same answer, whatever was answered before."""
    first = probe.answer()
    probe.answer(seed=7)
    for _ in range(3):
        _same(probe.answer(), first, "Expected the same answer for the same completions")


def check_order_of_candidates_does_not_matter(probe: DecoderProbe) -> None:
    """Return nothing when the answer depends on the completions and not on the order in which they were drawn."""
    request = next(probe.decoder.flow())
    if request.n < 2:
        raise NotApplicable("it asks for one completion at a time")
    seed = next((seed for seed in range(200) if _has_winner(probe.serve(request, seed))), None)
    if seed is None:
        raise NotApplicable("no draw of the toy has a text that leads")
    wanted = probe.answer(seed=seed)
    for shift in range(1, min(request.n, 6)):
        rotated = probe.answer(lambda drawn, shift=shift: drawn[shift:] + drawn[:shift], seed)  # type: ignore[misc]
        _same(rotated, wanted, "Expected the same answer for the same completions in another order")


def _has_winner(drawn: Sequence[Completion]) -> bool:
    """Whether one text leads in votes and another was drawn too: then no tie rule decides."""
    texts = [completion.text for completion in drawn]
    votes = sorted((texts.count(text) for text in set(texts)), reverse=True)
    return len(votes) > 1 and votes[0] > votes[1] + 1


def check_completions_are_left_alone(probe: DecoderProbe) -> None:
    """Return nothing when the list that was sent in is as it was."""
    sent: list[tuple[list[Completion], list[Completion]]] = []

    def _remember(drawn: list[Completion]) -> list[Completion]:
        sent.append((drawn, list(drawn)))
        return drawn

    probe.answer(_remember)
    for now, before in sent:
        same = len(now) == len(before) and all(one is other for one, other in zip(now, before, strict=True))
        expect(same, "Expected the list of completions to stay as it was. Got changes: sort a copy.")


def check_confidence_is_a_probability(probe: DecoderProbe) -> None:
    """Return nothing when the confidence lies in [0, 1] and inside its bounds, for hopeless completions too."""
    for change in (list, _hopeless, _certain):
        answer = probe.answer(change)
        low, high = answer.bounds
        expect(
            0.0 <= low <= answer.confidence <= high <= 1.0,
            f"Expected 0 <= lower <= confidence <= upper <= 1. Got {low}, {answer.confidence}, {high}.",
        )
        odds = list(answer.probabilities.values())
        expect(all(0.0 <= p <= 1.0 for p in odds), f"Expected probabilities in [0, 1]. Got {odds}.")


def _hopeless(drawn: list[Completion]) -> list[Completion]:
    return [_with_values(one, -1e4) for one in drawn]


def _certain(drawn: list[Completion]) -> list[Completion]:
    """Values a rounding error above 0, as single-precision runtimes report them."""
    return [_with_values(one, 1e-7) for one in drawn]


def _with_values(completion: Completion, value: float) -> Completion:
    scores = completion.scores
    changed = replace(
        scores,
        logprobs=np.full_like(scores.logprobs, value),
        chosen_logprob=np.full(len(scores), value),
        log_tail=None,  # type: ignore[arg-type]  # None has it worked out anew
    )
    return replace(completion, scores=changed)


def check_candidates_were_sent(probe: DecoderProbe) -> None:
    """Return nothing when the answer's candidates are completions that the decoder was sent."""
    sent: list[Completion] = []

    def _remember(drawn: list[Completion]) -> list[Completion]:
        sent.extend(drawn)
        return drawn

    answer = probe.answer(_remember)
    expect(
        all(any(candidate is one for one in sent) for candidate in answer.candidates),
        "Expected 'candidates' to be completions that were sent. Got others.",
    )


def _same(got: Answer, wanted: Answer, message: str) -> None:
    for name in ("text", "confidence", "bounds"):
        one, other = getattr(got, name), getattr(wanted, name)
        same = one == other if name == "text" else bool(np.allclose(one, other, rtol=1e-9, atol=1e-12))
        expect(same, f"{message}: {name} {other!r}. Got {one!r}.")


DECODER_CHECKS = (
    check_flow_comes_to_an_answer,
    check_flows_are_fresh,
    check_answer_is_deterministic,
    check_order_of_candidates_does_not_matter,
    check_completions_are_left_alone,
    check_confidence_is_a_probability,
    check_candidates_were_sent,
)
"""Every check of a decoder; each is a function of a `DecoderProbe`."""


def decoder_checks(decoder: Decoder, *, max_rounds: int = 32, exempt: Mapping[str, str] | None = None) -> list[Check]:
    """Return what each check of the `Decoder` contract found; completions come from the toy model.

    Args:
        decoder: The decoder under check.
        max_rounds: More requests than this for one answer are too many.
        exempt: Names of checks known to fail, each with its reason; one that passes is a failure.

    Raises:
        CheckFailed: lists every check that failed: what was expected, what came, how to mend it.

    >>> from calibwrap.decoders import Greedy
    >>> dict(decoder_checks(Greedy()))["check_flows_are_fresh"]
    'passed'
    """
    probe = DecoderProbe(decoder, max_rounds=max_rounds)
    return run_checks(f"The decoder {type(decoder).__name__}", DECODER_CHECKS, probe, exempt)
