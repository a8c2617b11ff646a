"""Decoders that ask the model about its answer: the confidence that it states, and the probability of "True"."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace
from math import fsum
from typing import ClassVar

from calibwrap.base import Answer, Completion, Flow, Sampling
from calibwrap.capabilities import Needs
from calibwrap.decoders.free_text import NOTHING, FreeTextDecoder
from calibwrap.decoders.reading import NOT_CALIBRATED
from calibwrap.decoders.rewording import Reworded
from calibwrap.decoders.trace import checked_answer, round_seed
from calibwrap.errors import InputError
from calibwrap.freetext.clusters import clusters_of, counts, spelling
from calibwrap.freetext.stated import REWARDING_DOUBT, Elicitation, Statement

IS_IT_TRUE = "Is the answer above right? Reply with one word, True or False.\nReply:"
"""What P(True) asks after the answer."""


@dataclass(frozen=True)
class Stated(FreeTextDecoder):
    """Answers with what the model states an answer to be, at the confidence that it states.

    `elicitation` says how it is asked and how its reply is read: `REWARDING_DOUBT` (0 to 10, the default), `ONE_STEP`,
    `top_guesses(n)`, or `TWO_STEP`, which asks for the probability after the answer. Of k replies, an answer's
    confidence is the mean of what they state for it; a reply that states another answer counts 0 for it.

    A malformed reply is kept in `Answer.candidates`, counted in `Answer.unparsed`, and has no vote; where all are, the
    answer is the empty text with confidence 0. A stated number is a text like any other: `calibrated_by` is "none"
    until a calibrator of confidences maps it.

    References:
        Stangel, Bani-Harouni et al.: Rewarding doubt (2025); Tian et al.: Just ask for calibration (2023).

    >>> next(Stated().flow()).before.endswith("Answer: <your answer>, Confidence: <number>")
    True
    """

    elicitation: Elicitation = REWARDING_DOUBT
    """How the model is asked and its reply read."""
    k: int = 1
    """Replies to draw."""
    temperature: float = 0.0
    """Sampling temperature."""

    def __post_init__(self) -> None:
        """Check the elicitation too."""
        super().__post_init__()
        if not isinstance(self.elicitation, Elicitation):
            raise InputError(
                "'elicitation' must be one, such as calibwrap.freetext.ONE_STEP or top_guesses(4). Got "
                f"{self.elicitation!r}."
            )

    def flow(self) -> Flow:
        """Return a generator that asks, a second time for each answer where `elicitation` says so, and answers."""
        completions = list((yield _reworded(self.request(), before=self.elicitation.before)))
        drawn = len(completions)
        if self.elicitation.after:
            replies = yield from self._asked_again(completions)
            completions += [reply for reply, _ in replies]
            stated = [statements for _, statements in replies]
        else:
            stated = [self.elicitation.parse(one.text) for one in completions]
        sound = [statements for statements in stated if self._is_sound(statements)]
        answer = replace(self._settle(sound) if sound else NOTHING, calibrated_by=NOT_CALIBRATED)
        return replace(answer, candidates=tuple(completions), unparsed=drawn - len(sound))

    def _asked_again(
        self, completions: Sequence[Completion]
    ) -> Generator[Sampling, Sequence[Completion], list[tuple[Completion, tuple[Statement, ...]]]]:
        """Ask after each answer in turn; return the replies and what they state of that answer."""
        replies = []
        for number, said in enumerate(self.speaking(completions)):
            request = replace(self.request(), n=1, seed=round_seed(self.seed, self.k + number), stop=())
            (reply,) = yield _reworded(request, reply=said.text, say=self.elicitation.after)
            statements = self.elicitation.parse(reply.text)
            replies.append((reply, tuple(replace(one, answer=said.text.strip()) for one in statements)))
        return replies

    def _is_sound(self, statements: Sequence[Statement]) -> bool:
        """Whether a reply states something, each time about an answer that says something."""
        return bool(statements) and all(self.normalise(one.answer) for one in statements)

    def _settle(self, stated: Sequence[Sequence[Statement]]) -> Answer:
        """Return the answer of the largest mean confidence over the replies."""
        flat = [one for statements in stated for one in statements]
        best, confidence = "", -1.0
        for cluster in clusters_of([one.answer for one in flat], self.normalise):
            sums = [
                min(1.0, fsum(one.confidence for one in statements if self.normalise(one.answer) == cluster.key))
                for statements in stated
            ]
            if fsum(sums) / len(sums) > confidence:
                best = spelling([flat[index].answer for index in cluster.members])
                confidence = fsum(sums) / len(sums)
        return checked_answer(best, confidence, (confidence, confidence), {})


@dataclass(frozen=True)
class PTrue(FreeTextDecoder):
    """Answers with the commonest of k completions, at the probability that the model calls it true.

    A second request shows the model its answer and asks whether it is right; the probability of the first of `labels`
    among both is read at the next token, as the label readout reads it, and nothing is drawn. The bounds are those of a
    list that was cut off. A calibrator of level "token" maps that position too.

    References:
        Kadavath et al.: Language models (mostly) know what they know (2022).

    >>> flow = PTrue().flow()
    >>> next(flow).temperature
    0.0
    """

    needs: ClassVar[Needs] = Needs(labels=True)
    k: int = 1
    """Completions to draw."""
    temperature: float = 0.0
    """Sampling temperature."""
    ask: str = IS_IT_TRUE
    """What is asked after the answer; it must want one of `labels` as the next word."""
    labels: tuple[str, str] = ("True", "False")
    """The words for right and for wrong, each one token of the model."""

    def __post_init__(self) -> None:
        """Check what is asked."""
        super().__post_init__()
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.ask.strip():
            raise InputError("'ask' must be a text that wants one of 'labels' as the next word. Got an empty one.")
        if len(self.labels) != 2 or len(set(self.labels)) < 2 or not all(map(str.strip, self.labels)):
            raise InputError(f"'labels' must be two different words: for right, then for wrong. Got {self.labels!r}.")

    def flow(self) -> Flow:
        """Return a generator that asks for answers, then for the verdict on the commonest one."""
        completions = yield self.request()
        texts = [one.text for one in self.speaking(completions)]
        answer = NOTHING
        if texts:
            clusters = clusters_of(texts, self.normalise)
            best = clusters[int(counts(clusters).argmax())]
            text = spelling([texts[index] for index in best.members])
            reply = next(texts[index] for index in best.members if texts[index].strip() == text)
            (verdict,) = yield _reworded(replace(self.request(), n=1), reply=reply, say=self.ask, labels=self.labels)
            answer = _judged(text, verdict)
        return replace(answer, candidates=tuple(completions), unparsed=len(completions) - len(texts))


def _judged(text: str, verdict: Completion) -> Answer:
    """Return the answer at the probability of its being called true."""
    scores = verdict.labels
    if scores is None:
        raise InputError("A verdict must come with label scores. Got a completion with labels=None.")
    bounds = float(scores.lower[0, 0]), float(scores.upper[0, 0])
    return checked_answer(text, float(scores.probabilities[0, 0]), bounds, {})


def _reworded(
    request: Sampling, *, before: str = "", reply: str | None = None, say: str = "", labels: tuple[str, ...] = ()
) -> Reworded:
    """Return the request with words around the prompt."""
    settings = {field.name: getattr(request, field.name) for field in fields(Sampling)}
    return Reworded(**settings, before=before, reply=reply, say=say, labels=labels)
