"""Secrets of a command line: API keys are never shown, journalled or reported."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence

HIDDEN = "***"
"""What stands in place of a secret."""

_SECRET_KEY = re.compile(
    r"((^|[_-])(key|token|secret|passw(or)?d|credentials?|auth|authorization)|apikey|headers?|cookies?|query)$", re.I
)
_SETTING = re.compile(r"^(?P<before>(?:--(?:against-)?set=)?(?P<key>[\w.-]+)=)(?P<value>.*)$", re.S)
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=\?)[^\s'\"?]*=[^\s'\"]+")
"""Name and password before a host, and the query of an address."""
_VARIABLES = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
_SHORTEST = 6
"""A shorter secret, such as a placeholder, would hide parts of ordinary words."""


def is_secret(key: str) -> bool:
    """Return whether the value of a setting of this name must not be shown.

    >>> is_secret("api_key"), is_secret("default_headers"), is_secret("max_tokens"), is_secret("tokenizer")
    (True, True, False, False)
    """
    return _SECRET_KEY.search(key) is not None


def shown_setting(word: str) -> str:
    """Return one word of a command line as it may be shown.

    >>> shown_setting("api_key=sk-123"), shown_setting("base_url=http://me:pass@host/v1"), shown_setting("n_ctx=512")
    ('api_key=***', 'base_url=http://***@host/v1', 'n_ctx=512')
    """
    found = _SETTING.match(word)
    if found is not None and is_secret(found["key"]):
        return found["before"] + HIDDEN
    return _IN_ADDRESS.sub(HIDDEN, word) if "://" in word else word


def shown_command(words: Sequence[str]) -> str:
    """Return the command line with these arguments as it may be reported, quoted for a shell.

    >>> shown_command(["ask", "openai:m", "--set", "api_key=sk-1"])
    "calibwrap ask openai:m --set 'api_key=***'"
    """
    return shlex.join(["calibwrap", *map(shown_setting, words)])


def masked(text: str, words: Sequence[str]) -> str:
    """Return `text` without any secret that the arguments `words` or the environment hold.

    >>> masked("The key sk-1234 was refused.", ["--set", "api_key=sk-1234"])
    'The key *** was refused.'
    """
    found = [setting for setting in map(_SETTING.match, words) if setting is not None and is_secret(setting["key"])]
    held = [one for setting in found for one in _texts(setting["value"])]
    held += [os.environ.get(name, "") for name in _VARIABLES]
    for secret in sorted((one for one in held if len(one) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _texts(value: str) -> Iterable[str]:
    """Yield a setting's value and, where it is JSON such as a mapping of headers, the texts inside."""
    yield value
    try:
        parsed = json.loads(value)
    except ValueError:
        return
    if isinstance(parsed, dict):
        for one in parsed.values():
            yield str(one)
            yield str(one).removeprefix("Bearer ")
