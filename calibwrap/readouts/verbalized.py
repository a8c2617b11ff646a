"""Verbalized readout: propose each option as the answer, and read the confidence from 0 to 10 that the model states."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Readout, Sampling
from calibwrap.capabilities import Needs
from calibwrap.errors import InputError
from calibwrap.freetext.stated import SCALE, parse_scale
from calibwrap.questions import FreeQuestion, Prompt, Question, Template
from calibwrap.readouts.p_true import shares_of
from calibwrap.scores import GUESS, Bools, Floats, OptionScores

STATED = Template(
    body="After each answer stands how confident you are that it is right: a whole number from 0, certainly wrong, to "
    "10, certainly right.\n\nQuestion: {question}\nAnswer: {options}, Confidence:",
    option="{option}",
    shows_options=True,
    name="stated",
)
"""The default: the line of Rewarding Doubt, "Answer: ..., Confidence: n", up to its number."""

STATED_CHAT = Template(
    body="Question: {question}\nProposed answer: {options}\n\nHow confident are you that the proposed answer is right? "
    "Reply with a whole number from 0, certainly wrong, to 10, certainly right, and nothing else.",
    option="{option}",
    shows_options=True,
    style="chat",
    separator="",
    name="stated-chat",
)
"""The same as a user's message, for servers that take nothing else."""

LEVELS = tuple(str(level) for level in range(SCALE + 1))
"""How the levels are written."""
_REPLY_TOKENS = 6
"""Enough for a space, "10", a full stop and an end, in any tokenizer."""
_NAMES = {template: template.name for template in (STATED, STATED_CHAT)}


@dataclass(frozen=True)
class Verbalized(Readout):
    """One prompt an option; an option's score is its stated confidence, as a share of all options' of the question.

    Where the backend scores continuations, all 11 levels are read: the stated confidence is the expected level / 10
    among them, and `label_mass` the mean probability, over the options, of stating a level at all. Elsewhere the model
    replies greedily, its number / 10 counts, and `label_mass` is the share of replies with one. An option without any
    number is `missing`: its confidence could be anything, and the bounds say so.

    Options are judged one by one, so stated confidences need not sum to 1; dividing by their sum makes them comparable
    with other readouts. Where all are 0, all options are equally probable. `stated` gives them as they were stated.

    References:
        Stangel, Bani-Harouni et al.: Rewarding doubt (2025), for the format.

    >>> Verbalized().label
    'verbalized:stated'
    """

    name: ClassVar[str] = "verbalized"
    template: Template = STATED
    """How question and proposed answer are written; `{options}` is the one option, and a level may come next."""
    min_mass: float = 0.5
    """Mean `label_mass` below which `lm.scores` warns."""

    def __post_init__(self) -> None:
        """Check that the template shows what is proposed."""
        if not self.template.shows_options:
            raise InputError(f"A stated confidence needs a template with the option; {self.template.name!r} has none.")

    @property
    def needs(self) -> Needs:  # type: ignore[override]  # a frozen record has no writable attributes
        """What the backend must be able to do."""
        return Needs(plain=self.template.style == "plain", chat=self.template.style == "chat")

    @property
    def label(self) -> str:
        """Name and template, such as "verbalized:stated"."""
        return f"verbalized:{_NAMES.get(self.template, self.template.label)}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return each option's share of the stated confidences."""
        levels, mask = self.stated(adapter, questions)
        stated = confidence_of(levels)
        silent = mask & np.isnan(stated)
        low, high = (np.where(silent, end, np.nan_to_num(stated)) for end in (0.0, 1.0))
        scores = shares_of(np.where(silent, GUESS, low), low, high, mask, self.label)
        said = np.where(mask, levels.sum(axis=2), 0.0).sum(axis=1) / mask.sum(axis=1)
        return replace(scores, missing=silent, label_mass=said)

    def stated(self, adapter: Adapter, questions: Sequence[Question]) -> tuple[Floats, Bools]:
        """Return the probabilities (N, K, 11) of stating each level of each option, and the mask (N, K) of options."""
        prompts = [proposed(self.template, one, option) for one in questions for option in one.options]
        sizes = np.array([len(question.options) for question in questions])
        mask = np.arange(sizes.max()) < sizes[:, None]
        levels = np.zeros((*mask.shape, len(LEVELS)))
        levels[mask] = read_levels(adapter, prompts, self.template.separator)
        return levels, mask


def proposed(template: Template, question: Question | FreeQuestion, answer: str) -> Prompt:
    """Return the prompt that ends where the confidence in `answer` is to be stated.

    >>> proposed(STATED, Question("Red planet?", ["Mars", "Venus"]), "Mars").splitlines()[-1]
    'Answer: Mars, Confidence:'
    """
    return template.prompt(Question(question.prompt, [answer], context=question.context), ("",))


def read_levels(adapter: Adapter, prompts: Sequence[Prompt], separator: str = " ") -> Floats:
    """Return (N, 11) probabilities that each prompt goes on with level 0 to 10; what is left of 1 is malformed.

    Where the backend does not score continuations, the level of a greedy reply has probability 1, and none has where
    the reply is malformed. The probability of "1" is without that of "10" where both begin with the same tokens.
    """
    if not adapter.provides.score:
        replies = adapter.generate(prompts, Sampling(temperature=0.0, max_tokens=_REPLY_TOKENS))
        said = [said_level(completions[0].text) for completions in replies]
        return np.array([[float(level == one) for level in range(len(LEVELS))] for one in said])
    texts = [[separator + level for level in LEVELS]] * len(prompts)
    rows = []
    for options in adapter.score(prompts, texts):
        row = np.array([np.exp(one.chosen_logprob.sum()) for one in options if one.chosen_logprob is not None])
        one, ten = (np.asarray(options[level].chosen).tolist() for level in (1, SCALE))
        if ten[: len(one)] == one:
            row[1] = max(0.0, row[1] - row[SCALE])
        rows.append(row)
    return np.array(rows)


def said_level(reply: str) -> int | None:
    r"""Return the level that a reply to "Answer: ..., Confidence:" states on that line; None where it is malformed.

    >>> [said_level(reply) for reply in (" 7", "10.", " 7\nNext", " 7.5", " 11", " high", "\n7")]
    [7, 10, 7, None, None, None, None]
    """
    stated = parse_scale(f"Answer: it, Confidence:{reply}")
    return round(stated[0].confidence * SCALE) if stated else None


def confidence_of(levels: Floats) -> Floats:
    """Return the expected level / 10 among stated levels (..., 11); NaN where none has any probability.

    >>> confidence_of(np.array([[0.0] * 5 + [0.2] + [0.0] * 4 + [0.2], [0.0] * 11])).round(6).tolist()
    [0.75, nan]
    """
    said = levels.sum(axis=-1)
    total = levels @ np.linspace(0.0, 1.0, levels.shape[-1])
    return np.asarray(np.divide(total, said, out=np.full(said.shape, np.nan), where=said > 0.0))
