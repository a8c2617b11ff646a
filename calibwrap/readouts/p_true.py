"""P(True) readout: show each option as a proposed answer, and read the probability that the model calls it true."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Readout
from calibwrap.capabilities import Needs
from calibwrap.errors import InputError
from calibwrap.questions import Question, Template
from calibwrap.readouts.label import label_scores
from calibwrap.scores import Bools, Floats, Ints, OptionScores, log_softmax

PROPOSED = Template(
    body="Question: {question}\nProposed answer: {options}\nIs the proposed answer right? Reply with one word, True or "
    "False.\nReply:",
    option="{option}",
    shows_options=True,
    name="proposed",
)
"""The default template: one option as the proposed answer."""
_TINY = 1e-300
"""What stands for a probability that underflowed."""


@dataclass(frozen=True)
class OptionPTrue(Readout):
    """One prompt an option; an option's score is log p(True) among True and False, normalised over the options.

    The model judges each option by itself, so the probabilities of being called true need not sum to 1 over a
    question's options, and `label_mass` is not defined.

    References:
        Kadavath et al.: Language models (mostly) know what they know (2022).

    >>> OptionPTrue().label
    'p_true:proposed'
    """

    name: ClassVar[str] = "p_true"
    template: Template = PROPOSED
    """How question and proposed answer are written; `{options}` is the one option."""
    labels: tuple[str, str] = ("True", "False")
    """The words for right and for wrong, each one token of the model."""

    def __post_init__(self) -> None:
        """Check that the template shows what is proposed."""
        if not self.template.shows_options:
            raise InputError(f"P(True) needs a template that shows the option; {self.template.name!r} does not.")
        if len(self.labels) != 2 or len(set(self.labels)) < 2 or not all(map(str.strip, self.labels)):
            raise InputError(f"'labels' must be two different words: for right, then for wrong. Got {self.labels!r}.")

    @property
    def needs(self) -> Needs:  # type: ignore[override]  # a frozen record has no writable attributes
        """What the backend must be able to do."""
        return Needs(labels=True, plain=self.template.style == "plain", chat=self.template.style == "chat")

    @property
    def label(self) -> str:
        """Name and template, such as "p_true:proposed"."""
        own = "" if self.labels == ("True", "False") else ":" + "/".join(self.labels)
        name = "proposed" if self.template == PROPOSED else self.template.label
        return f"p_true:{name}{own}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return scores of all options, with bounds where a list was cut off before a label.

        Raises:
            AmbiguousOptions: a label is not one token after its prompt.
        """
        pairs = [(question, option) for question in questions for option in question.options]
        prompts = [
            self.template.prompt(Question(question.prompt, [option], context=question.context), ("",))
            for question, option in pairs
        ]
        names = [question.id for question, _ in pairs]
        separator, labels = self.template.separator, [self.labels] * len(pairs)
        verdicts = label_scores(adapter, prompts, labels, names, separator, self.label)
        sizes = np.array([len(question.options) for question in questions])
        mask = np.arange(sizes.max()) < sizes[:, None]
        true, low, high = (
            _filled(mask, values[:, 0]) for values in (verdicts.probabilities, verdicts.lower, verdicts.upper)
        )
        return shares_of(true, low, high, mask, self.label)


def shares_of(true: Floats, low: Floats, high: Floats, mask: Bools, readout: str) -> OptionScores:
    """Return each option's share of the probabilities (N, K) of being called true, with the bounds that theirs leave.

    Option i has at least low_i of low_i plus all others' high, and at most high_i of high_i plus all others' low.

    >>> rows = [np.array([row]) for row in ([0.6, 0.2], [0.5, 0.2], [0.6, 0.3])]
    >>> scores = shares_of(*rows, np.ones((1, 2), dtype=bool), "p_true")
    >>> scores.probabilities.round(4).tolist(), scores.lower.round(4).tolist(), scores.upper.round(4).tolist()
    ([[0.75, 0.25]], [[0.625, 0.25]], [[0.75, 0.375]])
    """
    least, most = low.sum(axis=1, keepdims=True) - low, high.sum(axis=1, keepdims=True) - high
    point = np.where(mask, np.log(np.maximum(true, _TINY)), -np.inf)
    value = np.exp(log_softmax(point))
    exact = (low == high).all(axis=1, keepdims=True)
    return OptionScores(
        point,
        readout,
        mask,
        lower=np.where(exact, value, np.minimum(low / np.maximum(low + most, _TINY), value)),
        upper=np.where(exact, value, np.maximum(high / np.maximum(high + least, _TINY), value)),
        argmax_certified=_leads(low, high, np.argmax(point, axis=1)),
    )


def _leads(low: Floats, high: Floats, choice: Ints) -> Bools:
    """Return (N,) whether the chosen option is at least as probable as every other one in spite of bounds."""
    rows = np.arange(len(choice))
    others = high.copy()
    others[rows, choice] = 0.0
    return np.asarray(low[rows, choice] >= others.max(axis=1))


def _filled(mask: Bools, values: Floats) -> Floats:
    """Return the values of existing options in their places (N, K), 0 elsewhere."""
    table = np.zeros(mask.shape)
    table[mask] = values
    return table
