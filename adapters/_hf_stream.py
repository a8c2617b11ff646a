"""The same drawing as `generate`'s, in a thread, so that its tokens can be had one after the other.

`model.generate` is one call that ends when the text does. Here it runs in a thread, and the logits processor that draws
the tokens hands each of them over at once.
"""

import contextvars
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from queue import SimpleQueue

from calibwrap.adapters._hf_forward import Engine, Rows, inference
from calibwrap.adapters._hf_generate import (
    Request,
    Watch,
    completion_of,
    end_tokens,
    generators,
    run,
    scores_of,
    settings_in_force,
)
from calibwrap.adapters._shared import cut_at_stop
from calibwrap.adapters._tokenizer import Reader
from calibwrap.base import Calibrator, Sampling, Stream
from calibwrap.errors import ModelError
from calibwrap.streaming import Piece, grown, settled


def stream(
    engine: Engine, reader: Reader, prompt: list[int], sampling: Sampling, steer: Calibrator | None, index: int
) -> Stream:
    """Yield the tokens of completion number `index` as they are drawn, and return the completion."""
    ends, settings = end_tokens(engine, reader), settings_in_force(sampling, steer)
    request = Request(prompt, generators([prompt], replace(sampling, n=index + 1))[0][index])

    def generate(watch: Watch) -> None:
        with inference(engine.model):
            run(engine, reader, [request], replace(sampling, n=1), steer, watch)

    ids: list[int] = []
    steps: list[Rows] = []
    shown, is_done = "", False
    with closing(_Worker(generate)) as worker:
        while not is_done:
            token, step = worker.take()
            ids.append(token)
            steps.append(step)
            text, is_stopped = cut_at_stop(reader.text(ids), sampling.stop)
            is_done = token in ends or is_stopped or len(ids) >= sampling.max_tokens
            sure = text if is_done else settled(text, sampling.stop)
            yield Piece(grown(shown, sure), scores_of([token], [step], sampling.top))
            shown = sure
    return completion_of(reader, ids, steps, sampling, settings, engine)


class _Closed(Exception):
    """Ends the drawing from inside; never seen outside."""


class _Worker:
    """Runs a function in a thread, and takes what it hands over."""

    def __init__(self, function: Callable[[Watch], None]) -> None:
        self._drawn: SimpleQueue[tuple[int, Rows] | BaseException] = SimpleQueue()
        self._is_closed = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work, function), name="calibwrap-stream")
        self._thread.start()

    def take(self) -> tuple[int, Rows]:
        """Return the next token and what the logits said of it, as soon as it is drawn."""
        found = self._drawn.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the drawing at its next token, and wait until the model is free."""
        self._is_closed.set()
        self._thread.join()

    def _work(self, function: Callable[[Watch], None]) -> None:
        try:
            function(self._watch)
        except BaseException as error:  # raised where the tokens are taken: a thread has nobody to tell
            self._drawn.put(error)
        else:
            self._drawn.put(ModelError("Transformers ended the text without its end being drawn."))

    def _watch(self, tokens: list[int], step: Rows) -> None:
        if self._is_closed.is_set():
            raise _Closed
        self._drawn.put((tokens[0], step))
