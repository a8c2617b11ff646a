"""The model's side of the Transformers adapter: padded forward passes that read only the wanted rows of the head."""

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from calibwrap.scores import Floats, Ints, log_softmax

BUDGET = 1 << 26
"""Most logits (rows times vocabulary) that exist at a time: 256 MiB in float32."""

_HEAD_BLOCK = 8192
"""Rows of the output head that are cast to float32 at a time."""

_SOFTMAX_BLOCK = 1 << 22
"""Logits whose exponentials exist at a time."""

_LOCKS: "weakref.WeakKeyDictionary[Any, threading.RLock]" = weakref.WeakKeyDictionary()

PASS_COST = 40
"""Padding tokens that cost about as much as one more pass, which must read all weights again; only speed depends."""


@dataclass(frozen=True)
class Engine:
    """A model and what its architecture allows, found out once from its signature and its kind of cache."""

    model: Any
    """A causal language model of Transformers."""
    batch_size: int
    """Rows of one forward pass over whole sequences."""
    float32_head: bool
    """Whether the output head of a half-precision model is computed in float32."""
    takes_positions: bool
    """Whether forward has `position_ids`, so that padding may stand between prefix and continuation."""
    can_repeat: bool
    """Whether the cache is nothing but keys and values a token, so that its rows may be repeated."""
    window: int | None
    """Tokens after which a sliding-window layer forgets; None when no layer does."""
    keeps_states: bool = False
    """Whether what the output head read is kept beside what it said."""

    @property
    def device(self) -> Any:
        """Where the inputs go."""
        return self.model.device

    @property
    def vocabulary(self) -> int:
        """Width of the output head, padded rows included."""
        return int(self.model.config.get_text_config().vocab_size)


def engine_of(model: Any, batch_size: int, float32_head: bool, keeps_states: bool = False) -> Engine:
    """Return `model` with what its architecture allows."""
    parameters = inspect.signature(model.forward).parameters
    config = model.config.get_text_config()
    can_repeat = False
    windows: list[int] = []
    if "past_key_values" in parameters and not model._is_stateful and not getattr(config, "num_kv_shared_layers", 0):
        layers = DynamicCache(config=model.config).layers
        can_repeat = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
        windows = [int(layer.sliding_window) for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return Engine(
        model=model,
        batch_size=batch_size,
        float32_head=float32_head,
        takes_positions="position_ids" in parameters,
        can_repeat=can_repeat,
        window=min(windows, default=None),
        keeps_states=keeps_states,
    )


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Switch gradients and dropout off, keep other threads out, and leave every module as it was found.

    What is asked of a model changes it for a while: hooks on its head, its generation config.
    """
    with _LOCKS.setdefault(model, threading.RLock()):
        training = [module for module in model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True


class HeadRows:
    """Hooks on the output head: it computes the wanted rows only, in float32 when asked.

    The rest of the model's forward (scaling or capping of logits) runs as it is on what the head returns.
    """

    def __init__(self, rows: Any, columns: Any, float32: bool) -> None:
        """Take the wanted (row, column) positions as index tensors, or None for all."""
        self.rows, self.columns, self.float32 = rows, columns, float32
        self.hidden: Any = None

    def before(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the head's input: wanted rows, or none when they are computed in `after`."""
        hidden = args[0]
        self.hidden = hidden if self.rows is None else hidden[self.rows, self.columns][None]
        return (self.hidden[:, :0] if self.float32 else self.hidden, *args[1:])

    def after(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Return the head's output in float32, a block of the vocabulary at a time."""
        if not self.float32:
            return output
        hidden = self.hidden.float()
        blocks = range(0, module.weight.shape[0], _HEAD_BLOCK)
        bias = module.bias
        return torch.cat(
            [
                torch.nn.functional.linear(
                    hidden,
                    module.weight[start : start + _HEAD_BLOCK].float(),
                    None if bias is None else bias[start : start + _HEAD_BLOCK].float(),
                )
                for start in blocks
            ],
            dim=-1,
        )


@contextmanager
def head_rows(engine: Engine, rows: Any = None, columns: Any = None) -> Iterator[HeadRows]:
    """Put the hooks on the model's output head for the time of one call; a model without a head module gets none."""
    head = engine.model.get_output_embeddings()
    float32 = engine.float32_head and is_half_linear(head)
    hooks = HeadRows(rows, columns, float32)
    handles = []
    if head is not None and (rows is not None or float32 or engine.keeps_states):
        handles = [head.register_forward_pre_hook(hooks.before), head.register_forward_hook(hooks.after)]
    try:
        yield hooks
    finally:
        for handle in handles:
            handle.remove()


def is_half_linear(head: Any) -> bool:
    """Return whether `head` is a plain matrix in half precision whose values are at hand."""
    return (
        isinstance(head, torch.nn.Linear)
        and head.weight.dtype in (torch.bfloat16, torch.float16)
        and not head.weight.is_meta
    )


def batches(
    lengths: Sequence[int], size: int, allowed: Callable[[Sequence[int]], bool] = lambda rows: True
) -> list[list[int]]:
    """Return indices of rows that are padded together, at most `size`, so that padding and passes cost least.

    Rows are sorted by length, and the best cuts found from the front; `allowed` judges several rows together.

    >>> batches([3, 40, 2, 41], size=4)
    [[2, 0], [1, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    best, cut = [0.0], [0]
    for stop in range(1, len(order) + 1):
        choices = [(best[stop - 1] + PASS_COST + lengths[order[stop - 1]], stop - 1)]
        for start in range(max(0, stop - size), stop - 1):
            if allowed(order[start:stop]):
                choices.append((best[start] + PASS_COST + (stop - start) * lengths[order[stop - 1]], start))
        cost, start = min(choices)
        best.append(cost)
        cut.append(start)
    found, stop = [], len(order)
    while stop:
        found.append(order[cut[stop] : stop])
        stop = cut[stop]
    return found[::-1]


def pad_right(sequences: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any]:
    """Return ids (N, T), zero where there is none, and the mask (N, T) of real tokens."""
    width = max(map(len, sequences))
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    mask = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def forward(engine: Engine, ids: Any, mask: Any, wanted: Sequence[tuple[int, int]], cache: Any = None) -> Any:
    """Return the logits (len(wanted), V) at the wanted (row, column) positions of `ids`; see `forward_states`."""
    return forward_states(engine, ids, mask, wanted, cache)[0]


def forward_states(
    engine: Engine, ids: Any, mask: Any, wanted: Sequence[tuple[int, int]], cache: Any = None
) -> tuple[Any, Any]:
    """Return the logits (R, V) at R wanted (row, column) positions of `ids`, and what the head read, (R, D) or None.

    `mask` covers the cached tokens too. Positions are counted from it, so that padding, on the right or between prefix
    and continuation, moves no token.
    """
    inputs = _inputs(engine, ids, mask, cache)
    index = torch.tensor(wanted, dtype=torch.long, device=engine.device).reshape(-1, 2)
    rows, columns = index[:, 0], index[:, 1]
    with head_rows(engine, rows, columns) as head:
        logits = engine.model(**inputs).logits
    states = head.hidden[0] if engine.keeps_states else None
    return (logits[rows, columns] if head.hidden is None else logits[0]), states


def layer_states(
    engine: Engine, layers: Sequence[int], ids: Any, mask: Any, wanted: Sequence[tuple[int, int]], cache: Any = None
) -> Any:
    """Return what each of L `layers` said at R wanted (row, column) positions of `ids`, (R, L, D); 0 is the embedding.

    The last one is what the output head reads, after the final normalisation where the model has one.
    """
    inputs = {**_inputs(engine, ids, mask, cache), "output_hidden_states": True}
    index = torch.tensor(wanted, dtype=torch.long, device=engine.device).reshape(-1, 2)
    with head_rows(engine, index[:, 0], index[:, 1]):
        found = engine.model(**inputs).hidden_states
    return torch.stack([found[layer][index[:, 0], index[:, 1]] for layer in layers], dim=1)


def _inputs(engine: Engine, ids: Any, mask: Any, cache: Any) -> dict[str, Any]:
    """Return the arguments of one forward pass; positions are counted from the mask."""
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": cache is not None}
    if engine.takes_positions:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    if cache is not None:
        inputs["past_key_values"] = cache
    return inputs


@dataclass(frozen=True)
class Rows:
    """What is kept of R rows of logits for N chosen tokens."""

    chosen_logprob: Floats
    """(N,)"""
    log_z: Floats
    """(N,)"""
    logprobs: Floats
    """(N, L)"""
    ids: Ints | None
    """(N, L), or None when L is the whole vocabulary."""
    hidden: Floats | None = None
    """(N, D), where the engine keeps them."""

    def part(self, at: slice) -> "Rows":
        """Return some of the rows."""
        ids = None if self.ids is None else self.ids[at]
        hidden = None if self.hidden is None else self.hidden[at]
        return Rows(self.chosen_logprob[at], self.log_z[at], self.logprobs[at], ids, hidden)


def log_partition(logits: Any) -> Any:
    """Return log(sum(exp(logits))) over the whole vocabulary in float32, a block of rows at a time."""
    step = max(1, _SOFTMAX_BLOCK // logits.shape[-1])
    return torch.cat([torch.logsumexp(part.float(), dim=-1) for part in logits.split(step)])


def keep(logits: Any, owner: Sequence[int], chosen: Sequence[int], top: int | None, states: Any = None) -> Rows:
    """Return for each chosen token what row `owner` of `logits` (R, V) says of it, and the `top` entries of that row.

    0 lists the chosen token only, None the whole vocabulary. `states` (R, D) are kept where they are given.
    """
    rows = torch.as_tensor(owner, dtype=torch.long, device=logits.device)
    tokens = torch.as_tensor(chosen, dtype=torch.long, device=logits.device)
    log_z = to_numpy(log_partition(logits))
    at = np.asarray(owner, dtype=np.int64)
    chosen_logprob = to_numpy(logits[rows, tokens]) - log_z[at]
    hidden = None if states is None else to_numpy(states)[at]
    if top is None:
        return Rows(chosen_logprob, log_z[at], log_softmax(to_numpy(logits))[at], None, hidden)
    if top == 0:
        ids = np.asarray(chosen, dtype=np.int64)[:, None]
        return Rows(chosen_logprob, log_z[at], chosen_logprob[:, None], ids, hidden)
    values, ids = logits.topk(min(top, logits.shape[-1]), dim=-1)
    listed = (to_numpy(values) - log_z[:, None])[at]
    return Rows(chosen_logprob, log_z[at], listed, to_numpy(ids, np.int64)[at], hidden)


def to_numpy(tensor: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """Return a tensor as an array of our own on the CPU; half precision goes through float32."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return np.array(tensor.cpu().numpy(), dtype=dtype)
