"""What a run may spend: requests and tokens, reserved before they are sent and settled when they are answered."""

import threading

from calibwrap.adapters._openai_settings import check_whole
from calibwrap.adapters._openai_workers import Stopped
from calibwrap.errors import BudgetExceeded

_LOOK_SECONDS = 0.05
"""How often one who waits for others to settle looks whether the run was stopped."""


class Budget:
    """A limit that is never gone over, however many ask at once.

    >>> budget = Budget(max_requests=10, max_tokens=100)
    >>> budget.reserve(80)
    >>> budget.settle(reserved=80, spent=30)
    >>> budget.requests, budget.tokens
    (1, 30)
    """

    requests: int
    """Requests sent so far, each repeated one included."""
    tokens: int
    """Tokens spent so far."""

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        """Begin with nothing spent.

        Args:
            max_requests: most requests; None for no limit.
            max_tokens: most tokens, prompts and answers together; None for no limit.

        Raises:
            InputError: a limit is negative, or no whole number.
        """
        check_whole("max_requests", max_requests, least=0, optional=True)
        check_whole("max_tokens", max_tokens, least=0, optional=True)
        self.requests = 0
        self.tokens = 0
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._reserved = 0
        self._open = 0
        self._changed = threading.Condition()

    def reserve(self, tokens: int, stop: threading.Event | None = None) -> None:
        """Count one request and set `tokens` aside for it; every call is followed by one of `settle`.

        When it does not fit beside what others have reserved, this waits until they have settled, since most requests
        cost less than their upper estimate.

        Raises:
            BudgetExceeded: it does not fit, and nothing is open that could still turn out cheaper.
            Stopped: `stop` was set while waiting.
        """
        with self._changed:
            while not self._fits(tokens):
                if not self._open or self._no_request_left() or self._no_token_left():
                    raise BudgetExceeded(self._sentence(tokens))
                self._changed.wait(_LOOK_SECONDS)
                if stop is not None and stop.is_set():
                    raise Stopped
            self.requests += 1
            self._reserved += tokens
            self._open += 1

    def settle(self, reserved: int, spent: int) -> None:
        """Replace what `reserve` set aside by what was really spent."""
        with self._changed:
            self._reserved -= reserved
            self._open -= 1
            self.tokens += spent
            self._changed.notify_all()

    def _no_request_left(self) -> bool:
        return self._max_requests is not None and self.requests >= self._max_requests

    def _no_token_left(self) -> bool:
        return self._max_tokens is not None and self.tokens >= self._max_tokens

    def _fits(self, tokens: int) -> bool:
        if self._no_request_left() or self._no_token_left():
            return False
        return self._max_tokens is None or self.tokens + self._reserved + tokens <= self._max_tokens

    def _sentence(self, tokens: int) -> str:
        if self._no_request_left():
            return (
                f"The budget of max_requests={self._max_requests} is used up: {self.requests} requests were sent "
                f"(repeated ones count), {self.tokens} tokens spent; the next one was not sent."
            )
        if self._no_token_left():
            return (
                f"The budget of max_tokens={self._max_tokens} is used up: {self.tokens} tokens were spent in "
                f"{self.requests} requests; the next one was not sent."
            )
        return (
            f"The next request may cost {tokens} tokens, and {self.tokens} of max_tokens={self._max_tokens} are spent "
            f"in {self.requests} requests; it was not sent."
        )
