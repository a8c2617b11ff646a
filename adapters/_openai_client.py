"""A client of the OpenAI SDK, made here or handed in."""

import difflib
import inspect
import os
from typing import Any
from urllib.parse import urlsplit

from calibwrap.adapters._openai_secrets import public_url
from calibwrap.adapters._openai_settings import check_address, check_key, check_options
from calibwrap.errors import InputError, ServerError, need

KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
OWN = (
    *("base_url", "api_key", "azure_endpoint", "endpoint", "top_logprobs", "context_length", "cache"),
    *("max_concurrency", "max_requests", "max_tokens", "max_retries"),
)
"""Options that are this adapter's."""
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
PLACEHOLDER = "none"
"""Sent to servers on this machine where no key was given; they do not read it, and the SDK wants one."""


def make_client(base_url: str | None, api_key: str | None, options: dict[str, Any]) -> Any:
    """Return an `openai.OpenAI`, or an `AzureOpenAI` where `options` name an `azure_endpoint`.

    Raises:
        MissingExtra: the SDK is not installed.
        ServerError: no key for a server that is not on this machine.
        InputError: an option that the SDK does not know, or an address or a key that cannot be one.
    """
    openai = need("openai", feature="the OpenAI adapter", extra="openai")
    azure = "azure_endpoint" in options
    kind = openai.AzureOpenAI if azure else openai.OpenAI
    _check_names(kind, options)
    check_options(options)
    if azure and base_url is not None:
        raise InputError("Give 'base_url' or 'azure_endpoint', not both: the second is Azure's own address.")
    address = _address(base_url)
    key = _key(api_key, None if azure else address)
    try:
        if azure:
            return kind(api_key=key, **options)
        return kind(base_url=base_url, api_key=key, **options)
    except (openai.OpenAIError, ValueError) as error:
        raise ServerError(f"The OpenAI client cannot be made: {error}") from error
    except TypeError as error:
        raise InputError(f"The OpenAI client does not take these options: {error}.") from error


def _address(base_url: str | None) -> str:
    """Return the address that the client will ask; empty for OpenAI's own."""
    if base_url is not None:
        check_address("base_url", base_url)
        return base_url
    told = os.environ.get(ADDRESS, "")
    if told:
        check_address(ADDRESS, told)
    return told


def _key(api_key: Any, address: str | None) -> Any:
    """Return the key to make a client with, checked; None where Azure's client finds its own."""
    if api_key is not None:
        if not callable(api_key):
            check_key("api_key", api_key)
        return api_key
    if address is None:
        return None
    told = os.environ.get(KEY)
    if told:
        check_key(KEY, told)
        return told
    if urlsplit(address).hostname not in LOOPBACK:
        raise ServerError(
            f"No key for {public_url(address) if address else 'the OpenAI API'}: set {KEY} in the environment, or "
            "pass api_key=. A server on this machine needs none: pass its base_url=."
        )
    return PLACEHOLDER


def _check_names(kind: Any, options: dict[str, Any]) -> None:
    """Refuse options that neither the adapter nor the SDK's client has."""
    known = [name for name in inspect.signature(kind).parameters if not name.startswith("_")]
    unknown = [name for name in options if name not in known]
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], (*known, *OWN), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"{unknown[0]!r} is no option of a model behind a server.{hint} There are {', '.join(OWN)}; and those of "
        f"openai.{kind.__name__}: {', '.join(known)}."
    )


def check_client(client: Any) -> None:
    """Return nothing when `client` is a synchronous client of the SDK, with an address and a key that can be sent.

    Raises:
        InputError: it is something else.
    """
    openai = need("openai", feature="the OpenAI adapter", extra="openai")
    for wrong, right in ((openai.AsyncAzureOpenAI, "AzureOpenAI"), (openai.AsyncOpenAI, "OpenAI")):
        if isinstance(client, wrong):
            raise InputError(
                f"'client' is an {type(client).__name__}: pass an openai.{right} with the same settings. Requests run "
                "in parallel all the same ('max_concurrency')."
            )
    if not isinstance(client, openai.OpenAI):
        raise InputError(f"'client' must be an openai.OpenAI or AzureOpenAI. Got {type(client).__name__}.")
    check_address("base_url", str(client.base_url))
    if client.api_key:  # empty where a function gives it anew for each request
        check_key("api_key", client.api_key)


def is_openai(client: Any) -> bool:
    """Return whether the server is OpenAI's or Azure's own, which refuse settings that they do not know."""
    host = urlsplit(str(client.base_url)).hostname or ""
    return host.endswith(("openai.com", "azure.com"))


def server_name(client: Any) -> str:
    """Return the server's address as messages name it, without credentials."""
    return public_url(str(client.base_url))
