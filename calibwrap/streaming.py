"""A text that grows token by token: what of it may be shown already, and how sure the model is of it so far.

Pure functions and records. Whatever is shown stays: a character whose bytes are not all there yet is held back, and so
is what may still turn out to be the beginning of a stop text.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from calibwrap.errors import ModelError
from calibwrap.scores import TokenScores

Item = TypeVar("Item")
Result = TypeVar("Result")
_REPLACED = "\ufffd"
"""What stands for bytes that are no character, or not one yet."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One drawn token, as an adapter tells it."""

    text: str
    """What may be shown now: whole characters only, empty for a token that completes none."""
    scores: TokenScores
    """Raw distribution at this one position; `chosen` is the drawn token. No position for text without a token."""


@dataclass(frozen=True)
class StreamedToken:
    """One drawn token, as a user sees it."""

    text: str
    """What it adds to the text: whole characters only, empty for a token that completes none."""
    id: int
    """Its id in the model's vocabulary; -1 for text that a server sent without a token."""
    raw_probability: float
    """The model's own probability of it; NaN where a server does not tell."""
    probability: float
    """The same, calibrated where the calibrator maps tokens."""
    confidence: float
    """Geometric mean of `probability` over the tokens so far, this one included: exp(mean log-probability)."""
    completion: int = 0
    """Number of the completion that it belongs to, from 0 on: its place among all that the decoder draws."""


@dataclass(frozen=True)
class RunningConfidence:
    """The geometric mean of the probabilities of the tokens so far.

    The mean makes texts of different lengths comparable; the probability of the whole text would only ever fall. It is
    no probability that the answer is right.

    >>> half, eighth = (TokenScores([[math.log(p)]], [[0]], [0], [math.log(p)]) for p in (0.5, 0.125))
    >>> round(RunningConfidence().added(half).added(eighth).value, 12)
    0.25
    """

    tokens: int = 0
    """How many were added."""
    logprob: float = 0.0
    """Sum of their log-probabilities; NaN once one of them is not known."""

    def added(self, scores: TokenScores) -> "RunningConfidence":
        """Return the confidence with one token more, that of `scores`; the same where they have no position."""
        return RunningConfidence(self.tokens + 1, self.logprob + logprob_of(scores)) if len(scores) else self

    @property
    def value(self) -> float:
        """Geometric mean in [0, 1]; 1 before the first token."""
        return _probability(self.logprob / max(1, self.tokens))


def settled(text: str, stops: Sequence[str] = ()) -> str:
    r"""Return the leading part of an unfinished `text` that no further token can change.

    Args:
        text: everything drawn so far, U+FFFD where bytes are no character (yet).
        stops: texts that end the answer and are not part of it.

    >>> settled("It is \ufffd"), settled("It is so.\nQ", ("\nQuestion",))
    ('It is ', 'It is so.')
    """
    whole = text.rstrip(_REPLACED)
    longest = max(map(len, stops), default=1)
    for start in range(max(0, len(whole) - longest + 1), len(whole)):
        if any(stop.startswith(whole[start:]) for stop in stops):
            return whole[:start]
    return whole


def grown(shown: str, text: str) -> str:
    """Return what `text` adds to what was shown of it.

    Raises:
        ModelError: `text` does not begin with what was shown, so that nothing right can be added.

    >>> grown("It is", "It is so")
    ' so'
    """
    if not text.startswith(shown):
        raise ModelError(
            f"Expected a text that goes on from {shown[-40:]!r}, which was shown already. Got one that ends in "
            f"{text[-40:]!r}: the tokenizer rewrites its text; ask without streaming."
        )
    return text[len(shown) :]


def spread(text: str, tokens: Sequence[bytes | None]) -> list[str]:
    r"""Return what each of several tokens that came together adds to their common `text`.

    Where the tokens' bytes are not known, or do not spell the text, all of it comes with the last one.

    >>> spread(" snow\u2603", [b" snow", b"\xe2\x98", b"\x83"])
    [' snow', '', '\u2603']
    """
    shown = [settled(_decoded(tokens[: count + 1])) for count in range(len(tokens) - 1)]
    if _decoded(tokens) != text:
        shown = [""] * len(shown)
    return [grown(before, now) for before, now in zip(["", *shown], [*shown, text], strict=True)]


class Pieces(Generic[Item, Result]):
    """What a generator yields, in a `for` loop, and what it returns in the end."""

    result: Result
    """What it returned; there once all pieces were taken."""

    def __init__(self, stream: Generator[Item, None, Result]) -> None:
        """Take nothing yet."""
        self._stream = stream

    def __iter__(self) -> Generator[Item, None, None]:
        """Yield the pieces, and keep the result."""
        self.result = yield from self._stream


def consumed(stream: Generator[object, None, Result]) -> Result:
    """Return what a stream returns, when nobody looks at its pieces."""
    pieces = Pieces(stream)
    for _ in pieces:
        pass
    return pieces.result


def streamed_token(piece: Piece, scores: TokenScores, so_far: RunningConfidence, completion: int = 0) -> StreamedToken:
    """Return a token for its user: `scores` are the calibrated ones of `piece`, `so_far` includes it."""
    chosen = piece.scores.chosen
    return StreamedToken(
        text=piece.text,
        id=-1 if chosen is None or not len(chosen) else int(chosen[0]),
        raw_probability=_probability(logprob_of(piece.scores)),
        probability=_probability(logprob_of(scores)),
        confidence=so_far.value,
        completion=completion,
    )


def logprob_of(scores: TokenScores) -> float:
    """Return the log-probability of the drawn token of one position; NaN where a server does not tell it."""
    return math.nan if scores.chosen_logprob is None or not len(scores) else float(scores.chosen_logprob[0])


def _probability(logprob: float) -> float:
    return math.nan if math.isnan(logprob) else math.exp(min(0.0, logprob))


def _decoded(tokens: Sequence[bytes | None]) -> str:
    return b"".join(token or b"" for token in tokens).decode("utf-8", "replace")
