"""What the llama.cpp adapter reads is what the weights say, whatever was read before.

The numbers in test names are those of llama.cpp's known pitfalls: L1 stale logits, L2 context x vocabulary tables, L5
shifted scores, L6 colliding texts, L10 threads, L12 memories that cannot go back.
"""

import resource
import threading

import llama_cpp
import numpy as np
import pytest

from calibwrap.adapters.llamacpp import LlamaCpp
from calibwrap.base import Sampling
from calibwrap.errors import InputError, ModelError, PromptTooLong
from calibwrap.questions import Chat

from . import gguf_models as models

TIGHT = 1e-5
PROMPTS = ["The A B", "A", "Un café, the A", "It is winter: ☃"]
TEXTS = [" A", "the B C D", "☃ the", " A the A B C D E F G H"]


def split_at(adapter, prompt, text, length):
    """Return the joint ids of prompt and text, cut `length` tokens before their end."""
    ids = [token for part in adapter.tokenize(prompt, text) for token in part]
    return ids[:-length], ids[-length:]


def test_next_token_is_what_the_weights_say(tiny, load):
    adapter = load(tiny.path)
    for prompt, scores in zip(PROMPTS, adapter.next_token(PROMPTS), strict=True):
        ids, _ = adapter.tokenize(prompt)
        assert scores.is_full
        np.testing.assert_allclose(scores.logprobs[0], tiny.logprobs(ids)[-1], atol=TIGHT)
        np.testing.assert_allclose(scores.logprobs[0] + scores.log_z[0], tiny.logits(ids)[-1], atol=TIGHT)


def test_l1_logits_are_read_after_the_decode_and_stay(tiny_bos, load):
    adapter = load(tiny_bos.path)
    (first,), (other,), (again,) = (adapter.next_token([prompt]) for prompt in ("The A", "B C", "The A"))
    assert np.isfinite(first.logprobs).all()
    assert np.exp(first.logprobs).sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(first.logprobs - other.logprobs).max() > 0.1
    np.testing.assert_allclose(again.logprobs, first.logprobs, atol=1e-6)


def test_l2_no_table_of_context_times_vocabulary(gguf_folder, load):
    vocabulary = models.byte_fallback(extra=20_000)
    wide = models.write_llama(gguf_folder / "wide.gguf", vocabulary, add_bos=True, context=32_768)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    adapter = load(wide.path, n_ctx=32_768)
    adapter.score(["A B C " * 400], [[" A B C D" * 30, " E"]])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    table = 32_768 * len(vocabulary.tokens) * 4
    assert grown < table / 8  # 2.7 GB with logits_all=True


def test_l5_scores_are_not_shifted_with_or_without_bos(tiny, load):
    adapter = load(tiny.path)
    for prompt, scored in zip(PROMPTS, adapter.score(PROMPTS, [TEXTS] * len(PROMPTS)), strict=True):
        for text, scores in zip(TEXTS, scored, strict=True):
            prefix, suffix = split_at(adapter, prompt, text, len(scores))
            assert scores.chosen.tolist() == suffix
            expected = tiny.continuation(prefix, scores.chosen.tolist())
            np.testing.assert_allclose(scores.chosen_logprob, expected, atol=TIGHT)


def test_bos_comes_from_the_file(tiny_bos, tiny_no_bos, load):
    assert load(tiny_bos.path).tokenize("A")[0][0] == 1
    assert load(tiny_no_bos.path).tokenize("A")[0] == [3 + ord("A")]


def test_l6_tokens_are_told_apart_by_id_not_by_text(tiny_bos, load):
    adapter = load(tiny_bos.path)
    (scores,) = adapter.next_token(["The A"])
    texts = {adapter._vocabulary.piece(token).decode("utf-8", "ignore") for token in range(291)}
    assert len(texts) < 150  # a dictionary keyed by text would lose half of the vocabulary
    assert scores.logprobs.shape == (1, 291)
    (three,) = adapter.next_token(["The A"], ids=[[200, 3, 258]])
    np.testing.assert_allclose(three.logprobs[0], scores.logprobs[0, [200, 3, 258]], atol=1e-6)
    assert three.log_tail[0] == pytest.approx(np.log1p(-np.exp(three.logprobs).sum()))


def test_top_lists_the_most_probable_in_order(tiny_bos, load):
    adapter = load(tiny_bos.path)
    (full,), (few,), (all_,) = (adapter.next_token(["The A"], top=top) for top in (None, 5, 10_000))
    assert few.ids[0].tolist() == np.argsort(-full.logprobs[0], kind="stable")[:5].tolist()
    assert all_.ids.shape == (1, 291)
    assert all_.logprobs[0].tolist() == sorted(full.logprobs[0], reverse=True)


def test_score_lists_top_at_every_position(tiny_bos, load):
    adapter = load(tiny_bos.path)
    ((few,),), ((full,),) = (adapter.score(["A B"], [[" C D"]], top=top) for top in (3, None))
    assert few.logprobs.shape == (len(full), 3)
    assert full.is_full
    np.testing.assert_array_equal(few.logprobs[:, 0], full.logprobs.max(axis=1))
    np.testing.assert_array_equal(few.chosen_logprob, full.chosen_logprob)


def test_tokens_that_merge_across_the_boundary_are_scored_together(tiny_no_bos, load):
    adapter = load(tiny_no_bos.path)
    a, space, t, o, merged = 3 + ord("A"), 3 + ord(" "), 3 + ord("t"), 3 + ord("o"), 262  # merged is " the"
    assert adapter.tokenize("A t") == ([a, space, t], [])
    assert adapter.tokenize("A t", "he") == ([a], [merged])
    ((the, to),) = adapter.score(["A t"], [["he", "o"]])
    assert (the.chosen.tolist(), to.chosen.tolist()) == ([merged], [space, t, o])
    for scores in (the, to):
        expected = tiny_no_bos.continuation([a], scores.chosen.tolist())
        np.testing.assert_allclose(scores.chosen_logprob, expected, atol=TIGHT)


@pytest.mark.parametrize("n_batch", [7, 64, 512])
def test_long_prompts_and_answers_go_in_pieces(tiny_bos, load, n_batch):
    prompt, answer = "A B C D " * 30, " the E F" * 20
    ((scores,),) = load(tiny_bos.path, n_batch=n_batch).score([prompt], [[answer]])
    assert len(scores) > 64
    prefix, _ = split_at(load(tiny_bos.path), prompt, answer, len(scores))
    expected = tiny_bos.continuation(prefix, scores.chosen.tolist())
    np.testing.assert_allclose(scores.chosen_logprob, expected, atol=5e-5)


def test_a_shared_prefix_changes_nothing(tiny, load):
    shots = "Question: A B\nAnswer: C\n" * 6
    prompts = [shots + f"Question: {letter}\nAnswer:" for letter in "ABCA"]
    adapter = load(tiny.path)
    for prompt, one in zip(prompts, adapter.score(prompts, [TEXTS] * 4), strict=True):
        (alone,) = load(tiny.path).score([prompt], [TEXTS])
        for mine, fresh in zip(one, alone, strict=True):
            np.testing.assert_allclose(mine.chosen_logprob, fresh.chosen_logprob, atol=1e-6)


def test_a_shared_prefix_is_not_decoded_again(tiny_bos, load, monkeypatch):
    adapter, decoded = load(tiny_bos.path), []
    inner = adapter._engine._decode
    monkeypatch.setattr(adapter._engine, "_decode", lambda ids, first: (decoded.append(len(ids)), inner(ids, first)))
    shots = "A B C D " * 20
    adapter.score([shots + "A:", shots + "B:"], [[" A", " B C"]] * 2)
    length = len(adapter.tokenize(shots)[0])
    assert sum(decoded) < length + 40


def test_l10_two_threads_get_what_one_gets(tiny_bos, load):
    adapter = load(tiny_bos.path)
    expected = [adapter.score([prompt], [TEXTS])[0] for prompt in PROMPTS]
    found: dict[int, list] = {}

    def work(worker):
        found[worker] = [adapter.score([prompt], [TEXTS])[0] for _ in range(5) for prompt in PROMPTS]

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        for index, result in enumerate(results):
            for mine, single in zip(result, expected[index % 4], strict=True):
                np.testing.assert_allclose(mine.chosen_logprob, single.chosen_logprob, atol=1e-6)


def test_l10_two_adapters_of_one_llama_share_its_lock(tiny_bos):
    llama = llama_cpp.Llama(str(tiny_bos.path), n_ctx=64, n_threads=1, verbose=False)
    assert LlamaCpp(llama)._engine.lock is LlamaCpp(llama)._engine.lock


def test_l12_a_memory_that_cannot_go_back_is_filled_again(gguf_folder, load):
    path = models.write_mamba(gguf_folder / "mamba.gguf", models.byte_fallback())
    together = load(path).score(["The A B"], [TEXTS])[0]
    for text, scores in zip(TEXTS, together, strict=True):
        ((alone,),) = load(path).score(["The A B"], [[text]])
        np.testing.assert_allclose(scores.chosen_logprob[-len(alone) :], alone.chosen_logprob, atol=1e-6)


def test_l12_each_sample_starts_from_the_prompt(gguf_folder, load):
    adapter = load(models.write_mamba(gguf_folder / "samples.gguf", models.byte_fallback()))
    (drawn,) = adapter.generate(["The A B"], Sampling(n=3, max_tokens=6, seed=0))
    (first,) = adapter.next_token(["The A B"])
    assert len({one.text for one in drawn}) == 3
    for one in drawn:
        assert one.scores.chosen_logprob[0] == pytest.approx(first.logprobs[0, one.scores.chosen[0]], abs=1e-6)


def test_the_owner_may_go_on_using_a_handed_in_llama(tiny_bos):
    def opened():
        return llama_cpp.Llama(str(tiny_bos.path), n_ctx=128, n_threads=1, type_k=0, type_v=0, verbose=False)

    fresh, shared = opened(), opened()
    adapter = LlamaCpp(shared)
    before = adapter.score(["The A B"], [TEXTS[:2]])[0]
    greedy = {"max_tokens": 12, "temperature": 0.0}
    for prompt in ("The A B", "The A C", "The A B"):
        mine, plain = (llama.create_completion(prompt, **greedy)["choices"][0]["text"] for llama in (shared, fresh))
        assert mine == plain
        after = adapter.score(["The A B"], [TEXTS[:2]])[0]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one.chosen_logprob, other.chosen_logprob, atol=1e-6)
    adapter.close()
    assert shared.create_completion("A", max_tokens=1)["choices"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda a: a.next_token("A"), InputError),
        (lambda a: a.next_token([""]), InputError),
        (lambda a: a.next_token([7]), InputError),
        (lambda a: a.next_token(["\ud800"]), InputError),
        (lambda a: a.next_token(["A"], ids=[[291]]), InputError),
        (lambda a: a.next_token(["A"], ids=[[]]), InputError),
        (lambda a: a.next_token(["A", "B"], ids=[[1]]), InputError),
        (lambda a: a.score(["A"], [[""]]), InputError),
        (lambda a: a.score(["A"], ["B"]), InputError),
        (lambda a: a.score(["A"], []), InputError),
        (lambda a: a.next_token(["A" * 300]), PromptTooLong),
        (lambda a: a.score(["A"], [["B", "A" * 300]]), PromptTooLong),
        (lambda a: a.generate(["A", "A" * 240], Sampling(max_tokens=64)), PromptTooLong),
        (lambda a: a.generate(["A"], Sampling(top=-1)), InputError),
        (lambda a: a.next_token(["A"], top=0), InputError),
        (lambda a: a.score(["A"], [["B"]], top=-1), InputError),
    ],
)
def test_wrong_input_is_named_before_anything_is_decoded(tiny_bos, load, monkeypatch, call, error):
    adapter = load(tiny_bos.path, n_ctx=256)
    monkeypatch.setattr(adapter._engine, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(error):
        call(adapter)


def test_no_continuations_no_scores(tiny_bos, load):
    assert load(tiny_bos.path).score(["A", "B"], [[], []]) == [[], []]


def test_a_failing_decode_is_named_and_leaves_a_clean_context(tiny_bos, load, monkeypatch):
    adapter = load(tiny_bos.path)
    (before,) = adapter.next_token(["The A B"])
    real = adapter._engine.api
    with monkeypatch.context() as patch:
        patch.setattr(real, "llama_decode", lambda *_: 1)
        with pytest.raises(ModelError, match="code 1"):
            adapter.next_token(["Other"])
    (after,) = adapter.next_token(["The A B"])
    np.testing.assert_allclose(after.logprobs, before.logprobs, atol=1e-6)


def test_chats_go_through_all_three_readings(tiny_bos, load):
    adapter, chat = load(tiny_bos.path), Chat((("user", "A B"),), prefix="So")
    ids, _ = adapter.tokenize(chat)
    np.testing.assert_allclose(adapter.next_token([chat])[0].logprobs[0], tiny_bos.logprobs(ids)[-1], atol=TIGHT)
    ((scores,),) = adapter.score([chat], [[" C"]])
    np.testing.assert_allclose(scores.chosen_logprob, tiny_bos.continuation(ids, scores.chosen.tolist()), atol=TIGHT)
    assert adapter.generate([chat], Sampling(max_tokens=2, seed=0))[0][0].finish in ("length", "stop")
