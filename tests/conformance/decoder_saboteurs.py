"""Wrong decoders; the key is the check that must catch each."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from calibwrap.base import Answer, Decoder, Sampling


def voted(drawn):
    """The text with the most votes; ties go to the text that sorts first."""
    votes = Counter(completion.text for completion in drawn)
    text = min(votes, key=lambda text: (-votes[text], text))
    share = votes[text] / len(drawn)
    return Answer(text, share, (share, share), candidates=tuple(drawn))


class Honest(Decoder):
    """A majority vote over eight short texts: right, and the start of every saboteur."""

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
        self.only = Honest().flow()

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
]
"""(name of the check, class of the wrong decoder)."""
