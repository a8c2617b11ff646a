"""Checkpoints that are whole: each one that was written to its end lists its files, and a run goes on from no other."""

import json
import re
from pathlib import Path

from calibwrap.files import replacing

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in the output folder."""

_LIST, _STATE = "whole.json", "trainer_state.json"
"""What lists a checkpoint's files with their sizes, and what the trainer knows of itself."""

_OTHERS = re.compile(r"rng_state_[1-9]\d*\.pth")
"""State of the random numbers of other processes than the first."""


def mark_whole(checkpoint: Path) -> None:
    """Write down the files of a checkpoint that has just been written to its end, with their sizes in bytes.

    Those that other processes write for themselves are left out: they may still be at it.
    """
    own = [file for file in sorted(checkpoint.iterdir()) if file.is_file() and not _OTHERS.fullmatch(file.name)]
    sizes = {file.name: file.stat().st_size for file in own}
    with replacing(checkpoint / _LIST) as part:
        part.write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Return the newest whole checkpoint in `folder` and its step: one of which nothing is missing or cut off.

    >>> last_checkpoint(Path("nowhere")) is None
    True
    """
    found = [(_step(one), one) for one in folder.glob("checkpoint-*") if is_whole(one)]
    return None if not found else max(found)[::-1]


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end, and its files are as large as they were then.

    >>> is_whole(Path("nowhere"))
    False
    """
    try:
        sizes = json.loads((checkpoint / _LIST).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _step(checkpoint: Path) -> int:
    """Return the step of a whole checkpoint."""
    return int(json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["global_step"])
