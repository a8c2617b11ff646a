"""Label readout: list the options under letters, read the next-token probability of each letter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Readout
from calibwrap.capabilities import Needs
from calibwrap.errors import AmbiguousOptions, InputError
from calibwrap.questions import LETTER, LETTERS, Prompt, Question, Template
from calibwrap.scores import OptionScores, TokenScores, logsumexp


@dataclass(frozen=True)
class Label(Readout):
    """One forward pass a question: p(option) is proportional to the probability of its letter's tokens.

    A letter may be written with and without a space before it; the probabilities of both surface forms are summed by
    token id. The form that follows the template (its separator and the letter) must be ONE token after the prompt as
    it stands, which is checked on every question's own prompt.

    >>> Label().label
    'label:letter'
    """

    name: ClassVar[str] = "label"
    template: Template = LETTER
    """How the question and its lettered options are written."""
    labels: tuple[str, ...] = LETTERS
    """Names of the options, in order; as many as the longest question has options."""
    min_mass: float = 0.5
    """Mean probability of all labels together below which a `CalibrationWarning` is given."""

    def __post_init__(self) -> None:
        """Check that the labels can be told apart and the template shows them."""
        if len({label.strip() for label in self.labels}) < len(self.labels) or not all(map(str.strip, self.labels)):
            raise InputError(f"'labels' must be different texts, none empty. Got {self.labels!r}.")
        if not self.template.shows_options:
            raise InputError(
                f"The label readout needs a template that shows the options; {self.template.name!r} does not."
            )

    @property
    def needs(self) -> Needs:  # type: ignore[override]  # a frozen record has no writable attributes
        """What the backend must be able to do."""
        return Needs(given_ids=2, tokenize=True, chat=self.template.style == "chat")

    @property
    def label(self) -> str:
        """Name and template, such as "label:letter"."""
        own = "" if self.labels[: len(LETTERS)] == LETTERS else ":" + "/".join(self.labels)
        return f"label:{self.template.label}{own}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return scores of all options, and as `label_mass` the probability that the answer is any label at all.

        Raises:
            AmbiguousOptions: a label is not one token after its prompt, or two labels share a token.
            InputError: a question has more options than there are labels.
        """
        prompts = [self.template.prompt(question, self.labels) for question in questions]
        tokens = [self._tokens(adapter, *pair) for pair in zip(prompts, questions, strict=True)]
        ids = [[token for forms in options for token in forms] for options in tokens]
        rows = adapter.next_token(prompts, ids=ids)
        logprobs = [_summed(options, scores) for options, scores in zip(tokens, rows, strict=True)]
        mass = np.array([float(np.exp(logsumexp(row))) for row in logprobs])
        return OptionScores.from_rows(logprobs, self.label, mass)

    def _tokens(self, adapter: Adapter, prompt: Prompt, question: Question) -> list[list[int]]:
        """Return for each option the ids of its surface forms; the first is the template's own."""
        prompt_ids, _ = adapter.tokenize(prompt)
        options: list[list[int]] = []
        for label in self.labels[: len(question.options)]:
            own = self.template.separator + label
            forms = []
            for text in dict.fromkeys((own, label, " " + label)):
                before, after = adapter.tokenize(prompt, text)
                if before == prompt_ids and len(after) == 1:
                    forms.append(after[0])
                elif text == own:
                    raise AmbiguousOptions(
                        f"Label {own!r} is not one token after the prompt of question {question.id!r} (it gives "
                        f"{len(after)}): choose other 'labels', change the template's separator or the end of its "
                        "body, or use readout='continuation'."
                    )
            options.append(list(dict.fromkeys(forms)))
        shared = {token for forms in options for token in forms if sum(token in other for other in options) > 1}
        if shared:
            raise AmbiguousOptions(
                f"Labels of question {question.id!r} share the tokens {sorted(shared)}, so the model cannot tell them "
                "apart: choose other 'labels', or use readout='continuation'."
            )
        return options


def _summed(options: list[list[int]], scores: TokenScores) -> list[float]:
    """Return the log of the summed probability of each option's surface forms."""
    return [float(logsumexp(scores.logprob_of(forms))) for forms in options]
