"""Streams of llama.cpp: the very tokens and scores of `generate`, and a model that is free between two tokens."""

import gc
import threading
import weakref

import llama_cpp
import numpy as np
import pytest

import calibwrap as cw
from calibwrap.adapters import _llamacpp_batch
from calibwrap.adapters.llamacpp import LlamaCpp
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, InputError, ModelError, PromptTooLong
from calibwrap.streaming import Pieces

from . import gguf_models as models

PROMPT = "The A B"
WARM = Temperature(2.5, level="token")


@pytest.fixture
def decodes(monkeypatch):
    """Sizes of all batches that llama.cpp decodes."""
    sizes, decode = [], llama_cpp.llama_decode
    monkeypatch.setattr(
        llama_cpp, "llama_decode", lambda native, batch: sizes.append(batch.n_tokens) or decode(native, batch)
    )
    return sizes


def taken(stream):
    pieces = Pieces(stream)
    return list(pieces), pieces.result


def equal(pieces, one, other):
    """Bit for bit."""
    assert (one.text, one.finish, dict(one.settings)) == (other.text, other.finish, dict(other.settings))
    assert "".join(piece.text for piece in pieces) == other.text
    for name in ("logprobs", "chosen", "chosen_logprob", "log_z", "log_tail", "log_cut"):
        np.testing.assert_array_equal(getattr(one.scores, name), getattr(other.scores, name))
        joined = np.concatenate([getattr(piece.scores, name) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(other.scores, name))


@pytest.mark.parametrize("steer", [None, WARM], ids=["free", "steered"])
def test_a_stream_is_generate_exactly(tiny, load, steer):
    adapter = load(tiny.path)
    for top in (0, 3, None):
        for temperature in (0.0, 1.3):
            for stop in ((), ("A", "\x00never")):
                sampling = Sampling(max_tokens=12, temperature=temperature, seed=4, top=top, stop=stop)
                ((whole,),) = adapter.generate([PROMPT], sampling, steer)
                equal(*taken(adapter.stream(PROMPT, sampling, steer)), whole)


@pytest.mark.parametrize("branches", [16, 2, 1])
def test_completions_that_are_drawn_together_are_streamed_as_they_are(tiny, load, monkeypatch, branches):
    """Bit for bit, though one decoded alone is rounded otherwise; also where not all have room at a time."""
    monkeypatch.setattr(_llamacpp_batch, "MAX_BRANCHES", branches)
    adapter = load(tiny.path)
    for stop in ((), tuple("ABCD")):
        sampling = Sampling(n=5, max_tokens=12, seed=9, top=3, stop=stop)
        (group,) = adapter.generate([PROMPT], sampling)
        for index, whole in enumerate(group):
            equal(*taken(adapter.stream(PROMPT, sampling, index=index)), whole)


def test_a_real_model_streams_several_as_it_draws_them(load, smollm_gguf):
    """Four-bit weights round so differently one by one that other tokens came."""
    lm = cw.wrap(load(smollm_gguf))
    prompt = "What is 2+2? Think briefly, then end with a line such as 'Answer: B'. A. 3 B. 4 C. 5"
    decoder = cw.ConfidenceAtK(k=3, labels=("A", "B", "C"), max_tokens=12)
    whole, stream = lm(prompt, decoder), lm.stream(prompt, decoder)
    tokens = list(stream)
    assert (stream.answer.text, stream.answer.confidence) == (whole.text, whole.confidence)
    for index, one in enumerate(whole.candidates):
        of = [token for token in tokens if token.completion == index]
        assert [token.id for token in of] == one.scores.chosen.tolist()
        np.testing.assert_array_equal(stream.answer.candidates[index].scores.logprobs, one.scores.logprobs)


def test_the_first_token_of_several_comes_before_the_second_is_drawn(tiny_bos, load, decodes):
    adapter = load(tiny_bos.path)
    sampling = Sampling(n=3, max_tokens=5, seed=9)
    first = adapter.stream(PROMPT, sampling)
    sizes = [len(decodes) for _ in first]
    assert sizes == [1, 2, 3, 4, 5]
    assert decodes[1:] == [3, 3, 3, 3]
    taken(adapter.stream(PROMPT, sampling, index=1))
    assert len(decodes) == 5  # kept from before


def test_completions_are_kept_for_their_request_alone(tiny_bos, load, decodes):
    adapter = load(tiny_bos.path)
    sampling = Sampling(n=2, max_tokens=4, seed=None)
    (_, first), (_, second) = (taken(adapter.stream(PROMPT, sampling, index=index)) for index in range(2))
    drawn = len(decodes)
    for prompt, index in ((PROMPT, 1), ("B C", 1), (PROMPT, 0)):  # given away already; another prompt; a new request
        taken(adapter.stream(prompt, sampling, index=index))
        assert len(decodes) > drawn
        drawn = len(decodes)
    kept = weakref.ref(adapter._requests[id(sampling)][2])
    del sampling
    gc.collect()
    assert kept() is None
    assert not adapter._requests
    assert len(first.scores) == len(second.scores) == 4


def test_two_streams_of_equal_requests_keep_their_own(tiny_bos, load, decodes):
    """As in a server whose users ask the same at the same time."""
    adapter = load(tiny_bos.path)
    requests = [Sampling(n=2, max_tokens=4, seed=5) for _ in range(2)]
    found = [[taken(adapter.stream(PROMPT, one, index=index))[1] for one in requests] for index in range(2)]
    assert [one.text for one, _ in found] == [other.text for _, other in found]
    assert decodes.count(2) == 3 + 4  # three steps each; the second one also reads the last two tokens of the prompt


def test_closing_a_stream_of_several_frees_what_they_were_drawn_in(tiny_bos, load, monkeypatch):
    opened, freed = [], []
    make, free = llama_cpp.llama_init_from_model, llama_cpp.llama_free
    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda *rest: opened.append(make(*rest)) or opened[-1])
    monkeypatch.setattr(llama_cpp, "llama_free", lambda native: freed.append(native) or free(native))
    adapter = load(tiny_bos.path)
    sampling = Sampling(n=3, max_tokens=9, seed=1)
    (group,) = adapter.generate([PROMPT], sampling)
    del opened[:], freed[:]
    stream = adapter.stream(PROMPT, sampling)
    next(stream)
    assert (len(opened), freed) == (1, [])
    stream.close()
    assert freed == opened
    equal(*taken(adapter.stream(PROMPT, sampling, index=1)), group[1])  # what was broken off is drawn anew
    assert freed == opened


def test_a_model_that_is_closed_while_several_are_drawn_is_a_named_error(tiny_bos, load):
    adapter = load(tiny_bos.path)
    stream = adapter.stream(PROMPT, Sampling(n=3, max_tokens=9, seed=1))
    next(stream)
    adapter.llama.close()
    with pytest.raises(ModelError, match="was closed"):
        taken(stream)


def test_parts_of_characters_are_held_back(tiny_no_bos, load):
    adapter = load(tiny_no_bos.path)
    for seed in range(10):
        pieces, one = taken(adapter.stream(PROMPT, Sampling(max_tokens=24, seed=seed)))
        data = b"".join(adapter.token_bytes(one.scores.chosen.tolist()))
        assert "".join(piece.text for piece in pieces) == data.decode("utf-8", "replace")
        assert not any(piece.text.endswith("\ufffd") for piece in pieces[:-1])


def test_the_model_is_free_between_two_tokens(tiny_bos, load):
    """Other calls of this thread and of another one push the text out of the context; it is read again."""
    adapter = load(tiny_bos.path)
    sampling = Sampling(max_tokens=12, temperature=0.0)
    ((whole,),) = adapter.generate([PROMPT], sampling)
    (row,) = adapter.next_token(["Somewhere else"])
    found = []
    stream = Pieces(adapter.stream(PROMPT, sampling))
    for _ in stream:
        thread = threading.Thread(target=lambda: found.append(adapter.next_token(["Somewhere else"])[0]))
        thread.start()
        thread.join(20.0)
        assert not thread.is_alive()
    assert stream.result.scores.chosen.tolist() == whole.scores.chosen.tolist()
    np.testing.assert_allclose(stream.result.scores.chosen_logprob, whole.scores.chosen_logprob, atol=1e-4)
    for one in found:
        np.testing.assert_allclose(one.logprobs, row.logprobs, atol=1e-4)


def test_two_streams_at_once_each_draw_their_own(tiny_bos, load):
    adapter = load(tiny_bos.path)
    samplings = [Sampling(max_tokens=8, seed=seed) for seed in (1, 2)]
    wanted = [adapter.generate([PROMPT], one)[0][0].scores.chosen.tolist() for one in samplings]
    streams = [adapter.stream(PROMPT, one) for one in samplings]
    pairs = list(zip(*streams, strict=False))
    for number, ids in enumerate(wanted):
        assert [int(pair[number].scores.chosen[0]) for pair in pairs] == ids[: len(pairs)]


def test_a_memory_that_cannot_go_back_streams_too(gguf_folder, load):
    adapter = load(models.write_mamba(gguf_folder / "stream-mamba.gguf", models.byte_fallback()))
    sampling = Sampling(max_tokens=6, seed=3)
    ((whole,),) = adapter.generate([PROMPT], sampling)
    equal(*taken(adapter.stream(PROMPT, sampling)), whole)


def test_a_stream_that_is_closed_or_forgotten_leaves_the_model_free(tiny_bos, load):
    adapter = load(tiny_bos.path)
    ((before,),) = adapter.generate([PROMPT], Sampling(max_tokens=4, seed=1))
    with cw.CalibratedLM(adapter).stream(PROMPT, cw.Greedy(max_tokens=80)) as stream:
        next(stream)
    left = adapter.stream(PROMPT, Sampling(max_tokens=80))
    next(left)
    found = []
    thread = threading.Thread(target=lambda: found.extend(adapter.generate([PROMPT], Sampling(max_tokens=4, seed=1))))
    thread.start()
    thread.join(20.0)
    assert found[0][0].scores.chosen.tolist() == before.scores.chosen.tolist()


def test_a_handed_in_model_may_be_used_by_its_owner_between_two_tokens(tiny_bos):
    llama = llama_cpp.Llama(
        str(tiny_bos.path), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False, type_k=0, type_v=0
    )
    adapter = LlamaCpp(llama)
    sampling = Sampling(max_tokens=6, temperature=0.0)
    ((whole,),) = adapter.generate([PROMPT], sampling)
    ids = []
    for piece in adapter.stream(PROMPT, sampling):
        ids.append(int(piece.scores.chosen[0]))
        llama.create_completion("Somewhere else", max_tokens=2, temperature=0.0)
    assert ids == whole.scores.chosen.tolist()
    llama.close()


def test_a_model_that_is_closed_in_the_middle_is_a_named_error(tiny_bos, load):
    adapter = load(tiny_bos.path)
    stream = adapter.stream(PROMPT, Sampling(max_tokens=20, seed=1))
    next(stream)
    adapter.close()
    with pytest.raises(ModelError, match="closed"):
        next(stream)


def test_what_is_wrong_is_named_before_the_first_token(tiny_bos, load):
    adapter = load(tiny_bos.path)
    with pytest.raises(PromptTooLong):
        adapter.stream(PROMPT, Sampling(max_tokens=1000))
    with pytest.raises(InputError):
        adapter.stream("", Sampling())
    with pytest.raises(CapabilityError, match="level"):
        adapter.stream(PROMPT, Sampling(), Temperature(2.0))


def test_the_calibrated_answer_equals_the_one_without_streaming(tiny_bos, load):
    lm = cw.CalibratedLM(load(tiny_bos.path), WARM)
    stream = lm.stream(PROMPT, cw.Greedy(max_tokens=10))
    tokens = list(stream)
    answer = lm(PROMPT, cw.Greedy(max_tokens=10))
    assert (stream.answer.text, stream.answer.confidence) == (answer.text, answer.confidence)
    (whole,) = answer.candidates
    np.testing.assert_allclose([token.probability for token in tokens], np.exp(whole.scores.chosen_logprob))


@pytest.mark.model
def test_a_real_model_streams_its_answer(smollm_gguf, load):
    lm = cw.CalibratedLM(load(smollm_gguf, n_ctx=256))
    chat = cw.Chat((("user", "What is the capital of France? Answer in one word and a ☃."),))
    stream = lm.stream(chat, cw.Greedy(max_tokens=16))
    tokens = list(stream)
    assert "Paris" in "".join(token.text for token in tokens)
    assert stream.answer.text == lm(chat, cw.Greedy(max_tokens=16)).text
    assert 0.0 < tokens[-1].confidence <= 1.0
