"""What comes after each of many prompts, or their states; a beginning that several prompts share is read once.

Prompts are sorted by their tokens, so that those which begin alike stand side by side: the orders of one question's
options, or questions behind the same examples. The best cuts into families are found from the front, and a family's
prompts are read as continuations of what all of them share. Where an architecture's cache cannot be copied exactly, and
where little is shared, prompts are read in full. Both give the same numbers; only the time differs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from calibwrap.adapters._hf_forward import (
    PASS_COST,
    Engine,
    batches,
    forward_states,
    layer_states,
    log_partition,
    pad_right,
    to_numpy,
)
from calibwrap.adapters._hf_score import Job, Tail, can_share, copied_rows, groups
from calibwrap.adapters._shared import with_cut
from calibwrap.scores import Floats, TokenScores, log_softmax

LARGEST_FAMILY = 64
"""Prompts that share one beginning at the most; only speed depends on it."""

Forward = Callable[..., Any]
"""Takes ids, mask, R wanted positions and a cache or None, as `forward_states` does after its engine."""
Read = tuple[list[int], Any]
"""Places of R prompts, and what a forward says of their last tokens."""


def next_token(
    engine: Engine, tokens: Sequence[Sequence[int]], ids: Sequence[Sequence[int]] | None, top: int | None
) -> list[TokenScores]:
    """Return one position after each prompt's `tokens`: its own `ids`, else the `top` most probable, else all."""
    found: dict[int, TokenScores] = {}
    for places, (logits, states) in _read(engine, tokens, partial(forward_states, engine)):
        log_z = to_numpy(log_partition(logits))
        for row, place in enumerate(places):
            own = None if ids is None else ids[place]
            scores = _one_position(to_numpy(logits[row]), float(log_z[row]), own, top)
            found[place] = scores if states is None else replace(scores, hidden=to_numpy(states[row : row + 1]))
    return [found[place] for place in range(len(tokens))]


def last_states(engine: Engine, tokens: Sequence[Sequence[int]], layers: Sequence[int]) -> Floats:
    """Return the states (N, L, D) at the last token of each prompt, after each of L layers."""
    found: dict[int, Floats] = {}
    for places, states in _read(engine, tokens, partial(layer_states, engine, layers)):
        found |= dict(zip(places, to_numpy(states), strict=True))
    return np.stack([found[place] for place in range(len(tokens))])


def families(tokens: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Return families of prompts, each as the number of tokens that its members share, and their places.

    At least one token of every prompt is its own. A family costs what it shares, what its members add, and a pass more;
    a prompt alone costs its tokens. The cuts are those of the least sum.

    >>> few = list(range(60))
    >>> families([[*few, 1, 2], [7, 8], [*few, 3]])
    [(60, [0, 2]), (0, [1])]
    """
    order = sorted(range(len(tokens)), key=lambda place: tuple(tokens[place]))
    alike = [_alike(tokens[one], tokens[other]) for one, other in pairwise(order)]
    best, cut = [0.0], [(0, 0)]
    for stop in range(1, len(order) + 1):
        size = len(tokens[order[stop - 1]])
        cost, choice = best[stop - 1] + size, (0, stop - 1)
        shared, total = size - 1, size
        for start in range(stop - 2, max(-1, stop - 1 - LARGEST_FAMILY), -1):
            own = len(tokens[order[start]])
            shared, total = min(shared, alike[start], own - 1), total + own
            together = best[start] + PASS_COST + total - (stop - start - 1) * shared
            if together < cost:
                cost, choice = together, (shared, start)
        best.append(cost)
        cut.append(choice)
    found, stop = [], len(order)
    while stop:
        shared, start = cut[stop]
        found.append((shared, order[start:stop]))
        stop = start
    return found[::-1]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _read(engine: Engine, tokens: Sequence[Sequence[int]], forward: Forward) -> Iterator[Read]:
    """Yield what the model says at the last tokens of all prompts, in batches."""
    members: dict[int, list[int]] = {}
    jobs, alone = [], []
    for number, (shared, places) in enumerate(families(tokens)):
        job = Job(number, list(tokens[places[0]][:shared]), [list(tokens[place][shared:]) for place in places])
        if shared and can_share(engine, job):
            jobs.append(job)
            members[number] = places
        else:
            alone += places
    for part in batches([len(tokens[place]) for place in alone], engine.batch_size):
        yield _in_full(engine, tokens, [alone[row] for row in part], forward)
    for group in groups(engine, jobs):
        yield from _behind(engine, group, members, forward)


def _in_full(engine: Engine, tokens: Sequence[Sequence[int]], places: list[int], forward: Forward) -> Read:
    """Return what the model says of prompts that are read whole."""
    last = [(row, len(tokens[place]) - 1) for row, place in enumerate(places)]
    ids, mask = pad_right([tokens[place] for place in places], engine.device)
    return places, forward(ids, mask, last)


def _behind(engine: Engine, group: Sequence[Job], members: dict[int, list[int]], forward: Forward) -> Iterator[Read]:
    """Yield what the model says of the members of a group of families, whose beginnings are read together."""
    cache = DynamicCache(config=engine.model.config)
    ids, mask = pad_right([job.prefix for job in group], engine.device)
    forward_states(engine, ids, mask, [], cache)
    tails = [Tail(job.index, member, row, own) for row, job in enumerate(group) for member, own in enumerate(job.tails)]
    for part in batches([len(tail.ids) for tail in tails], engine.batch_size):
        read = [tails[row] for row in part]
        rows = torch.tensor([tail.row for tail in read], device=engine.device)
        ids, added = pad_right([tail.ids for tail in read], engine.device)
        seen = torch.cat([mask[rows], added], dim=1)
        last = [(row, len(tail.ids) - 1) for row, tail in enumerate(read)]
        places = [members[tail.prompt][tail.option] for tail in read]
        yield places, forward(ids, seen, last, copied_rows(cache, rows))


def _one_position(logits: Any, log_z: float, ids: Sequence[int] | None, top: int | None) -> TokenScores:
    """Return one position from its logits (V,): given ids, the `top` most probable, or everything."""
    if ids is not None:
        at = np.asarray(ids, dtype=np.int64)
    elif top is not None:
        at = np.argsort(-logits, kind="stable")[:top]
    else:
        return TokenScores(log_softmax(logits[None]), log_z=np.array([log_z]))
    scores = TokenScores((logits[at] - log_z)[None], ids=at[None], log_z=np.array([log_z]))
    return scores if ids is not None else with_cut(scores, top)
