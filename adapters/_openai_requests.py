"""What is asked of a server, in the words that it accepts. Pure functions: prompts and settings in, JSON bodies out.

Everything that shapes the draw is sent, neutral where nothing was asked for: servers fill what is left out from the
model's own settings (vLLM) or from defaults that cut the distribution off (llama-server). What a server refuses by name
and can be left out, is left out from then on; log-probabilities never are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from calibwrap.adapters._openai_replies import Endpoint
from calibwrap.questions import Chat, Prompt

PATHS: Mapping[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions", "responses": "/responses"}
STANDARD: Mapping[str, Any] = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Neutral settings of OpenAI's own chat completions and completions."""
EXTRAS: Mapping[str, Any] = {
    "top_k": 0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "repeat_penalty": 1.0,
}
"""Neutral settings that other servers add, under vLLM's and llama.cpp's names."""
THINKING_OFF: Mapping[str, Any] = {"reasoning_effort": "none"}
THINKING_OFF_EXTRAS: Mapping[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
OPTIONAL = frozenset(
    {*STANDARD, *EXTRAS, *THINKING_OFF, *THINKING_OFF_EXTRAS, "n", "seed", "return_token_ids", "store"}
    | {"stream_options"}
)
"""What may be left out, since what is missing then is asked for again or is the default; `temperature` when it is 1."""
LIST_LENGTHS = (20, 5, 1)
"""What is tried when a longer list is refused: OpenAI's and vLLM's limit, that of old endpoints, the least."""
LEAST_OUTPUT = 16
"""The fewest output tokens that OpenAI's Responses allow."""
PER_MESSAGE = 16
"""Tokens that a chat template puts around a message, at most, for the budget."""


@dataclass(frozen=True)
class Dialect:
    """How one endpoint of one server wants to be asked."""

    model: str
    endpoint: Endpoint
    asked: int
    """Most top log-probabilities that are asked for."""
    extras: bool = True
    """Whether settings beyond OpenAI's own are sent."""
    length_name: str = "max_tokens"
    refused: frozenset[str] = frozenset()
    """Settings that the server refused, and that are left out."""
    thinking_off: bool = False
    """Whether thoughts before the answer are switched off."""
    switched_on: bool = False
    """Whether Responses are also asked for log-probabilities as chat completions are, as llama-server wants it."""


@dataclass(frozen=True)
class Draw:
    """What is drawn at once."""

    max_tokens: int = 1
    temperature: float = 1.0
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top: int | None = None
    """Top log-probabilities a position; None asks for as many as the dialect can."""
    streamed: bool = False
    """Whether the answer comes in events."""
    echo: bool = False
    """Whether the prompt's own log-probabilities come back (completions only)."""
    kept: bool = True
    """Whether an earlier answer serves as well; so for measuring, and for draws that are repeatable."""


Asked = tuple[Prompt, Draw]
"""What is asked of the adapter's own sender."""


def request_body(dialect: Dialect, prompt: Prompt, draw: Draw) -> dict[str, Any]:
    """Return the JSON body that asks for `draw` after `prompt`.

    >>> body = request_body(Dialect("m", "completions", asked=20, extras=False), "Hi", Draw(top=2))
    >>> body["prompt"], body["max_tokens"], body["logprobs"], body["temperature"], body["top_p"]
    ('Hi', 1, 2, 1.0, 1.0)
    """
    top = min(dialect.asked, dialect.asked if draw.top is None else max(1, draw.top))
    body: dict[str, Any] = {
        "model": dialect.model,
        **_prompt(dialect.endpoint, prompt),
        "temperature": draw.temperature,
    }
    if dialect.endpoint == "responses":
        body |= {"max_output_tokens": max(LEAST_OUTPUT, draw.max_tokens), "top_logprobs": top, "top_p": 1.0}
        body |= {"include": ["message.output_text.logprobs"], "store": False, "stream": False}
        if dialect.switched_on:
            body["logprobs"] = True
        if dialect.thinking_off:
            body["reasoning"] = {"effort": "none"}
        return _without_refused(dialect, body)
    body |= {dialect.length_name: draw.max_tokens, **STANDARD}
    body |= {"logprobs": True, "top_logprobs": top} if dialect.endpoint == "chat" else {"logprobs": top}
    if draw.n > 1:
        body["n"] = draw.n
    if draw.seed is not None:
        body["seed"] = draw.seed
    if draw.stop:
        body["stop"] = list(draw.stop)
    if draw.streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if draw.echo:
        body |= {"echo": True, "return_token_ids": True}
    return _without_refused(dialect, body | _extras(dialect))


def _extras(dialect: Dialect) -> dict[str, Any]:
    body = dict(EXTRAS) if dialect.extras else {}
    if dialect.thinking_off and dialect.endpoint == "chat":
        body |= THINKING_OFF
        body |= THINKING_OFF_EXTRAS if dialect.extras else {}
    return body


def _without_refused(dialect: Dialect, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in body.items()
        if name not in dialect.refused or (name == "temperature" and value != 1.0)
    }


def _prompt(endpoint: Endpoint, prompt: Prompt) -> dict[str, Any]:
    """Return the part of a body that holds the prompt; a text in a chat is one user's message."""
    if endpoint == "completions":
        if isinstance(prompt, Chat):
            raise TypeError("A chat cannot be sent to the completions endpoint.")
        return {"prompt": prompt}
    chat = Chat((("user", prompt),)) if isinstance(prompt, str) else prompt
    messages = [{"role": role, "content": content} for role, content in chat.messages]
    if endpoint == "responses":
        return {"input": messages}
    if not chat.prefix:
        return {"messages": messages}
    messages.append({"role": "assistant", "content": chat.prefix})
    return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}


def most_tokens(prompt: Prompt, draw: Draw) -> int:
    """Return how many tokens a request can cost at most: a token has at least one byte.

    >>> most_tokens("Hi!", Draw(max_tokens=10, n=2))
    39
    """
    texts = [prompt] if isinstance(prompt, str) else [*(text for _, text in prompt.messages), prompt.prefix]
    read = sum(len(text.encode("utf-8", "surrogatepass")) + PER_MESSAGE for text in texts)
    return read + draw.n * draw.max_tokens


def adapted(dialect: Dialect, body: Mapping[str, Any], parameter: str | None, message: str) -> Dialect | None:
    """Return how to ask again after a refusal of `body`, or None when nothing that matters less can be given up.

    Left out is what the refusal names and what may be left out; a length is given under its other name; a list is made
    shorter; thoughts are switched off where they stand in the way of log-probabilities.

    >>> chat = Dialect("m", "chat", asked=20)
    >>> body = request_body(chat, "Hi", Draw())
    >>> sorted(adapted(chat, body, None, "Unrecognized arguments: top_k, min_p").refused)
    ['min_p', 'top_k']
    """
    told = f"{parameter or ''} {message}"
    named = {name for name in body if name in OPTIONAL and _names(told, name)}
    if body.get("temperature") == 1.0 and _names(told, "temperature"):
        named.add("temperature")
    if "n" in body and "completion choice" in message:  # how llama-server says it
        named.add("n")
    if named:
        return replace(dialect, refused=dialect.refused | named)
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[dialect.length_name]
    if dialect.length_name in body and _unsupported(told, dialect.length_name) and other not in dialect.refused:
        return replace(dialect, length_name=other, refused=dialect.refused | {dialect.length_name})
    if not names_logprobs(told):
        return None
    if dialect.endpoint == "responses" and "requires logprobs" in message:
        return None if dialect.switched_on else replace(dialect, switched_on=True)
    if not dialect.thinking_off and dialect.endpoint != "completions" and "reasoning" in message.lower():
        return replace(dialect, thinking_off=True)
    shorter = [length for length in LIST_LENGTHS if length < dialect.asked]
    return replace(dialect, asked=shorter[0]) if shorter and "allowed to request" not in message else None


def names_logprobs(told: str) -> bool:
    """Return whether a refusal is about log-probabilities."""
    return "logprob" in told.lower() or "log prob" in told.lower()


def too_long(message: str) -> bool:
    """Return whether a refusal says that the prompt does not fit the context.

    >>> too_long("This model's maximum context length is 256 tokens."), too_long("'n' must be 1")
    (True, False)
    """
    return bool(re.search(r"context.{0,10}(length|size|window)|(prompt|input).{0,40}too long", message.lower()))


def _names(told: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", told) is not None


def _unsupported(told: str, name: str) -> bool:
    """Return whether a refusal says that a parameter is not known at all, rather than that its value is wrong."""
    return _names(told, name) and re.search(r"nsupported|not supported|nrecognized|nknown|xtra", told) is not None
