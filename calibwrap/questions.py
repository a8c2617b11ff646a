"""Questions, the prompts made from them, and the templates that turn one into the other.

A template is data: a frozen record of format strings that a user can replace. Nothing here knows a tokenizer; a chat
prompt stays a list of messages until the adapter renders it with the model's own chat template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from calibwrap.errors import InputError, QuestionError

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Question:
    """A question with a closed list of options.

    Raises:
        QuestionError: no prompt, fewer than one option, an empty or repeated option, an answer out of range, or a
            group that is no text.

    >>> Question("Which planet is red?", ["Mars", "Venus"], answer=0).answer_text
    'Mars'
    """

    prompt: str
    """The question as people would read it."""
    options: Sequence[str]
    """The K possible answers, each a non-empty text, all different."""
    answer: int | None = None
    """Index of the right option, counted from 0; None when it is not known."""
    id: str = ""
    """Name of the question in journals and reports; unique within a set."""
    context: str = ""
    """Text to read before the question, such as a passage; may be empty."""
    group: str = ""
    """Name of the group that the question is of, such as its subject; empty where none is known. No model reads it."""

    def __post_init__(self) -> None:
        """Check the fields once, here, so that nobody else has to."""
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise QuestionError(f"'prompt' must be a text that is not empty. Got {self.prompt!r}.")
        if isinstance(self.options, str) or not isinstance(self.options, Sequence) or not self.options:
            raise QuestionError(f"'options' must be a list of at least one text. Got {self.options!r}.")
        for index, option in enumerate(self.options):
            if not isinstance(option, str) or not option.strip():
                raise QuestionError(f"'options[{index}]' must be a text that is not empty. Got {option!r}.")
        if len({option.strip() for option in self.options}) < len(self.options):
            raise QuestionError(f"'options' must all be different. Got {list(self.options)!r}.")
        if self.answer is not None and (
            isinstance(self.answer, bool)
            or not isinstance(self.answer, int)
            or not 0 <= self.answer < len(self.options)
        ):
            raise QuestionError(
                f"'answer' must be an index from 0 to {len(self.options) - 1}, or None. Got {self.answer!r}."
            )
        if not isinstance(self.group, str):
            raise QuestionError(f"'group' must be a text, empty where none is known. Got {self.group!r}.")
        object.__setattr__(self, "options", tuple(self.options))

    @property
    def answer_text(self) -> str | None:
        """Text of the right option, or None when it is not known."""
        return None if self.answer is None else self.options[self.answer]


@dataclass(frozen=True)
class FreeQuestion:
    """A question that is answered in free text, with the texts that count as right.

    Raises:
        QuestionError: no prompt, or an answer that is not a text or is empty.

    >>> FreeQuestion("Which planet is red?", ["Mars", "the planet Mars"]).answers
    ('Mars', 'the planet Mars')
    """

    prompt: str
    """The question as people would read it."""
    answers: Sequence[str] = ()
    """Every text that is right, spelt in one way; none where it is not known."""
    id: str = ""
    """Name of the question in journals and reports; unique within a set."""
    context: str = ""
    """Text to read before the question, such as a passage; may be empty."""

    def __post_init__(self) -> None:
        """Check the fields once."""
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise QuestionError(f"'prompt' must be a text that is not empty. Got {self.prompt!r}.")
        if isinstance(self.answers, str) or not isinstance(self.answers, Sequence):
            raise QuestionError(f"'answers' must be a list of texts. Got {self.answers!r}.")
        for index, answer in enumerate(self.answers):
            if not isinstance(answer, str) or not answer.strip():
                raise QuestionError(f"'answers[{index}]' must be a text that is not empty. Got {answer!r}.")
        object.__setattr__(self, "answers", tuple(self.answers))


@dataclass(frozen=True)
class Chat:
    """A prompt of messages, rendered by the adapter with the model's own chat template.

    >>> Chat((("user", "Is water wet?"),)).messages[0][0]
    'user'
    """

    messages: tuple[tuple[str, str], ...]
    """(role, content) pairs; roles are those of the model's template: system, user, assistant."""
    prefix: str = ""
    """How the assistant's answer begins; the model goes on from there."""

    def __post_init__(self) -> None:
        """Check that there is something to answer."""
        if not self.messages or not any(content.strip() for _, content in self.messages):
            raise InputError(f"'messages' must hold at least one message with text. Got {self.messages!r}.")


Prompt = str | Chat
"""What a model reads: plain text, or chat messages."""


@dataclass(frozen=True)
class Template:
    r"""How a question becomes a prompt. Every field is a format string; replace any of them.

    Fields may use ``{context}``, ``{question}``, ``{options}``, and for one option line ``{label}`` and ``{option}``.

    >>> t = Template(body="Q: {question}\n{options}A:", option="{label}. {option}\n", shows_options=True)
    >>> t.prompt(Question("Red planet?", ["Mars", "Venus"]), ("A", "B"))
    'Q: Red planet?\nA. Mars\nB. Venus\nA:'
    """

    body: str = "Question: {question}\nAnswer:"
    """The whole prompt, plain, or the user's message, chat."""
    context: str = "{context}\n\n"
    """What stands before `body` when the question has a context."""
    option: str = "{label}. {option}\n"
    """One line of the list of options."""
    shows_options: bool = False
    """Whether the model sees the options (label readout) or only one as a continuation."""
    style: Literal["plain", "chat"] = "plain"
    """Plain text, or one user message in the model's chat template."""
    system: str = ""
    """System message, chat only; none when empty."""
    prefix: str = ""
    """How the assistant's answer begins, chat only."""
    separator: str = " "
    """What stands between prompt and answer; it belongs to the answer."""
    name: str = field(default="custom", compare=False)
    """Name under which reports and saved calibrators mention the template."""

    @property
    def label(self) -> str:
        """Name of a built-in template; name and content hash of any other, so that two never pass for one."""
        if TEMPLATES.get(self.name) == self:
            return self.name
        import hashlib  # a shared library of its own, which few need

        content = repr([getattr(self, f.name) for f in fields(self) if f.compare])
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def prompt(self, question: Question | FreeQuestion, labels: Sequence[str] = ()) -> Prompt:
        """Return what the model reads for `question`; `labels` name its options in order.

        Raises:
            InputError: fewer labels than options, no options to show, or a format string with an unknown field.
        """
        try:
            lines = ""
            if self.shows_options:
                if isinstance(question, FreeQuestion):
                    raise InputError(
                        f"Template {self.name!r} shows options, and question {question.id!r} has none: use SHORT, "
                        "SHORT_CHAT, or a template of your own."
                    )
                if len(labels) < len(question.options):
                    raise InputError(
                        f"Expected a label for each of the {len(question.options)} options of question "
                        f"{question.id!r}. Got {len(labels)} labels; pass more in 'labels'."
                    )
                pairs = zip(labels, question.options, strict=False)
                lines = "".join(self.option.format(label=label, option=option) for label, option in pairs)
            text = self.body.format(question=question.prompt, options=lines)
            if question.context:
                text = self.context.format(context=question.context) + text
        except (KeyError, IndexError) as error:
            raise InputError(
                f"Template {self.name!r} uses the unknown field {error}; known are {{question}}, {{options}}, "
                "{context}, {label} and {option}."
            ) from error
        if self.style == "plain":
            return text
        system = (("system", self.system),) if self.system else ()
        return Chat((*system, ("user", text)), prefix=self.prefix)


CLOZE = Template(name="cloze")
"""The default of the continuation readout: the question alone; each option is tried as its answer."""

CLOZE_CHAT = Template(body="{question}", style="chat", separator="", name="cloze-chat")
"""The same in the model's chat template: each option is tried as the assistant's answer."""

LETTER = Template(
    body="The following is a multiple choice question. Answer with the letter of the right option only.\n\n"
    "Question: {question}\n{options}Answer:",
    shows_options=True,
    name="letter",
)
"""The default of the label readout: lettered options, one letter as the answer."""

LETTER_CHAT = Template(
    body="Answer this multiple choice question with the letter of the right option only.\n\n{question}\n{options}",
    shows_options=True,
    style="chat",
    separator="",
    name="letter-chat",
)
"""The same in the model's chat template."""

_EXAMPLES = (
    "Question: Which of these is a fruit?\nA. a stone\nB. an apple\nC. a chair\n"
    "Reasoning: Apples grow on trees and are eaten.\nAnswer: B\n\n"
    "Question: What do bees make?\nA. honey\nB. glass\nC. paper\nD. salt\n"
    "Reasoning: Bees turn nectar into honey.\nAnswer: A\n\n"
    "Question: When is it dark outside?\nA. at noon\nB. in the morning\nC. in summer\nD. at night\n"
    "Reasoning: The sun is not seen at night.\nAnswer: D\n\n"
)
"""Three worked questions: without them a small model seldom ends with a letter."""

LETTER_REASONED = Template(
    body="Answer each multiple choice question: reason in one short sentence, then give the letter of the right "
    "option.\n\n" + _EXAMPLES + "Question: {question}\n{options}Reasoning:",
    shows_options=True,
    name="letter-reasoned",
)
"""For decoders that draw traces, plain: a sentence of reasoning, then "Answer: X". End traces at a blank line."""

LETTER_REASONED_CHAT = Template(
    body="Reason about this multiple choice question in one or two short sentences. Then end with a line that holds "
    'nothing but "Answer: " and the letter of the right option.\n\n{question}\n{options}',
    shows_options=True,
    style="chat",
    separator="",
    name="letter-reasoned-chat",
)
"""The same in the model's chat template, without examples; small models do better with the plain one."""

SHORT = Template(body="Answer with a few words.\n\nQuestion: {question}\nAnswer:", name="short")
"""The default for free-text answers of a model without a chat template; set `stop=("\\n",)` in the decoder."""

SHORT_CHAT = Template(body="Answer with a few words only.\n\n{question}", style="chat", separator="", name="short-chat")
"""The default for free-text answers in the model's chat template."""

TEMPLATES = {
    template.name: template
    for template in (
        CLOZE,
        CLOZE_CHAT,
        LETTER,
        LETTER_CHAT,
        LETTER_REASONED,
        LETTER_REASONED_CHAT,
        SHORT,
        SHORT_CHAT,
    )
}
"""The built-in templates by name."""


def check_questions(questions: Sequence[Question]) -> None:
    """Return nothing when there is at least one question and all are.

    Raises:
        InputError: none, or something else, such as the name of a file.

    >>> check_questions([Question("Red planet?", ["Mars", "Venus"])])
    """
    if isinstance(questions, str) or not isinstance(questions, Sequence):
        raise InputError(f"'questions' must be a list of Question: load_questions(...) reads files. Got {questions!r}.")
    if not questions:
        raise InputError("'questions' is empty; pass at least one question.")
    for index, question in enumerate(questions):
        if not isinstance(question, Question):
            raise InputError(
                f"'questions[{index}]' must be a Question: cw.Question(prompt=..., options=[...]). Got {question!r}"
                + (
                    "; for free text there are answer_batch() and fit_answers()." * isinstance(question, FreeQuestion)
                    or "."
                )
            )


def answers_of(questions: Sequence[Question]) -> list[int]:
    """Return the indices of the right options.

    Raises:
        QuestionError: names the questions without an answer.
        InputError: something is no question with options.
    """
    if questions:
        check_questions(questions)
    unknown = [
        question.id or f"number {index + 1}" for index, question in enumerate(questions) if question.answer is None
    ]
    if unknown:
        raise QuestionError(
            f"Answers are needed, and {len(unknown)} of {len(questions)} questions have none (first: {unknown[0]}): "
            "add them. Only to calibrate there are methods without labels, such as 'daca'."
        )
    return [question.answer for question in questions if question.answer is not None]


def groups_of(questions: Sequence[Question]) -> list[str]:
    """Return the name of each question's group.

    Raises:
        QuestionError: says how many questions have none, and names the first.
        InputError: something is no question with options.

    >>> groups_of([Question("Red planet?", ["Mars", "Venus"], group="astronomy")])
    ['astronomy']
    """
    check_questions(questions)
    unknown = [question.id or f"number {index + 1}" for index, question in enumerate(questions) if not question.group]
    if unknown:
        raise QuestionError(
            f"The group of every question is needed, and {len(unknown)} of {len(questions)} questions have none "
            f"(first: {unknown[0]}): give each a 'group', or use a method without groups, such as 'temperature'."
        )
    return [question.group for question in questions]
