"""Checks of adapters that stream: a stream is `generate`, one token after the other."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from calibwrap.base import Calibrator, Completion, Sampling
from calibwrap.questions import Prompt
from calibwrap.streaming import Piece, Pieces
from calibwrap.testing.adapter_drawing import GREEDY
from calibwrap.testing.adapter_probe import AdapterProbe, Sharpen, chosen, values
from calibwrap.testing.checks import expect, expect_works

_Drawn = tuple[Prompt, Sampling, Calibrator | None, Completion]


def check_stream_equals_generate(probe: AdapterProbe) -> None:
    """Return nothing when streamed tokens, texts, scores and completions are those that `generate` gives."""
    probe.require("streams")
    early, tokens = "", 0
    for prompt, sampling, steer, wanted in _drawn(probe):
        pieces, got = _streamed(probe, prompt, sampling, steer)
        what = f"of {prompt!r} at temperature {sampling.temperature}"
        expect(
            (got.text, got.finish) == (wanted.text, wanted.finish),
            f"Expected the streamed completion {what} to be {wanted.text!r} ({wanted.finish}). Got {got.text!r} "
            f"({got.finish}).",
        )
        text = "".join(piece.text for piece in pieces)
        expect(
            text == wanted.text,
            f"Expected the pieces {what} to make up {wanted.text!r}. Got {text!r}: hold parts of characters and of "
            "stop texts back, and leave out no token.",
        )
        _check_scores(probe, pieces, got, wanted, what)
        expect(dict(got.settings) == dict(wanted.settings), f"Expected the settings of generate {what} with a stream.")
        early += "".join(piece.text for piece in pieces[:-1])
        tokens = max(tokens, len(pieces))
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


def _drawn(probe: AdapterProbe) -> Iterator[_Drawn]:
    """Yield what `generate` gives in several ways of asking, each with how it was asked."""
    one = replace(probe.sampling, n=1, max_tokens=12)
    ways: list[tuple[Sampling, Calibrator | None]] = [(GREEDY, None)]
    listed = 0 if probe.adapter.provides.top == 0 else probe.longest_top(3)
    ways += [(replace(one, seed=seed, top=listed), None) for seed in range(4)]
    if probe.adapter.provides.full_vocabulary:
        ways.append((replace(one, top=None), None))
    if probe.adapter.provides.steers:
        ways.append((one, Sharpen(2.0)))
    for prompt in probe.prompts:
        for sampling, steer in ways:
            ((wanted,),) = probe.adapter.generate([prompt], sampling, steer)
            yield prompt, sampling, steer, wanted
            if len(wanted.text) > 2:
                stopped = replace(sampling, stop=(wanted.text[-2:], "\x00never"))
                ((wanted,),) = probe.adapter.generate([prompt], stopped, steer)
                yield prompt, stopped, steer, wanted


def _streamed(
    probe: AdapterProbe, prompt: Prompt, sampling: Sampling, steer: Calibrator | None
) -> tuple[list[Piece], Completion]:
    pieces = Pieces(probe.adapter.stream(prompt, sampling, steer))
    return list(pieces), pieces.result


def _check_scores(probe: AdapterProbe, pieces: list[Piece], got: Completion, wanted: Completion, what: str) -> None:
    """Compare the scores of the pieces, of the completion that a stream returns, and of `generate`."""
    expect(
        chosen(got.scores) == chosen(wanted.scores),
        f"Expected the tokens {chosen(wanted.scores)} {what} of a stream. Got {chosen(got.scores)}.",
    )
    tokens = [token for piece in pieces for token in chosen(piece.scores)]
    expect(
        tokens == chosen(wanted.scores),
        f"Expected a piece for each of the tokens {chosen(wanted.scores)} {what}. Got {tokens}.",
    )
    told = np.array([values(piece.scores)[0] for piece in pieces])
    known = np.isfinite(values(wanted.scores))
    for drawn in (told, values(got.scores)):
        probe.close(drawn[known], values(wanted.scores)[known], f"Expected generate's values {what} of a stream.")
    for place, piece in enumerate(pieces):
        streamed, whole = np.sort(piece.scores.logprobs[0]), np.sort(wanted.scores.logprobs[place])
        shown = np.isfinite(whole)[-len(streamed) :]  # a row of many positions may be filled up with -inf
        message = f"Expected generate's list at position {place} {what} of a stream."
        probe.close(streamed[shown], whole[-len(streamed) :][shown], message)


STREAM_CHECKS = (check_stream_equals_generate, check_closed_stream_frees_the_model)
