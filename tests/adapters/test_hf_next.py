"""The token after many prompts: a beginning that several share is read once, and no number moves for it."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap.adapters import _hf_next
from calibwrap.adapters._hf_forward import PASS_COST
from calibwrap.adapters.hf import Transformers

from . import hf_models as models

TIGHT = 1e-5
FEW = "Read the question, weigh every option, and answer by its letter: "
"""A beginning of more tokens than a pass costs, so that it is worth reading once for two prompts."""
PROMPTS = [
    f"{FEW}Is water wet?",
    "A",
    f"{FEW}Is",
    "Größe, 東京",
    f"{FEW}Is water wet?",
    f"{FEW}The capital of France",
    FEW,
]


def tokens_read(adapter, monkeypatch):
    """Return a list that every pass adds its number of tokens to, padding included."""
    read = []
    real = _hf_next.forward_states
    monkeypatch.setattr(_hf_next, "forward_states", lambda *a: (read.append(a[1].numel()), real(*a))[1])
    return read


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("way", ["all", "top", "ids"])
def test_prompts_that_begin_alike_say_what_each_says_alone(family, way):
    adapter = models.adapter(family)
    own = [[place, 40 - place] for place in range(len(PROMPTS))]
    options = {"all": {}, "top": {"top": 3}, "ids": {"ids": own}}[way]
    for place, (prompt, scores) in enumerate(zip(PROMPTS, adapter.next_token(PROMPTS, **options), strict=True)):
        truth = models.plain_logprobs(adapter.model, adapter.tokenize(prompt)[0])[-1]
        at = {"all": slice(None), "top": np.argsort(-truth)[:3], "ids": own[place]}[way]
        np.testing.assert_allclose(scores.logprobs[0], truth[at], atol=TIGHT)


@pytest.mark.parametrize(
    ("family", "shares"),
    [("llama", True), ("gpt2", True), ("bloom", True), ("gemma3", False), ("gemma3-wide", True), ("mamba", False)],
)
def test_the_beginning_is_read_once_where_a_cache_can_be_copied_exactly(family, shares, monkeypatch):
    adapter = models.adapter(family)
    read = tokens_read(adapter, monkeypatch)
    adapter.next_token([FEW + "Is water wet?", FEW + "Is water red?"])
    twice = 2 * len(adapter.tokenize(FEW + "Is water wet?")[0])
    assert sum(read) <= twice - PASS_COST if shares else sum(read) >= twice
    assert len(read) == (2 if shares else sum(read) / twice)


def test_families_whose_beginnings_differ_in_length_are_read_side_by_side(monkeypatch):
    adapter = models.adapter("llama")
    read = tokens_read(adapter, monkeypatch)
    prompts = [
        f"{start}{end}" for start in (FEW, "The capital of Italy is Rome, and " * 4) for end in ("A", "Bonn", "C")
    ]
    scores = adapter.next_token(prompts)
    assert len(read) == 3  # both beginnings, then six ends in batches of four
    for prompt, one in zip(prompts, scores, strict=True):
        truth = models.plain_logprobs(adapter.model, adapter.tokenize(prompt)[0])[-1]
        np.testing.assert_allclose(one.logprobs[0], truth, atol=TIGHT)


def test_a_family_wider_than_the_window_is_read_in_full_and_a_narrow_one_is_not(monkeypatch):
    """Of two families one fits a window of 60 tokens."""
    adapter = Transformers(models.gemma3(60), models.byte_level(), batch_size=4)
    read = tokens_read(adapter, monkeypatch)
    prompts = [FEW + "A", FEW + "B", *(("umbrella " * 16) + end for end in ("Paris", "Rome and Paris"))]
    sizes = [len(adapter.tokenize(prompt)[0]) for prompt in prompts]
    assert max(sizes[:2]) <= 60 < max(sizes[2:])
    for prompt, one in zip(prompts, adapter.next_token(prompts), strict=True):
        truth = models.plain_logprobs(adapter.model, adapter.tokenize(prompt)[0])[-1]
        np.testing.assert_allclose(one.logprobs[0], truth, atol=TIGHT)
    assert sum(sizes[2:]) < sum(read) < sum(sizes)


def test_states_come_with_shared_beginnings():
    model = models.llama()
    shared = Transformers(model, models.byte_level(), batch_size=4, hidden=True)
    whole = Transformers(model, models.byte_level(), batch_size=4, hidden=True)
    whole._engine = replace(whole._engine, can_repeat=False)
    for one, other in zip(shared.next_token(PROMPTS), whole.next_token(PROMPTS), strict=True):
        np.testing.assert_allclose(one.hidden, other.hidden, atol=TIGHT)
        assert one.hidden.shape == (1, 32)


def cost(found, prompts):
    """Return what families cost by the rule that is stated."""
    tokens = [sum(len(prompts[place]) for place in places) for _, places in found]
    return sum(
        total if len(places) == 1 else PASS_COST + shared + total - len(places) * shared
        for total, (shared, places) in zip(tokens, found, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 7))
def test_families_hold_every_prompt_once_share_what_they_say_and_cost_least(seed, n):
    """Against all cuts of the sorted prompts, by brute force."""
    draw = random.Random(seed)
    stems = [[draw.randrange(3) for _ in range(draw.randrange(1, 60))] for _ in range(2)]
    prompts = [
        draw.choice(stems)[: draw.randrange(1, 80)] + [draw.randrange(3) for _ in range(draw.randrange(4))]
        for _ in range(n)
    ]
    found = _hf_next.families(prompts)
    assert sorted(place for _, places in found for place in places) == list(range(n))
    for shared, places in found:
        assert len({tuple(prompts[place][:shared]) for place in places}) == 1
        assert shared < min(len(prompts[place]) for place in places)
    order = sorted(range(n), key=lambda place: prompts[place])

    def together(places):
        shared = min(len(prompts[place]) for place in places) - 1
        while len({tuple(prompts[place][:shared]) for place in places}) > 1:
            shared -= 1
        return (shared if len(places) > 1 else 0), places

    def cuts(places):
        yield [together(places)]
        for at in range(1, len(places)):
            for rest in cuts(places[at:]):
                yield [together(places[:at]), *rest]

    assert cost(found, prompts) == min(cost(one, prompts) for one in cuts(order))


def test_no_family_outgrows_its_limit():
    prompts = [[7] * 50 + [place] for place in range(3 * _hf_next.LARGEST_FAMILY)]
    sizes = [len(places) for _, places in _hf_next.families(prompts)]
    assert sum(sizes) == len(prompts)
    assert max(sizes) <= _hf_next.LARGEST_FAMILY
    assert len(sizes) == 3
