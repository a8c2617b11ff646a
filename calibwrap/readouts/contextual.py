"""Contextual readout: divide what a model says of each option by what it says of it when nothing is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Readout
from calibwrap.errors import CapabilityError, InputError
from calibwrap.questions import Question
from calibwrap.readouts._around import Around
from calibwrap.readouts.continuation import Continuation
from calibwrap.scores import OptionScores, log_softmax, logsumexp

NOTHING_ASKED = ("N/A", "[MASK]", "?")
"""Questions without content: the first two are the paper's; its third, the empty text, is no question here."""

NO_CHANCE = math.log(1e-200)
"""Log-probability below which one that was read as a probability was 0: p_true.py writes a stated 0 as 1e-300."""


@dataclass(frozen=True)
class Contextual(Around):
    """An option's probability is that of the readout inside, over its mean probability under questions without content.

    With p(k | x) the probability of option k of question x and q(k) the mean of p(k | x0) over the texts x0 of
    `content_free`, which take the place of question and context while the options stay, the result is proportional to
    p(k | x) / q(k). That takes out a liking for a letter (label readout), or for a short or common text (continuation
    readout, where it is the pointwise mutual information of question and option). The first choice may change, and the
    scores are not normalised by how often the model is right: a temperature belongs after it. Costs one more prompt for
    each text.

    References:
        Zhao, Wallace, Feng, Klein, Singh: Calibrate before use (2021); of option texts, Holtzman, West, Shwartz, Choi,
        Zettlemoyer: Surface form competition (2021).

    >>> Contextual().label
    'contextual:continuation:sum:cloze'
    """

    name: ClassVar[str] = "contextual"
    inner: Readout = field(default_factory=Continuation)
    """What reads question and content-free texts."""
    content_free: tuple[str, ...] = NOTHING_ASKED
    """Texts that ask nothing."""

    def __post_init__(self) -> None:
        """Check the readout inside and the texts."""
        if self.inner.needs.decides:
            raise InputError(
                f"Readout {self.inner.label!r} cannot be inside 'contextual': the server writes its prompt and rounds "
                "what it says, so that nothing is honestly divided by it. Use 'contextual:label' or 'permuted'."
            )
        object.__setattr__(self, "content_free", tuple(self.content_free))
        if not self.content_free or not all(text.strip() for text in self.content_free):
            raise InputError(f"'content_free' must be at least one text, none empty. Got {self.content_free!r}.")

    @property
    def label(self) -> str:
        """Name and the readout inside, such as "contextual:label:letter"; texts of one's own are named too."""
        own = "" if self.content_free == NOTHING_ASKED else "(" + "|".join(self.content_free) + ")"
        return f"contextual{own}:{self.inner.label}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return the corrected scores of all options; `label_mass` is that of the questions themselves.

        Raises:
            CapabilityError: the backend cut a list off, so that no honest bounds of the ratio are known.
            InputError: an option has probability 0 under every text without content, and not under its question.
        """
        asked = [replace(one, answer=None) for one in questions]
        empty = [replace(one, prompt=text, context="") for one in asked for text in self.content_free]
        zero = -np.inf if isinstance(self.inner, Continuation) else NO_CHANCE  # long texts are that improbable
        return corrected(self.inner.ask(adapter, [*asked, *empty]), len(questions), self.label, zero)


def corrected(read: OptionScores, n_questions: int, readout: str, zero: float = NO_CHANCE) -> OptionScores:
    """Return p / q of the first `n_questions` rows, each by its own share of the rows that follow.

    Log-probabilities of at most `zero` count as those of 0: such a p stays as it is where its q is 0 too.

    Raises:
        CapabilityError: truncated scores.
        InputError: q is 0 where p is not.

    >>> rows = np.log([[0.6, 0.4], [0.8, 0.2], [0.4, 0.6]])  # a question, and two that ask nothing: 0.6 and 0.4
    >>> corrected(OptionScores(rows, "label"), 1, "contextual").probabilities.round(4).tolist()
    [[0.5, 0.5]]
    """
    if not read.is_exact:
        raise CapabilityError(
            f"Readout {readout!r} needs each option's exact probability, and {int(read.is_cut.sum())} rows were cut "
            "off by the backend: ask for a longer list, use 'permuted', or a backend that scores given tokens."
        )
    own = read.take(np.arange(n_questions))
    texts = (len(read) - n_questions) // n_questions
    others = read.logprobs[n_questions:].reshape(n_questions, texts, -1)
    prior = logsumexp(others.transpose(0, 2, 1)) - np.log(texts)
    never = prior <= zero
    lost = (own.logprobs > zero) & never
    if lost.any():
        row = int(np.argmax(lost.any(axis=1)))
        raise InputError(
            f"An option of question number {row + 1} has probability 0 under every text without content, so that "
            "nothing can be divided by it: use other 'content_free' texts."
        )
    ratio = own.logprobs - np.where(never, 0.0, prior)
    return OptionScores(log_softmax(ratio), readout, own.mask, label_mass=own.label_mass)
