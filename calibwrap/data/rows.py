"""One row of a question set, from whichever file, checked and turned into a Question or a FreeQuestion."""

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from calibwrap.errors import QuestionError
from calibwrap.questions import LETTERS, FreeQuestion, Question

if TYPE_CHECKING:
    from pydantic import BaseModel

Asked = Question | FreeQuestion
"""What a row becomes: a question with options, or one that is answered in free text."""
FIELDS = ("id", "prompt", "options", "answer", "answers", "context", "group", "metadata")
"""Fields that a row may have, `answers` in place of `options` and `answer`; `metadata` is not read."""
ALIASES = {"question": "prompt", "choices": "options"}
"""Other names that are accepted."""
_EXPECTED = {
    "id": "a text or a whole number",
    "prompt": "a text",
    "options": 'a list of texts, or {"text": [...], "label": [...]}',
    "answer": "an index counted from 0, the option's text, its letter, or null",
    "answers": "a list of texts, each a spelling of a right answer, or null",
    "context": "a text",
    "group": "a text or a whole number, the name of the question's group, or null",
}


def question_from_row(row: Mapping[str, Any], default_id: str, *, merge: bool = False) -> Asked:
    """Return the question in `row`, whose fields are those of `FIELDS` under either name.

    Args:
        row: the fields; `prompt` is required, and either `options` or, for a `FreeQuestion`, `answers`.
        default_id: the id of a question that has none of its own.
        merge: whether options that are written alike become one, for published sets that repeat a distractor. The
            right answer stays the same text, so nothing about the question changes but the number of its options.

    Raises:
        QuestionError: a field is missing, unknown, given twice or of the wrong kind, or the answer fits no option.

    >>> question_from_row({"question": "Red planet?", "choices": ["Mars", "Venus"], "answer": "B"}, "line-1").answer
    1
    >>> question_from_row({"question": "Red planet?", "answers": ["Mars"]}, "line-1").answers
    ('Mars',)
    """
    fields = _canonical(row)
    checked = _validated(fields)
    name = default_id if checked.id is None else str(checked.id)
    if not name.strip():
        raise QuestionError("'id' is empty. Give a name, or leave the field out.")
    if "answers" in fields:
        return FreeQuestion(checked.prompt, checked.answers or (), id=name, context=checked.context or "")
    options, labels = _options(checked.options)
    answer = answer_index(checked.answer, options, labels)
    if merge:
        options, answer = merge_repeated(options, answer)
    group = "" if checked.group is None else str(checked.group)
    return Question(checked.prompt, options, answer=answer, id=name, context=checked.context or "", group=group)


def answer_index(answer: int | str | None, options: Sequence[str], labels: Sequence[str] = ()) -> int | None:
    """Return the index of the right option, whichever way `answer` names it.

    A number is an index counted from 0. A text is the option's own text or its label: one of `labels` where the set
    has them (ARC labels some questions 1, 2, 3, 4), else a letter. A digit in quotes without labels is refused, because
    sets in use disagree whether it counts from 0 or from 1; so is a text that is one option's text and another's label.

    Raises:
        QuestionError: the text names no option, or two different ones.

    >>> answer_index("2", ["Mars", "Venus"], labels=["1", "2"])
    1
    """
    if answer is None or isinstance(answer, int):
        return answer
    text = answer.strip()
    names = [label.strip() for label in labels] or [*LETTERS[: len(options)]]
    wanted = text if labels else text.upper()
    by_label = {index for index, name in enumerate(names) if name == wanted}
    by_text = {index for index, option in enumerate(options) if option.strip() == text}
    first = min(by_text, default=None)
    found = by_label if first is None else by_label | {first}
    if len(found) == 1:
        return found.pop()
    if found:
        raise QuestionError(
            f"'answer' {answer!r} is the label of one option and the text of another. Give the index, counted from 0."
        )
    hint = " A digit in quotes may count from 0 or from 1: write the index as a number, from 0." * text.isdigit()
    raise QuestionError(f"'answer' {answer!r} is no option's text and none of the labels {', '.join(names)}.{hint}")


def merge_repeated(options: Sequence[str], answer: int | None) -> tuple[list[str], int | None]:
    """Return the options without repetitions, in order, and the answer's index among them.

    >>> merge_repeated(["12", "-4", "4", "12"], 3)
    (['12', '-4', '4'], 0)
    """
    texts = [option.strip() for option in options]
    first = [index for index, text in enumerate(texts) if texts.index(text) == index]
    kept = [texts[index] for index in first]
    if answer is not None and 0 <= answer < len(texts):
        answer = kept.index(texts[answer])
    return [options[index] for index in first], answer


def _canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `row` under the names of `FIELDS`."""
    fields: dict[str, Any] = {}
    for name, value in row.items():
        field = ALIASES.get(name, name)
        if field not in FIELDS:
            near = difflib.get_close_matches(name, [*FIELDS, *ALIASES], n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join([*FIELDS, *ALIASES])
            raise QuestionError(f"Unknown field {name!r}.{meant} Known are {known}; put your own under 'metadata'.")
        if field in fields:
            raise QuestionError(f"Field {field!r} is given twice, once as {name!r}. Leave one out.")
        fields[field] = value
    if "answers" in fields and fields.get("group") is not None:
        raise QuestionError("Field 'group' is for questions with options. Put it under 'metadata' in free text.")
    if "answers" in fields and ("options" in fields or "answer" in fields):
        raise QuestionError(
            "Field 'answers' is for free text, and this question has options too. Keep 'options' and 'answer', or "
            "'answers' alone."
        )
    needed = ("prompt",) if "answers" in fields else ("prompt", "options")
    missing = [name for name in needed if name not in fields]
    if missing:
        raise QuestionError(
            f"Field {missing[0]!r} is missing. Every question needs 'prompt' and 'options', or 'answers' for free "
            "text, which is null or [] where none is known."
        )
    return fields


def _validated(fields: Mapping[str, Any]) -> Any:
    """Return the fields as a checked record, or say which one is of the wrong kind."""
    from pydantic import ValidationError

    try:
        return _row_model()(**fields)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        shown = repr(fields[name])
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise QuestionError(f"{name!r} must be {_EXPECTED[name]}. Got {shown}.") from error


def _options(given: Any) -> tuple[list[str], list[str]]:
    """Return the texts and, where the set has them, the labels."""
    if isinstance(given, list):
        return given, []
    if len(given.text) != len(given.label) or len(set(given.label)) < len(given.label):
        raise QuestionError(
            f"'options' must have one label for each text, all different. Got {len(given.text)} texts and the labels "
            f"{given.label}."
        )
    return given.text, given.label


@cache
def _row_model() -> "type[BaseModel]":
    """Return the model of a row, made on first use because making it costs a fifth of a second."""
    from pydantic import BaseModel, ConfigDict, JsonValue

    class Labelled(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        text: list[str]
        label: list[str]

    class Row(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        id: str | int | None = None
        prompt: str
        options: list[str] | Labelled = []
        answer: int | str | None = None
        answers: list[str] | None = None
        context: str | None = None
        group: str | int | None = None
        metadata: JsonValue = None

    return Row
