"""Transports for tests: opened on a client of their own, and both are closed."""

import contextlib
from collections.abc import Iterator
from typing import Any

import openai

from calibwrap.adapters._openai_transport import Transport


@contextlib.contextmanager
def connected(url: str, key: str = "any", timeout: float = 5.0, **options: Any) -> Iterator[Transport]:
    """Give a transport to the server at `url`."""
    with openai.OpenAI(base_url=url, api_key=key, timeout=timeout) as client:
        transport = Transport(client, **options)
        try:
            yield transport
        finally:
            transport.close()
