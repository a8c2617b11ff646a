"""Where a model lies and which one it is, told alike by every adapter that opens directories and hub ids."""

import os
from pathlib import Path
from typing import Any

from calibwrap.adapters._shared import hash_file, hash_texts


def looks_like_path(target: str) -> bool:
    """Return whether `target` names a place on the disk rather than a repository OWNER/NAME.

    >>> looks_like_path("./model"), looks_like_path("owner/name")
    (True, False)
    """
    return Path(target).exists() or target.startswith((".", "/", "~")) or os.sep != "/" or target.count("/") > 1


def revision_of(target: str, config: Any) -> str:
    """Return what tells these weights from others: the hub's commit, or a SHA-256 over the weights' files.

    Args:
        target: a file, a directory or a hub id.
        config: the configuration that Transformers read there.
    """
    path = Path(target)
    if path.is_file():
        return hash_file(path)
    if path.is_dir():
        files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in path.glob(pattern))
        return hash_texts(f"{file.name} {hash_file(file)}" for file in files)
    return str(getattr(config, "_commit_hash", None) or "")
