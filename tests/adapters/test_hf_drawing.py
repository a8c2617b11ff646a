"""Drawing with the Transformers adapter: untruncated, reproducible, and the raw distribution always beside it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from calibwrap.adapters import _hf_generate
from calibwrap.adapters.hf import Transformers
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, InputError, PromptTooLong

from . import hf_models as models

TIGHT = 1e-5
PROMPTS = ["Question: which planet is red? Answer:", "A", "The capital of France", "Größe, 東京 and an"]
WARM = Temperature(2.5, level="token")


def ids_of(completion):
    return completion.scores.chosen.tolist()


def check_raw(adapter, prompt, completion):
    """The reported values are those of a separate plain forward over prompt and completion."""
    prefix, drawn = adapter.tokenize(prompt)[0], ids_of(completion)
    truth = models.plain_score(adapter.model, prefix, drawn)
    np.testing.assert_allclose(completion.scores.chosen_logprob, truth, atol=TIGHT)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_h5_draws_and_scores_are_the_same_alone_and_in_a_batch(family):
    adapter = models.adapter(family)
    sampling = Sampling(n=3, max_tokens=6, temperature=1.0, seed=4, top=2)
    together = adapter.generate(PROMPTS, sampling)
    for prompt, row in zip(PROMPTS, together, strict=True):
        alone = adapter.generate([prompt], sampling)[0]
        assert [ids_of(one) for one in row] == [ids_of(one) for one in alone]
        for completion in row:
            check_raw(adapter, prompt, completion)


def test_h1_a_calibrator_inside_decoding_leaves_the_raw_scores_alone():
    adapter = models.adapter("llama")
    for completion in adapter.generate(PROMPTS[:1], Sampling(n=4, max_tokens=8, seed=0, top=None), steer=WARM)[0]:
        prefix = adapter.tokenize(PROMPTS[0])[0]
        truth = models.plain_logprobs(adapter.model, [*prefix, *ids_of(completion)])[len(prefix) - 1 : -1]
        np.testing.assert_allclose(completion.scores.logprobs, truth, atol=TIGHT)


def test_h1_the_processor_returns_a_new_tensor():
    logits = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    requests = [_hf_generate.Request([1], np.random.default_rng(row)) for row in range(2)]
    drawing = _hf_generate.Draw(requests, Sampling(temperature=0.7, top=3), WARM)
    out = drawing(torch.ones(2, 1, dtype=torch.long), logits)
    assert torch.equal(logits, before)
    assert out.data_ptr() != logits.data_ptr()
    assert (out == 0.0).sum(dim=1).tolist() == [1, 1]


def test_h2_nothing_of_the_repository_s_generation_config_leaks():
    clean = Transformers(models.llama(), models.byte_level())
    foul = Transformers(models.llama(), models.byte_level())
    found = GenerationConfig(
        do_sample=True, temperature=0.1, top_k=2, top_p=0.3, repetition_penalty=5.0, no_repeat_ngram_size=2,
        bad_words_ids=[[9]], suppress_tokens=[11, 12], min_new_tokens=4, eos_token_id=2, pad_token_id=0,
        max_length=5, num_beams=1, forced_eos_token_id=2,
    )  # fmt: skip
    foul.model.generation_config = found
    sampling = Sampling(n=4, max_tokens=12, seed=1, top=5)
    for mine, other in zip(clean.generate(PROMPTS, sampling), foul.generate(PROMPTS, sampling), strict=True):
        assert [ids_of(one) for one in mine] == [ids_of(one) for one in other]
        assert [one.scores.logprobs.tolist() for one in mine] == [one.scores.logprobs.tolist() for one in other]
    assert foul.model.generation_config is found


def test_h2_tokens_beyond_the_default_top_50_are_drawn():
    """The library's default keeps 50 of 330 tokens; of 400 draws at a high temperature most lie outside."""
    adapter = models.adapter("llama")
    drawn = adapter.generate(["A"], Sampling(n=400, max_tokens=1, temperature=50.0, seed=0))[0]
    order = np.argsort(-adapter.next_token(["A"])[0].logprobs[0])
    ranks = np.argsort(order)[[ids_of(one)[0] for one in drawn]]
    assert np.mean(ranks >= 50) > 0.5


def test_h3_calibrator_and_sampling_temperature_multiply():
    logits = torch.tensor([[3.0, 1.0, -2.0, 0.5]])
    steered = _hf_generate.drawing_logits(logits, WARM, 0.5)[0]
    ratio = (steered[0] - steered[1:]) / (logits[0, 0] - logits[0, 1:])
    np.testing.assert_allclose(ratio, 1 / (2.5 * 0.5), rtol=1e-12)


def test_h3_drawn_frequencies_follow_the_product_of_both_temperatures():
    adapter = models.adapter("llama")
    raw = adapter.next_token(["A"])[0].logprobs[0]
    wanted = np.exp(raw / (2.5 * 0.8))
    wanted /= wanted.sum()
    n = 4000
    drawn = adapter.generate(["A"], Sampling(n=n, max_tokens=1, temperature=0.8, seed=3), steer=WARM)[0]
    counts = np.bincount([ids_of(one)[0] for one in drawn], minlength=len(wanted))
    spread = np.sqrt(n * wanted * (1 - wanted))
    assert np.all(np.abs(counts - n * wanted) < 5 * spread + 3)
    settings = drawn[0].settings
    assert settings["temperature"] == 0.8
    assert settings["steer"] == str(WARM)


def test_h11_a_row_that_ended_is_cut_at_its_own_end_token():
    """The end token is likely, so rows of a batch end at different steps; it is scored, and not shown."""
    model = models.llama()
    with torch.no_grad():
        hot = models.byte_level().eos_token_id
        model.lm_head.weight[hot] *= 2.5
    adapter = Transformers(model, models.byte_level())
    rows = adapter.generate(PROMPTS, Sampling(n=6, max_tokens=10, seed=2))
    flat = [(prompt, one) for prompt, row in zip(PROMPTS, rows, strict=True) for one in row]
    ended = [len(one.scores) for _, one in flat if one.finish == "stop"]
    assert len(set(ended)) > 1
    assert min(ended) < 10
    for prompt, completion in flat:
        ids = ids_of(completion)
        assert (hot in ids) == (completion.finish == "stop")
        assert hot not in ids[:-1]
        assert "</s>" not in completion.text
        assert len(ids) == 10 or completion.finish == "stop"
        check_raw(adapter, prompt, completion)


def test_greedy_takes_the_most_probable_token():
    adapter = models.adapter("llama")
    one = adapter.generate(PROMPTS[:1], Sampling(max_tokens=5, temperature=0.0, top=1))[0][0]
    assert one.scores.ids[:, 0].tolist() == ids_of(one)
    assert adapter.generate(PROMPTS[:1], Sampling(max_tokens=5, temperature=0.0), steer=WARM)[0][0].text == one.text


def test_seeds_reproduce_and_the_global_state_stays():
    adapter = models.adapter("llama")
    torch.manual_seed(0)
    np.random.seed(0)
    state, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    draws = [
        [ids_of(one) for one in adapter.generate(["A"], Sampling(n=3, max_tokens=8, seed=seed))[0]]
        for seed in (7, 7, 8, None, None)
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)
    assert draws[0] == draws[1] != draws[2]
    assert draws[3] != draws[4]
    assert len({tuple(ids) for ids in draws[0]}) == 3


def test_the_same_prompt_twice_draws_twice_and_fewer_samples_are_the_first_ones():
    adapter = models.adapter("llama")
    first, second = adapter.generate(["A", "A"], Sampling(n=2, max_tokens=8, seed=7))
    assert ids_of(first[0]) != ids_of(second[0])
    assert ids_of(adapter.generate(["A"], Sampling(n=1, max_tokens=8, seed=7))[0][0]) == ids_of(first[0])


def test_many_samples_are_drawn_in_pieces_that_fit_the_memory(monkeypatch):
    adapter = models.adapter("llama")
    sampling = Sampling(n=7, max_tokens=6, seed=7, top=2)
    (whole,) = adapter.generate(["A"], sampling)
    sizes, run = [], _hf_generate.run
    monkeypatch.setattr(_hf_generate, "BUDGET", 3 * adapter._engine.vocabulary)
    monkeypatch.setattr(_hf_generate, "run", lambda *rest: sizes.append(len(rest[2])) or run(*rest))
    (pieces,) = adapter.generate(["A"], sampling)
    assert sizes == [3, 3, 1]
    assert [ids_of(one) for one in pieces] == [ids_of(one) for one in whole]


def test_the_prompt_is_read_once_for_all_samples():
    """One pass reads all but its last token; every later pass has one new token in each row."""
    adapter = models.adapter("llama")
    shapes = []
    handle = adapter.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: shapes.append(tuple(args[0].shape))
    )
    try:
        adapter.generate(PROMPTS[:1], Sampling(n=5, max_tokens=4, seed=1))
    finally:
        handle.remove()
    assert shapes == [(1, len(adapter.tokenize(PROMPTS[0])[0]) - 1), *[(5, 1)] * 4]


def test_a_calibrator_that_gives_no_number_is_named():
    @dataclass(frozen=True)
    class Broken(Temperature):
        def logits(self, logprobs):
            return np.full_like(logprobs, np.nan)

    with pytest.raises(InputError, match="NaN from"):
        models.adapter("llama").generate(["A"], Sampling(max_tokens=1), steer=Broken(2.0, level="token"))


def test_a_stop_text_ends_a_row_and_is_not_part_of_it():
    adapter = models.adapter("llama")
    free = adapter.generate(["A"], Sampling(max_tokens=12, seed=5))[0][0]
    stop = free.text[4:6]
    stopped = adapter.generate(["A"], Sampling(max_tokens=12, seed=5, stop=(stop, "never seen")))[0][0]
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish == "stop"
    assert ids_of(stopped) == ids_of(free)[: len(stopped.scores)]
    assert stop in adapter._reader.text(ids_of(stopped))
    assert stop not in adapter._reader.text(ids_of(stopped)[:-1])


def test_a_calibrator_of_options_cannot_steer():
    with pytest.raises(CapabilityError, match="level 'token'"):
        models.adapter("llama").generate(["A"], Sampling(max_tokens=1), steer=Temperature(2.0))


def test_prompt_and_answer_must_fit_together():
    with pytest.raises(PromptTooLong, match="max_tokens=128"):
        models.adapter("llama").generate(["A"], Sampling(max_tokens=128))


def test_h10_a_padded_row_that_is_drawn_has_no_text():
    """Random weights put mass on rows without a token; it is drawn, reported as it is, and writes nothing."""
    adapter = Transformers(models.llama(padded=300), models.byte_level())
    real = len(models.byte_level())
    drawn = adapter.generate(["A"], Sampling(n=20, max_tokens=1, temperature=5.0, seed=0))[0]
    padded = [one for one in drawn if ids_of(one)[0] >= real]
    assert padded
    assert {one.text for one in padded} == {""}
    check_raw(adapter, "A", padded[0])
