"""Streams of Transformers: the very tokens and scores of `generate`, from a thread that ends when it should."""

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.adapters import _hf_stream
from calibwrap.base import Calibrator, Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, InputError, PromptTooLong
from calibwrap.streaming import Pieces

from . import hf_models as models

PROMPT = "Question: which planet is red? Answer:"
WARM = Temperature(2.5, level="token")


@dataclass(frozen=True)
class Broken(Calibrator):
    kind: ClassVar[str] = "broken"
    level: str = "token"

    def logits(self, logprobs):
        raise ArithmeticError("broken on purpose")


def taken(stream):
    pieces = Pieces(stream)
    return list(pieces), pieces.result


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "calibwrap-stream"]


def equal(pieces, one, other):
    """Bit for bit."""
    assert (one.text, one.finish, dict(one.settings)) == (other.text, other.finish, dict(other.settings))
    assert "".join(piece.text for piece in pieces) == other.text
    for name in ("logprobs", "chosen", "chosen_logprob", "log_z", "log_tail", "log_cut"):
        np.testing.assert_array_equal(getattr(one.scores, name), getattr(other.scores, name))
        joined = np.concatenate([getattr(piece.scores, name) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(other.scores, name))


@pytest.mark.parametrize("steer", [None, WARM], ids=["free", "steered"])
@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_stream_is_generate_exactly(family, steer):
    adapter = models.adapter(family)
    for top in (0, 3, None):
        for temperature in (0.0, 1.3):
            sampling = Sampling(max_tokens=8, temperature=temperature, seed=4, top=top)
            ((whole,),) = adapter.generate([PROMPT], sampling, steer)
            equal(*taken(adapter.stream(PROMPT, sampling, steer)), whole)


def test_every_number_of_a_completion_can_be_streamed():
    adapter = models.adapter("llama")
    sampling = Sampling(n=3, max_tokens=8, seed=9)
    (group,) = adapter.generate([PROMPT], sampling)
    for index, whole in enumerate(group):
        _, one = taken(adapter.stream(PROMPT, sampling, index=index))
        assert one.scores.chosen.tolist() == whole.scores.chosen.tolist()
        np.testing.assert_allclose(one.scores.chosen_logprob, whole.scores.chosen_logprob, atol=1e-5)


def test_stop_texts_are_never_shown():
    adapter = models.adapter("llama")
    for seed in range(12):
        sampling = Sampling(max_tokens=12, seed=seed)
        ((whole,),) = adapter.generate([PROMPT], sampling)
        stop = whole.text[3:6]
        if len(stop) == 3 and "\ufffd" not in stop:
            stopped = Sampling(max_tokens=12, seed=seed, stop=(stop, "\x00never"))
            ((cut,),) = adapter.generate([PROMPT], stopped)
            pieces, one = taken(adapter.stream(PROMPT, stopped))
            equal(pieces, one, cut)
            assert not any(stop in piece.text for piece in pieces)


def test_an_end_token_ends_the_stream():
    adapter = models.adapter("llama")
    ends = 0
    for seed in range(40):
        pieces, one = taken(adapter.stream("A", Sampling(max_tokens=40, seed=seed)))
        if one.finish == "stop":
            ends += 1
            assert pieces[-1].scores.chosen[0] == adapter.tokenizer.eos_token_id
            assert len(pieces) == len(one.scores)
    assert ends


def test_closing_early_ends_the_thread_and_leaves_the_model_as_it_was():
    adapter = models.adapter("llama")
    own = adapter.model.generation_config
    ((before,),) = adapter.generate([PROMPT], Sampling(max_tokens=4, seed=1))
    with cw.CalibratedLM(adapter).stream(PROMPT, cw.Greedy(max_tokens=80)) as stream:
        next(stream)
    assert not threads()
    assert adapter.model.generation_config is own
    assert not adapter.model.get_output_embeddings()._forward_hooks
    ((after,),) = adapter.generate([PROMPT], Sampling(max_tokens=4, seed=1))
    np.testing.assert_array_equal(before.scores.chosen_logprob, after.scores.chosen_logprob)


def test_a_forgotten_stream_ends_too():
    stream = models.adapter("llama").stream(PROMPT, Sampling(max_tokens=80))
    next(stream)
    del stream
    assert not threads()


def test_other_questions_may_be_asked_between_two_tokens():
    adapter = models.adapter("llama")
    sampling = Sampling(max_tokens=12, seed=2, top=None)
    ((whole,),) = adapter.generate([PROMPT], sampling)
    (row,) = adapter.next_token(["The capital"])
    stream = Pieces(adapter.stream(PROMPT, sampling))
    for _ in stream:
        np.testing.assert_array_equal(adapter.next_token(["The capital"])[0].logprobs, row.logprobs)
    np.testing.assert_array_equal(stream.result.scores.logprobs, whole.scores.logprobs)


def test_two_streams_at_once_each_draw_their_own():
    adapter = models.adapter("llama")
    samplings = [Sampling(max_tokens=8, seed=seed) for seed in (1, 2)]
    wanted = [adapter.generate([PROMPT], one)[0][0].text for one in samplings]
    streams = [adapter.stream(PROMPT, one) for one in samplings]
    texts = ["", ""]
    for pair in zip(*streams, strict=True):
        texts = [text + piece.text for text, piece in zip(texts, pair, strict=True)]
    assert texts == wanted


def test_an_error_inside_the_thread_comes_out_of_the_stream():
    with pytest.raises(ArithmeticError, match="on purpose"):
        taken(models.adapter("llama").stream(PROMPT, Sampling(max_tokens=3), Broken()))
    assert not threads()


def test_what_is_wrong_is_named_before_the_first_token():
    adapter = models.adapter("llama")
    with pytest.raises(PromptTooLong):
        adapter.stream(PROMPT, Sampling(max_tokens=1000))
    with pytest.raises(InputError):
        adapter.stream("", Sampling())
    with pytest.raises(CapabilityError, match="level"):
        adapter.stream(PROMPT, Sampling(), Temperature(2.0))
    assert not threads()


def test_a_worker_that_ends_too_soon_is_an_error():
    worker = _hf_stream._Worker(lambda watch: None)
    with pytest.raises(cw.errors.ModelError, match="without its end"):
        worker.take()
    worker.close()


def test_the_calibrated_answer_equals_the_one_without_streaming():
    lm = cw.CalibratedLM(models.adapter("llama"), WARM)
    stream = lm.stream(PROMPT, cw.Greedy(max_tokens=10))
    tokens = list(stream)
    answer = lm(PROMPT, cw.Greedy(max_tokens=10))
    assert (stream.answer.text, stream.answer.confidence) == (answer.text, answer.confidence)
    assert stream.answer.calibrated_by == "temperature"
    (whole,) = answer.candidates
    np.testing.assert_allclose([token.probability for token in tokens], np.exp(whole.scores.chosen_logprob))
    assert any(abs(token.probability - token.raw_probability) > 0.01 for token in tokens)
