"""Replies of the fault server as the events of a stream, one for each token, and streams that go wrong."""

import copy
import json
from collections.abc import Mapping
from typing import Any

ERROR = {"error": {"message": "The engine died.", "type": "server_error", "code": 500}}


def events_of(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a reply with one choice: one a token, then the reason of the end, then the usage."""
    frame = {key: value for key, value in reply.items() if key not in ("choices", "usage")}
    (choice,) = reply["choices"]
    parts = _chat_parts(choice) if "message" in choice else _text_parts(choice)
    last = {"index": 0, "delta": {}, "text": "", "logprobs": None, "finish_reason": choice["finish_reason"]}
    last.pop("text" if "message" in choice else "delta")
    chunks = [{**frame, "choices": [part]} for part in [*parts, last]]
    return [*chunks, {**frame, "choices": [], "usage": reply["usage"]}]


def lines_of(event: Mapping[str, Any] | str) -> bytes:
    """Return an event as it goes over the wire (WHATWG, "Server-sent events")."""
    return f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()


def _chat_parts(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = (choice["logprobs"] or {}).get("content") or []
    texts = _texts([bytes(entry["bytes"]) for entry in content], choice["message"]["content"])
    made = [
        {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}, "finish_reason": None}
        for text, entry in zip(texts, content, strict=True)
    ]
    opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    whole = {**copy.deepcopy(opening), "delta": {"content": choice["message"]["content"]}}
    return [opening, *(made or [whole])]


def _text_parts(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = choice["logprobs"]
    count = len(columns["tokens"])
    texts = [*([""] * (count - 1)), choice["text"]]
    return [
        {
            "index": 0,
            "text": texts[place],
            "logprobs": {name: [column[place]] for name, column in columns.items()},
            "finish_reason": None,
        }
        for place in range(count)
    ]


def _texts(tokens: list[bytes], text: str) -> list[str]:
    """Return the text that each token adds, a character whose bytes are several tokens with the last of them."""
    shown, made = "", []
    for count in range(1, len(tokens) + 1):
        now = b"".join(tokens[:count]).decode("utf-8", "replace")
        whole = now if count == len(tokens) else now.rstrip("\ufffd")
        made.append(whole[len(shown) :])
        shown = whole
    assert not tokens or shown == text
    return made
