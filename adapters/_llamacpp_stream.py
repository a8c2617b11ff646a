"""One completion of llama.cpp as it grows: a row of logits goes in, a piece of text comes out.

A stream shows the pieces; `generate` looks at the completion alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from calibwrap.adapters._llamacpp_engine import Engine, Row
from calibwrap.adapters._llamacpp_scores import joined, token_scores
from calibwrap.adapters._llamacpp_vocabulary import Vocabulary
from calibwrap.adapters._shared import cut_at_stop
from calibwrap.base import Completion, Sampling, Stream
from calibwrap.streaming import Piece, grown, settled


class Trace:
    """A completion that is being drawn; whoever calls `step` holds the engine's lock."""

    def __init__(
        self, vocabulary: Vocabulary, sampling: Sampling, settings: Mapping[str, Any], draw: Callable[[Row], int]
    ) -> None:
        """Begin with nothing drawn.

        Args:
            vocabulary: the model's tokens.
            sampling: how many tokens, which stop texts, and how many entries to list.
            settings: what the completion tells of how it was drawn.
            draw: picks a token by the raw logits (V,) before it.
        """
        self.chosen: list[int] = []
        self.pieces: list[Piece] = []
        self.completion: Completion | None = None
        self._vocabulary, self._sampling, self._settings, self._draw = vocabulary, sampling, settings, draw
        self._data, self._shown = b"", ""

    @property
    def max_tokens(self) -> int:
        """Most tokens that it can have."""
        return self._sampling.max_tokens

    def step(self, row: Row) -> Piece:
        """Return what the next token adds, drawn by the logits before it; the last one fills `completion`."""
        self.chosen.append(self._draw(row))
        scores = token_scores([row], self.chosen[-1:], self._sampling.top)
        is_ended = self._vocabulary.ends(self.chosen[-1])
        self._data += b"" if is_ended else self._vocabulary.piece(self.chosen[-1])
        text, is_stopped = cut_at_stop(self._data.decode("utf-8", "replace"), self._sampling.stop)
        is_done = is_ended or is_stopped or len(self.chosen) >= self.max_tokens
        sure = text if is_done else settled(text, self._sampling.stop)
        self.pieces.append(Piece(grown(self._shown, sure), scores))
        self._shown = sure
        if is_done:
            finish: Literal["stop", "length"] = "stop" if is_ended or is_stopped else "length"
            every = joined([piece.scores for piece in self.pieces])
            self.completion = Completion(sure, every, finish, self._settings)
        return self.pieces[-1]


def drawn(engine: Engine, context: Sequence[int], trace: Trace) -> Stream:
    """Yield the pieces of one completion after `context` (ids), and return the completion.

    The lock is held for each token alone, so that a stream that waits for its reader keeps nobody out.
    """
    while trace.completion is None:
        with engine.lock:
            piece = trace.step(row_after(engine, context, trace.chosen))
        yield piece
    return trace.completion


def row_after(engine: Engine, context: Sequence[int], chosen: Sequence[int]) -> Row:
    """Return the logits after the last drawn token, or after the prompt; what the context still holds is kept."""
    if not chosen:
        return engine.next_row(context)
    engine.restart([*context, *chosen[:-1]])
    return next(engine.rows(chosen[-1:], wanted=1))
