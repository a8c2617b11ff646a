"""Evaluations of the same questions side by side, such as those of several readouts: one section out of several."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibwrap.errors import InputError
from calibwrap.evaluate import Evaluation
from calibwrap.questions import Question
from calibwrap.report import Section
from calibwrap.report.origins import Origin, usage_text

COMPARISON = "comparison.html"
"""Name of the page of several evaluations, in the folder of the first: its own page stays."""

Parts = Mapping[str, tuple[Evaluation, Section]]
"""Evaluations and their sections, by the name that people read for each."""


def shown_names(folders: Sequence[Path]) -> dict[Path, str]:
    """Return what each folder is called: its name, or the whole path where two have the same.

    Raises:
        InputError: a folder comes twice.

    >>> list(shown_names([Path("a/label"), Path("a/permuted")]).values())
    ['label', 'permuted']
    """
    if len(set(folders)) < len(folders):
        raise InputError(f"Each folder may come once. Got {', '.join(map(str, folders))}.")
    names = {folder: folder.name or str(folder) for folder in folders}
    return names if len(set(names.values())) == len(names) else {folder: str(folder) for folder in folders}


def side_by_side(parts: Parts) -> tuple[str, Section]:
    """Return a title and one section with all series; a question counts where no fit of any evaluation has seen it.

    Raises:
        InputError: not the same questions, free text, or no question that is held out everywhere.
    """
    if len(parts) == 1:
        [(name, (_, section))] = parts.items()
        return name, section
    results = {name: result for name, (result, _) in parts.items()}
    _check_same(parts)
    held_out = np.logical_and.reduce([result.held_out for result in results.values()])
    if not held_out.any():
        raise InputError("No question is held out in all evaluations: evaluate with the same --seed and --fit-share.")
    series = []
    for name, (result, section) in parts.items():
        kept = held_out[result.held_out]
        series += [replace(one, name=f"{name}: {one.name}", scores=one.scores.take(kept)) for one in section.series]
    questions = [
        question for question, kept in zip(next(iter(results.values())).questions, held_out, strict=True) if kept
    ]
    notes = [f"{name}: {section.note}" for name, (_, section) in parts.items() if section.note]
    counts = f"These are the {len(questions)} questions that no fit of any of the {len(parts)} evaluations has seen."
    title = " beside ".join(parts)
    return title, Section(title, questions, series, " ".join([counts, *notes]))


def origins_of(results: Mapping[str, Evaluation]) -> dict[str, Origin]:
    """Return where the numbers of evaluations come from; of several, each model is named after its evaluation."""
    found: dict[str, Origin] = {}
    for name, result in results.items():
        of = "" if len(results) == 1 else f" of {name}"
        found[f"Model{of}"] = result.provenance
        if result.reference is not None:
            found[f"Reference{of}"] = result.reference
        if result.usage:
            found[f"Spent{of}"] = usage_text(result.usage)
    return found


def _asked(question: Question) -> tuple[object, ...]:
    """Return what makes two questions the same; that one file tells a group and another does not is no difference."""
    return question.id, question.prompt, question.options, question.answer, question.context


def _check_same(parts: Parts) -> None:
    """Return nothing when all evaluations are of the same questions with options, in the same order."""
    first = next(iter(parts))
    wanted = [_asked(question) for question in parts[first][0].questions]
    for name, (result, section) in parts.items():
        if section.is_free:
            raise InputError(
                f"{name} holds answers in free text. Which of them are right depends on the answers, so that they "
                "cannot stand side by side: report each folder alone."
            )
        asked = [_asked(question) for question in result.questions]
        if asked != wanted:
            differ = [row for row, pair in enumerate(zip(asked, wanted, strict=False)) if pair[0] != pair[1]]
            where = f"question number {differ[0] + 1} is another one" if differ else f"{len(asked)}, not {len(wanted)}"
            raise InputError(
                f"{name} is not of the same questions as {first} ({where}): evaluate both with the same "
                "--data, --split, --limit and --seed."
            )
