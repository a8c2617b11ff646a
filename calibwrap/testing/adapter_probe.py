"""What adapter checks share: the prompts they ask with, and the plain ways to read one probability."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Calibrator, Completion, Level, Sampling
from calibwrap.questions import Prompt
from calibwrap.scores import Floats, Ints, TokenScores
from calibwrap.testing.checks import NotApplicable, expect, expect_close

PROMPTS: tuple[Prompt, ...] = (
    "In the morning the sun",
    "Take plan A, then plan B",
    "Un café",
    "It is winter, and the snowman said: ☃",
)
"""Prompts of different lengths and last tokens, some outside ASCII."""
CONTINUATIONS = (" sun", " A sun", " B☃", " sun Aé")
"""Continuations of different lengths, some outside ASCII."""


@dataclass(frozen=True)
class AdapterProbe:
    """An adapter under check and what to ask it.

    >>> from calibwrap.testing import ToyAdapter
    >>> AdapterProbe(ToyAdapter()).row(" sun").shape
    (10,)
    """

    adapter: Adapter
    """The part under check."""
    prompts: tuple[Prompt, ...] = PROMPTS
    """At least two prompts that differ in length and in what follows them."""
    continuations: tuple[str, ...] = CONTINUATIONS
    """At least two continuations of different lengths."""
    tolerance: float = 1e-4
    """Largest difference between two readings of one log-probability that must agree, in nats."""
    draws: int = 400
    """Completions drawn where frequencies are compared."""
    sampling: Sampling = field(default=Sampling(n=8, max_tokens=8, seed=11))
    """How completions are drawn unless a check says otherwise."""

    def require(self, *names: str) -> None:
        """Return nothing when the adapter provides all `names`.

        Raises:
            NotApplicable: it does not claim one of them.
        """
        for name in names:
            if getattr(self.adapter.provides, name) in (False, 0):
                raise NotApplicable(f"the adapter does not provide {name}")

    def close(self, got: object, wanted: object, message: str) -> None:
        """Return nothing when two readings of log-probabilities agree within the tolerance.

        Raises:
            CheckFailed: they do not.
        """
        expect_close(np.asarray(got), np.asarray(wanted), self.tolerance, message)

    def row(self, prompt: Prompt) -> Floats:
        """Return the log-probabilities (V,) of the whole vocabulary after `prompt`.

        Raises:
            NotApplicable: the adapter does not give the whole vocabulary.
        """
        self.require("full_vocabulary")
        return np.asarray(self.adapter.next_token([prompt])[0].logprobs[0])

    def raw(self, prompt: Prompt, token: int) -> float:
        """Return the log-probability of one token after `prompt`, read in the plainest way that the adapter has.

        NaN when its list does not show the token.
        """
        provides = self.adapter.provides
        if provides.full_vocabulary:
            return float(self.row(prompt)[token])
        if provides.given_ids is None or provides.given_ids > 0:
            return float(self.adapter.next_token([prompt], ids=[[token]])[0].logprobs[0, 0])
        listed = self.adapter.next_token([prompt], top=self.longest_top())[0]
        found = np.flatnonzero(listed_ids(listed)[0] == token)
        return float(listed.logprobs[0, found[0]]) if found.size else float("nan")

    def longest_top(self, wanted: int = 20) -> int:
        """Return `wanted`, or the length of the adapter's longest list when that is less.

        Raises:
            NotApplicable: it lists none.
        """
        self.require("top")
        limit = self.adapter.provides.top
        return wanted if limit is None else min(wanted, limit)

    def drawn(
        self, sampling: Sampling | None = None, steer: Calibrator | None = None
    ) -> list[tuple[Prompt, Completion]]:
        """Return every completion of every prompt, each with its prompt."""
        groups = self.adapter.generate(list(self.prompts), sampling or self.sampling, steer)
        expect(
            len(groups) == len(self.prompts),
            f"Expected a list of completions for each of {len(self.prompts)} prompts. Got {len(groups)} lists.",
        )
        return [(prompt, one) for prompt, group in zip(self.prompts, groups, strict=True) for one in group]

    def first_matches(self, prompt: Prompt, completion: Completion, when: str) -> None:
        """Return nothing when the value of the first drawn token is the raw log-probability of that very token.

        Raises:
            CheckFailed: it is another number.
        """
        token, value = int(chosen(completion.scores)[0]), values(completion.scores)[0]
        wanted = self.raw(prompt, token)
        if not np.isnan(wanted):
            self.close(value, wanted, f"Expected the raw log-probability of the drawn token {token} {when}.")


@dataclass(frozen=True)
class Sharpen(Calibrator):
    """A token-level calibrator that multiplies log-probabilities: the simplest thing to steer with."""

    kind: ClassVar[str] = "sharpen"
    keeps_argmax: ClassVar[bool] = True
    factor: float = 1.0
    """Above 1 sharpens, between 0 and 1 flattens."""
    level: Level = "token"

    def logits(self, logprobs: Floats) -> Floats:
        """Return `factor * logprobs`; -inf stays -inf."""
        return np.asarray(self.factor * logprobs)


@dataclass(frozen=True)
class Only(Calibrator):
    """A token-level calibrator that lets the given tokens pass and no other."""

    kind: ClassVar[str] = "only"
    tokens: tuple[int, ...] = ()
    """The tokens that may still be drawn, all equally likely."""
    level: Level = "token"

    def logits(self, logprobs: Floats) -> Floats:
        """Return 0 for the tokens that may be drawn and -inf for the rest."""
        allowed = np.full(logprobs.shape, -np.inf)
        allowed[:, list(self.tokens)] = 0.0
        return allowed


def chosen(scores: TokenScores) -> list[int]:
    """Return the ids of the drawn or scored tokens.

    Raises:
        CheckFailed: the adapter left them out.
    """
    expect(scores.chosen is not None, "Expected 'chosen', the ids of the drawn or scored tokens. Got None.")
    return [int(token) for token in scores.chosen]  # type: ignore[union-attr]


def values(scores: TokenScores) -> Floats:
    """Return the log-probabilities of the drawn or scored tokens.

    Raises:
        CheckFailed: the adapter left them out.
    """
    expect(scores.chosen_logprob is not None, "Expected 'chosen_logprob', one for each chosen token. Got None.")
    return np.asarray(scores.chosen_logprob)


def texts(prompts: Sequence[Prompt]) -> list[str]:
    """Return the plain-text prompts among `prompts`.

    Raises:
        NotApplicable: there is none.
    """
    plain = [prompt for prompt in prompts if isinstance(prompt, str)]
    if not plain:
        raise NotApplicable("all prompts are chats, and this check cuts plain text")
    return plain


def listed_ids(scores: TokenScores) -> Ints:
    """Return the ids (T, L) of a listed distribution.

    Raises:
        CheckFailed: a list came without ids.
    """
    expect(scores.ids is not None, "Expected 'ids' beside a list of log-probabilities. Got None.")
    return np.asarray(scores.ids)
