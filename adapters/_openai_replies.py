"""What a server said, out of its three kinds of replies, before anything is made of the numbers.

Pure functions on parsed JSON. A log-probability that a server gives as null or as the stand-in -9999 is None here: it
is missing, not small.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from calibwrap.errors import LogprobsUnavailable, ServerError

Endpoint = Literal["chat", "completions", "responses"]

MISSING = -9000.0
"""Values below are stand-ins for "not told", such as OpenAI's and vLLM's -9999."""
_REPLACED = "\ufffd"
_ESCAPED = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")


@dataclass(frozen=True)
class Entry:
    """One token as a server names it."""

    text: str
    data: bytes | None
    """Its bytes; None where the text does not tell this token from others: empty, or with a character replaced."""
    logprob: float | None
    """Natural-log probability as told; None when it is missing."""
    id: int | None = None


@dataclass(frozen=True)
class Position:
    """One drawn token and the tokens listed beside it, in the server's own order."""

    drawn: Entry
    listed: tuple[Entry, ...]
    by_text: bool
    """Whether the list is keyed by text, so that tokens with one text have pushed each other out."""
    offset: int | None = None
    """Where the token begins in the text, where the server says so."""


@dataclass(frozen=True)
class Choice:
    """One completion of a reply."""

    text: str
    finish: str
    """The server's own word; empty when it says nothing."""
    positions: tuple[Position, ...] | None
    """None when there were no log-probabilities at all."""
    thoughts: str = ""
    """Text of a channel that comes before the answer."""
    prompt_ids: tuple[int, ...] | None = None
    """Token ids of the prompt, where the server tells them."""


def read_choices(endpoint: Endpoint, body: Mapping[str, Any]) -> list[Choice]:
    """Return the completions of a reply of `endpoint`, in order.

    Raises:
        ServerError: the reply does not have the shape of its kind.

    >>> entry = {"token": "A", "bytes": [65], "logprob": -0.1, "top_logprobs": []}
    >>> message = {"message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": [entry]}}
    >>> read_choices("chat", {"choices": [message]})[0].positions[0].drawn.data
    b'A'
    """
    try:
        if endpoint == "responses":
            return [_response(body)]
        read = _chat_choice if endpoint == "chat" else _completion_choice
        return [read(choice) for choice in sorted(body["choices"], key=lambda choice: choice.get("index") or 0)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(
            f"Expected a reply of the {endpoint} kind. {_misfit(endpoint, body, error)} Check "
            "'base_url': it usually ends in /v1."
        ) from error


def _misfit(endpoint: Endpoint, body: Mapping[str, Any], error: Exception) -> str:
    """Return what a reply lacks: its main field, or something inside."""
    main = "output" if endpoint == "responses" else "choices"
    if main not in body:
        return f"Got one without '{main}': another kind of answer, as servers give at other addresses."
    return f"Got one whose '{main}' cannot be read ({type(error).__name__}: {error})."


def _chat_choice(choice: Mapping[str, Any]) -> Choice:
    message = choice["message"]
    content = (choice.get("logprobs") or {}).get("content")
    return Choice(
        text=message.get("content") or "",
        finish=choice.get("finish_reason") or "",
        positions=None if content is None else tuple(map(_position, content)),
        thoughts=message.get("reasoning_content") or message.get("reasoning") or "",
    )


def _completion_choice(choice: Mapping[str, Any]) -> Choice:
    logprobs = choice.get("logprobs") or {}
    told = choice.get("prompt_token_ids")
    positions: tuple[Position, ...] | None = None
    if logprobs.get("content") is not None:  # llama-server answers here as it does to a chat
        positions = tuple(map(_position, logprobs["content"]))
    elif logprobs.get("tokens") is not None:
        positions = _columns(logprobs)
    return Choice(
        text=choice.get("text") or "",
        finish=choice.get("finish_reason") or "",
        positions=positions,
        prompt_ids=None if told is None else tuple(told),
    )


def _response(body: Mapping[str, Any]) -> Choice:
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    spoken = [part for part in parts if part["type"] == "output_text"]
    told = [part["logprobs"] for part in spoken if part.get("logprobs") is not None]
    reason = (body.get("incomplete_details") or {}).get("reason") or ""
    finish = {"completed": "stop", "incomplete": reason}.get(body.get("status") or "", "")
    return Choice(
        text="".join(part["text"] for part in spoken),
        finish="length" if finish == "max_output_tokens" else finish,
        positions=tuple(_position(entry) for entries in told for entry in entries) if told else None,
    )


def _position(entry: Mapping[str, Any]) -> Position:
    listed = tuple(map(_entry, entry.get("top_logprobs") or ()))
    drawn = _entry(entry)
    by_text = drawn.id is None and all(one.get("bytes") is None for one in (entry, *(entry.get("top_logprobs") or ())))
    return Position(drawn, listed, by_text)


def _entry(entry: Mapping[str, Any]) -> Entry:
    text = entry["token"]
    told = entry.get("bytes")
    data = text_bytes(text, None if told is None else bytes(told))
    return Entry(text, data, _value(entry["logprob"]), entry.get("id"))


def _columns(logprobs: Mapping[str, Any]) -> tuple[Position, ...]:
    """Return the positions of a legacy completion, whose lists are dictionaries keyed by text."""
    tokens = logprobs["tokens"]
    lists: Sequence[Mapping[str, float | None] | None] = logprobs.get("top_logprobs") or [None] * len(tokens)
    offsets: Sequence[int | None] = logprobs.get("text_offset") or [None] * len(tokens)
    return tuple(
        Position(
            Entry(text, text_bytes(text), _value(value)),
            tuple(Entry(other, text_bytes(other), _value(told)) for other, told in (listed or {}).items()),
            by_text=True,
            offset=offset,
        )
        for text, value, listed, offset in zip(tokens, logprobs["token_logprobs"], lists, offsets, strict=True)
    )


def _value(told: float | None) -> float | None:
    """Return a log-probability, or None where it is missing."""
    return None if told is None or math.isnan(told) or told <= MISSING else float(told)


def text_bytes(text: str, told: bytes | None = None) -> bytes | None:
    r"""Return the bytes of a token, or None when neither its text nor the bytes told set it apart from others.

    A token that is part of a character shows as U+FFFD, as nothing, or (OpenAI) as an escaped text.

    >>> text_bytes(" A"), text_bytes("\ufffd"), text_bytes("\ufffd", b"\xe2"), text_bytes(r"bytes:\xe2\x98")
    (b' A', None, b'\xe2', b'\xe2\x98')
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if told is not None and told != encoded:
        return told or None
    escaped = _ESCAPED.fullmatch(text)
    if escaped and told is None:
        return bytes.fromhex(escaped.group(1).replace("\\x", ""))
    return None if not text or _REPLACED in text else encoded


def held_back(choices: Sequence[Choice]) -> bool:
    """Return whether a server held its answer back because the one drawn token is a part of a character.

    llama-server does so, log-probabilities and all; another draw brings them.
    """
    return bool(choices) and not choices[0].positions and _REPLACED in choices[0].text


def ended_at_once(choices: Sequence[Choice]) -> bool:
    """Return whether the one drawn token is an end token that the server tells nothing of.

    llama_cpp.server does so; another draw brings a token with its list.
    """
    return (
        bool(choices)
        and (choices[0].text, choices[0].finish, choices[0].thoughts) == ("", "stop", "")
        and (not choices[0].positions)
    )


def to_draw_again(choices: Sequence[Choice]) -> bool:
    """Return whether another draw may bring the log-probabilities that this one lacks."""
    return held_back(choices) or ended_at_once(choices)


def first_position(choices: Sequence[Choice], server: str) -> Position:
    """Return the first position of the first completion.

    Raises:
        LogprobsUnavailable: there is none: no log-probabilities, no token, or the text begins elsewhere.
        ServerError: a content filter took the answer away.
    """
    if not choices:
        raise ServerError(f"Expected at least one completion from {server}. Got none.")
    choice = choices[0]
    if choice.finish == "content_filter":
        raise ServerError(f"A content filter at {server} took the answer away: change the prompt.")
    if choice.thoughts:
        raise LogprobsUnavailable(
            f"The model at {server} thinks before it answers, so the first log-probabilities are those of its "
            f"thoughts (they begin {choice.thoughts[:40]!r}). Switch thinking off at the server, or use a model that "
            "answers at once."
        )
    if ended_at_once(choices):
        raise LogprobsUnavailable(
            f"The model at {server} ended its answer at once, in one draw after the other, and the server tells no "
            "log-probabilities then. Use a prompt or template that it goes on after, or a server that tells them of "
            "end tokens (vLLM, llama-server)."
        )
    if choice.positions is None:
        raise LogprobsUnavailable(
            f"{server} answered without log-probabilities, though they were asked for, and without saying why. Not "
            "every server, model and provider behind a router has them: use one that has (docs/openai.md lists some)."
        )
    if not choice.positions or not choice.positions[0].listed:
        raise LogprobsUnavailable(
            f"{server} answered {choice.text!r} with an empty list of log-probabilities, though they were asked for: "
            "it gives none at this endpoint, or decodes speculatively (switch that off), or the model spends its "
            "tokens on thoughts (switch thinking off). Try another 'endpoint', such as 'chat' or 'completions'."
        )
    return choice.positions[0]
