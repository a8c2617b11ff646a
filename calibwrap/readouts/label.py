"""Label readout: list the options under letters, read the next-token probability of each letter."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Readout
from calibwrap.capabilities import Needs
from calibwrap.errors import AmbiguousOptions, InputError
from calibwrap.questions import LETTER, LETTERS, Prompt, Question, Template
from calibwrap.readouts._forms import (
    listed_bytes,
    listed_ids,
    longest_list,
    reads_ids,
    scores_of_lists,
    surface_forms,
)
from calibwrap.scores import OptionScores, TokenScores, logsumexp


@dataclass(frozen=True)
class Label(Readout):
    """One forward pass a question: p(option) is proportional to the probability of its letter's tokens.

    A letter may be written with and without a space before it and a full stop after it; the probabilities of its
    surface forms are summed. They are read in one of three ways, by what the backend provides:

    - as given token ids, exactly;
    - by id in its list of the most probable tokens, with exact bounds for what the list does not show;
    - by bytes in that list, where the backend has no tokenizer to ask.

    In the first two a form that is not ONE token after the prompt as it stands does not count, and the form that
    follows the template (its separator and the letter) must be one, which is checked on every question's own prompt.
    By bytes neither can be known: a form that the list does not show may then be hidden in the rest, which widens the
    bounds, and a template whose own form is several tokens shows in a small `label_mass` only. Where several tokens
    spell one form, those that are listed count.

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
        return Needs(labels=True, plain=self.template.style == "plain", chat=self.template.style == "chat")

    @property
    def label(self) -> str:
        """Name and template, such as "label:letter"."""
        own = "" if self.labels[: len(LETTERS)] == LETTERS else ":" + "/".join(self.labels)
        return f"label:{self.template.label}{own}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return scores of all options, and as `label_mass` the probability that the answer is any label at all.

        Out of a list, `label_mass` is the part that the list shows, and options have bounds.

        Raises:
            AmbiguousOptions: a label is not one token after its prompt, or two labels share a form or a token.
            InputError: a question has more options than there are labels.
        """
        for question in questions:
            self.check_enough(question)
        prompts = [self.template.prompt(question, self.labels) for question in questions]
        labels = [self.labels[: len(question.options)] for question in questions]
        names = [question.id for question in questions]
        return label_scores(adapter, prompts, labels, names, self.template.separator, self.label)

    def check_enough(self, question: Question) -> None:
        """Return nothing when every option has a label.

        Raises:
            InputError: there are more options than labels.
        """
        if len(question.options) > len(self.labels):
            raise InputError(
                f"Question {question.id or question.prompt!r} has {len(question.options)} options, and readout "
                f"{self.label!r} names {len(self.labels)} at most: use readout 'continuation', which needs no labels, "
                "on a backend that scores whole answers, or ask with fewer options."
            )


def label_scores(
    adapter: Adapter,
    prompts: Sequence[Prompt],
    labels: Sequence[Sequence[str]],
    names: Sequence[str],
    separator: str,
    readout: str,
    calibrate: Callable[[TokenScores], TokenScores] | None = None,
) -> OptionScores:
    """Return the scores of the labels after each prompt, read in the best of the three ways that the backend has.

    Args:
        adapter: the backend.
        prompts: N prompts.
        labels: for each prompt its labels, which may follow it.
        names: for each prompt the name that errors call it by.
        separator: what stands between prompt and label.
        readout: name of the scores.
        calibrate: maps the whole vocabulary at each position before the labels are read; None reads it raw.

    Raises:
        AmbiguousOptions: a label is not one token after its prompt, or two labels share a form or a token.
    """
    texts = [[surface_forms(separator, label) for label in own] for own in labels]
    for name, options in zip(names, texts, strict=True):
        _check_apart(options, name)
    tokens = None
    if adapter.provides.tokenize:
        tokens = [one_token_forms(adapter, *each) for each in zip(prompts, names, texts, strict=True)]
    if tokens is None or calibrate is not None or not reads_ids(adapter.provides, tokens):
        rows = adapter.next_token(prompts, top=None if calibrate else longest_list(adapter.provides))
        rows = rows if calibrate is None else [calibrate(row) for row in rows]
        if tokens is not None:
            return scores_of_lists(tokens, [listed_ids(scores) for scores in rows], rows, readout)
        keys = [[[form.encode() for form in forms] for forms in options] for options in texts]
        return scores_of_lists(keys, listed_bytes(adapter, rows), rows, readout)
    rows = adapter.next_token(prompts, ids=[[token for forms in options for token in forms] for options in tokens])
    logprobs = [_summed(options, scores) for options, scores in zip(tokens, rows, strict=True)]
    mass = np.array([float(np.exp(logsumexp(row))) for row in logprobs])
    return OptionScores.from_rows(logprobs, readout, mass)


def one_token_forms(adapter: Adapter, prompt: Prompt, name: str, options: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return for each option the ids of its surface forms that are one token; the first is the template's own."""
    prompt_ids, _ = adapter.tokenize(prompt)
    found: list[list[int]] = []
    for forms in options:
        ids = []
        for form in forms:
            before, after = adapter.tokenize(prompt, form)
            if before == prompt_ids and len(after) == 1:
                ids.append(after[0])
            elif form == forms[0]:
                raise AmbiguousOptions(
                    f"Label {form!r} is not one token after the prompt of question {name!r} (it gives "
                    f"{len(after)}): choose other 'labels', change the template's separator or the end of its "
                    "body, or use readout='continuation'."
                )
        found.append(list(dict.fromkeys(ids)))
    _check_apart(found, name)
    return found


def _check_apart(options: Sequence[Sequence[str]] | Sequence[Sequence[int]], name: str) -> None:
    """Return nothing when no text, or no token, stands for two options."""
    counts = Counter(form for forms in options for form in forms)
    shared = sorted(form for form, count in counts.items() if count > 1)
    if shared:
        raise AmbiguousOptions(
            f"Labels of question {name!r} share the {'tokens' if isinstance(shared[0], int) else 'texts'} "
            f"{shared}, so the model cannot tell them apart: choose other 'labels', or use readout='continuation'."
        )


def _summed(options: list[list[int]], scores: TokenScores) -> list[float]:
    """Return the log of the summed probability of each option's surface forms."""
    return [float(logsumexp(scores.logprob_of(forms))) for forms in options]
