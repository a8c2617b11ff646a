"""The events of a streamed answer, and the one reply that they make up. Pure functions on parsed JSON.

An event looks like the reply to a request without streaming, but for one name: a chat's new text is in `delta`, not in
`message`. So both are read by the same functions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
_TEXTS = ("content", "reasoning_content", "reasoning")


def as_reply(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event in the shape of a reply: what is new, and nothing else.

    >>> as_reply({"choices": [{"index": 0, "delta": {"content": " A"}}]})["choices"][0]["message"]
    {'content': ' A'}
    """
    choices = [choice for choice in event.get("choices") or () if not choice.get("index")]
    shaped = [{**choice, "message": choice["delta"]} if "delta" in choice else dict(choice) for choice in choices]
    return {**event, "choices": shaped}


def merged(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the reply that the events of one answer make up, in the shape that it has without streaming.

    >>> parts = [{"choices": [{"text": "Par"}]}, {"choices": [{"text": "is", "finish_reason": "stop"}], "usage": None}]
    >>> merged(parts)["choices"]
    [{'index': 0, 'finish_reason': 'stop', 'logprobs': None, 'text': 'Paris'}]
    """
    body: dict[str, Any] = {}
    for event in events:
        body |= {name: value for name, value in event.items() if value is not None}
    choices = [choice for event in events for choice in as_reply(event)["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    one: dict[str, Any] = {
        "index": 0,
        "finish_reason": ends[-1] if ends else None,
        "logprobs": _logprobs([choice["logprobs"] for choice in choices if choice.get("logprobs")]),
    }
    if any("message" in choice for choice in choices):
        messages = [choice.get("message") or {} for choice in choices]
        one["message"] = {name: "".join(message.get(name) or "" for message in messages) for name in _TEXTS}
    else:
        one["text"] = "".join(choice.get("text") or "" for choice in choices)
    return body | {"choices": [one]}


def is_complete(body: Mapping[str, Any]) -> bool:
    """Return whether a merged reply came to its end: servers say why an answer ends, and a broken one says nothing."""
    return bool(body["choices"][0]["finish_reason"])


def _logprobs(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return lists of positions joined: of a chat's kind, or of the columns that completions have."""
    if not parts:
        return None
    names = [name for name in ("content", *_COLUMNS) if any(part.get(name) is not None for part in parts)]
    return {name: [entry for part in parts for entry in part.get(name) or ()] for name in names}
