"""Wrong decoders; the key is the check that must catch each."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from calibwrap.base import Answer, Decoder, Sampling
from calibwrap.decoders import TraceDecoder, traces_of


def voted(drawn):
    """The text with the most votes; ties go to the text that sorts first."""
    votes = Counter(completion.text for completion in drawn)
    text = min(votes, key=lambda text: (-votes[text], text))
    share = votes[text] / len(drawn)
    return Answer(text, share, (share, share), candidates=tuple(drawn))


@dataclass(frozen=True)
class Honest(TraceDecoder):
    """The label of most summed confidence, in rounds of four: right, and the start of the saboteurs of traces."""

    k: int = 16
    labels: tuple[str, ...] = ("A", "B", "C")
    marker: str = ""
    max_tokens: int = 2
    adaptive: bool = True

    def settle(self, traces):
        table = {label: [] for label in self.labels}
        for trace in traces:
            table[self.labels[trace.label]].append((trace.confidence, *trace.bounds))
        weights = {label: math.fsum(row[0] for row in rows) for label, rows in table.items()}
        text = max(weights, key=weights.get)
        confidence, low, high = (math.fsum(column) / len(traces) for column in zip(*table[text], strict=True))
        return Answer(text, confidence, (min(low, confidence), max(high, confidence)), weights_to_shares(weights))


def weights_to_shares(weights):
    total = sum(weights.values())
    return {label: weight / total if total else 0.0 for label, weight in weights.items()}


class TextVote(Decoder):
    """A majority vote over eight short texts: right, and the start of the saboteurs of free text."""

    def flow(self):
        return voted((yield Sampling(n=8, max_tokens=2)))


class AsksWithWords(Decoder):
    def flow(self):
        return voted((yield "eight texts, please"))


class NeverAnswers(Decoder):
    def flow(self):
        while True:
            yield Sampling()


class AnswersWithText(Decoder):
    def flow(self):
        return (yield Sampling())[0].text


class OneFlowForAll(Decoder):
    def __init__(self):
        self.only = TextVote().flow()

    def flow(self):
        return self.only


@dataclass(frozen=True)
class CountsItsFlows(Decoder):
    """Asks for more tokens each time."""

    seen: list[int] = field(default_factory=list)

    def flow(self):
        self.seen.append(1)
        return voted((yield Sampling(n=8, max_tokens=len(self.seen))))


class ThrowsDice(Decoder):
    random = np.random.default_rng(0)

    def flow(self):
        drawn = yield Sampling(n=8, max_tokens=2)
        return voted(list(self.random.choice(np.array(drawn, dtype=object), size=3)))


class RemembersTheLast(Decoder):
    """Mixes what it was sent before into the next answer."""

    def __init__(self):
        self.memory = []

    def flow(self):
        self.memory.extend((yield Sampling(n=8, max_tokens=2)))
        return voted(self.memory)


class TakesTheFirst(Decoder):
    def flow(self):
        drawn = yield Sampling(n=8, max_tokens=2)
        return Answer(drawn[0].text, 0.5, (0.5, 0.5))


class WeighsTheFirst(Decoder):
    """The vote is right and the confidence depends on who came first."""

    def flow(self):
        drawn = yield Sampling(n=8, max_tokens=2)
        answer = voted(drawn)
        confidence = 0.9 if drawn[0].text == answer.text else 0.1
        return replace(answer, confidence=confidence, bounds=(confidence, confidence))


class SortsWhatItWasSent(Decoder):
    def flow(self):
        drawn = yield Sampling(n=8, max_tokens=2)
        drawn.sort(key=lambda completion: completion.text, reverse=True)
        return voted(drawn)


class EmptiesWhatItWasSent(Decoder):
    def flow(self):
        drawn = yield Sampling(n=8, max_tokens=2)
        answer = voted(drawn)
        drawn.clear()
        return answer


class SaysALogProbability(Decoder):
    def flow(self):
        (one,) = yield Sampling()
        value = float(one.scores.chosen_logprob.sum())
        return Answer(one.text, value, (value, value))


class DividesByTheSum(Decoder):
    """Normalises probabilities that may all have underflowed to 0."""

    def flow(self):
        drawn = yield Sampling(n=4, max_tokens=2)
        odds = np.exp([one.scores.chosen_logprob.sum() for one in drawn])
        with np.errstate(invalid="ignore"):
            confidence = float(odds.max() / odds.sum())
        return Answer(drawn[int(odds.argmax())].text, confidence, (confidence, confidence))


class PassesOne(Decoder):
    """Forgets that a rounded log-probability may lie above 0."""

    def flow(self):
        (one,) = yield Sampling()
        value = math.exp(float(one.scores.chosen_logprob.sum()))
        return Answer(one.text, value, (value, value))


class InventsCandidates(Decoder):
    def flow(self):
        drawn = yield Sampling(n=2, max_tokens=2)
        return replace(voted(drawn), candidates=(replace(drawn[0], text="never drawn"),))


class RepeatsItsSeed(Honest):
    """Draws the first four traces again in each round."""

    def request(self, drawn):
        return replace(super().request(drawn), seed=self.seed)

    def _is_settled(self, traces, answer):
        return False


def finished(decoder, change):
    """The flow of an honest decoder, with `change` done to the answer."""
    answer = yield from Honest.flow(decoder)
    return change(answer)


class DropsTheUnparsed(Honest):
    def flow(self):
        return finished(
            self,
            lambda answer: replace(
                answer, candidates=tuple(trace.completion for trace in traces_of(self.rule, answer.candidates))
            ),
        )


class CountsNobody(Honest):
    def flow(self):
        return finished(self, lambda answer: replace(answer, unparsed=0))


class DividesByAll(Honest):
    """Lets traces without a label speak against the answer."""

    def flow(self):
        def change(answer):
            confidence = answer.confidence * (1 - answer.unparsed / max(len(answer.candidates), 1))
            return replace(answer, confidence=confidence, bounds=(confidence, confidence))

        return finished(self, change)


class GuessesWhenNothingIsNamed(Honest):
    def flow(self):
        guess = {"text": "A", "confidence": 1 / 3, "bounds": (0.0, 1.0)}
        return finished(self, lambda answer: answer if answer.text else replace(answer, **guess))


class AsksForOneMore(Honest):
    def request(self, drawn):
        request = super().request(drawn)
        return replace(request, n=request.n + 1)


class AnswersWithTheNextLabel(Honest):
    def settle(self, traces):
        answer = super().settle(traces)
        return replace(answer, text=self.labels[self.labels.index(answer.text) - 1])


class TossesACoin(Honest):
    """Settles ties by chance, as a set of strings does from one process to the next."""

    random = np.random.default_rng(0)

    def settle(self, traces):
        answer = super().settle(traces)
        if all(trace.scores.probabilities.std() < 1e-9 for trace in traces):
            return replace(answer, text=str(self.random.choice(self.labels)))
        return answer


class HidesTheBounds(Honest):
    def settle(self, traces):
        answer = super().settle(traces)
        return replace(answer, bounds=(answer.confidence, answer.confidence))


DECODER_SABOTEURS = [
    ("check_flow_comes_to_an_answer", AsksWithWords),
    ("check_flow_comes_to_an_answer", NeverAnswers),
    ("check_flow_comes_to_an_answer", AnswersWithText),
    ("check_flows_are_fresh", OneFlowForAll),
    ("check_flows_are_fresh", CountsItsFlows),
    ("check_answer_is_deterministic", ThrowsDice),
    ("check_answer_is_deterministic", RemembersTheLast),
    ("check_order_of_candidates_does_not_matter", TakesTheFirst),
    ("check_order_of_candidates_does_not_matter", WeighsTheFirst),
    ("check_completions_are_left_alone", SortsWhatItWasSent),
    ("check_completions_are_left_alone", EmptiesWhatItWasSent),
    ("check_confidence_is_a_probability", SaysALogProbability),
    ("check_confidence_is_a_probability", DividesByTheSum),
    ("check_confidence_is_a_probability", PassesOne),
    ("check_candidates_were_sent", InventsCandidates),
    ("check_no_request_repeats_another", RepeatsItsSeed),
    ("check_traces_without_a_label_have_no_vote", DropsTheUnparsed),
    ("check_traces_without_a_label_have_no_vote", CountsNobody),
    ("check_traces_without_a_label_have_no_vote", DividesByAll),
    ("check_nothing_named_is_no_answer", GuessesWhenNothingIsNamed),
    ("check_one_trace_is_plain_decoding", AsksForOneMore),
    ("check_one_trace_is_plain_decoding", AnswersWithTheNextLabel),
    ("check_ties_are_settled_alike", TossesACoin),
    ("check_cut_off_labels_widen_the_bounds", HidesTheBounds),
]
"""(name of the check, class of the wrong decoder)."""
