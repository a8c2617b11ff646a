"""What the figures of a section say, in words that somebody who never heard of calibration understands."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibwrap.answer_scores import of_answers
from calibwrap.questions import Question
from calibwrap.report.records import Section, Series
from calibwrap.report.words import counted, interval, share, written
from calibwrap.summary import Figure, chance_ece, difference, figures

FEW = 100
"""Below this many questions the report warns that the intervals are wide."""


@dataclass(frozen=True)
class Headline:
    """The figures of one series, and what changed against the first series of its section."""

    name: str
    """Name of the series."""
    figures: dict[str, Figure]
    """The figures of calibwrap.summary, by name."""
    changes: dict[str, Figure]
    """This series minus the first one, by name; empty for the first one itself."""
    chance: Figure
    """The ECE that exactly right confidences would show by luck on these questions."""


def summary(series: Sequence[Series], questions: Sequence[Question], seed: int = 0) -> tuple[Headline, ...]:
    """Return the figures of each series on the questions that have an answer; empty when none has.

    Raises:
        InputError: series and questions that do not belong together.

    >>> from calibwrap.scores import OptionScores
    >>> raw = Series("raw", OptionScores([[0.0, -1.0], [0.0, -2.0]], readout="label"))
    >>> asked = [Question("Red?", ["Mars", "Venus"], answer=0), Question("Hot?", ["Mars", "Venus"], answer=1)]
    >>> summary([raw], asked)[0].figures["accuracy"].value
    0.5
    """
    section = Section("summary", questions, series)
    if not section.answered.any():
        return ()
    rows = [one.scores.take(section.answered) for one in section.series]
    return tuple(
        Headline(
            name=one.name,
            figures=of_answers(scores, figures(scores, section.answers, seed=seed)),
            changes=of_answers(scores, difference(rows[0], scores, section.answers, seed=seed)) if index else {},
            chance=of_answers(scores, {"ece": chance_ece(scores, seed=seed)})["ece"],
        )
        for index, (one, scores) in enumerate(zip(section.series, rows, strict=True))
    )


def sentences(headlines: Sequence[Headline], questions: int) -> list[str]:
    """Return the result in plain words: what the model said and was, then one sentence or two for each calibration.

    Args:
        headlines: the first is the state before; empty when there are no answers.
        questions: number of questions that have an answer.
    """
    if not headlines:
        return ["No question has a known answer, so accuracy and calibration cannot be measured here."]
    first, *others = headlines
    right, said = _value(first, "accuracy"), _value(first, "mean_confidence")
    found = [
        f"On {counted(questions, 'held-out question')} the model was right {share(right)} of the time "
        f"and said {share(said)} on average ({first.name}): {_tendency(first)}"
    ]
    found += [_verdict(first, other) for other in others]
    if questions < FEW:
        found.append(
            f"With only {counted(questions, 'question')} the intervals are wide: read them before the figures."
        )
    return found


def _value(headline: Headline, name: str) -> float:
    """Return a figure that is defined for every question set."""
    value = headline.figures[name].value
    return float("nan") if value is None else value


def _tendency(headline: Headline) -> str:
    """Return whether the stated confidences are too high, too low or in order."""
    if headline.figures["ece"].value is None:
        return f"the calibration error (ECE) is {headline.figures['ece'].reason}."
    gap = _value(headline, "mean_confidence") - _value(headline, "accuracy")
    error, luck = _value(headline, "ece"), headline.chance.high
    if luck is not None and error <= luck:
        return f"no more off than luck explains (ECE {error:.3f}; up to {luck:.3f} is luck)."
    if abs(gap) < error / 2:
        return f"the average fits better than the single answers do (ECE {error:.3f})."
    return f"it claims too {'much' if gap > 0 else 'little'} (ECE {error:.3f})."


def _verdict(first: Headline, other: Headline) -> str:
    """Return what one calibration did, worse and unclear results as plainly as good ones."""
    change = other.changes["ece"]
    if change.value is None:
        told = f"After “{other.name}” it says {share(_value(other, 'mean_confidence'))} on average{_accuracy(other)}; "
        return f"{told}its calibration error (ECE) is {change.reason}."
    moved = f"from {_value(first, 'ece'):.3f} to {_value(other, 'ece'):.3f}"
    began = f"After “{other.name}” it says {share(_value(other, 'mean_confidence'))} on average{_accuracy(other)}; "
    if change.low is None or change.high is None:
        ending = (
            f"its calibration error (ECE) went {moved}, without an interval ({change.reason}): nothing is shown by it."
        )
    else:
        reach = f"change {written('ece', change.value or 0.0, signed=True)}, 95% interval "
        reach += interval("ece", change, signed=True)
        if change.high < 0:
            ending = f"its calibration error (ECE) fell {moved} ({reach}): better."
        elif change.low > 0:
            ending = f"its calibration error (ECE) ROSE {moved} ({reach}): worse than no calibration."
        else:
            ending = (
                f"its calibration error (ECE) went {moved} ({reach}): that includes zero, so no difference is shown."
            )
    return began + ending + _losses(other)


def _accuracy(other: Headline) -> str:
    """Return what happened to the accuracy."""
    change = other.changes["accuracy"].value
    if not change:
        return f" and is still right {share(_value(other, 'accuracy'))} of the time"
    return f" and is right {share(_value(other, 'accuracy'))} of the time"


def _losses(other: Headline) -> str:
    """Return which other figures clearly became worse: the calibration error alone can hide a loss."""
    directions = {"accuracy": -1.0, "brier": 1.0, "nll": 1.0}
    names = {"accuracy": "accuracy", "brier": "Brier score", "nll": "negative log-likelihood"}
    lost = []
    for name, sign in directions.items():
        change = other.changes[name]
        if change.low is not None and change.high is not None and min(sign * change.low, sign * change.high) > 0:
            lost.append(f"{names[name]} {written(name, change.value or 0.0, signed=True)}")
    if not lost:
        return ""
    error = other.changes["ece"]
    opening = "Worse too" if error.low is not None and error.low > 0 else "But clearly worse"
    return f" {opening}: {' and '.join(lost)}."
