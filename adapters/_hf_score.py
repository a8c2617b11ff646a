"""Scoring given continuations: one prefix pass for all options of a prompt, batched across prompts.

The prefixes of a few prompts are read together, padded on the right. Their cache rows are then copied for each option,
and the options are read in a second pass behind them. Where an architecture's cache cannot be copied exactly, each
option is read with its prompt in full. Both give the same numbers; only the time differs.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from calibwrap.adapters._hf_forward import BUDGET, Engine, Rows, batches, forward_states, keep, pad_right
from calibwrap.adapters._shared import with_cut
from calibwrap.scores import TokenScores

_OPTIONS_A_PROMPT = 4
"""Rows of an option pass for each row of a prefix pass; only speed and memory depend on it."""


@dataclass(frozen=True)
class Job:
    """One prompt, tokenised, with what each of its continuations adds."""

    index: int
    """Place among the prompts."""
    prefix: list[int]
    tails: list[list[int]]
    """Each at least one token."""

    @property
    def longest(self) -> int:
        """Tokens of the prefix with the longest continuation."""
        return len(self.prefix) + max(map(len, self.tails))


@dataclass(frozen=True)
class Tail:
    """One continuation to read."""

    prompt: int
    option: int
    row: int
    """Row of its prefix in the cache."""
    ids: list[int]


Parts = dict[tuple[int, int], list[Rows]]
"""Pieces of the scores of each (prompt, option), in order."""


def score(engine: Engine, jobs: Sequence[Job], top: int | None) -> list[list[TokenScores]]:
    """Return the scores of all continuations of all jobs, in the order of the jobs."""
    parts: Parts = {}
    shared = [job for job in jobs if can_share(engine, job)]
    for group in groups(engine, shared):
        score_group(engine, group, top, parts)
    rest = [job for job in jobs if not can_share(engine, job)]
    score_in_full(engine, rest, top, parts)
    return [
        [with_cut(_joined(parts[job.index, option], tail), top) for option, tail in enumerate(job.tails)]
        for job in jobs
    ]


def can_share(engine: Engine, job: Job) -> bool:
    """Return whether one prefix pass pays and is exact: several options, a copyable cache, nothing forgotten."""
    fits = engine.window is None or job.longest <= engine.window
    return engine.can_repeat and fits and len(job.tails) > 1


def groups(engine: Engine, jobs: Sequence[Job]) -> list[list[Job]]:
    """Return jobs whose prefixes are read together.

    Without explicit positions, or where padding would push a token out of a window, only what is exact goes together.
    """

    def exact(rows: Sequence[int]) -> bool:
        sizes = [len(jobs[row].prefix) for row in rows]
        width = max(len(tail) for row in rows for tail in jobs[row].tails)
        in_window = engine.window is None or max(sizes) + width <= engine.window
        return in_window and (engine.takes_positions or min(sizes) == max(sizes))

    lengths = [len(job.prefix) for job in jobs]
    return [[jobs[row] for row in rows] for rows in batches(lengths, engine.batch_size, exact)]


def score_group(engine: Engine, group: Sequence[Job], top: int | None, parts: Parts) -> None:
    """Add the scores of a group of jobs to `parts`: one pass over the prefixes, then the options behind them."""
    cache = DynamicCache(config=engine.model.config)
    ids, mask = pad_right([job.prefix for job in group], engine.device)
    last = [(row, len(job.prefix) - 1) for row, job in enumerate(group)]
    logits, states = forward_states(engine, ids, mask, last, cache)
    tails = [
        Tail(job.index, option, row, tail) for row, job in enumerate(group) for option, tail in enumerate(job.tails)
    ]
    first = keep(logits, [tail.row for tail in tails], [tail.ids[0] for tail in tails], top, states)
    for position, tail in enumerate(tails):
        parts[tail.prompt, tail.option] = [first.part(slice(position, position + 1))]
    for chunk in alike([tail for tail in tails if len(tail.ids) > 1], len(group) * _OPTIONS_A_PROMPT):
        score_tails(engine, cache, mask, chunk, top, parts)


def alike(tails: Sequence[Tail], size: int) -> list[list[Tail]]:
    """Return continuations that are read together, of similar lengths; one token fewer is read than is scored."""
    return [[tails[row] for row in rows] for rows in batches([len(tail.ids) - 1 for tail in tails], size)]


def score_tails(
    engine: Engine, prefix: DynamicCache, prefix_mask: Any, tails: Sequence[Tail], top: int | None, parts: Parts
) -> None:
    """Add the scores of all but the first token of `tails`, read behind copies of their prefixes' cache rows.

    The shared cache itself is never extended. Long continuations are read in pieces, so that the logits fit the budget.
    """
    rows = torch.tensor([tail.row for tail in tails], device=engine.device)
    cache = copied_rows(prefix, rows)
    ids, own = pad_right([tail.ids[:-1] for tail in tails], engine.device)
    past = prefix_mask[rows]
    step = max(1, BUDGET // (engine.vocabulary * len(tails)))
    for start in range(0, ids.shape[1], step):
        stop = min(start + step, ids.shape[1])
        wanted = [
            (row, place - start)
            for row, tail in enumerate(tails)
            for place in range(start, min(stop, len(tail.ids) - 1))
        ]
        mask = torch.cat([past, own[:, :stop]], dim=1)
        logits, states = forward_states(engine, ids[:, start:stop], mask, wanted, cache)
        chosen = [tails[row].ids[start + place + 1] for row, place in wanted]
        _distribute(keep(logits, range(len(wanted)), chosen, top, states), wanted, tails, parts)


def _distribute(kept: Rows, wanted: Sequence[tuple[int, int]], tails: Sequence[Tail], parts: Parts) -> None:
    """Hand out rows that are sorted by continuation."""
    begin = 0
    for end in range(1, len(wanted) + 1):
        if end == len(wanted) or wanted[end][0] != wanted[begin][0]:
            tail = tails[wanted[begin][0]]
            parts.setdefault((tail.prompt, tail.option), []).append(kept.part(slice(begin, end)))
            begin = end


def copied_rows(cache: DynamicCache, rows: Any) -> DynamicCache:
    """Return a cache of the given rows of another one, which stays as it is."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    copied.batch_select_indices(rows)
    return copied


def score_in_full(engine: Engine, jobs: Sequence[Job], top: int | None, parts: Parts) -> None:
    """Add the scores of `jobs`, each continuation read together with its whole prompt.

    Together go as many as have logits within the budget; one that has more by itself is read once for each piece.
    """
    sizes = {job.index: len(job.prefix) for job in jobs}
    tails = [Tail(job.index, option, 0, job.prefix + tail) for job in jobs for option, tail in enumerate(job.tails)]
    scored = [len(tail.ids) - sizes[tail.prompt] for tail in tails]
    step = max(1, BUDGET // engine.vocabulary)

    def fit(rows: Sequence[int]) -> bool:
        return sum(scored[row] for row in rows) <= step

    for rows in batches([len(tail.ids) - 1 for tail in tails], engine.batch_size, fit):
        chunk = [tails[row] for row in rows]
        ids, mask = pad_right([tail.ids[:-1] for tail in chunk], engine.device)
        wanted = [
            (row, place) for row, tail in enumerate(chunk) for place in range(sizes[tail.prompt] - 1, len(tail.ids) - 1)
        ]
        for start in range(0, len(wanted), step):
            part = wanted[start : start + step]
            chosen = [chunk[row].ids[place + 1] for row, place in part]
            logits, states = forward_states(engine, ids, mask, part)
            kept = keep(logits, range(len(part)), chosen, top, states)
            _distribute(kept, part, chunk, parts)


def _joined(pieces: Sequence[Rows], tail: Sequence[int]) -> TokenScores:
    ids = [piece.ids for piece in pieces if piece.ids is not None]
    hidden = [piece.hidden for piece in pieces if piece.hidden is not None]
    return TokenScores(
        np.concatenate([piece.logprobs for piece in pieces]),
        ids=np.concatenate(ids) if ids else None,
        chosen=np.array(tail, dtype=np.int64),
        chosen_logprob=np.concatenate([piece.chosen_logprob for piece in pieces]),
        log_z=np.concatenate([piece.log_z for piece in pieces]),
        hidden=np.concatenate(hidden) if hidden else None,
    )
