"""Listed tokens of a server -> TokenScores: sorted, each token once, the unlisted mass and its largest part bounded."""

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calibwrap.adapters._openai_replies import Entry, Position
from calibwrap.errors import LogprobsUnavailable, SemanticsMismatch
from calibwrap.scores import Floats, TokenScores

OWN_NUMBERS = 1 << 32
"""From here on ids are numbers that the adapter gave; below, they are the server's."""
SLACK = 2e-6
"""Mass that rounding to 32 bits may hide in a list of some hundred entries."""
EXCESS = 1e-2
"""How far a listed mass may be above 1, as low-precision servers have it."""
ABOVE_ZERO = 1e-3
"""How far a log-probability may be above 0 for the same reason."""


@dataclass
class TokenNumbers:
    """Numbers for tokens that a server names by text, and the bytes of every token seen; safe between threads.

    Tokens of one text in one list are told apart by their order of probability. Tokens whose text says nothing (parts
    of characters, shown as U+FFFD) have numbers of their own, apart from those of all texts that do, and no bytes.
    """

    _numbers: dict[tuple[bytes | str, int], int] = field(default_factory=dict)
    _bytes: dict[int, bytes] = field(default_factory=dict)
    _given: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def number(self, entry: Entry, rank: int = 0) -> int:
        """Return the id of `entry`, which is number `rank` of those in its list with the same bytes."""
        with self._lock:
            if entry.id is not None:
                self._bytes[entry.id] = entry.data or b""
                return entry.id
            key = (entry.text if entry.data is None else entry.data, rank)
            if key not in self._numbers:
                self._numbers[key] = self._next()
                self._bytes[self._numbers[key]] = entry.data or b""
            return self._numbers[key]

    def unused(self) -> int:
        """Return a number that no token has."""
        with self._lock:
            return self._next()

    def _next(self) -> int:
        self._given += 1
        return OWN_NUMBERS + self._given - 1

    def silence(self, number: int) -> None:
        """Note that a token adds no text, such as the end token, whose name some servers give in place of bytes."""
        with self._lock:
            self._bytes[number] = b""

    def bytes_of(self, number: int) -> bytes:
        """Return the bytes of a token that was seen; b"" where they are not known."""
        return self._bytes.get(number, b"")


@dataclass(frozen=True)
class Row:
    """One position: tokens by falling probability."""

    entries: tuple[Entry, ...]
    drawn: int | None
    """Which of the entries was drawn; None when its log-probability is missing."""
    sure: int
    """How many leading entries are certain to be the most probable of all, in order."""


def sorted_row(position: Position, asked: int, server: str, *, with_drawn: bool = True) -> Row:
    """Return the tokens of a position that have a log-probability, each once, the most probable first.

    `asked` is how many the server would list. The drawn token may be an extra that pushed the last one out (vLLM), so
    that it is no bound for unlisted tokens when it comes last. In a list keyed by text, tokens may have overwritten
    each other: those whose text says nothing are left out, since their value may be another's, and where entries lack,
    any one of the listed may be less probable than a lost one. `with_drawn` adds the drawn token in any case.

    Raises:
        LogprobsUnavailable: nothing listed has a log-probability, or all are exactly 0.
        SemanticsMismatch: values above 0, or probabilities that sum to more than 1.
    """
    drawn = position.drawn
    listed = _distinct([entry for entry in position.listed if entry.logprob is not None])
    if position.by_text:
        listed = [entry for entry in listed if entry.data is not None]
    at = _place(drawn, listed)
    if at is None and drawn.logprob is not None and (with_drawn or drawn.data is not None or not position.by_text):
        at = len(listed)
        listed.append(drawn)
    _check_values([_known(entry) for entry in listed], server)
    order = sorted(range(len(listed)), key=lambda index: -_known(listed[index]))
    entries = tuple(listed[index] for index in order)
    place = None if at is None else order.index(at)
    sure = len(entries) - (place == len(entries) - 1)
    if position.by_text and sure < asked:
        sure = 0
    return Row(entries, place, sure)


def _known(entry: Entry) -> float:
    return -math.inf if entry.logprob is None else entry.logprob


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Return `entries` without exact repetitions: one id twice, or one text with one value."""
    seen: set[object] = set()
    kept = []
    for entry in entries:
        key = entry.id if entry.id is not None else (entry.data, entry.logprob)
        if (entry.id is None and entry.data is None) or key not in seen:
            kept.append(entry)
        seen.add(key)
    return kept


def _place(drawn: Entry, listed: Sequence[Entry]) -> int | None:
    """Return which of the listed entries is the drawn one; None when it is not among them."""
    if drawn.id is not None:
        return next((index for index, entry in enumerate(listed) if entry.id == drawn.id), None)
    if drawn.logprob is None:
        return None
    same = [index for index, entry in enumerate(listed) if (entry.data, entry.text) == (drawn.data, drawn.text)]
    best = min(same, key=lambda index: abs(_known(listed[index]) - _known(drawn)), default=None)
    return None if best is None or abs(_known(listed[best]) - _known(drawn)) > 1e-4 else best


def _check_values(values: Sequence[float], server: str) -> None:
    if not values or (len(values) > 1 and not any(values)):
        raise LogprobsUnavailable(
            f"{server} sent {len(values)} log-probabilities for a token, all missing or exactly 0. Servers do so when "
            "they do not work them out, or decode speculatively: switch that off, or use another server."
        )
    mass = sum(map(math.exp, values)) if max(values) <= ABOVE_ZERO else math.inf
    if mass > 1.0 + EXCESS:
        raise SemanticsMismatch(
            f"Expected log-probabilities of {server} at most 0, with a listed mass of at most 1. Got {max(values):.4g} "
            f"as the largest and a mass of {mass:.4g}. They may be probabilities, logits, logarithms to another base, "
            "or values after sampling: make the server report natural-log probabilities from before sampling."
        )


def token_scores(rows: Sequence[Row], drawn: Sequence[Entry] | None, numbers: TokenNumbers, top: int) -> TokenScores:
    """Return the `top` most probable tokens of each position; with `drawn`, also which token was drawn there.

    `top` 0 lists the drawn token alone. A drawn token whose log-probability is missing has NaN as `chosen_logprob`.
    Shorter lists are filled up with tokens of probability 0 that do not exist.
    """
    parts = [_listed(row, top) for row in rows]
    width = max((len(part) for part in parts), default=1)
    logprobs = np.full((len(rows), width), -np.inf)
    ids = np.empty((len(rows), width), dtype=np.int64)
    tails, cuts = np.empty(len(rows)), np.empty(len(rows))
    chosen, chosen_logprob = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    for index, (row, part) in enumerate(zip(rows, parts, strict=True)):
        known = _numbered(row, numbers)
        logprobs[index, : len(part)] = [min(0.0, _known(row.entries[place])) for place in part]
        ids[index] = [*(known[place] for place in part), *(numbers.unused() for _ in range(width - len(part)))]
        tails[index], cuts[index] = _bounds(row, part, logprobs[index, : len(part)])
        if drawn is not None:
            chosen[index] = numbers.number(drawn[index]) if row.drawn is None else known[row.drawn]
            chosen_logprob[index] = np.nan if row.drawn is None else min(0.0, _known(row.entries[row.drawn]))
    if drawn is None:
        return TokenScores(logprobs, ids=ids, log_tail=tails, log_cut=cuts)
    return TokenScores(logprobs, ids, chosen, chosen_logprob, log_tail=tails, log_cut=cuts)


def _listed(row: Row, top: int) -> list[int]:
    """Return which entries of a row are shown."""
    if top == 0:
        return [0 if row.drawn is None else row.drawn]
    return list(range(min(top, len(row.entries))))


def _numbered(row: Row, numbers: TokenNumbers) -> list[int]:
    """Return the ids of all entries of a row."""
    seen: Counter[bytes | None] = Counter()
    known = []
    for entry in row.entries:
        known.append(numbers.number(entry, seen[entry.data]))
        seen[entry.data] += 1
    return known


def _bounds(row: Row, part: Sequence[int], shown: Floats) -> tuple[float, float]:
    """Return the logarithms of the mass that is not shown and of the most that one token in it can have."""
    mass = float(np.exp(shown).sum())
    slack = max(SLACK, mass - 1.0)
    tail = math.log(min(1.0, max(0.0, 1.0 - mass) + slack))
    if part[0] != 0:  # not the most probable one, so a token that is not shown may have all the rest
        return tail, tail
    if row.sure >= len(part):
        return tail, min(tail, float(shown[-1]))
    return tail, tail if row.sure == 0 else min(tail, _known(row.entries[row.sure - 1]))
