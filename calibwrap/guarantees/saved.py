"""Saved guarantees, each with the calibrator, model and readout that it belongs to, and saved monitors.

A guarantee's file is written like a calibrator's: JSON, or safetensors where the calibrator has arrays; never code.

    {"format": "calibwrap-guarantee", "format_version": 1, "date": "2026-11-22", "readout": "label:letter",
     "guarantee": {"kind": "guard", "parameters": {"risk": 0.1, ...}}, "provenance": {...}, "calibrator": {...}}
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from calibwrap.base import Calibrator
from calibwrap.calibrators._inputs import today
from calibwrap.errors import InputError, SavedFileError
from calibwrap.guarantees._betting import Stake
from calibwrap.guarantees.conformal import ConformalSets
from calibwrap.guarantees.monitor import LAMBDAS, POWERS, CalibrationMonitor, DriftMonitor
from calibwrap.guarantees.selective import Guard
from calibwrap.provenance import Provenance
from calibwrap.saving import (
    Record,
    arrays_for,
    built,
    checked_header,
    named,
    packed,
    read_whole,
    record_of,
    split_file,
    write_whole,
)

FORMAT = "calibwrap-guarantee"
MONITOR_FORMAT = "calibwrap-monitor"
FORMAT_VERSION = 1
Guarantee = Guard | ConformalSets
Monitor = CalibrationMonitor | DriftMonitor
_GUARANTEES: Mapping[str, Any] = {kind.kind: kind for kind in (Guard, ConformalSets)}
_BETS = {CalibrationMonitor.kind: 2 * len(LAMBDAS), DriftMonitor.kind: 4 * len(POWERS)}


@dataclass(frozen=True)
class SavedGuarantee:
    """A guarantee and what it is good for."""

    guarantee: Guarantee
    calibrator: Calibrator
    """The calibrator that its confidences come from."""
    provenance: Provenance
    """The model that gave the answers."""
    readout: str
    """Label of the readout that they were read with."""


@dataclass(frozen=True)
class _Part:
    """A record by name, and its fields."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class _Header:
    """What the file of a guarantee says beside its calibrator's arrays."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    format: Literal["calibwrap-guarantee"]
    format_version: int
    date: str
    readout: str
    guarantee: _Part
    provenance: Provenance
    calibrator: Record


@dataclass(frozen=True)
class _MonitorHeader:
    """What the file of a monitor says."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    format: Literal["calibwrap-monitor"]
    format_version: int
    date: str
    monitor: _Part
    log_bets: list[float | None]
    log_peak: float
    steps: int


def save_guarantee(saved: SavedGuarantee, path: str | os.PathLike[str]) -> None:
    """Return nothing, having written the guarantee with its calibrator, model and readout to one file.

    Raises:
        InputError: the calibrator holds what cannot be written.
        SavedFileError: the file cannot be written.

    >>> import tempfile
    >>> from calibwrap.calibrators import Temperature
    >>> guard = Guard(risk=0.1, delta=0.05, threshold=0.8, rows=400, tested=300, answered=120, errors=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_guarantee(SavedGuarantee(guard, Temperature(2.0), Provenance(), "label"), f"{folder}/guard.json")
    ...     load_guarantee(f"{folder}/guard.json").guarantee == guard
    True
    """
    arrays = arrays_for(path)
    calibrator = record_of(saved.calibrator, "", arrays)
    part = _Part(saved.guarantee.kind, asdict(saved.guarantee))
    header = _Header(FORMAT, FORMAT_VERSION, today(), saved.readout, part, saved.provenance, calibrator)  # type: ignore[arg-type]
    write_whole(Path(path), packed(asdict(header), arrays))


def load_guarantee(path: str | os.PathLike[str]) -> SavedGuarantee:
    """Return the guarantee in the file `path`, with its calibrator, model and readout.

    Raises:
        SavedFileError: no such file, or it is broken, of another kind, too large, or of a newer calibwrap.
    """
    path = Path(path)
    text, arrays = split_file(path, read_whole(path))
    header = checked_header(path, text, _Header, FORMAT, FORMAT_VERSION)
    with named(path):
        kind = _GUARANTEES.get(header.guarantee.kind)
        if kind is None:
            raise SavedFileError(f"no guarantee is called {header.guarantee.kind!r}")
        _check_fields(header.guarantee, {field.name for field in fields(kind)})
        guarantee = kind(**header.guarantee.parameters)
        return SavedGuarantee(guarantee, built(header.calibrator, arrays), header.provenance, header.readout)


def save_monitor(monitor: Monitor, path: str | os.PathLike[str]) -> None:
    """Return nothing, having written the monitor to one JSON file; it goes on from there when it is loaded.

    Raises:
        SavedFileError: the file cannot be written.

    >>> import tempfile
    >>> monitor = CalibrationMonitor().update([0.9, 0.8], [True, False])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_monitor(monitor, f"{folder}/monitor.json")
    ...     load_monitor(f"{folder}/monitor.json").value == monitor.value
    True
    """
    own = {field.name: getattr(monitor, field.name) for field in fields(monitor) if field.name != "stake"}
    stake = monitor.stake
    bets = [None if bet == -np.inf else float(bet) for bet in stake.log_bets]
    part = _Part(monitor.kind, own)
    header = _MonitorHeader(MONITOR_FORMAT, FORMAT_VERSION, today(), part, bets, stake.log_peak, stake.steps)  # type: ignore[arg-type]
    write_whole(Path(path), packed(asdict(header), {}))


def load_monitor(path: str | os.PathLike[str]) -> Monitor:
    """Return the monitor in the file `path`.

    Raises:
        SavedFileError: no such file, or it is broken, of another kind, too large, or of a newer calibwrap.
    """
    path = Path(path)
    text, _ = split_file(path, read_whole(path))
    header = checked_header(path, text, _MonitorHeader, MONITOR_FORMAT, FORMAT_VERSION)
    with named(path):
        return _monitor(header)


def _monitor(header: _MonitorHeader) -> Monitor:
    """Return the monitor of a header; its own checks decide whether the numbers are sound."""
    own = header.monitor.parameters
    if header.monitor.kind == CalibrationMonitor.kind:
        _check_fields(header.monitor, {"tolerance"})
        return CalibrationMonitor(own["tolerance"], _stake(header))
    if header.monitor.kind == DriftMonitor.kind:
        _check_fields(header.monitor, {"seen", "seed"})
        monitor = DriftMonitor(tuple(own["seen"]), own["seed"], _stake(header))
        if len(monitor.seen) <= header.steps:
            raise SavedFileError(f"{header.steps} steps cannot leave {len(monitor.seen)} confidences")
        return monitor
    raise SavedFileError(f"no monitor is called {header.monitor.kind!r}")


def _stake(header: _MonitorHeader) -> Stake:
    """Return the stake of a header, None standing for a bet that has nothing left in play.

    Raises:
        InputError: another number of bets, a number that is not finite, or negative steps.
    """
    wanted = _BETS[header.monitor.kind]
    bets = np.array([-np.inf if bet is None else bet for bet in header.log_bets], dtype=np.float64)
    is_sound = header.steps >= 0 and 0.0 <= header.log_peak < np.inf and not np.isnan(bets).any()
    if bets.shape != (wanted,) or (bets == np.inf).any() or not is_sound:
        raise InputError(f"'log_bets' must be {wanted} numbers, 'steps' and 'log_peak' finite and at least 0")
    return Stake(bets, header.steps, header.log_peak)


def _check_fields(part: _Part, wanted: set[str]) -> None:
    if set(part.parameters) != wanted:
        raise SavedFileError(f"a {part.kind} has the parameters {sorted(wanted)}, and {sorted(part.parameters)} came")
