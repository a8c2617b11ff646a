"""Checks of adapters that stream: a stream is `generate`, one token after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibwrap.base import Calibrator, Completion, Sampling
from calibwrap.questions import Prompt
from calibwrap.streaming import Piece, Pieces
from calibwrap.testing.adapter_drawing import GREEDY
from calibwrap.testing.adapter_probe import AdapterProbe, Sharpen, chosen, values
from calibwrap.testing.checks import expect, expect_works


@dataclass(frozen=True)
class _Both:
    """One completion, asked for in both ways."""

    prompt: Prompt
    sampling: Sampling
    pieces: Sequence[Piece]
    streamed: Completion
    whole: Completion

    def __str__(self) -> str:
        return f"of {self.prompt!r} at temperature {self.sampling.temperature}, stop texts {self.sampling.stop}"


def check_stream_equals_generate(probe: AdapterProbe) -> None:
    """Return nothing when streamed tokens, texts, scores and completions are those that `generate` gives."""
    probe.require("streams")
    early, tokens = "", 0
    for both in _asked_both_ways(probe):
        _check_texts(both)
        _check_scores(probe, both)
        early += "".join(piece.text for piece in both.pieces[:-1])
        tokens = max(tokens, len(both.pieces))
    expect(early or tokens < 3, "Expected text before the last token of a stream. Got all of it at the end.")


def check_closed_stream_frees_the_model(probe: AdapterProbe) -> None:
    """Return nothing when a stream that is closed after one token leaves the adapter as it was."""
    probe.require("streams")
    prompt, sampling = probe.prompts[0], replace(probe.sampling, n=1)
    ((before,),) = probe.adapter.generate([prompt], sampling)
    stream = probe.adapter.stream(prompt, sampling)
    next(stream)
    stream.close()
    ((after,),) = expect_works(
        lambda: probe.adapter.generate([prompt], sampling), "generate() after a stream that was closed early"
    )
    expect(
        chosen(after.scores) == chosen(before.scores),
        f"Expected the same draw after a stream that was closed early: {before.text!r}. Got {after.text!r}.",
    )


def _asked_both_ways(probe: AdapterProbe) -> Iterator[_Both]:
    """Yield completions in several ways of asking; each again with a stop text inside."""
    one = replace(probe.sampling, n=1, max_tokens=12)
    listed = 0 if probe.adapter.provides.top == 0 else probe.longest_top(3)
    ways: list[tuple[Sampling, Calibrator | None]] = [(GREEDY, None)]
    ways += [(replace(one, seed=seed, top=listed), None) for seed in range(4)]
    if probe.adapter.provides.full_vocabulary:
        ways.append((replace(one, top=None), None))
    if probe.adapter.provides.steers:
        ways.append((one, Sharpen(2.0)))
    for prompt in probe.prompts:
        for sampling, steer in ways:
            both = _both(probe, prompt, sampling, steer)
            yield both
            if len(both.whole.text) > 2:
                stops = (both.whole.text[-2:], "\x00never")
                yield _both(probe, prompt, replace(sampling, stop=stops), steer)


def _both(probe: AdapterProbe, prompt: Prompt, sampling: Sampling, steer: Calibrator | None) -> _Both:
    ((whole,),) = probe.adapter.generate([prompt], sampling, steer)
    pieces = Pieces(probe.adapter.stream(prompt, sampling, steer))
    taken = list(pieces)
    return _Both(prompt, sampling, taken, pieces.result, whole)


def _check_texts(both: _Both) -> None:
    streamed, whole = both.streamed, both.whole
    expect(
        (streamed.text, streamed.finish) == (whole.text, whole.finish),
        f"Expected the completion {both} to be {whole.text!r} ({whole.finish}). Got {streamed.text!r} "
        f"({streamed.finish}) from its stream.",
    )
    shown = "".join(piece.text for piece in both.pieces)
    expect(
        shown == whole.text,
        f"Expected the pieces {both} to make up {whole.text!r}. Got {shown!r}: hold back parts of characters and of "
        "stop texts, and leave out no token.",
    )
    expect(
        dict(streamed.settings) == dict(whole.settings),
        f"Expected generate's settings {both}, {dict(whole.settings)}. Got {dict(streamed.settings)} from its stream.",
    )


def _check_scores(probe: AdapterProbe, both: _Both) -> None:
    """Compare the scores of the pieces, of the completion that a stream returns, and of `generate`.

    Of the tokens that a stop text cuts off, a server may tell more in one way of asking than in the other.
    """
    tokens = [token for piece in both.pieces for token in chosen(piece.scores)]
    told = np.array([value for piece in both.pieces for value in values(piece.scores)])
    wanted, count = chosen(both.whole.scores), len(both.whole.scores)
    if both.sampling.stop and not probe.adapter.provides.full_vocabulary:
        count = min(count, len(tokens))
        wanted, tokens, told = wanted[:count], tokens[:count], told[:count]
    expect(tokens == wanted, f"Expected pieces for the tokens {wanted} {both}. Got {tokens} from its stream.")
    expect(
        chosen(both.streamed.scores)[:count] == wanted,
        f"Expected the tokens {wanted} {both}. Got {chosen(both.streamed.scores)} from its stream.",
    )
    known = np.isfinite(values(both.whole.scores)[:count])
    for drawn in (told, values(both.streamed.scores)[:count]):
        message = f"Expected generate's values {both} from its stream."
        probe.close(drawn[known], values(both.whole.scores)[:count][known], message)
    _check_lists(probe, both, count)


def _check_lists(probe: AdapterProbe, both: _Both, count: int) -> None:
    rows = [row for piece in both.pieces for row in np.sort(piece.scores.logprobs)]
    for place, whole in enumerate(np.sort(both.whole.scores.logprobs)[:count]):
        alike = whole[-len(rows[place]) :]
        shown = np.isfinite(alike)  # a row among several may be filled up with -inf to their common length
        message = f"Expected generate's list at position {place} {both} from its stream."
        probe.close(rows[place][shown], alike[shown], message)


STREAM_CHECKS = (check_stream_equals_generate, check_closed_stream_frees_the_model)
