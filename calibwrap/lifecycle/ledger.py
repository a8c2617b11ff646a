"""What a study keeps of its pieces: sums by model and probe. A piece is added up as it comes, and then forgotten."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from calibwrap.errors import JournalError, SavedFileError
from calibwrap.inline_arrays import from_inline, inline
from calibwrap.lifecycle.probes import Seen
from calibwrap.lifecycle.tally import Tally
from calibwrap.metrics import CalibrationState

_EVENTS = 1 << 64
"""The identities of events are added up to a number below it."""


@dataclass(frozen=True)
class Sums:
    """What one probe saw of one model: in all, and of each group of questions."""

    tally: Tally
    groups: Mapping[str, CalibrationState]
    events: int = 0
    """Which events they were: two models share it only when theirs were the same."""
    cut: int = 0
    """Of how many a server hid a part."""

    @classmethod
    def of(cls, seen: Iterator[Seen], bins: int) -> Self:
        """Return the sums of what a probe yields."""
        tally, groups, events, cut = Tally.empty(bins), dict[str, CalibrationState](), 0, 0
        for one in seen:
            events, cut = (events + one.identity) % _EVENTS, cut + one.is_cut
            tally = tally.update(one.name, one.confidence, one.correct, one.logprob)
            if one.group:
                own = groups.get(one.group, CalibrationState.empty(bins))
                groups[one.group] = own.update(one.confidence, one.correct)
        return cls(tally, groups, events, cut)

    def __add__(self, other: Self) -> Self:
        """Return the sums of both."""
        groups = dict(self.groups)
        for name, state in other.groups.items():
            groups[name] = groups[name] + state if name in groups else state
        events = (self.events + other.events) % _EVENTS
        return type(self)(self.tally + other.tally, groups, events, self.cut + other.cut)

    def told(self) -> dict[str, Any]:
        """Return the sums as JSON can hold them."""
        return {
            "tally": {name: inline(getattr(self.tally, name)) for name in self.tally.__dataclass_fields__},
            "groups": {name: _told(state) for name, state in self.groups.items()},
            "events": self.events,
            "cut": self.cut,
        }

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> Self:
        """Return what was told."""
        tally = Tally(**{name: from_inline(value) for name, value in told["tally"].items()})
        groups = {name: CalibrationState(**sums) for name, sums in told["groups"].items()}
        return cls(tally, groups, int(told["events"]), int(told["cut"]))


class Ledger:
    """Pieces of a study by name, and what they come to by model and probe."""

    done: set[str]
    """Names of the pieces."""
    sums: dict[tuple[str, str], Sums]
    """By model and probe."""
    sources: dict[str, list[Mapping[str, Any]]]
    """For each model what its pieces were read with, each once: how it was asked for, and what it was."""

    def __init__(self) -> None:
        """Begin with no pieces."""
        self.done, self.sums, self.sources = set(), {}, {}

    def add(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a piece's record, and return what stays of it: nothing.

        Raises:
            JournalError: a record that is not complete.
        """
        name = str(record["id"])
        try:
            model, probe, _ = name.rsplit("\0", 2)
            source = {"asked": record["asked"], "origin": record["origin"]}
            piece = Sums.from_told(record)
            before = self.sums.get((model, probe))
            self.sums[model, probe] = before + piece if before else piece
        except (AttributeError, KeyError, TypeError, ValueError, SavedFileError) as error:
            raise JournalError(f"The journal's line {name!r} is not complete: {error}.") from error
        if source not in self.sources.setdefault(model, []):
            self.sources[model].append(source)
        self.done.add(name)
        return {}


def _told(state: CalibrationState) -> dict[str, Any]:
    sums = {name: getattr(state, name).tolist() for name in ("count", "confidence_sum", "correct_sum")}
    return {**sums, "squared_error_sum": state.squared_error_sum}
