"""Why a request got no answer, and what that means: retry, wait, or give up with a sentence that helps."""

import email.utils
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calibwrap.errors import ServerError

if TYPE_CHECKING:
    import openai

LONGEST_WAIT_SECONDS = 120.0
"""A server that asks for a longer wait is not waited for."""
_RETRIED = {408, 409, 429}
_FINAL = {400, 403, 404, 405, 410, 413, 415, 422, 501}
"""The request itself is refused, and would be again."""
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
"""Codes of a 429 that no waiting mends."""
_EXCERPT = 200


class Rejected(ServerError):
    """The server refuses the request itself; sending it again would not help."""

    status: int
    """HTTP status, such as 400."""
    param: str | None
    """The parameter that the server names, when it names one."""
    message: str
    """The server's own words, without secrets."""

    def __init__(self, text: str, *, status: int = 0, param: str | None = None, message: str = "") -> None:
        """Keep what the server said beside the whole sentence `text`."""
        super().__init__(text)
        self.status = status
        self.param = param
        self.message = message

    def at(self, where: str) -> "Rejected":
        """Return the same refusal with the address in its sentence."""
        text = f"{where} refused the request. {self}"
        return Rejected(text, status=self.status, param=self.param, message=self.message)


@dataclass(frozen=True)
class Failure:
    """What came of one attempt that gave no answer."""

    error: ServerError
    """What to raise when it is not tried again."""
    again: bool = False
    """Whether trying again may help."""
    wait_seconds: float | None = None
    """How long the server asks to wait; None when it does not say."""
    maybe_billed: bool = False
    """Whether the server may have computed an answer that did not arrive."""
    reached: bool = True
    """Whether there was a server at all."""
    cause: BaseException | None = None
    """The foreign error behind it; None where its text holds a secret."""


def from_exception(error: "openai.OpenAIError", clean: Callable[[str], str]) -> Failure:
    """Return the failure that an error of the SDK stands for; `clean` takes secrets out of texts."""
    import openai

    cause = error if all(clean(str(link)) == str(link) for link in _links(error)) else None
    if isinstance(error, openai.APIStatusError):
        told = _Told.read(error.body, clean)
        return _from_status(error.status_code, told, error.response.headers, cause)
    if isinstance(error, openai.APITimeoutError):
        return Failure(ServerError("no answer within the client's timeout"), again=True, maybe_billed=True, cause=cause)
    if isinstance(error, openai.APIConnectionError):
        reached = not any(isinstance(link, (ConnectionRefusedError, socket.gaierror)) for link in _links(error))
        text = f"the connection failed ({clean(_deepest(error))})"
        return Failure(ServerError(text), again=True, maybe_billed=reached, reached=reached, cause=cause)
    return Failure(ServerError(f"the client cannot send it: {clean(str(error))}"), cause=cause)


def from_body(body: Mapping[str, Any], clean: Callable[[str], str]) -> Failure | None:
    """Return the failure that a 200 with an error inside stands for, as some gateways send; None for an answer."""
    error = body.get("error")
    if not isinstance(error, Mapping) or body.get("choices") or body.get("output"):
        return None
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return _from_status(status, _Told.read(error, clean), {}, None)


def not_an_object(text: str, clean: Callable[[str], str]) -> Failure:
    """Return the failure that a body which is no JSON object stands for."""
    error = ServerError(f"the reply is not a JSON object. Got {_excerpt(clean(text))}")
    return Failure(error, again=True, maybe_billed=True)


def asked_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return how many seconds a server asks to wait; None when it does not say, or says it badly.

    Both of HTTP's forms are read, a number of seconds and a date (RFC 9110, "HTTP Semantics", 2022, section 10.2.3),
    and before them the milliseconds of OpenAI's own header.

    >>> asked_wait({"retry-after": "2"}), asked_wait({"retry-after-ms": "250"})
    (2.0, 0.25)
    >>> asked_wait({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=50.0)
    10.0
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return max(0.0, seconds / unit)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after") or "")
    except ValueError:
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


@dataclass(frozen=True)
class _Told:
    """What a server says in the body of a refusal."""

    message: str
    param: str | None
    codes: frozenset[str]

    @classmethod
    def read(cls, body: object, clean: Callable[[str], str]) -> "_Told":
        """Read the shapes of OpenAI, Azure and FastAPI; other bodies are quoted."""
        if not isinstance(body, Mapping):
            return cls(_excerpt(clean(str(body or "no body"))), None, frozenset())
        message = body.get("message")
        param = body.get("param") or _location(body.get("detail"))
        codes = frozenset(str(body[name]) for name in ("code", "type") if body.get(name))
        text = clean(message) if isinstance(message, str) and message else _excerpt(clean(str(dict(body))))
        return cls(text, clean(str(param)) if param else None, codes)


def _from_status(status: int, told: _Told, headers: Mapping[str, str], cause: BaseException | None) -> Failure:
    text = f"{status}: {told.message}"
    if status in _FINAL:
        return Failure(Rejected(text, status=status, param=told.param, message=told.message), cause=cause)
    if status == 401:
        advice = "Check the key: OPENAI_API_KEY in the environment, or api_key=."
        return Failure(ServerError(f"{text}. {advice}"), cause=cause)
    if told.codes & _NO_MONEY:
        return Failure(ServerError(f"{text}. The account has no quota left; waiting does not help."), cause=cause)
    again = (status in _RETRIED or status >= 500) and headers.get("x-should-retry") != "false"
    return Failure(ServerError(text), again=again, wait_seconds=asked_wait(headers), cause=cause)


def _location(detail: object) -> object:
    """Return the parameter that a validation error points at: the last step of its `loc`."""
    first = detail[0] if isinstance(detail, list) and detail else detail
    where = first.get("loc") if isinstance(first, Mapping) else None
    return where[-1] if isinstance(where, list) and where else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _excerpt(text: str) -> str:
    return repr(text[:_EXCERPT]) + (" ..." if len(text) > _EXCERPT else "")


def _links(error: BaseException) -> Iterator[BaseException]:
    """Return the error and what is behind it, link by link."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _deepest(error: BaseException) -> str:
    """Return the text nearest to the cause that says anything."""
    texts = [str(link) or type(link).__name__ for link in _links(error)]
    return texts[-1]
