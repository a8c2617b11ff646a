"""Traces and what all decoders that draw several of them share: requests, early stopping, counting."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from calibwrap.base import Answer, Completion, Decoder, Flow, Sampling
from calibwrap.capabilities import Needs
from calibwrap.decoders.posterior import label_posterior
from calibwrap.decoders.settings import drawing_settings, number
from calibwrap.errors import InputError
from calibwrap.scores import Floats, OptionScores
from calibwrap.traces import AnswerRule

ROUNDS = 4
"""An adaptive decoder draws its k traces in at most this many rounds of equal size."""


@dataclass(frozen=True)
class Trace:
    """A completion that names a label, with the probabilities of all labels where it does so."""

    completion: Completion
    """The completion; its `labels` are there."""
    label: int
    """Index of the label that it names."""

    @property
    def scores(self) -> OptionScores:
        """Label scores (1, K), calibrated where a calibrator of options was at work."""
        labels = self.completion.labels
        if labels is None:
            raise InputError("A trace must come with label scores. Got a completion with labels=None.")
        return labels

    @property
    def probabilities(self) -> Floats:
        """(K,) probability of each label after this trace."""
        return np.asarray(self.scores.probabilities[0])

    @property
    def confidence(self) -> float:
        """Probability of the label that it names."""
        return min(1.0, float(self.probabilities[self.label]))

    @property
    def bounds(self) -> tuple[float, float]:
        """Interval of that probability: both ends equal it where no list was cut off."""
        return float(self.scores.lower[0, self.label]), float(self.scores.upper[0, self.label])


def traces_of(rule: AnswerRule, completions: Sequence[Completion]) -> list[Trace]:
    """Return the completions that name a label whose probability was read, in order."""
    named = [rule.named_in(completion.text) for completion in completions]
    pairs = zip(completions, named, strict=True)
    return [Trace(one, label) for one, label in pairs if label is not None and one.labels is not None]


def round_seed(seed: int | None, drawn: int) -> int | None:
    """Return the seed of a decoder's round when `drawn` completions are there: `seed` itself for the first round.

    That of a later one is hashed (31 bits), because some runtimes draw completion i with seed + i: rounds whose seeds
    lie near each other, or near another decoder's, would draw the same again.

    >>> round_seed(7, 0), round_seed(None, 2), round_seed(0, 2) == round_seed(2, 0)
    (7, None, False)
    """
    if seed is None or not drawn:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{drawn}".encode()).digest()[:4], "big") >> 1


def checked_answer(
    text: str, confidence: float, bounds: tuple[float, float], probabilities: dict[str, float]
) -> Answer:
    """Return an answer whose confidence lies in its bounds and in [0, 1] in spite of rounding.

    >>> checked_answer("A", 1.0 + 1e-12, (0.5, 1.0), {"A": 1.0}).confidence
    1.0
    """
    inside = min(max(float(confidence), 0.0), 1.0)
    low, high = min(max(float(bounds[0]), 0.0), inside), max(min(float(bounds[1]), 1.0), inside)
    return Answer(text, inside, (low, high), probabilities)


@dataclass(frozen=True)
class TraceDecoder(Decoder):
    """Draws k traces that each end in a label, and makes one answer of them; how is the business of a subclass.

    A completion that names no label, or one that is not one token, is kept in `Answer.candidates`, counted in
    `Answer.unparsed`, and has no vote. Where none names any, the answer is the empty text with confidence 0.

    With `adaptive` the traces are drawn in up to 4 rounds, and no more are drawn once the posterior of the label that
    would be answered reaches `threshold`; `label_posterior` says how it is worked out, and `len(Answer.candidates)`
    how many were drawn.

    Raises:
        InputError: a setting is out of range.
    """

    needs: ClassVar[Needs] = Needs(traces=True)
    k: int = 8
    """Traces to draw; at most so many when adaptive."""
    labels: tuple[str, ...] = ("A", "B", "C", "D")
    """The possible answers, each one token of the model."""
    marker: str = "Answer:"
    """Text that announces the answer in a trace; empty where a trace begins with it."""
    temperature: float = 1.0
    """Sampling temperature; the label probabilities are read at temperature 1 all the same."""
    max_tokens: int = 256
    """Most tokens to draw for each trace."""
    seed: int | None = 0
    """Same seed, same traces; a later round has a seed made of it (`round_seed`). None for other traces each time."""
    stop: tuple[str, ...] = ()
    """Texts that end a trace; they are not part of it."""
    adaptive: bool = False
    """Whether to stop drawing when the answer is as good as settled."""
    threshold: float = 0.95
    """Posterior at which an adaptive decoder stops."""

    def __post_init__(self) -> None:
        """Check the settings once, here, before any model is asked."""
        object.__setattr__(self, "labels", self.rule.labels)
        drawing_settings(self, ("k", "max_tokens", "seed", "temperature", "stop"))
        if not isinstance(self.adaptive, bool):
            raise InputError(f"'adaptive' must be True or False. Got {self.adaptive!r}.")
        object.__setattr__(self, "threshold", number("threshold", self.threshold))
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(f"'threshold' must be a probability above 0. Got {self.threshold!r}.")
        self.request(0)

    @property
    def rule(self) -> AnswerRule:
        """How a trace names its answer."""
        return AnswerRule(self.labels, self.marker)

    @abstractmethod
    def settle(self, traces: Sequence[Trace]) -> Answer:
        """Return the answer that at least one trace gives; `candidates` and `unparsed` are filled by `flow`."""

    def request(self, drawn: int) -> Sampling:
        """Return what to ask for when `drawn` traces are there.

        >>> from calibwrap.decoders import ConfidenceAtK
        >>> ConfidenceAtK(k=8).request(0).n, ConfidenceAtK(k=8, adaptive=True).request(0).n
        (8, 2)
        """
        at_once = -(-self.k // ROUNDS) if self.adaptive else self.k
        return Sampling(
            n=min(at_once, self.k - drawn),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=round_seed(self.seed, drawn),
            stop=self.stop,
            answer=self.rule,
        )

    def flow(self) -> Flow:
        """Return a generator that asks for traces until there are enough, and answers with what they say."""
        completions: list[Completion] = []
        asked = 0
        while True:
            request = self.request(asked)
            completions.extend((yield request))
            asked += request.n
            traces = traces_of(self.rule, completions)
            answer = self.settle(traces) if traces else Answer("", 0.0, (0.0, 0.0))
            if asked >= self.k or self._is_settled(traces, answer):
                return replace(answer, candidates=tuple(completions), unparsed=len(completions) - len(traces))

    def _is_settled(self, traces: Sequence[Trace], answer: Answer) -> bool:
        """Whether the traces so far make the answer that they give sure enough."""
        if not traces:
            return False
        named, confidence = [trace.label for trace in traces], [trace.confidence for trace in traces]
        posterior = label_posterior(named, confidence, len(self.labels))
        return float(posterior[self.labels.index(answer.text)]) >= self.threshold
