"""The mistakes that the model was surest of."""

from collections.abc import Sequence

import numpy as np

from calibwrap.answer_scores import UNANSWERED, unread
from calibwrap.questions import Question
from calibwrap.report.markup import Markup, escaped, join, own, tag
from calibwrap.report.records import Section
from calibwrap.report.words import counted, share

MOST = 10
"""How many mistakes are shown."""


def surest_mistakes(section: Section, most: int = MOST) -> list[int]:
    """Return the rows that the first series got wrong, highest confidence first, at most `most`.

    A question that a decoder left without an answer (choice -1) is no mistake to look at.

    >>> from calibwrap.report.records import Series
    >>> from calibwrap.scores import OptionScores
    >>> asked = tuple(Question("?", ["a", "b"], answer=1) for _ in range(3))
    >>> raw = Series("raw", OptionScores([[0.0, -1.0], [0.0, -3.0], [-1.0, 0.0]], readout="label"))
    >>> surest_mistakes(Section("set", asked, (raw,)))
    [1, 0]
    """
    scores = section.series[0].scores
    answers = np.array([-1 if q.answer is None else q.answer for q in section.questions])
    wrong = np.flatnonzero(section.answered & (scores.choice != answers) & (scores.choice != UNANSWERED))
    order = np.argsort(-scores.confidence[wrong], kind="stable")
    return [int(row) for row in wrong[order][:most]]


def mistakes_list(section: Section) -> Markup:
    """Return the surest mistakes as a list: the question, what was chosen, what is right, the confidences."""
    rows = surest_mistakes(section)
    if not rows:
        return tag("p", _silent(section) or "The model made no mistake here.")
    intro = f"Wrong answers of “{section.series[0].name}”, the surest first."
    items = [_mistake(section, section.questions[row], row) for row in rows]
    return join([tag("p", f"{intro} {_silent(section)}".strip(), class_="soft"), tag("ol", *items, class_="mistakes")])


def _silent(section: Section) -> str:
    """Return how many questions count as wrong because nothing could be read; empty where all have an answer."""
    count = unread(section.series[0].scores.take(section.answered))
    if not count:
        return ""
    asked = counted(int(section.answered.sum()), "question")
    return f"Of {asked}, {count} have no answer that could be read: each counts as wrong, and there is nothing to show."


def _mistake(section: Section, question: Question, row: int) -> Markup:
    """Return one mistake."""
    first = section.series[0].scores
    chosen = int(first.choice[row])
    passage = "The question refers to a passage that is not shown." if question.context else None
    said = [_said(section, question, row, index, chosen) for index in range(len(section.series))]
    return tag(
        "li",
        tag("p", own(question.prompt), _identity(question)),
        passage and tag("p", passage, class_="soft"),
        tag(
            "dl",
            *_pair("chose", own(question.options[chosen], 160)),
            *_pair("right is", own(question.answer_text or "", 160)),
            *_pair("said", join(said, between=" → ")),
        ),
    )


def _identity(question: Question) -> Markup | None:
    """Return the question's name, where it has one."""
    return join([" ", tag("small", own(question.id, 60), class_="soft")]) if question.id else None


def _said(section: Section, question: Question, row: int, index: int, chosen: int) -> Markup:
    """Return the confidence of one series, and its choice where that is another one."""
    scores = section.series[index].scores
    choice = int(scores.choice[row])
    value = tag(
        "span",
        tag("span", class_=f"swatch s{index % 4}"),
        tag("strong", share(float(scores.confidence[row]))),
        class_="said",
    )
    other = None if choice in (chosen, UNANSWERED) else join([" for ", own(question.options[choice], 80)])
    return tag("span", value, other, title=section.series[index].name)


def _pair(name: str, value: Markup) -> Sequence[Markup]:
    """Return a term and what it is."""
    return tag("dt", escaped(name)), tag("dd", value)
