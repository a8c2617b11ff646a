"""From the events of a streamed answer to its tokens, and to the completion that the whole of it is."""

from collections.abc import Sequence
from contextlib import closing

from calibwrap.adapters._openai_drawing import Drawer, adds_no_text, tokens_drawn
from calibwrap.adapters._openai_events import as_reply
from calibwrap.adapters._openai_replies import Position, read_choices
from calibwrap.adapters._openai_requests import Dialect
from calibwrap.adapters._openai_sse import Events
from calibwrap.base import Stream
from calibwrap.errors import ServerError
from calibwrap.streaming import Piece, Pieces, grown, spread


def streamed(drawer: Drawer, events: Events, dialect: Dialect, repeated: str) -> Stream:
    """Yield the tokens of an answer as its events bring them, and return the completion.

    Text that comes without a token is shown with the next one; after the last, by itself. Of an answer out of the
    cache, all tokens come at once.

    Args:
        drawer: reads positions and completions.
        events: what the server sends.
        dialect: how it was asked.
        repeated: beginning of the answer that the server may repeat; it is not shown.

    Raises:
        LogprobsUnavailable: text without log-probabilities.
        ServerError: the stream broke off, and nothing was asked again; the message says what had come.
    """
    told, shown, count = "", "", 0
    with closing(events):
        replies = Pieces(events)
        try:
            for event in replies:
                for choice in read_choices(dialect.endpoint, as_reply(event)):
                    told += choice.text
                    positions = drawer.streamed_positions(choice)
                    visible = _without(repeated, told)
                    if positions:
                        yield from _pieces(drawer, dialect, positions, grown(shown, visible))
                        shown, count = visible, count + len(positions)
        except ServerError as error:
            if not told and not count:
                raise
            raise ServerError(
                f"{error} {count} tokens had come, {told[-60:]!r} the last of them. Nothing was asked again, since "
                "they were shown: ask anew when the server is well."
            ) from error
    body = replies.result.body
    choice = read_choices(dialect.endpoint, body)[0]
    completion = drawer.completion(choice, dialect, repeated, tokens_drawn(body))
    rest = drawer.positions(choice)[count:]
    if rest or completion.text != shown:
        yield from _pieces(drawer, dialect, rest, grown(shown, completion.text))
    return completion


def _pieces(drawer: Drawer, dialect: Dialect, positions: Sequence[Position], text: str) -> list[Piece]:
    """Return a piece for each of the tokens that came together with `text`; one without tokens where none did."""
    if not positions:
        return [Piece(text, drawer.scores((), dialect))]
    tokens = [b"" if adds_no_text(one.drawn.text, text) else one.drawn.data for one in positions]
    texts = spread(text, tokens)
    return [Piece(own, drawer.scores((one,), dialect)) for own, one in zip(texts, positions, strict=True)]


def _without(repeated: str, told: str) -> str:
    """Return the text without the repeated beginning, and nothing while that may still come.

    >>> _without("The answer", "The an"), _without("The answer", "The answer is"), _without("The answer", "No")
    ('', ' is', 'No')
    """
    if len(told) < len(repeated) and repeated.startswith(told):
        return ""
    return told.removeprefix(repeated)
