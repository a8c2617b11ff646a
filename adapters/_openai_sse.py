"""Requests whose answers come in events, through the same client, budget, repeats and cache as all others."""

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from calibwrap.adapters._openai_events import is_complete, merged
from calibwrap.adapters._openai_failures import Failure, from_body, from_exception
from calibwrap.adapters._openai_transport import Job, Reply, Request, Transport
from calibwrap.errors import ServerError

if TYPE_CHECKING:
    import openai

Event = Mapping[str, Any]
Events = Generator[Event, None, Reply]
"""The events of an answer; returns the whole of it."""


class _NotBegun(Exception):
    """No event came; never seen outside."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class StreamingTransport(Transport):
    """A transport that also opens streams."""

    def open(self, request: Request, whole: Request) -> Events:
        """Return the events of the answer to `request`, once the first of them has come.

        Before that it is repeated as `send` repeats; afterwards never, because its text was shown. `whole` is the same
        request without streaming: an answer that is in the cache for it has no events, and a streamed answer is kept
        for it when it came to its end and may be kept at all.

        Raises:
            Rejected: the server refuses the request itself.
            ServerError: no event after all repeats; or, from the events, a stream that broke off.
            BudgetExceeded: the request would go over the budget; it was not sent.
            JournalError: the cache cannot be read or written.
        """
        plain, job = self._job(whole), self._job(request)
        kept = self._cache.get(plain.key) if self._keeps and whole.cacheable else None
        if kept is not None:
            self._count(cached=1)
            return _from_cache(kept)
        for attempt in range(self._max_retries + 1):
            events = self._events(job, plain)
            try:
                return _begun(next(events), events)
            except _NotBegun as failed:
                self._raise_if_final(job, failed.failure, attempt)
                self._wait(job, failed.failure, attempt, threading.Event())
        raise AssertionError("the last attempt returns or raises")

    def _events(self, job: Job, plain: Job) -> Events:
        """Yield the events of one attempt, settle what it cost, and keep the whole.

        One that is closed early counts with its estimate, since the server may have computed on.
        """
        import openai

        reserved, sent, came = job.request.tokens, time.time(), list[Event]()
        self._budget.reserve(reserved)
        spent = reserved
        try:
            with self._opened(job) as stream:
                for event in stream:
                    came.append(event)
                    yield event
            body = merged(came) if came else {}
            spent = self._cost((body, "", {}), reserved)
        except openai.OpenAIError as error:
            failure = self._failure(error)
            if came:
                raise self._broken(job, str(failure.error)) from failure.cause
            spent = reserved if failure.maybe_billed else 0
            raise _NotBegun(failure) from failure.cause
        except ValueError as error:
            raise self._broken(job, "an event is not JSON") from error
        finally:
            self._budget.settle(reserved, spent)
        if not came:
            raise _NotBegun(Failure(ServerError("the answer holds no event"), again=True, maybe_billed=True))
        if not is_complete(body):
            raise self._broken(job, "the connection ended before the answer did")
        with self._lock:
            self._reached = True
            self._answers += 1
        text = self._redact.exact(json.dumps(body))
        self._keep(plain, body, text, sent)
        self._warn_of_changes()
        return Reply(body, cached=False, headers={})

    def _opened(self, job: Job) -> "openai.Stream[object]":
        """Return the SDK's stream of parsed events."""
        import openai

        options: Any = {"max_retries": 0, "headers": {"Idempotency-Key": job.key}}
        stream: openai.Stream[object] = self._client.post(
            job.request.path,
            cast_to=object,
            body=dict(job.request.body),
            options=options,
            stream=True,
            stream_cls=openai.Stream[object],
        )
        return stream

    def _failure(self, error: "openai.OpenAIError") -> Failure:
        """Return what an error of the SDK stands for; one that came as an event tells itself."""
        import openai

        if type(error) is openai.APIError and isinstance(error.body, Mapping):
            told = from_body({"error": error.body}, self._redact.message)
            if told is not None:
                return told
        return from_exception(error, self._redact.message)

    def _broken(self, job: Job, why: str) -> ServerError:
        return ServerError(f"{self._url}{job.request.path} broke its answer off: {why}.")


def _begun(first: Event, rest: Events) -> Events:
    """Yield all events, the first of which was taken already."""
    with closing(rest):
        yield first
        return (yield from rest)


def _from_cache(body: dict[str, Any]) -> Events:
    """Return an answer that has no events."""
    yield from ()
    return Reply(body, cached=True, headers={})
