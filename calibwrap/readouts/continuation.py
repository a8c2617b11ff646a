"""Continuation readout: score each option's own text as what follows the question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from calibwrap.base import Adapter, Readout
from calibwrap.capabilities import Needs
from calibwrap.errors import InputError
from calibwrap.questions import CLOZE, Question, Template
from calibwrap.scores import Floats, OptionScores, logsumexp

Normalise = Literal["sum", "token", "byte"]


@dataclass(frozen=True)
class Continuation(Readout):
    """One prefix pass a question, shared by all its options: p(option) is proportional to exp(score).

    The score of an option is the log-probability of its tokens, summed ("sum"), divided by the number of its tokens
    ("token"), or by the number of UTF-8 bytes of its text ("byte"; Gao et al., 2021, lm-evaluation-harness). Only
    "sum" is a probability of the model's own; the other two take the length out of it.

    >>> Continuation(normalise="token").label
    'continuation:token:cloze'
    """

    name: ClassVar[str] = "continuation"
    normalise: Normalise = "sum"
    """What an option's summed log-probability is divided by."""
    template: Template = CLOZE
    """How the question is written; its separator stands before the option and is scored with it."""

    def __post_init__(self) -> None:
        """Check the name of the normalisation."""
        if self.normalise not in ("sum", "token", "byte"):
            raise InputError(f"'normalise' must be 'sum', 'token' or 'byte'. Got {self.normalise!r}.")

    @property
    def needs(self) -> Needs:  # type: ignore[override]  # a frozen record has no writable attributes
        """What the backend must be able to do."""
        return Needs(score=True, plain=self.template.style == "plain", chat=self.template.style == "chat")

    @property
    def label(self) -> str:
        """Name, normalisation and template, such as "continuation:sum:cloze"."""
        return f"continuation:{self.normalise}:{self.template.label}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return scores of all options.

        `label_mass` is the probability that the answer begins with one of the options, for "sum"; an option that is
        the beginning of another is then counted in both. It is not defined for the other two.
        """
        prompts = [self.template.prompt(question) for question in questions]
        texts = [[self.template.separator + option for option in question.options] for question in questions]
        rows, mass = [], []
        for question, options in zip(questions, adapter.score(prompts, texts), strict=True):
            sums = [float(tokens.chosen_logprob.sum()) for tokens in options if tokens.chosen_logprob is not None]
            rows.append(list(sums / self.lengths(question, [len(tokens) for tokens in options])))
            mass.append(float(np.exp(logsumexp(sums))) if self.normalise == "sum" else np.nan)
        return OptionScores.from_rows(rows, self.label, mass)

    def lengths(self, question: Question, tokens: list[int]) -> Floats:
        """Return what each option's sum is divided by."""
        if self.normalise == "token":
            return np.array(tokens, dtype=np.float64)
        if self.normalise == "byte":
            return np.array([len(option.encode()) for option in question.options], dtype=np.float64)
        return np.ones(len(tokens))
