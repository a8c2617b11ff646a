"""Requests to a server through the user's own OpenAI client: in parallel, repeated where that helps, paid for once.

Authentication, addresses, deployments and timeouts are the SDK's. Its repeats are switched off, because they are not
counted, do not know a budget, and give up where a long run must not.
"""

import hashlib
import json
import logging
import random
import threading
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibwrap.adapters._openai_budget import Budget
from calibwrap.adapters._openai_cache import Cache, Entry, request_text
from calibwrap.adapters._openai_client import check_client
from calibwrap.adapters._openai_failures import (
    LONGEST_WAIT_SECONDS,
    Failure,
    Rejected,
    from_body,
    from_exception,
    not_an_object,
)
from calibwrap.adapters._openai_secrets import Redactor, public_url
from calibwrap.adapters._openai_settings import check_cache, check_whole
from calibwrap.adapters._openai_workers import Stopped, Workers
from calibwrap.errors import BudgetExceeded, CalibrationWarning, InputError, ModelError, ServerError

if TYPE_CHECKING:
    import openai

__all__ = ["Job", "Rejected", "Reply", "Request", "Transport"]

BACKOFF_SECONDS = 0.5
"""Wait before the first repeat where the server does not name one; it doubles with each, as the SDK's does."""
LONGEST_BACKOFF_SECONDS = 8.0
_UNREACHED_RETRIES = 2
"""Repeats while nobody listens at the address and nobody ever did: the address is wrong, or the server is not up."""
_RAW = {"X-Stainless-Raw-Response": "true"}
"""Asks the SDK, in all its versions since 1.0, for the reply as it came, headers besides."""
_TOLD_HEADERS = ("server", "x-request-id")

log = logging.getLogger("calibwrap.adapters.openai")


@dataclass(frozen=True)
class Request:
    """One request."""

    path: str
    """Relative to the client's base URL, such as "/chat/completions"."""
    body: Mapping[str, Any]
    """JSON to send."""
    tokens: int
    """Upper estimate of the tokens that it will cost, prompt and answer together; for the budget."""
    cacheable: bool = True
    """Whether an earlier answer to the same request serves as well; not so for draws without a seed."""
    method: str = "POST"
    """POST, or GET, which sends no body."""


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    body: Mapping[str, Any]
    """The JSON object."""
    cached: bool
    """Whether it cost nothing: from the cache, or asked for twice in one call."""
    headers: Mapping[str, str]
    """Those of interest that came, names in lower case; empty when cached."""


@dataclass(frozen=True)
class Job:
    """A request on its way, once for all that ask the same."""

    request: Request
    key: str
    text: str


class Transport:
    """Sends requests; safe to use from several threads."""

    def __init__(
        self,
        client: "openai.OpenAI",
        *,
        max_concurrency: int = 8,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        cache: str | Path | None = None,
        max_retries: int = 8,
    ) -> None:
        """Send through `client`, an `openai.OpenAI` or `AzureOpenAI`, which stays the caller's to close.

        Args:
            client: knows the address, the key and the timeout.
            max_concurrency: most requests on their way at once.
            max_requests: most requests ever sent, repeats included; None for no limit.
            max_tokens: most tokens ever spent; None for no limit. Answers that were lost on the way count with their
                estimate, because the server may have billed them.
            cache: file that keeps the answers; None keeps none.
            max_retries: most repeats of one request.

        Raises:
            InputError: the client is of another kind, or a number is out of range.
            JournalError: the cache cannot be opened.
            MissingExtra: the SDK is not installed.
        """
        check_client(client)
        check_whole("max_concurrency", max_concurrency, least=1)
        check_whole("max_retries", max_retries, least=0)
        check_cache(cache)
        self._client = client
        self._closed = False
        self._url = public_url(str(client.base_url))
        self._redact = Redactor(client)
        self._max_retries = max_retries
        self._budget = Budget(max_requests, max_tokens)
        self._keeps = cache is not None
        self._cache = Cache(cache)
        self._workers = Workers(max_concurrency)
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("retries", "cached", "prompt_tokens", "completion_tokens"), 0)
        self._changes: dict[str, str] = {}
        self._warned: set[str] = set()
        self._reached = False
        self._answers = 0
        self._jitter = random.Random()

    def send(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies to `requests`, in order.

        Several are on their way at once; each reply is in the cache as soon as it comes. The same request twice is sent
        once. The first failure for good stops what was not sent yet and is raised when what is on its way has come.

        Raises:
            Rejected: the server refuses a request itself.
            ServerError: no usable answer after all repeats, a refused key, or a server that asks to wait for more than
                two minutes.
            BudgetExceeded: the next request would go over the budget; it was not sent.
            JournalError: the cache cannot be read or written.
            ModelError: the transport, or the client, was closed.
            InputError: a body is not JSON.
        """
        jobs = [self._job(request) for request in requests]
        first = {job.key: index for index, job in reversed(list(enumerate(jobs)))}
        unique = [job for index, job in enumerate(jobs) if first[job.key] == index]
        try:
            replies = dict(zip((job.key for job in unique), self._workers.run(self._answer, unique), strict=True))
        except (BudgetExceeded, ServerError) as error:
            if not isinstance(error, Rejected):  # only now has all come that was on its way, and can be counted
                error.args = (f"{error}{self._kept()}",)
            raise
        finally:
            self._warn_of_changes()
        self._count(cached=len(jobs) - len(unique))
        return [
            replies[job.key] if first[job.key] == index else replace(replies[job.key], cached=True, headers={})
            for index, job in enumerate(jobs)
        ]

    def usage(self) -> Mapping[str, int]:
        """Return what was spent: requests sent, the retries among them, answers that were free, and billed tokens."""
        with self._lock:
            return {"requests": self._budget.requests, **self._counts}

    def close(self) -> None:
        """End the threads and close the cache; the client stays open.

        Raises:
            JournalError: answers that could not be written before still cannot.
        """
        self._closed = True
        self._workers.close()
        self._cache.close()

    def _job(self, request: Request) -> Job:
        """Return the request with its key: the hash of all of it, and of a number of its own where draws may differ."""
        if self._closed or self._client.is_closed():
            raise ModelError(f"This model at {self._url} was closed: wrap it again, and close it when all is asked.")
        if request.method not in ("GET", "POST"):
            raise InputError(f"'method' must be GET or POST. Got {request.method!r}.")
        try:
            text = request_text(request.method, request.path, dict(request.body))
            whole = f"{self._url}\n{text}{'' if request.cacheable else uuid.uuid4()}".encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"A prompt holds {error.object[error.start]!r}, half of a character (a lone surrogate), which cannot "
                "be sent. Read its file as UTF-8, or leave that character out."
            ) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"The body of a request to {request.path} must be JSON. Got {error}.") from error
        return Job(request, hashlib.sha256(whole).hexdigest(), text)

    def _answer(self, job: Job, stop: threading.Event) -> Reply:
        """Return the answer from the cache, or ask until there is one."""
        kept = self._cache.get(job.key) if self._keeps and job.request.cacheable else None
        if kept is not None:
            self._count(cached=1)
            return Reply(kept, cached=True, headers={})
        for attempt in range(self._max_retries + 1):
            result = self._attempt(job, stop)
            if isinstance(result, Reply):
                return result
            self._raise_if_final(job, result, attempt)
            self._wait(job, result, attempt, stop)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, job: Job, stop: threading.Event) -> Reply | Failure:
        """Send once, and settle what it cost."""
        reserved = job.request.tokens
        self._budget.reserve(reserved, stop)
        spent = reserved
        sent = time.time()
        try:
            result = self._exchange(job)
            spent = self._cost(result, reserved)
        finally:
            self._budget.settle(reserved, spent)
        if isinstance(result, Failure):
            self._reached = self._reached or result.reached
            return result
        body, text, headers = result
        with self._lock:
            self._reached = True
            self._answers += job.request.method == "POST"
        self._keep(job, body, text, sent)
        return Reply(body, cached=False, headers=headers)

    def _exchange(self, job: Job) -> tuple[dict[str, Any], str, dict[str, str]] | Failure:
        """Return body, its text and the headers of interest, or why there are none."""
        import openai

        try:
            response = self._post(job)
        except openai.OpenAIError as error:
            return from_exception(error, self._redact.message)
        text = self._redact.exact(response.text)
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return not_an_object(text, self._redact.message)
        headers = {name: response.headers[name] for name in _TOLD_HEADERS if name in response.headers}
        return from_body(body, self._redact.message) or (body, text, headers)

    def _post(self, job: Job) -> Any:
        """Return the SDK's raw response."""
        headers = {**_RAW, "Idempotency-Key": job.key}
        options: Any = {"max_retries": 0, "headers": headers}
        if job.request.method == "GET":
            return self._client.get(job.request.path, cast_to=object, options=options)
        return self._client.post(job.request.path, cast_to=object, body=dict(job.request.body), options=options)

    def _cost(self, result: tuple[dict[str, Any], str, dict[str, str]] | Failure, reserved: int) -> int:
        """Return the tokens of one attempt, and count those that the server tells."""
        if isinstance(result, Failure):
            return reserved if result.maybe_billed else 0
        usage = result[0].get("usage")
        if not isinstance(usage, Mapping):
            return reserved
        prompt = _tokens(usage, "prompt_tokens", "input_tokens")
        completion = _tokens(usage, "completion_tokens", "output_tokens")
        self._count(prompt_tokens=prompt, completion_tokens=completion)
        return prompt + completion

    def _keep(self, job: Job, body: Mapping[str, Any], text: str, sent: float) -> None:
        """Write the answer to the cache, and note a model that changed."""
        asked = str(job.request.body.get("model", ""))
        entry = Entry(
            key=job.key,
            target=f"{self._url}{job.request.path} {asked}".strip(),
            system_fingerprint=str(body.get("system_fingerprint") or ""),
            model=str(body.get("model") or ""),
            sent=sent,
            created=time.time(),
            request=self._redact.exact(job.text),
            reply=text,
        )
        change = self._cache.put(entry, keep=self._keeps and job.request.cacheable)
        if change:
            with self._lock:
                self._changes.setdefault(entry.target, change)

    def _raise_if_final(self, job: Job, failure: Failure, attempt: int) -> None:
        """Raise what ends the run: a refusal, too long a wait, or the last attempt."""
        where = f"{self._url}{job.request.path}"
        told = str(failure.error)
        if isinstance(failure.error, Rejected):
            raise failure.error.at(where) from failure.cause
        if not failure.again:
            raise ServerError(f"{where} gave no answer. {told}") from failure.cause
        if failure.wait_seconds is not None and failure.wait_seconds > LONGEST_WAIT_SECONDS:
            raise ServerError(
                f"{where} asks to wait {failure.wait_seconds:.0f} s, and {LONGEST_WAIT_SECONDS:.0f} s is the longest "
                f"wait ({told}). Run again after that time."
            ) from failure.cause
        if not (failure.reached or self._reached) and attempt >= min(_UNREACHED_RETRIES, self._max_retries):
            raise ServerError(
                f"There is no server at {self._url}: {told}. Check 'base_url', and that the server has started."
            ) from failure.cause
        if attempt >= self._max_retries:
            raise ServerError(
                f"{where} gave no usable answer in {attempt + 1} attempts; the last: {told}. Run again when the server "
                "is well."
            ) from failure.cause

    def _wait(self, job: Job, failure: Failure, attempt: int, stop: threading.Event) -> None:
        """Wait before the next attempt: as long as the server asks, else twice as long each time; never in step."""
        if failure.wait_seconds is None:
            seconds = min(BACKOFF_SECONDS * 2.0**attempt, LONGEST_BACKOFF_SECONDS) * self._jitter.uniform(0.5, 1.0)
        else:
            seconds = failure.wait_seconds * self._jitter.uniform(1.0, 1.1)
        log.debug("%s: %s; attempt %d in %.2f s", job.request.path, failure.error, attempt + 2, seconds)
        if stop.wait(seconds):
            raise Stopped
        self._count(retries=1)

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number

    def _kept(self) -> str:
        """Return what is kept and how to go on, as the end of an error's text; empty when no answer came yet."""
        if self._keeps and (kept := len(self._cache)):
            one = "1 answer is" if kept == 1 else f"{kept} answers are"
            return f" {one} kept in {self._cache.path}: with that cache only what is missing is asked again."
        if self._answers and not self._keeps:
            one = "1 answer that came is" if self._answers == 1 else f"{self._answers} answers that came are"
            return f" The {one} not kept: pass cache=FILE (on the command line --set cache=FILE) to pay for none twice."
        return ""

    def _warn_of_changes(self) -> None:
        """Warn once of each model that changed; from the caller's thread, where warnings are looked for."""
        with self._lock:
            fresh = {target: change for target, change in self._changes.items() if target not in self._warned}
            self._warned.update(fresh)
        for target, change in fresh.items():
            warnings.warn(
                f"The model at {target} changed without a word: {change}. Answers of the earlier one are no longer "
                "used; what was fitted on them may not hold.",
                CalibrationWarning,
                stacklevel=3,
            )


def _tokens(usage: Mapping[str, Any], *names: str) -> int:
    """Return the first of these counts that the server tells."""
    return next((int(usage[name]) for name in names if isinstance(usage.get(name), int)), 0)
