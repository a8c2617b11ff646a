"""The same GGUF file through Transformers and through llama.cpp: the same words, nearly the same numbers."""

import warnings

import numpy as np
import pytest
import torch

from calibwrap.adapters.hf import Transformers
from calibwrap.questions import Chat

from . import gguf_models as models

PROMPTS = ["The A B", "Un café ☃", "Question: what is the A?\nAnswer:"]
TEXTS = [" A", " the B C", "☃ of the A"]


@pytest.fixture(scope="module")
def transformers_of():
    """Open a GGUF file with Transformers on one thread, once a file."""
    torch.set_num_threads(1)
    opened = {}

    def of(path):
        if path not in opened:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other packages' deprecations while they load
                opened[path] = Transformers.load(str(path))
        return opened[path]

    yield of
    for adapter in opened.values():
        adapter.close()


@pytest.fixture(params=["with BOS", "without BOS"])
def pair(request, gguf_folder, tiny_no_bos, load, transformers_of):
    """One model in both runtimes: L5 wants the same words with a begin token and without."""
    tiny = tiny_no_bos
    if request.param == "with BOS":
        tiny = models.write_llama(gguf_folder / "pairs-bos.gguf", models.byte_pairs(), add_bos=True, seed=1)
    llama = load(tiny.path)
    assert (llama.tokenize("A")[0][0] == 1) == (request.param == "with BOS")
    return llama, transformers_of(tiny.path)


def test_the_same_words(pair):
    llama, other = pair
    for prompt in PROMPTS:
        assert llama.tokenize(prompt) == other.tokenize(prompt)
        for text in TEXTS:
            assert llama.tokenize(prompt, text) == other.tokenize(prompt, text)


def test_the_same_next_token(pair):
    llama, other = pair
    for one, two in zip(llama.next_token(PROMPTS), other.next_token(PROMPTS), strict=True):
        np.testing.assert_allclose(one.logprobs, two.logprobs, atol=2e-5)
        np.testing.assert_allclose(one.log_z, two.log_z, atol=2e-5)


@pytest.mark.parametrize("top", [0, 5])
def test_l5_the_same_scores_of_continuations(pair, top):
    llama, other = pair
    for mine, theirs in zip(*(one.score(PROMPTS, [TEXTS] * 3, top=top) for one in (llama, other)), strict=True):
        for one, two in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.chosen, two.chosen)
            np.testing.assert_array_equal(one.ids, two.ids)
            np.testing.assert_allclose(one.chosen_logprob, two.chosen_logprob, atol=2e-5)


def test_l5_with_bos_the_same_ids_give_the_same_numbers(tiny_bos, load, transformers_of):
    """The two cut this vocabulary of equal scores differently, so ids are compared and not texts."""
    llama, model = load(tiny_bos.path), transformers_of(tiny_bos.path)._engine.model
    for prompt in PROMPTS:
        ids, _ = llama.tokenize(prompt)
        assert ids[0] == 1
        with torch.inference_mode():
            expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
        np.testing.assert_allclose(llama.next_token([prompt])[0].logprobs[0], expected, atol=2e-5)


@pytest.mark.model
def test_a_real_model_reads_the_same_words_and_nearly_the_same_numbers(smollm_gguf, load, transformers_of):
    llama, other = load(smollm_gguf, n_ctx=512), transformers_of(smollm_gguf)
    chat = Chat((("user", "Which planet is red?"),), prefix="It is")
    prompts = ["The capital of France is", "Question: Which planet is red?\nAnswer:", chat]
    options = [[" Paris", " London"], [" Mars", " Venus, of course"], [" Mars", " Venus"]]
    for prompt, texts in zip(prompts, options, strict=True):
        assert [llama.tokenize(prompt, text) for text in texts] == [other.tokenize(prompt, text) for text in texts]
    for one, two in zip(llama.next_token(prompts), other.next_token(prompts), strict=True):
        np.testing.assert_allclose(np.exp(one.logprobs), np.exp(two.logprobs), atol=0.06)
    for mine, theirs in zip(llama.score(prompts, options), other.score(prompts, options), strict=True):
        sums = [[scores.chosen_logprob.sum() for scores in scored] for scored in (mine, theirs)]
        assert np.argmax(sums[0]) == np.argmax(sums[1])
    ours, theirs = llama.fingerprint(), other.fingerprint()
    assert ours.runtime != theirs.runtime
    assert (ours.revision, ours.tokenizer, ours.template) == (theirs.revision, theirs.tokenizer, theirs.template)
