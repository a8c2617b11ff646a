"""What the fault server can do with a request, and plans of it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .fault_replies import refused

Edit = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Act:
    """What the server does with one request."""

    status: int = 200
    """HTTP status; any but 200 is not billed and answers `error`."""
    error: Mapping[str, Any] | str | None = None
    """Body of a refusal; a text is sent as it stands. "{key}" in it becomes the Authorization header that came."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers."""
    cut: Literal["", "length", "json", "text", "error", "wait"] = ""
    """Half a body: shorter than its Content-Length, or complete HTTP with half a JSON, or with a text of no JSON.

    Of a stream: half of the events and a lost connection; then half an event; then an orderly end; then an error as an
    event; or then nothing more until the client leaves.
    """
    drop: Literal["", "before", "after"] = ""
    """Close the connection without a reply: before anything is computed, or after it was computed and billed."""
    delay: float = 0.0
    """Seconds to wait before answering."""
    edit: Edit | None = None
    """Changes the reply before it is sent."""


OK = Act()
Plan = Callable[[int], Act]


def rate_limited(retry_after: float | str | None = None, milliseconds: float | None = None, code: str = "rate") -> Act:
    """Return a 429; `retry_after` is a number of seconds or an HTTP date."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if milliseconds is not None:
        headers["retry-after-ms"] = str(milliseconds)
    return Act(429, {"error": {"message": f"Too much: {code}", "type": code, "code": code}}, headers)


def failing(status: int = 500) -> Act:
    """Return a failure of the server."""
    return Act(status, {"error": {"message": "The server had an error.", "type": "server_error"}})


def dropped(when: Literal["before", "after"] = "after") -> Act:
    """Return a dropped connection."""
    return Act(drop=when)


def cut(how: Literal["length", "json", "text", "error", "wait"] = "length") -> Act:
    """Return half a body."""
    return Act(cut=how)


def slow(seconds: float) -> Act:
    """Return a good answer that comes late."""
    return Act(delay=seconds)


def refusal(parameter: str | None, message: str, status: int = 400) -> Act:
    """Return a refusal in OpenAI's shape that names a parameter."""
    status, body = refused(parameter, message, status)
    return Act(status, body)


def azure_refusal(parameter: str) -> Act:
    """Return a 422 in the shape of Azure's model servers."""
    message = "One of the parameters contain invalid values."
    detail = {"loc": ["body", parameter], "input": "True"}
    return Act(422, {"status": 422, "code": "parameter_not_supported", "detail": detail, "message": message})


def no_logprobs_403() -> Act:
    """Return the 403 of models that keep their log-probabilities."""
    message = "You are not allowed to request logprobs from this model"
    return Act(403, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})


def key_echo(status: int = 401) -> Act:
    """Return a refusal whose message holds the credentials that came."""
    return Act(status, {"error": {"message": "Incorrect API key provided: {key}.", "code": "invalid_api_key"}})


def edited(edit: Edit) -> Act:
    """Return a good answer, changed by `edit`."""
    return Act(edit=edit)


def null_logprobs(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply with null where log-probabilities belong."""
    return _each_choice(reply, lambda choice: {**choice, "logprobs": None})


def absent_logprobs(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply without the field of log-probabilities."""
    return _each_choice(reply, lambda choice: {key: value for key, value in choice.items() if key != "logprobs"})


def empty_logprobs(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply with empty lists."""
    return _each_choice(reply, lambda choice: {**choice, "logprobs": {"content": []}})


def zero_values(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply with 0.0 everywhere, as a server that verifies drafted tokens sends."""
    return _each_value(reply, lambda value: 0.0)


def sentinel_values(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply with -9999 everywhere."""
    return _each_value(reply, lambda value: -9999.0)


def reordered(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply with the listed entries in another order."""

    def shuffle(value: Any) -> Any:
        if _rows(value):
            return [dict(random.Random(7).sample(list(row.items()), len(row))) for row in value]
        return random.Random(7).sample(value, len(value))

    return _each_key(reply, "top_logprobs", shuffle)


def fingerprint(name: str | None) -> Edit:
    """Return an edit that names another system_fingerprint."""
    return lambda reply: {**reply, "system_fingerprint": name}


def script(acts: Sequence[Act], then: Act = OK) -> Plan:
    """Return the plan that does these acts one after the other, and `then` for ever."""
    return lambda number: acts[number] if number < len(acts) else then


def shares(seed: int, acts: Sequence[tuple[float, Act]], then: Act = OK) -> Plan:
    """Return the plan that draws each request's act: (share, act) pairs, `then` for the rest; same seed, same draw."""

    def plan(number: int) -> Act:
        draw = random.Random(f"{seed}|{number}").random()
        for share, act in acts:
            if draw < share:
                return act
            draw -= share
        return then

    return plan


def _each_choice(reply: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    return {**reply, "choices": [change(choice) for choice in reply["choices"]]}


def _each_key(value: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """Return a copy of nested `value` with `change` on what is under `key` anywhere."""
    if isinstance(value, dict):
        return {name: change(item) if name == key else _each_key(item, key, change) for name, item in value.items()}
    return [_each_key(item, key, change) for item in value] if isinstance(value, list) else value


def _each_value(reply: dict[str, Any], change: Callable[[float], float]) -> dict[str, Any]:
    """Return the reply with `change` on every log-probability, of chat and of completions."""

    def lists(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: lists(item) for name, item in value.items()}
        if isinstance(value, list):
            return [lists(item) for item in value]
        return change(value) if isinstance(value, float) else value

    return _each_choice(reply, lambda choice: {**choice, "logprobs": lists(choice.get("logprobs"))})


def _rows(value: Any) -> bool:
    """Return whether `value` is what completions list: a mapping a position."""
    return bool(value) and all(isinstance(row, dict) and "logprob" not in row for row in value)
