"""No key leaves this process but in the header it belongs to: what a client's secrets are, and texts without them."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import openai

_SHORTEST = 8
"""Shorter keys are placeholders ("none", "EMPTY") and would be found in innocent texts."""
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password|signature", re.IGNORECASE)
_LOOKS_SECRET = re.compile(
    r"\bsk-[\w*.-]{6,}"  # OpenAI's shape, half-masked ones too
    r"|(?<=bearer )[\w.~+/=*-]{8,}|(?<=basic )[\w.~+/=*-]{8,}"
    r"|\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]+)?",  # JSON Web Tokens, which Azure's directory gives
    re.IGNORECASE,
)
_MASK = "[secret]"


class Redactor:
    """Takes a client's secrets out of texts.

    The key is read anew for each text, because a client may renew it.
    """

    def __init__(self, client: "openai.OpenAI") -> None:
        """Find the secrets in the client's headers, query and base URL."""
        self._client = client
        url = urlsplit(str(client.base_url))
        named = (*_named_secrets(client.default_headers), *_named_secrets(client.default_query))
        self._fixed = (*named, url.password or "", *_values(url.query), self._key())

    def exact(self, text: str) -> str:
        """Return `text` without the secrets themselves; for answers, which may speak of keys in general."""
        found = {value for value in (*self._fixed, self._key()) if len(value) >= _SHORTEST}
        for secret in sorted(found, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return text

    def message(self, text: str) -> str:
        """Return `text` without the secrets and without what looks like one; for errors and logs."""
        return _LOOKS_SECRET.sub(_MASK, self.exact(text))

    def _key(self) -> str:
        """Return the client's key; empty where something else gives it."""
        return self._client.api_key if isinstance(self._client.api_key, str) else ""


def public_url(url: str) -> str:
    """Return `url` without credentials, query and last slash.

    >>> public_url("https://user:password@api.example.org/v1/?key=abc")
    'https://api.example.org/v1'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _named_secrets(fields: Mapping[str, object]) -> Iterable[str]:
    """Return the values under names that speak of secrets; of "Bearer X", the X."""
    for name, value in fields.items():
        if isinstance(value, str) and _SECRET_NAME.search(name):
            yield value.rpartition(" ")[2]


def _values(query: str) -> Iterable[str]:
    return (part.partition("=")[2].rstrip("/") for part in query.split("&"))
