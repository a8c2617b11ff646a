"""Wrong ways to stream; the key is the check that must catch each."""

from dataclasses import replace

from calibwrap.errors import ModelError
from calibwrap.streaming import Piece, Pieces
from calibwrap.testing import ToyAdapter

from .adapter_saboteurs import changed


class Changed(ToyAdapter):
    """Streams the right pieces, each changed by `change`."""

    def stream(self, prompt, sampling, steer=None, index=0):
        pieces = Pieces(super().stream(prompt, sampling, steer, index))
        yield from self.change(list(pieces))
        return self.finish(pieces.result)

    def change(self, pieces):
        return pieces

    def finish(self, completion):
        return completion


class DropsAToken(Changed):
    def change(self, pieces):
        return [piece for place, piece in enumerate(pieces) if place != 1]


class DropsATokensText(Changed):
    def change(self, pieces):
        return [replace(piece, text="") if place == 1 else piece for place, piece in enumerate(pieces)]


class SplitsCharacters(Changed):
    """Decodes each token alone."""

    def change(self, pieces):
        return [Piece(self.model.decode(piece.scores.chosen), piece.scores) for piece in pieces]


class ShowsTheStopText(ToyAdapter):
    """Shows what may be the beginning of a stop text at once."""

    def stream(self, prompt, sampling, steer=None, index=0):
        pieces = Pieces(super().stream(prompt, replace(sampling, stop=()), steer, index))
        completion = super().generate([prompt], sampling, steer)[0][0]
        for piece, _ in zip(pieces, completion.scores.chosen, strict=False):
            yield piece
        return completion


class StreamsOtherScores(Changed):
    def change(self, pieces):
        return [Piece(p.text, changed(p.scores, chosen_logprob=0.9 * p.scores.chosen_logprob)) for p in pieces]


class StreamsOtherLists(Changed):
    def change(self, pieces):
        return [Piece(p.text, changed(p.scores, logprobs=p.scores.logprobs - 0.1)) for p in pieces]


class ReturnsOtherScores(Changed):
    def finish(self, completion):
        scores = completion.scores
        return replace(completion, scores=changed(scores, chosen_logprob=1.1 * scores.chosen_logprob))


class DrawsAnew(ToyAdapter):
    """Streams with another seed than it was given."""

    def stream(self, prompt, sampling, steer=None, index=0):
        return super().stream(prompt, replace(sampling, seed=sampling.seed and sampling.seed + 1), steer, index)


class StreamsWithoutSteering(ToyAdapter):
    def stream(self, prompt, sampling, steer=None, index=0):
        return super().stream(prompt, sampling, None, index)


class ShowsItAllAtTheEnd(Changed):
    def change(self, pieces):
        whole = "".join(piece.text for piece in pieces)
        return [replace(piece, text="") for piece in pieces[:-1]] + [replace(pieces[-1], text=whole)]


class AlwaysEndsByLength(Changed):
    def finish(self, completion):
        return replace(completion, finish="length")


class ForgetsTheSettings(Changed):
    def finish(self, completion):
        return replace(completion, settings={})


class StaysLocked(ToyAdapter):
    """Holds the model until a stream has been read to its end."""

    locked = False

    def stream(self, prompt, sampling, steer=None, index=0):
        self.locked = True
        completion = yield from super().stream(prompt, sampling, steer, index)
        self.locked = False
        return completion

    def generate(self, prompts, sampling, steer=None):
        if self.locked:
            raise ModelError("the model is in use")
        return super().generate(prompts, sampling, steer)


STREAMING_SABOTEURS = [
    ("check_stream_equals_generate", DropsAToken),
    ("check_stream_equals_generate", DropsATokensText),
    ("check_stream_equals_generate", SplitsCharacters),
    ("check_stream_equals_generate", ShowsTheStopText),
    ("check_stream_equals_generate", StreamsOtherScores),
    ("check_stream_equals_generate", StreamsOtherLists),
    ("check_stream_equals_generate", ReturnsOtherScores),
    ("check_stream_equals_generate", DrawsAnew),
    ("check_stream_equals_generate", StreamsWithoutSteering),
    ("check_stream_equals_generate", ShowsItAllAtTheEnd),
    ("check_stream_equals_generate", AlwaysEndsByLength),
    ("check_stream_equals_generate", ForgetsTheSettings),
    ("check_closed_stream_frees_the_model", StaysLocked),
]
"""(name of the check, class of the wrong adapter)."""
