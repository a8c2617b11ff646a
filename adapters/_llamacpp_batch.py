"""The completions of one prompt, decoded together: branches of one prefix, in a context of their own.

A `Llama` is made for a single sequence. Beside it, and for as long as the drawing takes, there is a second context of
the same weights that has room for many: the prompt's state is copied over, once, and every branch shares it. A branch
that has ended makes room for the next completion.
"""

import ctypes
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from calibwrap.adapters._llamacpp_engine import Engine, Row, check_open, row_of
from calibwrap.adapters._llamacpp_stream import Trace, drawn
from calibwrap.base import Stream
from calibwrap.errors import ModelError

MAX_BRANCHES = 16
"""Completions that are decoded together; more of them cost memory, and hardly save time on a CPU."""


def steps_together(engine: Engine, context: Sequence[int], traces: Sequence[Trace]) -> Generator[None, None, None]:
    """Yield after each step in which `traces` grow behind the prompt `context` (ids), which is read once.

    A step gives a token to each completion that is being decoded; in the end all are complete. They are decoded one
    after the other where only one is left, or where the context that was loaded is too short, or of a kind that cannot
    be copied: the branches together never take more tokens of memory than the model's own. The lock is held for a step,
    not between two.
    """
    with ExitStack() as opened:
        with engine.lock:
            first = engine.next_row(context)
            for trace in traces:
                trace.step(first)
            left = [trace for trace in traces if trace.completion is None]
            most = max((trace.max_tokens for trace in left), default=1)
            count = min(len(left), MAX_BRANCHES, (engine.n_ctx - len(context)) // most)
            branches = opened.enter_context(_branches(engine, context, count, most)) if count > 1 else None
        yield
        waiting = deque(left)
        while branches is not None and branches.go_on(waiting):
            yield
    for trace in traces:
        for _ in drawn(engine, context, trace):
            yield


class Request:
    """The completions of one request that is streamed: drawn together as without streaming, shown one by one."""

    def __init__(self, engine: Engine, context: Sequence[int], traces: Sequence[Trace]) -> None:
        """Draw nothing yet."""
        self._traces, self._steps = traces, steps_together(engine, context, traces)
        self._left = set(range(len(traces)))

    def take(self, index: int) -> bool:
        """Return whether completion number `index` is still to be had; it is given away with that."""
        is_there = index in self._left
        self._left.discard(index)
        return is_there

    def stream(self, index: int) -> Stream:
        """Yield the pieces of completion number `index` as they are drawn, and return it once all others are drawn."""
        trace, shown = self._traces[index], 0
        try:
            while trace.completion is None or shown < len(trace.pieces):
                if shown == len(trace.pieces):
                    next(self._steps)
                yield trace.pieces[shown]
                shown += 1
            for _ in self._steps:
                pass  # what they were drawn in is freed before the stream ends
        except BaseException:
            self._left.clear()
            raise
        finally:
            self._steps.close()
        return trace.completion


class _Branches:
    """A context that holds the prompt as sequence 0 and up to `count` completions behind it."""

    def __init__(self, engine: Engine, native: Any, start: int, count: int) -> None:
        self._engine, self._native, self._start = engine, native, start
        self._memory = engine.api.llama_get_memory(native)
        self._free = list(range(1, count + 1))
        self._running: dict[int, Trace] = {}

    def go_on(self, waiting: deque[Trace]) -> bool:
        """Draw a token of each running completion, after those of `waiting` that there is room for have begun.

        Returns False where none is left.
        """
        with self._engine.lock:
            while waiting and self._free:
                self._begin(waiting.popleft())
            if not self._running:
                return False
            for sequence, row in self._next_rows():
                self._running[sequence].step(row)
                if self._running[sequence].completion is not None:
                    self._end(sequence)
        return True

    def _begin(self, trace: Trace) -> None:
        sequence = self._free.pop()
        self._engine.api.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        self._running[sequence] = trace

    def _end(self, sequence: int) -> None:
        self._engine.api.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        del self._running[sequence]
        self._free.append(sequence)

    def _next_rows(self) -> list[tuple[int, Row]]:
        """Return the logits after the last token of each running sequence; one decode for all."""
        check_open(self._engine.llama)
        api, count = self._engine.api, len(self._running)
        tokens = [trace.chosen[-1] for trace in self._running.values()]
        places = [self._start + len(trace.chosen) - 1 for trace in self._running.values()]
        own = [(api.llama_seq_id * 1)(sequence) for sequence in self._running]
        pointer = ctypes.POINTER(api.llama_seq_id)
        batch = api.llama_batch(
            n_tokens=count,
            token=(api.llama_token * count)(*tokens),
            pos=(api.llama_pos * count)(*places),
            n_seq_id=(ctypes.c_int32 * count)(*[1] * count),
            seq_id=(pointer * count)(*(ctypes.cast(one, pointer) for one in own)),
            logits=(ctypes.c_int8 * count)(*[1] * count),
        )
        code = api.llama_decode(self._native, batch)
        if code != 0:
            raise ModelError(
                f"llama.cpp could not decode {count} completions together (code {code}): ask for one at a time (n=1)."
            )
        return [
            (sequence, row_of(api, self._native, index, self._engine.n_vocab))
            for index, sequence in enumerate(self._running)
        ]


@contextmanager
def _branches(engine: Engine, context: Sequence[int], count: int, most: int) -> Iterator[_Branches | None]:
    """Open a context for `count` branches of `most` tokens each; None where the prompt's state cannot go there."""
    state = None if engine.llama.lora_path else _state(engine)  # a second context would be without the LoRA weights
    if state is None:
        yield None
        return
    native = engine.api.llama_init_from_model(
        engine.llama.model, _parameters(engine, len(context) + count * most, count)
    )
    if not native:
        raise ModelError(f"llama.cpp has no memory for {count} completions at a time: ask for fewer (n).")
    try:
        moved = engine.api.llama_state_seq_set_data(native, state, len(state), 0)
        yield _Branches(engine, native, len(context), count) if moved else None
    finally:
        if engine.llama.ctx is not None:  # freeing reads the model, which may have been closed between two tokens
            engine.api.llama_free(native)


def _parameters(engine: Engine, cells: int, count: int) -> Any:
    """Return the settings of the model's own context, with room for `cells` tokens in `count` branches."""
    parameters = type(engine.llama.context_params).from_buffer_copy(engine.llama.context_params)
    parameters.n_ctx = cells
    parameters.n_seq_max = count + 1
    parameters.kv_unified = True
    parameters.n_batch = parameters.n_ubatch = 2 * MAX_BRANCHES  # llama.cpp aborts below one for each sequence
    parameters.n_threads_batch = parameters.n_threads
    parameters.embeddings = False
    return parameters


def _state(engine: Engine) -> Any:
    """Return what the model's own context holds, as bytes; None where it does not tell."""
    size = engine.api.llama_state_seq_get_size(engine.llama.ctx, 0)
    state = (ctypes.c_uint8 * size)()
    return state if engine.api.llama_state_seq_get_data(engine.llama.ctx, state, size, 0) else None
