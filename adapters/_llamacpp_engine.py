"""The context of one `llama_cpp.Llama`: what it holds, what it decodes, and the logits that come out."""

import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibwrap.errors import ModelError, need

Row = NDArray[np.float32]
"""(V,) raw logits of one position."""

MAX_ROWS = 64
"""Positions whose logits are asked for in one decode; llama.cpp keeps that many rows of the whole vocabulary."""

_LOCKS: "weakref.WeakKeyDictionary[Any, threading.RLock]" = weakref.WeakKeyDictionary()


def lock_of(llama: Any) -> threading.RLock:
    """Return the one lock of a `Llama`: its context must never be used by two threads at a time."""
    return _LOCKS.setdefault(llama, threading.RLock())


def check_open(llama: Any) -> None:
    """Return nothing when the native context is there; the caller holds the lock.

    Raises:
        ModelError: it was closed; llama.cpp would crash the process.
    """
    if llama.ctx is None:
        raise ModelError("The llama.cpp model was closed; load it again.")


class Engine:
    """Decodes token ids and hands out copies of the logits; the caller holds `lock`.

    What the context holds is written where `Llama` itself keeps it (`n_tokens`, `input_ids`), so that the owner of a
    handed-in object may go on using it between two calls, and neither side trusts a cache that the other has changed.
    """

    def __init__(self, llama: Any) -> None:
        """Hold `llama` and read its limits."""
        self.llama = llama
        self.lock = lock_of(llama)
        self.api = need("llama_cpp", feature="the llama.cpp adapter", extra="llama-cpp")
        self._model = llama.model
        self.n_vocab: int = llama.n_vocab()
        self.n_ctx: int = min(llama.n_ctx(), len(llama.input_ids))
        self._n_batch: int = min(llama.n_batch, self.api.llama_n_batch(llama.ctx))
        if self._memory() is None:
            raise ModelError(
                f"{llama.model_path} keeps no memory of a text, as embedding models do; load a model that generates."
            )

    def next_row(self, ids: Sequence[int]) -> Row:
        """Return the logits after `ids`; what the context already holds of them is not decoded again.

        Two tokens at least are decoded: a batch of one runs other kernels, whose rounding differs.
        """
        kept = self.resume(ids, len(ids) - 2)
        return next(self.rows(ids[kept:], wanted=1))

    def rows_after(self, prefix: Sequence[int], suffix: Sequence[int]) -> Iterator[Row]:
        """Yield the logits after prefix + suffix[:1], prefix + suffix[:2], ..., all of `suffix`; one decode for all."""
        ids = [*prefix, *suffix]
        kept = self.resume(ids, min(len(prefix), len(ids) - 2))
        return self.rows(ids[kept:], wanted=len(suffix))

    def restart(self, prefix: Sequence[int]) -> None:
        """Make the context hold exactly `prefix`."""
        kept = self.resume(prefix, len(prefix))
        for _ in self.rows(prefix[kept:], wanted=0):
            pass

    def resume(self, ids: Sequence[int], at_most: int) -> int:
        """Return how many leading `ids` the context now holds, `at_most` this many, everything else forgotten."""
        check_open(self.llama)
        held = self.llama.n_tokens
        length = max(0, min(held, at_most, len(ids)))
        differ = np.flatnonzero(self.llama.input_ids[:length] != np.asarray(ids[:length], dtype=np.intc))
        kept = int(differ[0]) if len(differ) else length
        if kept < held or kept == 0:
            kept = self._forget_after(kept)
        self.llama.n_tokens = kept
        return kept

    def _forget_after(self, length: int) -> int:
        """Return how many tokens are left: `length`, or 0 where the memory cannot go back (recurrent, sliding)."""
        memory = self._memory()
        removed = self.api.llama_memory_seq_rm(memory, 0, length, -1)
        if length and removed and self.api.llama_memory_seq_pos_min(memory, 0) == 0:
            return length
        self._forget_all()
        return 0

    def _forget_all(self) -> None:
        self.api.llama_memory_clear(self._memory(), False)
        self.llama.reset()

    def rows(self, ids: Sequence[int], wanted: int) -> Iterator[Row]:
        """Decode `ids` after what the context holds; yield the logits of the last `wanted` of them, each a copy."""
        check_open(self.llama)
        first, start = len(ids) - wanted, 0
        while start < len(ids):
            stop = min(start + self._n_batch, max(first, start) + MAX_ROWS, len(ids))
            self._decode(ids[start:stop], first - start)
            for index in range(max(first - start, 0), stop - start):
                yield self._logits(index)
            start = stop

    def _decode(self, ids: Sequence[int], first: int) -> None:
        """Decode one batch; logits are marked for the tokens from index `first` on."""
        count, past = len(ids), self.llama.n_tokens
        batch = self.api.llama_batch(
            n_tokens=count,
            token=(self.api.llama_token * count)(*ids),
            pos=(self.api.llama_pos * count)(*range(past, past + count)),
            logits=np.ctypeslib.as_ctypes(np.array([index >= first for index in range(count)], dtype=np.int8)),
        )
        code = self.api.llama_decode(self.llama.ctx, batch)
        if code != 0:
            self._forget_all()
            raise ModelError(
                f"llama.cpp could not decode {count} tokens after {past} (code {code}): load the model with a larger "
                "n_ctx, or another KV-cache type."
            )
        self.llama.input_ids[past : past + count] = ids
        self.llama.n_tokens = past + count

    def _logits(self, index: int) -> Row:
        """Return a copy of the logits of token `index` of the last batch; the next decode overwrites the original."""
        return row_of(self.api, self.llama.ctx, index, self.n_vocab)

    def _memory(self) -> Any:
        return self.api.llama_get_memory(self.llama.ctx)


def row_of(api: Any, native: Any, index: int, size: int) -> Row:
    """Return a copy of the logits (V,) of token `index` of the last batch of a native context.

    Raises:
        ModelError: there are none, or they are not numbers.
    """
    pointer = api.llama_get_logits_ith(native, index)
    if not pointer:
        raise ModelError(f"llama.cpp gave no logits for token {index} of the batch; is this an embedding model?")
    row: Row = np.ctypeslib.as_array(pointer, shape=(size,)).copy()
    if np.isnan(row).any():
        raise ModelError("llama.cpp computed logits that are not numbers: the model file is broken.")
    return row
