"""What a backend said, as numbers whose kind is in their name.

`logprobs` are natural-log probabilities, `logits` are unnormalised, `probabilities` and `confidence` lie in [0, 1].
Nothing here guesses a kind from values, and nothing here renormalises a truncated distribution in silence.
Letters in shapes: N questions, K options, T positions, L listed tokens, V vocabulary, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.errors import InputError
from calibwrap.real_numbers import array_of, real_array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ROUNDING = 1e-6
"""How far the sum of listed probabilities may be off, since runtimes compute and send them as 32-bit numbers."""
GUESS = 0.1
"""Share of the most that it can have that an unlisted option gets as its point value, by benchmarks/truncation.py."""


def logsumexp(values: ArrayLike) -> Floats:
    """Return log(sum(exp(values))) over the last axis, exact for -inf entries and safe for large ones.

    >>> float(logsumexp([0.0, 0.0]).round(6))
    0.693147
    """
    values = _columns_together(np.asarray(values, dtype=np.float64))
    top = np.max(values, axis=-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.sum(np.exp(values - top), axis=-1)) + top[..., 0])


def log_softmax(logits: ArrayLike) -> Floats:
    """Return log-probabilities of `logits` over the last axis; an entry of -inf keeps probability 0.

    >>> np.exp(log_softmax([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    values = _columns_together(np.asarray(logits, dtype=np.float64))
    top = np.max(values, axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(over="ignore"):  # large equal ones must share the probability 1
        values = values - np.where((np.abs(top) > 1e3) & np.isfinite(top), top, 0.0)
    return np.asarray(values - logsumexp(values)[..., None], order="C")


def _columns_together(values: Floats) -> Floats:
    """Return rows of fewer than 8, whose sums stay the same, in an order that numpy reduces several times as fast."""
    return np.asfortranarray(values) if values.ndim == 2 and values.shape[1] < 8 else values


def checked_logits(name: str, values: ArrayLike) -> tuple[Floats, Bools]:
    """Return `values` as (N, K) float64 and the mask of options that exist; -inf marks an option that does not.

    Raises:
        InputError: not two-dimensional, empty, NaN or +inf inside, or a row without any option.

    >>> checked_logits("logprobs", [[0.0, -np.inf]])[1].tolist()
    [[True, False]]
    """
    try:
        array = real_array(values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'{name}' must be an (N, K) array of numbers; rows with fewer options are filled with -inf. "
            f"Got {type(values).__name__}: {error}."
        ) from error
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"'{name}' must have shape (N, K) with N and K at least 1. Got shape {array.shape}.")
    bad = np.isnan(array) | (array == np.inf)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"'{name}' must be finite, or -inf for an option that does not exist. "
            f"Got {array[row, column]} in row {row}, column {column}."
        )
    mask = array > -np.inf
    if not mask.any(axis=1).all():
        row = int(np.argmin(mask.any(axis=1)))
        raise InputError(f"'{name}' must have at least one finite entry in each row. Row {row} has none.")
    return array, mask


class _Record:
    """Frozen arrays: copied where they were writable, then locked, so that nobody's scores change under them."""

    def _lock(self, name: str, dtype: type, shape: tuple[int | None, ...], default: Any = None) -> None:
        value = getattr(self, name)
        array = array_of(f"'{name}' of {type(self).__name__}", default if value is None else value, dtype)
        if array.ndim != len(shape) or any(b is not None and a != b for a, b in zip(array.shape, shape, strict=True)):
            wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
            raise InputError(f"'{name}' of {type(self).__name__} must have shape {wanted}. Got {array.shape}.")
        array.flags.writeable = False
        object.__setattr__(self, name, array)


@dataclass(frozen=True, eq=False)
class TokenScores(_Record):
    """The model's own distribution at T positions: temperature 1, before penalties, truncation and masks.

    >>> TokenScores(np.log([[0.5, 0.25]]), ids=[[7, 9]]).log_tail.round(4).tolist()  # 0.25 is not listed
    [-1.3863]
    """

    logprobs: Floats
    """(T, L) natural-log probabilities, normalised over the FULL vocabulary; -inf where the probability is 0."""
    ids: Ints | None = None
    """(T, L) token ids of the entries, or None when entry v is token v of the whole vocabulary (L == V)."""
    chosen: Ints | None = None
    """(T,) ids of the tokens that were emitted or scored, or None when nothing was chosen."""
    chosen_logprob: Floats | None = None
    """(T,) log-probabilities of `chosen`."""
    log_z: Floats | None = None
    """(T,) log-partition, so that raw logits = logprobs + log_z; None where the backend does not tell."""
    hidden: Floats | None = None
    """(T, D) hidden states that the output head read; None where they were not asked for."""
    log_tail: Floats = None  # type: ignore[assignment]  # filled below
    """(T,) log of the mass that is not listed; -inf when the vocabulary is whole. Worked out when not given.

    Of a list, at least `ROUNDING`: smaller rests cannot be told from nothing, and a high temperature would show them.
    """
    log_cut: Floats = None  # type: ignore[assignment]  # filled below
    """(T,) log of the most that any one token that is not listed can have; `log_tail` when not given."""

    def __post_init__(self) -> None:
        """Check shapes, work out the unlisted mass and lock the arrays."""
        self._lock("logprobs", np.float64, (None, None))
        positions, listed = self.logprobs.shape
        if np.isnan(self.logprobs).any() or (self.logprobs > 1e-2).any():
            raise InputError("'logprobs' of TokenScores must be at most 0 and not NaN: natural-log probabilities.")
        for name, dtype, shape in (
            ("ids", np.int64, (positions, listed)),
            ("chosen", np.int64, (positions,)),
            ("chosen_logprob", np.float64, (positions,)),
            ("log_z", np.float64, (positions,)),
            ("hidden", np.float64, (positions, None)),
        ):
            if getattr(self, name) is not None:
                self._lock(name, dtype, shape)
        with np.errstate(divide="ignore"):
            rest = np.log(np.maximum(ROUNDING, -np.expm1(np.minimum(0.0, logsumexp(self.logprobs)))))
        self._lock("log_tail", np.float64, (positions,), np.full(positions, -np.inf) if self.ids is None else rest)
        self._lock("log_cut", np.float64, (positions,), self.log_tail)
        if (self.log_cut > self.log_tail).any():
            object.__setattr__(self, "log_cut", np.minimum(self.log_cut, self.log_tail))
            self._lock("log_cut", np.float64, (positions,))

    def __len__(self) -> int:
        """Return the number of positions T."""
        return len(self.logprobs)

    @property
    def is_full(self) -> bool:
        """Whether the whole vocabulary is listed, entry v being token v."""
        return self.ids is None

    def logprob_of(self, token_ids: Sequence[int], position: int = 0) -> Floats:
        """Return the log-probability of each of `token_ids` at one position, shape (len(token_ids),).

        Raises:
            InputError: a token is not listed; its probability is then not known and is not made up.

        >>> TokenScores(np.log([[0.5, 0.25]]), ids=[[7, 9]]).logprob_of([9]).round(4).tolist()
        [-1.3863]
        """
        if self.ids is None:
            return np.asarray(self.logprobs[position, list(token_ids)])
        where = {int(token): index for index, token in enumerate(self.ids[position])}
        absent = [token for token in token_ids if token not in where]
        if absent:
            raise InputError(f"Tokens {absent} are not among the {len(where)} listed ones; ask for them with 'ids='.")
        return np.asarray(self.logprobs[position, [where[token] for token in token_ids]])


@dataclass(frozen=True, eq=False)
class OptionScores(_Record):
    """Log-probabilities of the options of N questions, with honest bounds where a backend truncated.

    An option that a truncated list did not show at all is marked in `missing`; its point value is `GUESS` of the
    most that it can have, and every bound is kept. `from_lists` works them out.

    >>> s = OptionScores(np.log([[0.8, 0.2]]), readout="label")
    >>> s.confidence.round(2).tolist(), s.choice.tolist(), s.argmax_certified.tolist()
    ([0.8], [0], [True])
    """

    logprobs: Floats
    """(N, K) log-probabilities, normalised over each question's own options; -inf where there is no option."""
    readout: str
    """Name of the readout and template that asked, such as "continuation-token:cloze"."""
    mask: Bools = None  # type: ignore[assignment]  # filled below
    """(N, K) True where the option exists; worked out from -inf when not given."""
    label_mass: Floats = None  # type: ignore[assignment]  # filled below
    """(N,) probability that the model itself puts on all options together; NaN where it is not defined.

    Out of a truncated list it is the part that the list showed, so a lower bound.
    """
    lower: Floats = None  # type: ignore[assignment]  # filled below
    """(N, K) lower bound of each option's probability; equal to the probability where nothing was cut off."""
    upper: Floats = None  # type: ignore[assignment]  # filled below
    """(N, K) upper bound of each option's probability."""
    missing: Bools = None  # type: ignore[assignment]  # filled below
    """(N, K) True where the backend's list showed nothing of the option."""
    argmax_certified: Bools = None  # type: ignore[assignment]  # filled below
    """(N,) True where the first choice is certain in spite of truncation."""

    def __post_init__(self) -> None:
        """Normalise over the options, fill what was not given and lock the arrays."""
        logits, mask = checked_logits("logprobs", self.logprobs)
        n, k = logits.shape
        self._lock("mask", np.bool_, (n, k), mask)
        if not self.mask.any(axis=1).all():
            raise InputError("'mask' must leave at least one option in each row.")
        object.__setattr__(self, "logprobs", log_softmax(np.where(self.mask, logits, -np.inf)))
        self._lock("logprobs", np.float64, (n, k))
        self._lock("label_mass", np.float64, (n,), np.full(n, np.nan))
        self._lock("missing", np.bool_, (n, k), np.zeros((n, k)))
        self._lock("lower", np.float64, (n, k), self.probabilities)
        self._lock("upper", np.float64, (n, k), self.probabilities)
        self._lock("argmax_certified", np.bool_, (n,), (self.mask & ~self.missing).any(axis=1))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]], readout: str, label_mass: ArrayLike | None = None) -> Self:
        """Return the scores of questions with different numbers of options, one row of log-probabilities each.

        >>> OptionScores.from_rows([[0.0, 0.0], [-1.0]], "label").mask.tolist()
        [[True, True], [True, False]]
        """
        width = max((len(row) for row in rows), default=0)
        logprobs = np.array([[*row, *[-np.inf] * (width - len(row))] for row in rows], dtype=np.float64)
        mask = np.arange(width) < np.array([len(row) for row in rows])[:, None]
        return cls(logprobs, readout, mask, None if label_mass is None else np.asarray(label_mass, dtype=np.float64))  # type: ignore[arg-type]

    @classmethod
    def from_lists(
        cls,
        shown: ArrayLike,
        unlisted: ArrayLike,
        tail: ArrayLike,
        cut: ArrayLike,
        readout: str,
        mask: ArrayLike | None = None,
    ) -> Self:
        """Return the scores, with exact bounds, of options looked up in lists of the most probable tokens.

        Args:
            shown: (N, K) probability of the listed tokens of each option together, 0 where none is listed.
            unlisted: (N, K) how many of the option's tokens are not listed.
            tail: (N,) probability of everything that is not listed, together.
            cut: (N,) the most that any one token that is not listed can have.
            readout: name of the readout.
            mask: (N, K) True where the option exists; all by default.

        Option i, shown with s_i, hides at most h_i = min(tail, unlisted_i cut), and all of them together at most the
        tail. With S the sum of s and W_i = min(tail, sum of h_j over j other than i) its probability among the options
        lies between s_i / (S + W_i) and (s_i + h_i) / (S + h_i); both are attained. The first choice is certain when
        s_i is at least every s_j + h_j. A row that shows no option at all says nothing: bounds 0 and 1.

        Raises:
            InputError: a number is negative or NaN, or the shapes do not fit together.

        >>> s = OptionScores.from_lists([[0.6, 0.0]], [[0, 1]], tail=[0.3], cut=[0.2], readout="label")
        >>> s.lower.round(4).tolist(), s.upper.round(4).tolist(), s.argmax_certified.tolist()
        ([[0.75, 0.0]], [[1.0, 0.25]], [True])
        """
        exists = np.ones(np.shape(shown), dtype=np.bool_) if mask is None else np.asarray(mask, dtype=np.bool_)
        part, count, rest, most = _checked_lists(shown, unlisted, tail, cut, exists)
        hidden = np.minimum(rest, count * most)
        total = part.sum(axis=1, keepdims=True)
        blind = total == 0.0
        missing = exists & (part == 0.0) & ((count > 0) | blind)
        guess = np.minimum(GUESS * hidden, rest / np.maximum(missing.sum(axis=1, keepdims=True), 1))
        with np.errstate(divide="ignore"):
            point = np.where(blind, np.where(exists, 0.0, -np.inf), np.log(np.where(missing, guess, part)))
        value = np.exp(log_softmax(point))
        total = np.where(blind, 1.0, total)
        others = np.minimum(rest, hidden @ (1.0 - np.eye(part.shape[1])))
        lower = np.minimum(part / (total + others), value)
        upper = np.maximum((part + hidden) / (total + hidden), value)
        exact = ~blind & ~hidden.any(axis=1, keepdims=True)
        return cls(
            point,
            readout,
            exists,
            label_mass=part.sum(axis=1),
            lower=np.where(exact, value, lower),
            upper=np.where(blind, exists, np.where(exact, value, upper)),
            missing=missing,
            argmax_certified=~blind[:, 0] & _is_certain(part, np.where(exists, part + hidden, -np.inf)),
        )

    def __len__(self) -> int:
        """Return the number of questions N."""
        return len(self.logprobs)

    @property
    def probabilities(self) -> Floats:
        """(N, K) probabilities of the options, 0 where there is none; each row sums to 1."""
        return np.exp(self.logprobs)

    @property
    def choice(self) -> Ints:
        """(N,) index of the most probable option, the first among equals."""
        return np.asarray(np.argmax(self.logprobs, axis=1))

    @property
    def confidence(self) -> Floats:
        """(N,) probability of the most probable option."""
        return np.asarray(np.exp(np.max(self.logprobs, axis=1)))

    @property
    def n_missing(self) -> Ints:
        """(N,) number of options that the backend's list did not show."""
        return np.asarray(np.sum(self.missing, axis=1))

    @property
    def is_cut(self) -> Bools:
        """(N,) True where a truncated list leaves the probability of an option open."""
        return np.asarray((self.missing | (self.lower < self.upper)).any(axis=1))

    @property
    def is_exact(self) -> bool:
        """Whether nothing was cut off anywhere."""
        return not self.is_cut.any()

    def take(self, rows: ArrayLike) -> Self:
        """Return the scores of the given rows: indices, a slice's indices or a boolean array of length N."""
        rows = np.asarray(rows)
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "readout"}
        return replace(self, **arrays)


@dataclass(frozen=True)
class Decided:
    """What a decision endpoint said of one question; nothing is worked out yet.

    >>> Decided((0.97, 0.03)).probabilities[0]
    0.97
    """

    probabilities: tuple[float, ...]
    """Probability of each option, in the question's order, just as it was printed; 0 may be a rounded number."""
    label_mass: float = float("nan")
    """Probability that the model itself puts on all options together; NaN where the endpoint does not tell."""


def _checked_lists(
    shown: ArrayLike, unlisted: ArrayLike, tail: ArrayLike, cut: ArrayLike, exists: Bools
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return shown and unlisted (N, K), both 0 where there is no option, and tail and cut as columns (N, 1)."""
    table = [np.asarray(values, dtype=np.float64) for values in (shown, unlisted)]
    column = [np.asarray(values, dtype=np.float64)[..., None] for values in (tail, cut)]
    rows = len(exists)
    if exists.ndim != 2 or {a.shape for a in table} != {exists.shape} or {a.shape for a in column} != {(rows, 1)}:
        raise InputError(
            "'shown', 'unlisted' and 'mask' must have shape (N, K), 'tail' and 'cut' shape (N,). Got "
            f"{[a.shape for a in table]}, {exists.shape}, {[a.shape[:-1] for a in column]}."
        )
    if not all((values >= 0.0).all() for values in (*table, *column)):
        raise InputError(
            "'shown', 'unlisted', 'tail' and 'cut' must be at least 0 and not NaN: they are probabilities."
        )
    return np.where(exists, table[0], 0.0), np.where(exists, table[1], 0.0), column[0], column[1]


def _is_certain(shown: Floats, most: Floats) -> Bools:
    """Return (N,) where the option with most shown has at least as much as any other can have."""
    best, rivals = np.argmax(shown, axis=1)[:, None], most.copy()
    np.put_along_axis(rivals, best, -np.inf, axis=1)
    return np.asarray(np.take_along_axis(shown, best, axis=1)[:, 0] >= rivals.max(axis=1))


def join(parts: Sequence[OptionScores]) -> OptionScores:
    """Return the scores of several question sets as one, K padded to the largest.

    Raises:
        InputError: nothing to join, or different readouts.

    >>> a = OptionScores(np.log([[0.8, 0.2]]), readout="label")
    >>> join([a, OptionScores([[0.0]], readout="label")]).mask.tolist()
    [[True, True], [True, False]]
    """
    if not parts or len({part.readout for part in parts}) != 1:
        raise InputError(f"'parts' must be scores of one readout. Got {sorted({part.readout for part in parts})}.")
    width = max(part.logprobs.shape[1] for part in parts)

    def stack(name: str, fill: float) -> NDArray[Any]:
        arrays = [getattr(part, name) for part in parts]
        if arrays[0].ndim == 1:
            return np.concatenate(arrays)
        return np.concatenate([np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in arrays])

    names = {f.name: -np.inf if f.name == "logprobs" else 0 for f in fields(OptionScores) if f.name != "readout"}
    return OptionScores(readout=parts[0].readout, **{name: stack(name, fill) for name, fill in names.items()})
