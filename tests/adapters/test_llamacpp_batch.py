"""Completions of one prompt, decoded together: the prompt read once, everyone's own memory, and nothing left behind."""

import llama_cpp
import numpy as np
import pytest

from calibwrap.adapters import _llamacpp_batch
from calibwrap.adapters._llamacpp_drawing import picked, weights_of
from calibwrap.adapters.llamacpp import LlamaCpp
from calibwrap.base import Sampling
from calibwrap.errors import ModelError

PROMPT = "The A B"


def ids_of(group):
    return [one.scores.chosen.tolist() for one in group]


@pytest.fixture
def decodes(monkeypatch):
    """Sizes of all batches that llama.cpp decodes."""
    sizes, decode = [], llama_cpp.llama_decode

    def counted(native, batch):
        sizes.append(batch.n_tokens)
        return decode(native, batch)

    monkeypatch.setattr(llama_cpp, "llama_decode", counted)
    return sizes


def test_the_prompt_is_read_once_and_each_step_is_one_decode(tiny_bos, load, decodes):
    adapter = load(tiny_bos.path)
    length = len(adapter.tokenize(PROMPT)[0])
    (group,) = adapter.generate([PROMPT], Sampling(n=4, max_tokens=6, seed=1))
    assert [len(one.scores) for one in group] == [6] * 4
    assert decodes == [length, 4, 4, 4, 4, 4]
    adapter.generate([PROMPT], Sampling(n=2, max_tokens=2, seed=1))
    assert decodes[6:] == [2, 2]  # the last two tokens of the prompt, which the model still held, and one step


def test_together_equals_one_after_the_other(tiny, load, monkeypatch):
    sampling = Sampling(n=5, max_tokens=12, seed=3, top=4)
    (together,) = load(tiny.path).generate([PROMPT], sampling)
    monkeypatch.setattr(_llamacpp_batch, "MAX_BRANCHES", 1)
    (apart,) = load(tiny.path).generate([PROMPT], sampling)
    assert ids_of(together) == ids_of(apart)
    for one, other in zip(together, apart, strict=True):
        assert (one.text, one.finish) == (other.text, other.finish)
        np.testing.assert_allclose(one.scores.logprobs, other.scores.logprobs, atol=1e-4)


def test_scores_are_those_of_the_plain_forward(tiny, load):
    adapter = load(tiny.path)
    ids, _ = adapter.tokenize(PROMPT)
    for one in adapter.generate([PROMPT], Sampling(n=6, max_tokens=8, seed=2))[0]:
        drawn = one.scores.chosen.tolist()
        np.testing.assert_allclose(one.scores.chosen_logprob, tiny.continuation(ids, drawn), atol=1e-5)


def test_an_ended_completion_makes_room_for_the_next(tiny_bos, load, decodes, monkeypatch):
    """With a stop text that is often drawn, completions end at different steps; never more than three run at a time."""
    monkeypatch.setattr(_llamacpp_batch, "MAX_BRANCHES", 3)
    adapter = load(tiny_bos.path)
    ids, _ = adapter.tokenize(PROMPT)
    stops = tuple("ABCDEFGHIJKLMNOP")
    (group,) = adapter.generate([PROMPT], Sampling(n=12, max_tokens=10, seed=6, stop=stops))
    assert len({len(one.scores) for one in group}) > 2
    assert max(decodes[1:]) == 3
    assert sum(decodes[1:]) == sum(len(one.scores) - 1 for one in group)  # not one token for a row that has ended
    for one in group:
        np.testing.assert_allclose(
            one.scores.chosen_logprob, tiny_bos.continuation(ids, one.scores.chosen.tolist()), atol=1e-5
        )


def test_the_same_call_gives_the_same_and_fewer_are_the_first_ones(tiny, load):
    adapter = load(tiny.path)
    many, again = (adapter.generate([PROMPT], Sampling(n=5, max_tokens=9, seed=8))[0] for _ in range(2))
    (few,) = adapter.generate([PROMPT], Sampling(n=2, max_tokens=9, seed=8))
    assert ids_of(many) == ids_of(again)
    assert [one.scores.chosen_logprob.tolist() for one in many] == [o.scores.chosen_logprob.tolist() for o in again]
    assert ids_of(few) == ids_of(many)[:2]


def test_a_context_without_room_decodes_one_after_the_other(tiny_bos, load, decodes):
    """The branches may take as many tokens as the loaded context has, and no more."""
    adapter = load(tiny_bos.path, n_ctx=256)
    length = len(adapter.tokenize(PROMPT)[0])
    (group,) = adapter.generate([PROMPT], Sampling(n=2, max_tokens=256 - length, seed=1))
    assert set(decodes[1:]) <= {1, *range(length, 257)}
    assert len(group) == 2


def test_a_failed_decode_is_named_and_the_model_goes_on(tiny_bos, load, monkeypatch):
    adapter = load(tiny_bos.path)
    before = adapter.next_token([PROMPT])[0].logprobs
    native, decode = adapter.llama.ctx, llama_cpp.llama_decode
    monkeypatch.setattr(llama_cpp, "llama_decode", lambda own, batch: decode(own, batch) if own == native else 1)
    with pytest.raises(ModelError, match="2 completions together"):
        adapter.generate([PROMPT], Sampling(n=2, max_tokens=4, seed=1))
    np.testing.assert_array_equal(adapter.next_token([PROMPT])[0].logprobs, before)


def test_every_second_context_is_freed(tiny_bos, load, monkeypatch):
    opened, freed = [], []
    make, free = llama_cpp.llama_init_from_model, llama_cpp.llama_free
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda *rest: opened.append(make(*rest)) or opened[-1])
    monkeypatch.setattr(llama_cpp, "llama_free", lambda native: freed.append(native) or free(native))
    adapter = load(tiny_bos.path)
    own = len(opened)
    adapter.generate([PROMPT, "B C"], Sampling(n=2, max_tokens=4, seed=1))
    assert len(opened) - own == 2
    assert freed == opened[own:]


def test_weights_on_top_of_the_model_s_are_not_left_out(tiny_bos, load, decodes):
    """A second context would not have the LoRA weights of the first."""
    llama = load(tiny_bos.path).llama
    llama.lora_path = "some.gguf"
    LlamaCpp(llama).generate([PROMPT], Sampling(n=3, max_tokens=4, seed=1))
    assert 3 not in decodes


def test_a_real_model_s_values_are_near_those_it_scores(load, smollm_gguf):
    """Quantised weights round by how many tokens are decoded at a time; a wrong branch would be off by far more."""
    adapter = load(smollm_gguf)
    (group,) = adapter.generate(["The capital of France is"], Sampling(n=4, max_tokens=4, seed=1))
    read = [adapter.tokenize("The capital of France is", one.text)[1] == one.scores.chosen.tolist() for one in group]
    texts = [one.text for one in group]
    assert sum(read) >= 2
    for was_read, one, scores in zip(read, group, adapter.score(["The capital of France is"], [texts])[0], strict=True):
        if was_read:
            np.testing.assert_allclose(scores.chosen_logprob, one.scores.chosen_logprob, atol=0.5)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000])
def test_a_token_is_picked_where_the_running_sum_passes(size):
    random = np.random.default_rng(size)
    weights = random.exponential(size=size).astype(np.float32) * (random.random(size) < 0.7)
    weights[-1] = 0.0 if size > 1 else 1.0
    sums = np.cumsum(weights, dtype=np.float64)
    for point in [0.0, 1.0 - 2.0**-53, *random.random(300)]:
        token = picked(weights, point)
        assert weights[token] > 0.0
        assert sums[token] >= point * sums[-1] * (1 - 1e-6)
        assert token == 0 or sums[token] - weights[token] <= point * sums[-1] * (1 + 1e-6)


def test_weights_are_those_of_the_softmax_at_any_temperature():
    logits = np.array([3.0, -2.0, 0.5, -np.inf], dtype=np.float32)
    np.testing.assert_allclose(weights_of(logits, 0.7), np.exp((logits - 3.0) / 0.7), rtol=1e-5)
    assert weights_of(logits, 1e-300).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert weights_of(logits, 1e300).tolist() == [1.0, 1.0, 1.0, 0.0]
