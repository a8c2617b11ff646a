"""GGUF files and what identifies a loaded one: hash, quantisation, cache types."""

import functools
from pathlib import Path
from typing import Any

from calibwrap.adapters._shared import hash_file
from calibwrap.errors import ModelError

MAGIC = b"GGUF"


def check_gguf(path: Path) -> None:
    """Return nothing when there is a file that begins like a GGUF file.

    Raises:
        ModelError: it is missing, unreadable or something else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(f"There is no readable model file at {path}: {error.strerror}.") from error
    if start != MAGIC:
        raise ModelError(f"{path} is not a GGUF file: it begins with {start!r} and not with {MAGIC!r}.")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file; asked again in the same process it is read again only after a change.

    Raises:
        ModelError: the file is not there any more.
    """
    try:
        status = path.stat()
        return _hash(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read any more: {error.strerror}.") from error


@functools.lru_cache(maxsize=32)
def _hash(path: Path, size: int, modified: int) -> str:
    return str(hash_file(path))


def number_format(llama: Any, api: Any) -> str:
    """Return quantisation, KV-cache types and flash attention in one text; all of them move confidences."""
    parameters = llama.context_params
    cache = [_name(api, "GGML_TYPE_", kind) for kind in (parameters.type_k, parameters.type_v)]
    parts = [
        _name(api, "LLAMA_FTYPE_", int(llama.metadata.get("general.file_type", api.LLAMA_FTYPE_GUESSED))),
        f"kv {cache[0]}/{cache[1]}",
        "flash-attn " + _name(api, "LLAMA_FLASH_ATTN_TYPE_", parameters.flash_attn_type),
    ]
    if llama.lora_path:
        parts.append(f"lora {file_hash(Path(llama.lora_path))[:16]} x {llama.lora_scale}")
    return ", ".join(parts)


def _name(api: Any, prefix: str, value: int) -> str:
    """Return the runtime's own name of an enumerated value, such as "Q4_1" for LLAMA_FTYPE_MOSTLY_Q4_1."""
    names = (name for name, number in vars(api).items() if name.startswith(prefix) and number == value)
    return next((name.removeprefix(prefix).removeprefix("MOSTLY_") for name in names), str(value))
