"""The conformance checks of a decoder: a generator of requests, without I/O, that ends with an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibwrap.base import Completion, Decoder
from calibwrap.decoders import TraceDecoder
from calibwrap.decoders.reading import NOT_CALIBRATED
from calibwrap.scores import Floats, OptionScores
from calibwrap.testing.checks import Check, NotApplicable, expect, run_checks
from calibwrap.testing.decoder_probe import Change, DecoderProbe, expect_same
from calibwrap.testing.free_text_checks import check_nothing_said_is_no_answer, check_silent_texts_have_no_vote
from calibwrap.traces import AnswerRule


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
    expect_same(probe.answer(), probe.answer(), "Expected a second flow to answer like the first")


def check_answer_is_deterministic(probe: DecoderProbe) -> None:
    """Return nothing when the same completions give the same answer, whatever was answered before."""
    first = probe.answer()
    probe.answer(seed=7)
    for _ in range(3):
        expect_same(probe.answer(), first, "Expected the same answer for the same completions")


def check_order_of_candidates_does_not_matter(probe: DecoderProbe) -> None:
    """Return nothing when the answer depends on the completions and not on the order in which they were drawn."""
    request = next(probe.decoder.flow())
    if request.n < 2:
        raise NotApplicable("it asks for one completion at a time")
    seed = next((seed for seed in range(200) if _has_winner(request.answer, probe.serve(request, seed))), None)
    if seed is None:
        raise NotApplicable("no draw of the toy has an answer that leads")
    wanted = probe.answer(seed=seed)
    for shift in range(1, min(request.n, 6)):
        rotated = probe.answer(lambda drawn, shift=shift: drawn[shift:] + drawn[:shift], seed)  # type: ignore[misc]
        expect_same(rotated, wanted, "Expected the same answer for the same completions in another order")


def _has_winner(rule: AnswerRule | None, drawn: Sequence[Completion]) -> bool:
    """Whether one answer leads in votes and another was drawn too: then no tie rule decides."""
    texts = [completion.text for completion in drawn]
    said = [text if rule is None else rule.named_in(text) for text in texts]
    votes = sorted((said.count(one) for one in set(said) - {None}), reverse=True)
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
    for change in (list, _hopeless, _certain, _labels(_sure), _labels(_contrary), _labels(_level), _blind):
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


def _labels(change: Callable[[Floats, int], Floats]) -> Change:
    """Return what puts other log-probabilities (K,), made of the row and its likeliest label, on all label scores."""

    def _row(scores: OptionScores) -> OptionScores:
        return OptionScores(change(scores.logprobs[0], int(scores.choice[0]))[None], scores.readout)

    return lambda drawn: [one if one.labels is None else replace(one, labels=_row(one.labels)) for one in drawn]


def _sure(logprobs: Floats, choice: int) -> Floats:
    return np.where(np.arange(len(logprobs)) == choice, 0.0, -1e4)


def _contrary(logprobs: Floats, choice: int) -> Floats:
    return np.where(np.arange(len(logprobs)) == choice, -1e4, 0.0)


def _level(logprobs: Floats, choice: int) -> Floats:
    return np.zeros(len(logprobs))


def _blind(drawn: list[Completion]) -> list[Completion]:
    """Label scores as they are, of which a cut-off list leaves everything open."""

    def _open(scores: OptionScores) -> OptionScores:
        return replace(scores, lower=np.zeros(scores.lower.shape), upper=np.ones(scores.upper.shape))

    return [one if one.labels is None else replace(one, labels=_open(one.labels)) for one in drawn]


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


def check_no_request_repeats_another(probe: DecoderProbe) -> None:
    """Return nothing when later rounds draw other completions: an equal request with a seed draws the same again."""
    runs = [probe.run(seed=seed)[1] for seed in range(10)]
    longest = max(runs, key=len)
    if len(longest) < 2:
        raise NotApplicable("it asks once")
    fixed = [(replace(request, n=1), request.seed) for request in longest if request.seed is not None]
    expect(
        len(set(fixed)) == len(fixed),
        f"Expected another seed in each round. Got {[seed for _, seed in fixed]}: add the number of completions drawn.",
    )


def check_traces_without_a_label_have_no_vote(probe: DecoderProbe) -> None:
    """Return nothing when completions that name no label are kept and counted, and the others decide."""
    rule = probe.rule()
    for seed in range(5):
        sent: list[Completion] = []

        def _remember(drawn: list[Completion], sent: list[Completion] = sent) -> list[Completion]:
            changed = _every_other_silent(drawn)
            sent.extend(changed)
            return changed

        answer = probe.answer(_remember, seed)
        silent = sum(one.labels is None or rule.named_in(one.text) is None for one in sent)
        expect(
            len(answer.candidates) == len(sent) and answer.unparsed == silent,
            f"Expected {len(sent)} candidates, {silent} of them unparsed. Got {len(answer.candidates)} and "
            f"{answer.unparsed}: keep and count completions that name no label.",
        )
        others = probe.answer(lambda drawn: drawn[1::2], seed)
        expect_same(answer, others, "Expected completions that name no label to have no vote")


def check_nothing_named_is_no_answer(probe: DecoderProbe) -> None:
    """Return nothing when completions that all name no label give the empty text and confidence 0."""
    probe.rule()
    answer = probe.answer(lambda drawn: [_silent(one) for one in drawn])
    expect(
        answer.text == "" and answer.confidence == 0.0,
        f"Expected the empty text with confidence 0 where no label is named. Got {answer.text!r}, {answer.confidence}.",
    )


def _silent(completion: Completion) -> Completion:
    return replace(completion, text="\u2026", labels=None)


def _every_other_silent(drawn: list[Completion]) -> list[Completion]:
    return [one if index % 2 else _silent(one) for index, one in enumerate(drawn)]


def check_one_trace_is_plain_decoding(probe: DecoderProbe) -> None:
    """Return nothing when k = 1 asks for one completion and answers with what it names, where that is the likeliest."""
    if not isinstance(probe.decoder, TraceDecoder):
        raise NotApplicable("it does not draw k traces")
    rule, single = probe.rule(), replace(probe, decoder=replace(probe.decoder, k=1))
    for seed in range(20):
        answer, requests = single.run(seed=seed)
        asked = [request.n for request in requests]
        expect(
            asked == [1] and len(answer.candidates) == 1,
            f"Expected one request for one completion with k=1. Got requests for {asked}.",
        )
        (drawn,) = answer.candidates
        label = rule.named_in(drawn.text)
        if label is not None and drawn.labels is not None and label == int(drawn.labels.choice[0]):
            wanted = rule.labels[label]
            expect(answer.text == wanted, f"Expected {wanted!r}, which the only trace names. Got {answer.text!r}.")


def check_ties_are_settled_alike(probe: DecoderProbe) -> None:
    """Return nothing when labels that are equally probable in all traces give the same answer every time."""
    rule = probe.rule()
    first = probe.answer(_labels(_level))
    for _ in range(8):
        expect_same(
            probe.answer(_labels(_level)), first, "Expected the same answer each time where all labels are alike"
        )
    expect(first.text in (*rule.labels, ""), f"Expected one of the labels {rule.labels}. Got {first.text!r}.")


def check_cut_off_labels_widen_the_bounds(probe: DecoderProbe) -> None:
    """Return nothing when label probabilities that a cut-off list leaves open leave the confidence open too."""
    probe.rule()
    seed = next((seed for seed in range(50) if probe.answer(seed=seed).text), 0)
    answer = probe.answer(seed=seed)
    if answer.calibrated_by == NOT_CALIBRATED:
        raise NotApplicable("its confidence is not made of the labels' probabilities")
    low, high = probe.answer(_blind, seed).bounds
    expect(
        low < answer.confidence or answer.confidence < high,
        f"Expected bounds wider than ({low}, {high}) where the labels' bounds are 0 and 1: carry the bounds through.",
    )


DECODER_CHECKS = (
    check_flow_comes_to_an_answer,
    check_flows_are_fresh,
    check_answer_is_deterministic,
    check_order_of_candidates_does_not_matter,
    check_completions_are_left_alone,
    check_confidence_is_a_probability,
    check_candidates_were_sent,
    check_no_request_repeats_another,
    check_traces_without_a_label_have_no_vote,
    check_nothing_named_is_no_answer,
    check_silent_texts_have_no_vote,
    check_nothing_said_is_no_answer,
    check_one_trace_is_plain_decoding,
    check_ties_are_settled_alike,
    check_cut_off_labels_widen_the_bounds,
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
