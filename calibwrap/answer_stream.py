"""The driver of a decoder whose completions are shown token by token while they are drawn."""

from collections.abc import Generator
from contextlib import closing
from typing import Self

from calibwrap.base import Adapter, Answer, Calibrator, Completion, Decoder, Flow, Sampling
from calibwrap.capabilities import Needs, check_needs
from calibwrap.decoders.fitness import check_steering
from calibwrap.decoders.reading import calibrated, completed, request_of, signed
from calibwrap.decoders.rewording import Reworded, drawn_as, worded
from calibwrap.errors import InputError
from calibwrap.questions import Prompt
from calibwrap.streaming import Pieces, RunningConfidence, StreamedToken, streamed_token


class AnswerStream:
    """The tokens of an answer as they are drawn; then `answer`, the same as without streaming.

    Iterate over it once. A decoder that draws several completions has them shown one after the other. Leaving a `with`
    block, or `close`, ends the drawing and frees what it held.

    Raises:
        CapabilityError: the backend does not stream, cannot give what decoder or calibrator need, or nothing can steer.

    >>> from calibwrap.decoders import Greedy
    >>> from calibwrap.calibrators import Identity
    >>> from calibwrap.testing import ToyAdapter
    >>> stream = AnswerStream(ToyAdapter(), Identity(), "In the morning the sun", Greedy(max_tokens=3))
    >>> "".join(token.text for token in stream) == stream.answer.text
    True
    """

    def __init__(
        self, adapter: Adapter, calibrator: Calibrator, prompt: Prompt, decoder: Decoder, steer: bool = False
    ) -> None:
        """Check what can be checked; nothing is asked of the model before the first token is.

        With `steer` the calibrator also acts inside the drawing.
        """
        check_needs("stream()", Needs(streams=True), adapter.name, adapter.provides)
        check_needs(type(decoder).__name__, decoder.needs, adapter.name, adapter.provides)
        self._adapter, self._calibrator, self._prompt = adapter, calibrator, prompt
        self._steer = check_steering(adapter, calibrator) if steer else None
        self._answer: Answer | None = None
        flow = decoder.flow()
        request = next(flow)
        request_of(adapter, request, calibrator)
        self._tokens = self._run(flow, request)

    @property
    def answer(self) -> Answer:
        """The answer, once every token was taken.

        Raises:
            InputError: tokens are still to come, or the stream was closed before its end.
        """
        if self._answer is None:
            raise InputError("The answer is there when the stream has ended: take all tokens of this stream first.")
        return self._answer

    def __iter__(self) -> Self:
        """Return this stream."""
        return self

    def __next__(self) -> StreamedToken:
        """Return the next token."""
        return next(self._tokens)

    def close(self) -> None:
        """End the drawing; a second call does nothing."""
        self._tokens.close()

    def __enter__(self) -> Self:
        """Return this stream; leaving the block closes it."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End the drawing."""
        self.close()

    def _run(self, flow: Flow, request: Sampling) -> Generator[StreamedToken, None, None]:
        """Yield the tokens of each request of the decoder, until it answers."""
        before = 0
        while self._answer is None:
            if isinstance(request, Reworded) and request.labels:  # nothing is drawn, so there is nothing to show
                (completions,) = completed(self._adapter, [self._prompt], request, self._calibrator)
            else:
                completions = yield from self._completions(worded(self._prompt, request), drawn_as(request), before)
                before += len(completions)
            try:
                request = flow.send(completions)
            except StopIteration as end:
                self._answer = signed(end.value, self._calibrator)

    def _completions(
        self, prompt: Prompt, request: Sampling, before: int
    ) -> Generator[StreamedToken, None, list[Completion]]:
        """Yield the tokens of all completions of a request, `before` it so many, and return them, calibrated."""
        asked = request_of(self._adapter, request, self._calibrator)
        drawn: list[Completion] = []
        for index in range(request.n):
            drawn.append((yield from self._completion(prompt, asked, index, before + index)))
        (completions,) = calibrated(self._adapter, [drawn], request, self._calibrator)
        return completions

    def _completion(
        self, prompt: Prompt, asked: Sampling, index: int, number: int
    ) -> Generator[StreamedToken, None, Completion]:
        """Yield the tokens of completion `index` of a request, as those of `number`, and return it."""
        so_far = RunningConfidence()
        with closing(self._adapter.stream(prompt, asked, self._steer, index)) as stream:
            pieces = Pieces(stream)
            for piece in pieces:
                scores = self._calibrator(piece.scores) if self._calibrator.level == "token" else piece.scores
                so_far = so_far.added(scores)
                yield streamed_token(piece, scores, so_far, number)
        return pieces.result
