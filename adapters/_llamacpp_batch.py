"""The completions of one prompt, decoded together: branches of one prefix, in a context of their own.

A `Llama` is made for a single sequence. Beside it, and for as long as the drawing takes, there is a second context of
the same weights that has room for many: the prompt's state is copied over, once, and every branch shares it. A branch
that has ended makes room for the next completion.
"""

import ctypes
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from calibwrap.adapters._llamacpp_engine import Engine, Row, row_of
from calibwrap.adapters._llamacpp_stream import Trace, drawn
from calibwrap.base import Completion
from calibwrap.errors import ModelError
from calibwrap.streaming import consumed

MAX_BRANCHES = 16
"""Completions that are decoded together; more of them cost memory, and hardly save time on a CPU."""


def drawn_together(engine: Engine, context: Sequence[int], traces: Sequence[Trace]) -> list[Completion]:
    """Return the completions of `traces` after the prompt `context` (ids), which is read once; the caller locks.

    They are decoded one after the other where only one is left, or where the context that was loaded is too short, or
    of a kind that cannot be copied: the branches together never take more tokens of memory than the model's own.
    """
    first = engine.next_row(context)
    for trace in traces:
        trace.step(first)
    left = [trace for trace in traces if trace.completion is None]
    most = max((trace.max_tokens for trace in left), default=1)
    count = min(len(left), MAX_BRANCHES, (engine.n_ctx - len(context)) // most)
    if count > 1:
        with _branches(engine, context, count, most) as branches:
            if branches is not None:
                branches.run(deque(left))
    return [trace.completion or consumed(drawn(engine, context, trace)) for trace in traces]


class _Branches:
    """A context that holds the prompt as sequence 0 and up to `count` completions behind it."""

    def __init__(self, engine: Engine, native: Any, start: int, count: int) -> None:
        self._engine, self._native, self._start = engine, native, start
        self._memory = engine.api.llama_get_memory(native)
        self._free = list(range(1, count + 1))
        self._running: dict[int, Trace] = {}

    def run(self, waiting: deque[Trace]) -> None:
        """Draw all of `waiting`, each of which has one token, to the end."""
        while waiting or self._running:
            while waiting and self._free:
                self._begin(waiting.popleft())
            for sequence, row in self._next_rows():
                self._running[sequence].step(row)
                if self._running[sequence].completion is not None:
                    self._end(sequence)

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
