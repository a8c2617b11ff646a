"""The drawing loop of llama.cpp, one token at a time: a stream shows it, `generate` runs it to its end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calibwrap.adapters._llamacpp_engine import Engine, Row
from calibwrap.adapters._llamacpp_scores import joined, token_scores
from calibwrap.adapters._llamacpp_vocabulary import Vocabulary
from calibwrap.adapters._shared import cut_at_stop
from calibwrap.base import Completion, Sampling, Stream
from calibwrap.scores import TokenScores
from calibwrap.streaming import Piece, grown, settled


def drawn(
    engine: Engine,
    vocabulary: Vocabulary,
    context: Sequence[int],
    sampling: Sampling,
    settings: Mapping[str, Any],
    draw: Callable[[Row], int],
    first: Row | None = None,
) -> Stream:
    """Yield the tokens of one completion as `draw` picks them, and return the completion.

    The lock is held for each token alone, so that a stream that waits for its reader keeps nobody out.

    Args:
        engine: the model's context.
        vocabulary: its tokens.
        context: ids of the prompt.
        sampling: how many tokens, which stop texts, and how many entries to list.
        settings: what the completion tells of how it was drawn.
        draw: picks a token by the raw logits (V,) before it.
        first: logits after the prompt, where they are known.
    """
    chosen: list[int] = []
    positions: list[TokenScores] = []
    data, shown, is_done = b"", "", False
    while not is_done:
        with engine.lock:
            row = first if first is not None and not chosen else _row(engine, context, chosen)
            chosen.append(draw(row))
            is_ended = vocabulary.ends(chosen[-1])
            data += b"" if is_ended else vocabulary.piece(chosen[-1])
        positions.append(token_scores([row], chosen[-1:], sampling.top))
        text, is_stopped = cut_at_stop(data.decode("utf-8", "replace"), sampling.stop)
        is_done = is_ended or is_stopped or len(chosen) >= sampling.max_tokens
        sure = text if is_done else settled(text, sampling.stop)
        yield Piece(grown(shown, sure), positions[-1])
        shown = sure
    return Completion(shown, joined(positions), "stop" if is_ended or is_stopped else "length", settings)


def _row(engine: Engine, context: Sequence[int], chosen: Sequence[int]) -> Row:
    """Return the logits after the last drawn token, or after the prompt; what the context still holds is kept."""
    if not chosen:
        return engine.next_row(context)
    engine.restart([*context, *chosen[:-1]])
    return next(engine.rows(chosen[-1:], wanted=1))
