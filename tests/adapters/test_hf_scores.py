"""The Transformers adapter's probabilities equal those of one plain, unpadded forward pass."""

from itertools import chain

import numpy as np
import pytest
import torch

from calibwrap.adapters import _hf_forward, _hf_score
from calibwrap.adapters.hf import Transformers
from calibwrap.errors import AmbiguousOptions, InputError, PromptTooLong
from calibwrap.questions import Question
from calibwrap.readouts import Label

from . import hf_models as models

TIGHT = 1e-5
PROMPTS = ["Question: which planet is red? Answer:", "A", "The capital of France", "Größe, 東京 and an umbrella ☂ on a"]
TEXTS = [
    [" Mars", " the red planet, and no other", " M", " Mars and Rome"],
    [" b"],
    [" is Paris", " is Rome", " was", " is", " und sonst nichts, gar nichts, nichts"],
    [" rainy day", " ☂☂"],
]


def differences(adapter, prompts, texts, top=0):
    """Return the largest difference from the plain truth over all tokens."""
    worst = 0.0
    for prompt, options, row in zip(prompts, texts, adapter.score(prompts, texts, top=top), strict=True):
        prefix, tails = adapter._reader.split(prompt, options)
        assert [scores.chosen.tolist() for scores in row] == tails
        for tail, scores in zip(tails, row, strict=True):
            truth = models.plain_score(adapter.model, prefix, tail)
            worst = max(worst, float(np.abs(scores.chosen_logprob - truth).max()))
    return worst


@pytest.mark.parametrize("family", models.FAMILIES)
def test_scores_equal_a_plain_forward(family):
    assert differences(models.adapter(family), PROMPTS, TEXTS) < TIGHT


@pytest.mark.parametrize("family", models.FAMILIES)
def test_h5_a_batch_equals_singles(family):
    adapter = models.adapter(family)
    for prompt, scores in zip(PROMPTS, adapter.next_token(PROMPTS), strict=True):
        truth = models.plain_logprobs(adapter.model, adapter.tokenize(prompt)[0])[-1]
        assert scores.is_full
        np.testing.assert_allclose(scores.logprobs[0], truth, atol=TIGHT)
    together = adapter.score(PROMPTS, TEXTS, top=3)
    for prompt, options, row in zip(PROMPTS, TEXTS, together, strict=True):
        for text, scores in zip(options, row, strict=True):
            alone = adapter.score([prompt], [[text]], top=3)[0][0]
            if alone.chosen.tolist() == scores.chosen.tolist():  # else the boundary moved with the other options
                np.testing.assert_allclose(scores.logprobs, alone.logprobs, atol=TIGHT)
                np.testing.assert_allclose(scores.log_z, alone.log_z, atol=TIGHT)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_h6_the_order_of_options_changes_nothing(family):
    adapter = models.adapter(family)
    forward = adapter.score(PROMPTS[:1], TEXTS[:1])[0]
    backward = adapter.score(PROMPTS[:1], [TEXTS[0][::-1]])[0][::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_allclose(one.chosen_logprob, other.chosen_logprob, atol=TIGHT)


def test_h6_the_prefix_cache_is_never_extended():
    engine = models.adapter("llama")._engine
    cache = _hf_forward.DynamicCache(config=engine.model.config)
    ids, mask = _hf_forward.pad_right([[5, 6, 7], [8, 9]], "cpu")
    with _hf_forward.inference(engine.model):
        _hf_forward.forward(engine, ids, mask, [(0, 2)], cache)
        before = cache.layers[0].keys.clone()
        tails = [_hf_score.Tail(0, option, 0, [10, 11, 12]) for option in range(3)]
        _hf_score.score_tails(engine, cache, mask, tails, 0, {})
    assert cache.get_seq_length() == 3
    assert torch.equal(cache.layers[0].keys, before)


@pytest.mark.parametrize(
    ("family", "shares"),
    [("llama", True), ("gpt2", True), ("bloom", True), ("gemma3", False), ("gemma3-wide", True), ("mamba", False)],
)
def test_h6_a_cache_is_shared_only_where_it_can_be_copied_exactly(family, shares, monkeypatch):
    shared = []
    real = _hf_score.score_group
    monkeypatch.setattr(_hf_score, "score_group", lambda *a: (shared.append(len(a[1])), real(*a)))
    assert differences(models.adapter(family), PROMPTS[:1] * 2, TEXTS[:1] * 2) < TIGHT
    assert bool(shared) is shares


def test_h6_a_window_is_respected_when_only_some_prompts_fit_it(monkeypatch):
    """Short prompts fit the window of 8 together with their options and share; long ones do not."""
    groups = []
    real = _hf_score.score_group
    monkeypatch.setattr(_hf_score, "score_group", lambda *a: (groups.append(len(a[1])), real(*a)))
    adapter = Transformers(models.gemma3(20), models.byte_level())
    prompts, texts = ["A", "The", *PROMPTS], [["B", " and"], [" A", " B C"], *TEXTS]
    assert differences(adapter, prompts, texts) < TIGHT
    assert 0 < sum(groups) < len(prompts)


def test_h6_padding_pushes_no_token_out_of_a_window():
    """Each prompt fits the window with its own options; padded together, one would lose its prompt from sight."""
    adapter = Transformers(models.gemma3(20), models.byte_level())
    prompts, texts = ["A", "umbrella" + " a" * 6], [[" zxzxzxzxzxzx", " b"], [" b", " c d"]]
    jobs = [_hf_score.Job(0, *adapter._reader.split(*pair)) for pair in zip(prompts, texts, strict=True)]
    assert all(job.longest <= 20 for job in jobs)
    assert len(jobs[1].prefix) + max(map(len, jobs[0].tails)) > 20
    assert differences(adapter, prompts, texts) < TIGHT


def test_positions_without_position_ids_share_only_equal_lengths(monkeypatch):
    """Bloom counts positions by itself, so only prompts of one length go together."""
    lengths = []
    real = _hf_score.score_group
    monkeypatch.setattr(
        _hf_score, "score_group", lambda *a: (lengths.append({len(job.prefix) for job in a[1]}), real(*a))
    )
    assert differences(models.adapter("bloom"), PROMPTS * 2, TEXTS * 2) < TIGHT
    assert all(len(group) == 1 for group in lengths)


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_a_small_budget_changes_nothing(family, monkeypatch):
    """Long continuations are then read in pieces of one position."""
    adapter = models.adapter(family)
    whole = adapter.score(PROMPTS, TEXTS, top=2)
    for module in (_hf_score, _hf_forward):
        monkeypatch.setattr(module, "BUDGET", 1)
    pieces = adapter.score(PROMPTS, TEXTS, top=2)
    for one, other in zip(chain(*whole), chain(*pieces), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=TIGHT)
        np.testing.assert_allclose(one.chosen_logprob, other.chosen_logprob, atol=TIGHT)


def test_long_texts_are_read_once_where_their_logits_fit_the_budget(monkeypatch):
    adapter = models.adapter("llama")
    texts = [f"{word} and so on, and so forth, until the end of the line" for word in ("Mars", "Venus", "Rome")]
    plain = [adapter.score(["A"], [[text]])[0][0] for text in texts]
    read, real = [], _hf_score.forward_states
    monkeypatch.setattr(_hf_score, "BUDGET", (len(plain[0]) + 5) * adapter._engine.vocabulary)
    monkeypatch.setattr(_hf_score, "forward_states", lambda *a: (read.append(a[1].numel()), real(*a))[1])
    found = adapter.score(["A"] * 3, [[text] for text in texts])
    assert len(read) == 3
    assert sum(read) == sum(len(one) for one in plain) + 3 * (len(adapter.tokenize("A")[0]) - 1)
    for (one,), other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one.chosen_logprob, other.chosen_logprob, atol=1e-5)


def test_listed_entries_are_the_most_probable_of_the_whole_vocabulary():
    adapter = models.adapter("llama")
    full = adapter.score(PROMPTS, TEXTS, top=None)
    for row, listed in zip(chain(*full), chain(*adapter.score(PROMPTS, TEXTS, top=5)), strict=True):
        assert row.is_full
        np.testing.assert_allclose(np.exp(row.logprobs).sum(axis=1), 1.0, atol=1e-9)
        np.testing.assert_allclose(listed.logprobs, -np.sort(-row.logprobs, axis=1)[:, :5], atol=TIGHT)
        np.testing.assert_allclose(np.take_along_axis(row.logprobs, listed.ids, axis=1), listed.logprobs, atol=TIGHT)
    only = adapter.score(PROMPTS, TEXTS, top=0)[0][0]
    assert only.ids[:, 0].tolist() == only.chosen.tolist()


def test_given_ids_are_normalised_over_the_full_vocabulary():
    adapter = models.adapter("llama")
    full = adapter.next_token(PROMPTS)
    wanted = [[7, 300, 7], [5], [20, 21], [9, 8, 7]]
    for row, ids, some in zip(full, wanted, adapter.next_token(PROMPTS, ids=wanted), strict=True):
        np.testing.assert_allclose(some.logprobs[0], row.logprobs[0, ids], atol=TIGHT)
        assert some.ids[0].tolist() == ids
    for row, listed in zip(full, adapter.next_token(PROMPTS, top=4), strict=True):
        assert listed.ids[0].tolist() == np.argsort(-row.logprobs[0], kind="stable")[:4].tolist()


def test_h4_a_half_precision_head_is_computed_in_float32():
    """bfloat16 has 8 bits: of 300 logits around 30 many are exactly equal. In float32 none are, and they are right."""
    model = models.llama(initializer_range=1.0).to(torch.bfloat16)
    tokenizer = models.byte_level()
    fine, coarse = (
        Transformers(model, tokenizer, logits_dtype=dtype).next_token(["The capital of"])[0]
        for dtype in ("float32", "model")
    )
    ids = torch.tensor([tokenizer("The capital of")["input_ids"]])
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0, -1]
        exact = torch.log_softmax(hidden.double() @ model.lm_head.weight.double().T, -1).numpy()
    np.testing.assert_allclose(fine.logprobs[0], exact, atol=TIGHT)
    assert np.abs(coarse.logprobs[0] - exact).max() > 1e-2
    assert len(np.unique(fine.logprobs)) == fine.logprobs.size
    assert len(np.unique(coarse.logprobs)) < coarse.logprobs.size


def test_h4_scores_and_draws_use_the_same_head():
    from calibwrap.base import Sampling

    adapter = Transformers(models.llama().to(torch.bfloat16), models.byte_level())
    drawn = adapter.generate(["The capital of"], Sampling(max_tokens=1, temperature=0.0, top=None))[0][0]
    np.testing.assert_allclose(drawn.scores.logprobs, adapter.next_token(["The capital of"])[0].logprobs, atol=2e-2)
    assert len(np.unique(drawn.scores.logprobs)) == drawn.scores.logprobs.size


def test_h7_a_label_of_several_tokens_is_seen():
    adapter = models.adapter("llama")
    assert len(adapter.tokenize("Answer:", " New York")[1]) > 1
    with pytest.raises(AmbiguousOptions, match="not one token"):
        Label(labels=("New York", "New Delhi")).ask(adapter, [Question("Where?", ["a", "b"])])


def test_h10_padded_rows_keep_their_probability():
    tokenizer = models.byte_level()
    adapter = Transformers(models.llama(padded=54), tokenizer)
    scores = adapter.next_token(PROMPTS[:1])[0]
    assert scores.logprobs.shape[1] == len(tokenizer) + 54
    truth = models.plain_logprobs(adapter.model, adapter.tokenize(PROMPTS[0])[0])[-1]
    np.testing.assert_allclose(scores.logprobs[0], truth, atol=TIGHT)
    assert adapter.fingerprint().tokenizer == models.adapter("llama").fingerprint().tokenizer


def test_dropout_is_off_and_the_model_is_left_as_it_was():
    model = models.gpt2().train()
    model.transformer.h[1].eval()
    adapter = Transformers(model, models.byte_level())
    assert differences(Transformers(models.gpt2(), models.byte_level()), PROMPTS, TEXTS) < TIGHT
    first, second = (adapter.next_token(PROMPTS[:1])[0].logprobs for _ in range(2))
    assert np.array_equal(first, second)
    assert model.training
    assert not model.transformer.h[1].training
    assert not model.lm_head._forward_hooks


@pytest.mark.parametrize("lengths", [[5], [9, 1, 1, 60, 61, 2, 62], [1] * 9, [3, 30, 300, 3000]])
def test_rows_are_grouped_at_the_least_cost(lengths):
    """Against all ways to cut the sorted rows into groups of at most 3."""
    found = _hf_forward.batches(lengths, size=3)
    assert sorted(chain(*found)) == list(range(len(lengths)))

    def cost(groups):
        return sum(_hf_forward.PASS_COST + len(group) * max(group) for group in groups)

    def ways(rest):
        yield from ([rest[:n], *others] for n in range(1, min(3, len(rest)) + 1) for others in ways(rest[n:]))
        if not rest:
            yield []

    assert cost([[lengths[row] for row in rows] for rows in found]) == min(map(cost, ways(sorted(lengths))))


@pytest.mark.parametrize("texts", [[[""]], [[" a", ""]], [[]], [" a"], [[3]], [[" a"], [" b"]]])
def test_continuations_that_are_not_texts_are_named(texts):
    with pytest.raises(InputError, match="continuations"):
        models.adapter("llama").score(["A"], texts)


@pytest.mark.parametrize("ids", [[[]], [[-1]], [[10**6]], [[1], [2]]])
def test_ids_that_do_not_fit_are_named(ids):
    with pytest.raises(InputError, match="ids"):
        models.adapter("llama").next_token(["A"], ids=ids)


def test_an_over_long_prompt_is_refused_before_any_model_call(monkeypatch):
    adapter = models.adapter("llama")
    monkeypatch.setattr(_hf_forward, "forward", lambda *_: pytest.fail("the model was called"))
    long = "umbrella " * 200
    for call in (
        lambda: adapter.next_token(["A", long]),
        lambda: adapter.score(["A", "A"], [[" b", " c"], [" " + long]]),
    ):
        with pytest.raises(PromptTooLong, match="128"):
            call()


@pytest.mark.parametrize("prompts", ["A", [""], [3], [None], ["\ud800"]])
def test_prompts_that_are_not_text_are_named(prompts):
    with pytest.raises(InputError):
        models.adapter("llama").next_token(prompts)


def test_nothing_in_gives_nothing_out():
    adapter = models.adapter("llama")
    assert adapter.next_token([]) == []
    assert adapter.score([], []) == []
