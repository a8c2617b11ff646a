"""Decoders of free text: the probability of the text itself, the share of equal answers, and their entropy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from calibwrap.base import Answer, Completion, Decoder, Flow, Sampling
from calibwrap.decoders.reading import NOT_CALIBRATED
from calibwrap.decoders.settings import drawing_settings, function
from calibwrap.decoders.trace import checked_answer
from calibwrap.errors import InputError
from calibwrap.freetext.clusters import (
    clusters_of,
    counts,
    entropy_confidence,
    semantic_entropy,
    spelling,
    summed_probabilities,
)
from calibwrap.freetext.confidences import SEQUENCE_CONFIDENCES, drawn_logprobs
from calibwrap.freetext.normalise import Normaliser, trivia_qa
from calibwrap.scores import Floats

NOTHING = Answer("", 0.0, (0.0, 0.0))
"""The answer where no completion says anything: certainly not right."""


@dataclass(frozen=True)
class FreeTextDecoder(Decoder):
    """Draws k completions, judges them equal by `normalise`, and makes one answer of them.

    A completion that says nothing (whose normal form is empty) is kept in `Answer.candidates`, counted in
    `Answer.unparsed`, and has no vote; where none says anything, the answer is the empty text with confidence 0. Among
    equally good answers the one whose normal form sorts first wins, so that the order of the draws does not matter.

    Raises:
        InputError: a setting is out of range, or k completions are asked for that would all be the same.
    """

    k: int = 8
    """Completions to draw."""
    temperature: float = 1.0
    """Sampling temperature, 0 for the greedy text; probabilities are read at temperature 1 all the same."""
    max_tokens: int = 64
    """Most tokens to draw for each completion."""
    seed: int | None = 0
    """Same seed, same completions; None for others each time."""
    stop: tuple[str, ...] = ()
    r"""Texts that end a completion, such as "\n" for a model that would go on with another question."""
    normalise: Normaliser = trivia_qa
    """Maps equal answers to equal texts, and what says nothing to ""."""

    def __post_init__(self) -> None:
        """Check the settings once, here, before any model is asked."""
        drawing_settings(self, ("k", "max_tokens", "seed", "temperature", "stop"))
        function("normalise", self.normalise, "calibwrap.freetext.exact")
        if self.k > 1 and self.temperature == 0.0:
            raise InputError(f"{self.k} completions at temperature 0 are all the same: set 'temperature', or k=1.")
        self.request()

    def request(self) -> Sampling:
        """Return what is asked for first.

        >>> SelfConsistency(k=4).request().n
        4
        """
        return Sampling(
            n=self.k, max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed, stop=self.stop
        )

    def speaking(self, completions: Sequence[Completion]) -> list[Completion]:
        """Return the completions that say something, in order."""
        return [one for one in completions if self.normalise(one.text)]


@dataclass(frozen=True)
class FreeText(FreeTextDecoder):
    """Answers with the most probable of k completions; by default with the greedy one.

    The confidence is made of the probabilities of its tokens, the end token included: their geometric mean ("mean"),
    their product, which is the probability of exactly this text ("sum" of log-probabilities), or the least of them
    ("least"). None of them is the probability that the answer is right: fit a calibrator with `lm.fit_answers`.

    >>> FreeText().request().temperature
    0.0
    """

    confidence: Literal["mean", "sum", "least"] = "mean"
    """How the tokens' probabilities are taken together."""
    k: int = 1
    """Completions to draw."""
    temperature: float = 0.0
    """Sampling temperature."""

    def __post_init__(self) -> None:
        """Check the name of the confidence too."""
        super().__post_init__()
        if self.confidence not in SEQUENCE_CONFIDENCES:
            raise InputError(f"'confidence' must be one of {', '.join(SEQUENCE_CONFIDENCES)}. Got {self.confidence!r}.")

    def flow(self) -> Flow:
        """Return a generator that asks once and answers with the completion of the largest confidence."""
        completions = yield self.request()
        measure = SEQUENCE_CONFIDENCES[self.confidence]
        known = [one for one in self.speaking(completions) if len(drawn_logprobs(one))]
        rated = sorted((-measure(one), self.normalise(one.text), one.text.strip()) for one in known)
        answer = checked_answer(rated[0][2], -rated[0][0], (-rated[0][0],) * 2, {}) if rated else NOTHING
        return replace(answer, candidates=tuple(completions), unparsed=len(completions) - len(known))


@dataclass(frozen=True)
class SelfConsistency(FreeTextDecoder):
    """Answers with the answer that most completions give, at its share of those that say something.

    A share is not a calibrated probability: `calibrated_by` is "none" until a calibrator of confidences maps it.

    References:
        Wang et al.: Self-consistency improves chain of thought reasoning in language models (2023).

    >>> next(SelfConsistency(k=16).flow()).n
    16
    """

    def flow(self) -> Flow:
        """Return a generator that asks once and answers with the largest cluster."""
        completions = yield self.request()
        texts = [one.text for one in self.speaking(completions)]
        answer = NOTHING
        if texts:
            weights = counts(clusters_of(texts, self.normalise))
            share = float(weights.max() / weights.sum())
            answer = checked_answer(_leader(texts, weights, self.normalise), share, (share, share), {})
        silent = len(completions) - len(texts)
        return replace(answer, candidates=tuple(completions), unparsed=silent, calibrated_by=NOT_CALIBRATED)


@dataclass(frozen=True)
class SemanticEntropy(FreeTextDecoder):
    """Answers with the heaviest cluster of equal answers, at exp(-entropy) of all clusters.

    The entropy is that over answers, not over texts: "Paris" and "the Paris" are one. Its confidence is 1 where all
    agree and 1/m for m clusters of equal weight. A cluster weighs as many as its completions ("count"), or the summed
    probability of its different texts ("probability", as published, with sums over different texts).

    References:
        Kuhn, Gal, Farquhar: Semantic uncertainty (2023); Farquhar, Kossen, Kuhn, Gal: Detecting hallucinations in large
        language models using semantic entropy (2024), for counts.

    >>> SemanticEntropy(weights="count").k
    8
    """

    weights: Literal["count", "probability"] = "count"
    """What a cluster weighs."""

    def __post_init__(self) -> None:
        """Check the name of the weights too."""
        super().__post_init__()
        if self.weights not in ("count", "probability"):
            raise InputError(f"'weights' must be 'count' or 'probability'. Got {self.weights!r}.")

    def flow(self) -> Flow:
        """Return a generator that asks once and answers with the heaviest cluster."""
        completions = yield self.request()
        is_counted = self.weights == "count"
        known = [one for one in self.speaking(completions) if is_counted or len(drawn_logprobs(one))]
        texts = [one.text for one in known]
        answer = NOTHING
        if texts:
            weights = self._weigh(known, texts)
            confidence = entropy_confidence(semantic_entropy(weights))
            answer = checked_answer(_leader(texts, weights, self.normalise), confidence, (confidence,) * 2, {})
        touched = NOT_CALIBRATED if is_counted else answer.calibrated_by
        silent = len(completions) - len(known)
        return replace(answer, candidates=tuple(completions), unparsed=silent, calibrated_by=touched)

    def _weigh(self, known: Sequence[Completion], texts: Sequence[str]) -> Floats:
        """Return (C,) the weight of each cluster; relative to the likeliest text, so that none is lost to rounding."""
        clusters = clusters_of(texts, self.normalise)
        if self.weights == "count":
            return counts(clusters)
        logprobs = np.array([drawn_logprobs(one).sum() for one in known])
        return summed_probabilities(clusters, texts, logprobs - logprobs.max())


def _leader(texts: Sequence[str], weights: Floats, normalise: Normaliser) -> str:
    """Return the text that stands for the heaviest cluster; of equally heavy ones the first in the order of keys."""
    best = clusters_of(texts, normalise)[int(np.argmax(weights))]
    return spelling([texts[index] for index in best.members])
