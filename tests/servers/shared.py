"""The tiny model and one server of each kind around it, started at first use and ended with the session."""

import atexit
import contextlib
import functools
import tempfile
from pathlib import Path

from . import matched, real

KINDS = ("vllm", "llama_cpp.server", "llama-server")
_open = contextlib.ExitStack()
atexit.register(_open.close)


@functools.cache
def model() -> matched.Matched:
    """Return the tiny model, as a directory and as a GGUF file of the same weights."""
    return matched.tiny(Path(_open.enter_context(tempfile.TemporaryDirectory(prefix="tiny-"))))


@functools.cache
def server(kind: str) -> real.Server:
    """Return the session's server of a kind; vLLM's takes most of a minute to start."""
    if kind == "vllm":
        return _open.enter_context(real.vllm_server(model().directory, "--max-logprobs", str(matched.VOCABULARY)))
    start = {"llama_cpp.server": real.llama_cpp_server, "llama-server": real.llama_server}[kind]
    return _open.enter_context(start(model().gguf))
