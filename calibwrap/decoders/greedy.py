"""The likeliest text, token by token."""

import math
from dataclasses import dataclass

import numpy as np

from calibwrap.base import Answer, Decoder, Flow, Sampling
from calibwrap.decoders.settings import drawing_settings
from calibwrap.errors import CapabilityError


@dataclass(frozen=True)
class Greedy(Decoder):
    """One completion at temperature 0; its confidence is the probability of its tokens.

    That is the model's own probability of exactly this text, exp(sum of log-probabilities of the drawn tokens, the end
    token included). It falls with length, and it is not a calibrated probability that the answer is right.

    >>> next(Greedy(max_tokens=8).flow()).temperature
    0.0
    """

    max_tokens: int = 64
    """Most tokens to draw."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""

    def __post_init__(self) -> None:
        """Check the settings once, here, before any model is asked."""
        drawing_settings(self, ("max_tokens", "stop"))
        self._sampling()

    def flow(self) -> Flow:
        """Return a generator that asks for one greedy completion and answers with its text.

        Raises:
            CapabilityError: the completion came without the log-probabilities of its tokens.
        """
        (completion,) = yield self._sampling()
        logprobs = completion.scores.chosen_logprob
        if logprobs is None or not len(logprobs) or np.isnan(logprobs).any():
            raise CapabilityError(
                "Greedy needs the log-probability of each drawn token, and the completion lacks some: use a backend "
                "that reports log-probabilities."
            )
        confidence = min(1.0, math.exp(float(logprobs.sum())))
        return Answer(completion.text, confidence, (confidence, confidence), candidates=(completion,))

    def _sampling(self) -> Sampling:
        return Sampling(n=1, max_tokens=self.max_tokens, temperature=0.0, stop=self.stop)
