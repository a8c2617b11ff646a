"""Decision endpoints: a question in, the probabilities of its options out. Two shapes, pure functions for both.

`/decisions` (OpenAI) takes an input and a list of questions and returns a list of answers. `/systemone` (vLLM,
llama.cpp and `transformers serve`, each for models that it can read so) takes a state and named questions and returns
named answers; vLLM adds the probability that the model itself puts on the labels. One question a request in both.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from calibwrap.adapters._openai_failures import Rejected
from calibwrap.errors import CapabilityError, InputError, ServerError
from calibwrap.questions import Question
from calibwrap.scores import Decided

Path = Literal["/decisions", "/systemone"]
PATHS: tuple[Path, ...] = ("/decisions", "/systemone")
"""The endpoints, relative to the base URL, in the order in which a new server is asked for them."""
ABSENT = {404, 405, 501}
"""Statuses that mean: this server, or the model in it, has no such endpoint."""
_NAME = "question"


def decision_body(path: Path, model: str, question: Question) -> dict[str, Any]:
    """Return the JSON that asks `question` at `path`: its context is judged, its prompt says what for.

    Raises:
        InputError: fewer than 2 options; how many are too many, the server says.

    >>> decision_body("/systemone", "m", Question("Which tone?", ["calm", "angry"], context="Hi!"))["questions"]
    {'question': {'type': 'choice', 'instructions': 'Which tone?', 'criteria': {'calm': None, 'angry': None}}}
    """
    if len(question.options) < 2:
        raise InputError(
            f"A decision endpoint chooses among 2 or more options. Question {question.id!r} has one: leave it out."
        )
    asked: dict[str, Any] = {"type": "choice", "instructions": question.prompt}
    if path == "/systemone":
        asked["criteria"] = dict.fromkeys(question.options)
        return {"model": model, "state": question.context, "questions": {_NAME: asked}}
    asked["choices"] = [{"value": option} for option in question.options]
    return {"model": model, "input": question.context, "questions": [asked]}


def most_tokens(body: Mapping[str, Any]) -> int:
    """Return an upper estimate of the tokens that a request costs: a byte each, and the server's own prompt.

    >>> most_tokens({"input": "Hi"})
    271
    """
    return len(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")) + 256


def read_decided(body: Mapping[str, Any], question: Question) -> Decided:
    """Return what a reply of either shape says of `question`; which shape it is, the reply itself tells.

    Raises:
        ServerError: the model declined to answer, an option is missing or unknown, or the reply has another shape.

    >>> reply = {"answers": {"question": {"type": "choice", "probabilities": {"calm": 0.9, "angry": 0.1}}}}
    >>> read_decided(reply, Question("Which tone?", ["angry", "calm"])).probabilities
    (0.1, 0.9)
    """
    answer, mass = _only_answer(body, question)
    if answer.type == "refusal":
        raise ServerError(
            f"The model declined to answer question {question.id!r} ({question.prompt[:60]!r}), and no probability is "
            "made up for it: leave this question out."
        )
    if isinstance(answer.probabilities, list):
        pairs = [(one.value, one.probability) for one in answer.probabilities]
    else:
        pairs = list((answer.probabilities or {}).items())
    found = dict(pairs)
    if len(found) < len(pairs) or set(found) != set(question.options):
        raise ServerError(
            f"The server gave probabilities of {sorted(found)} for question {question.id!r}, whose options are "
            f"{sorted(question.options)}: each must come once. Check that the endpoint answers choice questions."
        )
    return Decided(tuple(found[option] for option in question.options), mass)


def find_path(ask: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return the first endpoint that the server has, and what `ask` got from it.

    Raises:
        CapabilityError: none of them; the server's last words are chained.
    """
    refusals: list[Rejected] = []
    for path in PATHS:
        try:
            return path, ask(path)
        except Rejected as error:
            if error.status not in ABSENT:
                raise
            refusals.append(error)
    raise CapabilityError(
        f"The server has no decision endpoint for this model (asked for {' and '.join(PATHS)}): use readout='label', "
        "or a model that is served for decisions."
    ) from refusals[-1]


@dataclass(frozen=True)
class _Probability:
    probability: float
    value: str


@dataclass(frozen=True)
class _Answer:
    type: Literal["choice", "refusal"]
    probabilities: list[_Probability] | dict[str, float] | None = None


@dataclass(frozen=True)
class _Diagnostics:
    label_mass: float = math.nan


@dataclass(frozen=True)
class _Reply:
    answers: list[_Answer] | dict[str, _Answer]
    diagnostics: dict[str, _Diagnostics] | None = None


def _only_answer(body: Mapping[str, Any], question: Question) -> tuple[_Answer, float]:
    """Return the one answer of a reply, and the mass of the labels where it is told."""
    from pydantic import TypeAdapter, ValidationError

    try:
        reply = TypeAdapter(_Reply).validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ServerError(
            f"The decision endpoint's reply to question {question.id!r} has another shape than expected: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}. It must be that of /decisions or /systemone."
        ) from error
    if isinstance(reply.answers, list):
        answers: Sequence[_Answer] = reply.answers
    else:
        answers = [answer for name, answer in reply.answers.items() if name == _NAME]
    if len(answers) != 1:
        raise ServerError(f"Expected one answer to question {question.id!r}, and {len(answers)} came: send it again.")
    return answers[0], (reply.diagnostics or {}).get(_NAME, _Diagnostics()).label_mass
