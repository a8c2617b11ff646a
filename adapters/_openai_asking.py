"""Asking a server in its own words: a setting that it refuses, and that can be left out, is left out from then on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from calibwrap.adapters._openai_probe import Shown, explained
from calibwrap.adapters._openai_requests import PATHS, Asked, Dialect, Draw, adapted, most_tokens, request_body
from calibwrap.adapters._openai_sse import Events, StreamingTransport
from calibwrap.adapters._openai_transport import Rejected, Reply, Request
from calibwrap.questions import Prompt

Answered = TypeVar("Answered")


class Asker:
    """Sends prompts with a transport; remembers what each endpoint of the server refuses and accepts."""

    def __init__(self, transport: StreamingTransport, server: str, shown: Callable[[Prompt], Shown]) -> None:
        """Send through `transport`; `shown` names the endpoint that reads a prompt."""
        self._transport, self._server, self._shown = transport, server, shown
        self._dialects: dict[str, Dialect] = {}
        self._accepted: set[tuple[str, ...]] = set()

    def dialect(self, prompt: Prompt) -> Dialect:
        """Return how the endpoint that reads `prompt` wants to be asked, as far as is known."""
        shown = self._shown(prompt)
        return self._dialects.get(shown.dialect.endpoint, shown.dialect)

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """Return the replies, in order. What refuses a setting that can be left out is asked again without it.

        A kind of request that the server has not accepted yet goes alone first, so that a refusal costs one request.
        """
        if not asked:
            return []
        made = [self._request(*one) for one in asked]
        kinds = [_kind(request) for request in made]
        fresh = [index for index, kind in enumerate(kinds) if kind not in self._accepted]
        if not fresh:
            return self._sent(made)
        first = fresh[0]
        reply = self._first(*asked[first], lambda request: self._transport.send([request])[0])
        rest = self.ask([one for index, one in enumerate(asked) if index != first])
        return [*rest[:first], reply, *rest[first:]]

    def open(self, prompt: Prompt, draw: Draw) -> Events:
        """Return the events of a streamed answer, asked again without what the server refuses."""
        return self._first(
            prompt,
            replace(draw, streamed=True),
            lambda request: self._transport.open(request, self._request(prompt, draw)),
        )

    def _first(self, prompt: Prompt, draw: Draw, send: Callable[[Request], Answered]) -> Answered:
        """Return what `send` makes of the first request of its kind, and remember how it had to be asked."""
        while True:
            dialect, request = self.dialect(prompt), self._request(prompt, draw)
            try:
                answered = send(request)
            except Rejected as refusal:
                changed = adapted(dialect, request.body, refusal.param, refusal.message)
                if changed is None:
                    raise explained(refusal, self._server) from refusal
                self._dialects[dialect.endpoint] = changed
            else:
                self._accepted.add(_kind(request))
                return answered

    def _request(self, prompt: Prompt, draw: Draw) -> Request:
        dialect = self.dialect(prompt)
        body = request_body(dialect, prompt, draw)
        kept = draw.kept and (draw.seed is None or "seed" in body or draw.temperature == 0.0)
        return Request(PATHS[dialect.endpoint], body, most_tokens(prompt, draw), cacheable=kept)

    def _sent(self, requests: Sequence[Request]) -> list[Reply]:
        try:
            return self._transport.send(requests)
        except Rejected as refusal:
            raise explained(refusal, self._server) from refusal


def _kind(request: Request) -> tuple[str, ...]:
    """Return what a server may take offence at: the endpoint and the names of the settings."""
    return (request.path, *sorted(request.body))
