"""A client of the OpenAI SDK, made here or handed in."""

import os
from typing import Any
from urllib.parse import urlsplit

from calibwrap.adapters._openai_secrets import public_url
from calibwrap.errors import InputError, ServerError, need

KEY = "OPENAI_API_KEY"
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
PLACEHOLDER = "none"
"""Sent to servers on this machine where no key was given; they do not read it, and the SDK wants one."""


def make_client(base_url: str | None, api_key: str | None, options: dict[str, Any]) -> Any:
    """Return an `openai.OpenAI`, or an `AzureOpenAI` where `options` name an `azure_endpoint`.

    Raises:
        MissingExtra: the SDK is not installed.
        ServerError: no key for a server that is not on this machine.
        InputError: an option that the SDK does not know.
    """
    openai = need("openai", feature="the OpenAI adapter", extra="openai")
    azure = "azure_endpoint" in options
    address = base_url or os.environ.get("OPENAI_BASE_URL") or ""
    if api_key is None and not azure and not os.environ.get(KEY):
        if urlsplit(address).hostname not in LOOPBACK:
            raise ServerError(
                f"No key for {public_url(address) if address else 'the OpenAI API'}: set {KEY} in the environment, or "
                "pass api_key=. A server on this machine needs none: pass its base_url=."
            )
        api_key = PLACEHOLDER
    try:
        if azure:
            return openai.AzureOpenAI(api_key=api_key, **options)
        return openai.OpenAI(base_url=base_url, api_key=api_key, **options)
    except openai.OpenAIError as error:
        raise ServerError(f"The OpenAI client cannot be made: {error}") from error
    except TypeError as error:
        raise InputError(f"An option is not one of the OpenAI client's: {error}.") from error


def check_client(client: Any) -> None:
    """Return nothing when `client` is a synchronous client of the SDK.

    Raises:
        InputError: it is something else.
    """
    openai = need("openai", feature="the OpenAI adapter", extra="openai")
    if not isinstance(client, openai.OpenAI):
        raise InputError(f"'client' must be an openai.OpenAI or AzureOpenAI. Got {type(client).__name__}.")


def is_openai(client: Any) -> bool:
    """Return whether the server is OpenAI's or Azure's own, which refuse settings that they do not know."""
    host = urlsplit(str(client.base_url)).hostname or ""
    return host.endswith(("openai.com", "azure.com"))


def server_name(client: Any) -> str:
    """Return the server's address as messages name it, without credentials."""
    return public_url(str(client.base_url))
