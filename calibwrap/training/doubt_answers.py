"""The first half of a round of Rewarding Doubt: a question becomes an answer of the current model, and a verdict.

Nothing here has a gradient: answers are drawn by the runtime that reads models everywhere else, and become part of the
prompt after which the confidence is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from calibwrap.base import Adapter, Calibrator, Level, Sampling
from calibwrap.errors import InputError, PromptTooLong, QuestionError
from calibwrap.freetext.judging import Judge, exact_match
from calibwrap.freetext.normalise import exact
from calibwrap.questions import FreeQuestion, Question
from calibwrap.readouts.verbalized import LEVELS, STATED
from calibwrap.scores import Floats, log_softmax

_BEFORE, _, _AFTER = STATED.body.partition(" {options}")
_ANSWERING = replace(STATED, body=_BEFORE, shows_options=False, name="answering")
_STOP = (_AFTER, "\n")
"""What ends a drawn answer: the words before the confidence, or the line."""

Row = Mapping[str, Any]
"""One question as the trainers' data sets hold it: prompt, options, references, question."""
Uniform = Callable[[], float]
"""Returns a random number from [0, 1); the caller's, so that its state can be stored."""

same_option: Judge = partial(exact_match, normalise=exact)
"""Whether an answer is the right option, letter by letter; TriviaQA's rules would take "-5" for "5"."""


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn: the settings of the published code."""

    temperature: float = 0.6
    """Sampling temperature; 0 takes the likeliest."""
    top_p: float = 0.9
    """Share of the probability that is drawn from, the likeliest first."""
    max_tokens: int = 32
    """Longest answer in free text."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if not 0.0 <= self.temperature < np.inf or not 0.0 < self.top_p <= 1.0 or self.max_tokens < 1:
            raise InputError(f"'temperature' >= 0, 'top_p' in (0, 1] and 'max_tokens' >= 1 are needed. Got {self}.")


@dataclass(frozen=True)
class Nucleus(Calibrator):
    """Draws from the smallest set of tokens that holds `top_p` of the probability at `temperature`.

    References:
        Holtzman et al.: The curious case of neural text degeneration (2020).

    >>> Nucleus(top_p=0.7)(np.log([[0.5, 0.3, 0.2]])).round(4).tolist()
    [[-0.47, -0.9808, -inf]]
    """

    kind: ClassVar[str] = "nucleus"
    level: Level = "token"
    temperature: float = 1.0
    """Sampling temperature, above 0."""
    top_p: float = 1.0
    """In (0, 1]."""

    def logits(self, logprobs: Floats) -> Floats:
        """Return (N, V) log-probabilities; -inf outside the set."""
        scaled = log_softmax(logprobs / self.temperature)
        order = np.argsort(-scaled, axis=-1, kind="stable")
        probabilities = np.exp(np.take_along_axis(scaled, order, axis=-1))
        outside = np.cumsum(probabilities, axis=-1) - probabilities >= self.top_p
        dropped = np.zeros_like(outside)
        np.put_along_axis(dropped, order, outside, axis=-1)
        return np.where(dropped, -np.inf, scaled)


def question_rows(questions: Sequence[Question | FreeQuestion]) -> list[dict[str, Any]]:
    """Return the questions as rows of a data set; "prompt" ends where the answer begins.

    Raises:
        QuestionError: a right answer is not known.

    >>> row = question_rows([Question("Red planet?", ["Mars", "Venus"], answer=0)])[0]
    >>> row["prompt"].splitlines()[-1], row["options"], row["references"]
    ('Answer:', ['Mars', 'Venus'], ['Mars'])
    """
    rows = []
    for index, question in enumerate(questions):
        name = question.id or f"number {index + 1}"
        if isinstance(question, FreeQuestion):
            options, references = [], list(question.answers)
        else:
            options, references = list(question.options), [one for one in (question.answer_text,) if one is not None]
        if not references:
            raise QuestionError(f"Question {name!r} has no right answer to reward: add one, or leave the question out.")
        prompt = _ANSWERING.prompt(question)
        rows.append({"prompt": prompt, "question": name, "options": options, "references": references})
    return rows


def judged_rows(
    questions: Sequence[Question | FreeQuestion], judge: Literal["options", "aliases"]
) -> list[dict[str, Any]]:
    """Return the questions as `question_rows` does, all of the kind that the judge of that name wants.

    Raises:
        QuestionError: a right answer is not known.
        InputError: questions with options for judge "aliases", or free questions for judge "options".
    """
    rows = question_rows(questions)
    wanted = judge == "options"
    wrong = next((row for row in rows if bool(row["options"]) != wanted), None)
    if wrong is not None:
        raise InputError(
            f"judge '{judge}' wants questions {'with' if wanted else 'without'} options. Question "
            f"{wrong['question']!r} has {len(wrong['options'])}: set judge to "
            f"'{'aliases' if wanted else 'options'}', or take another question set."
        )
    return rows


def confidence_prompt(row: Row, answer: str) -> str:
    r"""Return the prompt that ends where the confidence in `answer` is to be stated, as the readout writes it.

    >>> confidence_prompt({"prompt": "Question: Red planet?\nAnswer:"}, "Mars")
    'Question: Red planet?\nAnswer: Mars, Confidence:'
    """
    return f"{row['prompt']} {answer}{_AFTER}"


def drawn_answers(adapter: Adapter, rows: Sequence[Row], drawing: Drawing, uniform: Uniform) -> list[str]:
    """Return an answer of the model to each row: one of its options by their probabilities, or a text.

    An option is drawn from the options' summed log-probabilities, which are the model's own odds among them.
    """
    closed = [index for index, row in enumerate(rows) if row["options"]]
    free = [index for index, row in enumerate(rows) if not row["options"]]
    answers: dict[int, str] = {}
    if closed:
        prompts = [rows[index]["prompt"] for index in closed]
        texts = [[" " + option for option in rows[index]["options"]] for index in closed]
        for index, scored in zip(closed, adapter.score(prompts, texts), strict=True):
            sums = [float(one.chosen_logprob.sum()) for one in scored if one.chosen_logprob is not None]
            answers[index] = rows[index]["options"][_picked(np.array(sums), drawing, uniform)]
    if free:
        greedy = drawing.temperature == 0.0
        steer = None if greedy else Nucleus(temperature=drawing.temperature, top_p=drawing.top_p)
        seed = None if greedy else int(uniform() * 2**31)
        sampling = Sampling(temperature=0.0 if greedy else 1.0, max_tokens=drawing.max_tokens, seed=seed, stop=_STOP)
        replies = adapter.generate([rows[index]["prompt"] for index in free], sampling, steer)
        answers |= {index: reply[0].text.strip() for index, reply in zip(free, replies, strict=True)}
    return [answers[index] for index in range(len(rows))]


def judged(rows: Sequence[Row], answers: Sequence[str], judge: Judge | None = None) -> list[bool]:
    """Return which answers are right: by `judge`, else the very option, or an alias by TriviaQA's rules.

    >>> judged([{"options": [], "references": ["Mars"]}], ["the  mars."])
    [True]
    """
    verdicts = []
    for row, answer in zip(rows, answers, strict=True):
        own = judge or (same_option if row["options"] else exact_match)
        verdicts.append(own(answer, row["references"]) >= 0.5)
    return verdicts


def check_lengths(adapter: Adapter, rows: Sequence[Row], answer_tokens: int, max_length: int) -> None:
    """Return nothing when every question fits, with its longest answer and the confidence.

    Raises:
        PromptTooLong: names the first question that does not.
    """
    for row in rows:
        asked = (confidence_prompt(row, answer) for answer in row["options"] or ("",))
        read = max(sum(map(len, adapter.tokenize(prompt, f" {LEVELS[-1]}"))) for prompt in asked)
        length = read + 1 + (0 if row["options"] else answer_tokens)
        if length > max_length:
            raise PromptTooLong(
                f"Question {row['question']!r} needs {length} tokens with its answer and confidence, and 'max_length' "
                f"is {max_length}: raise it, or leave the question out; nothing is cut."
            )


def _picked(logprobs: Floats, drawing: Drawing, uniform: Uniform) -> int:
    """Return the index that is drawn from log-probabilities (K,), not normalised."""
    if drawing.temperature == 0.0:
        return int(np.argmax(logprobs))
    probabilities = np.exp(Nucleus(temperature=drawing.temperature, top_p=drawing.top_p)(logprobs[None]))[0]
    return int(min(np.searchsorted(np.cumsum(probabilities), uniform(), side="right"), probabilities.nonzero()[0][-1]))
