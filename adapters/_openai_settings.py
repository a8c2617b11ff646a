"""What settings of the OpenAI adapter must look like, checked before a client is made or anything is sent."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calibwrap.errors import InputError

_TEXTS = (
    *("organization", "project", "webhook_secret", "websocket_base_url"),
    *("api_version", "azure_deployment", "azure_ad_token"),
)


def check_whole(name: str, value: object, least: int, optional: bool = False) -> None:
    """Return nothing when `value` is a whole number of at least `least`, or None where it is `optional`.

    Raises:
        InputError: it is something else.

    >>> check_whole("max_retries", 8, least=0)
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        end = ", or None" if optional else ""
        raise InputError(f"{name!r} must be a whole number of at least {least}{end}. Got {value!r}.")


def check_cache(cache: object) -> None:
    """Return nothing when `cache` can be the name of a file, or is None.

    Raises:
        InputError: it is something else, or empty.
    """
    if cache is None or isinstance(cache, Path) or (isinstance(cache, str) and cache):
        return
    raise InputError(f"'cache' must be the name of a file, such as 'answers.sqlite', or None. Got {cache!r}.")


def check_address(name: str, address: object) -> None:
    """Return nothing when `address` is one that HTTP can reach.

    Raises:
        InputError: it is empty, has no http:// or https:// before it, or names no host. Credentials are not shown.

    >>> check_address("base_url", "http://127.0.0.1:8000/v1")
    """
    if not isinstance(address, str):
        raise InputError(f"{name!r} must be a text such as 'http://127.0.0.1:8000/v1'. Got {address!r}.")
    if not address:
        raise InputError(f"{name!r} is empty: give an address such as 'http://127.0.0.1:8000/v1', or leave it out.")
    shown = address.rpartition("@")[2].partition("?")[0]
    wanted = f"{name!r} must be an address such as 'http://127.0.0.1:8000/v1' or 'https://HOST/v1'. Got {shown!r}"
    if not address.lower().startswith(("http://", "https://")):
        raise InputError(f"{wanted}: put http:// or https:// before it.")
    try:
        parts = urlsplit(address)
        named = bool(parts.hostname) and parts.port != 0 and not any(letter.isspace() for letter in address)
    except ValueError as error:  # a port above 65535, a bracket that is not closed; its text may hold a password
        raise InputError(f"{wanted}, whose host or port cannot be read.") from (None if "@" in address else error)
    if not named:
        raise InputError(f"{wanted}, which names no host, or has white space in it.")


def check_key(name: str, key: object) -> None:
    """Return nothing when `key` can be sent in a header: printable ASCII without white space.

    Raises:
        InputError: it cannot; the text does not show the key.

    >>> check_key("api_key", "sk-test")
    """
    if not isinstance(key, str):
        raise InputError(
            f"{name!r} must be a text. Got {type(key).__name__}; on the command line, digits become a text in quotes: "
            f"--set '{name}=\"123\"'."
        )
    wrong = [place for place, letter in enumerate(key, start=1) if not "!" <= letter <= "~"]
    if not key or wrong:
        came = f"character {wrong[0]} of {len(key)} is not" if wrong else "it is empty"
        raise InputError(
            f"{name!r} must be printable ASCII without white space, and {came}. A line break, a space or a curly quote "
            "was perhaps copied with it. (The key itself is not shown.)"
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Return nothing when those of the SDK client's `options` that cannot be told from their first use look right.

    Raises:
        InputError: names the option that does not.
    """
    if "timeout" in options:
        _check_timeout(options["timeout"])
    for name in ("default_headers", "default_query"):
        _check_fields(name, options.get(name))
    for name in _TEXTS:
        if not isinstance(options.get(name, ""), (str, type(None))):
            raise InputError(f"{name!r} must be a text. Got {type(options[name]).__name__}.")
    if options.get("azure_endpoint") is not None:
        check_address("azure_endpoint", options["azure_endpoint"])


def _check_timeout(timeout: object) -> None:
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is None or type(timeout).__name__ == "Timeout":
        return
    if not is_number or not (isinstance(timeout, (int, float)) and math.isfinite(timeout) and timeout > 0):
        raise InputError(f"'timeout' must be a number of seconds above 0, or None for no limit. Got {timeout!r}.")


def _check_fields(name: str, fields: object) -> None:
    """Refuse what is no mapping of names, and header values that HTTP cannot send; they may be secret."""
    if fields is None:
        return
    if not isinstance(fields, Mapping):
        raise InputError(f"{name!r} must map names to values, such as {{'X-Team': 'a'}}. Got {type(fields).__name__}.")
    for key, value in fields.items():
        if name == "default_headers" and isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise InputError(f"The value of {key!r} in 'default_headers' must be printable ASCII. (It is not shown.)")
