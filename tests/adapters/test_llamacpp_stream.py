"""Streams of llama.cpp: the very tokens and scores of `generate`, and a model that is free between two tokens."""

import threading

import llama_cpp
import numpy as np
import pytest

import calibwrap as cw
from calibwrap.adapters.llamacpp import LlamaCpp
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, InputError, ModelError, PromptTooLong
from calibwrap.streaming import Pieces

from . import gguf_models as models

PROMPT = "The A B"
WARM = Temperature(2.5, level="token")


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


def test_every_number_of_a_completion_can_be_streamed(tiny_bos, load):
    adapter = load(tiny_bos.path)
    sampling = Sampling(n=3, max_tokens=12, seed=9)
    (group,) = adapter.generate([PROMPT], sampling)
    for index, whole in enumerate(group):
        _, one = taken(adapter.stream(PROMPT, sampling, index=index))
        assert one.scores.chosen.tolist() == whole.scores.chosen.tolist()
        np.testing.assert_allclose(one.scores.chosen_logprob, whole.scores.chosen_logprob, atol=1e-4)


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
