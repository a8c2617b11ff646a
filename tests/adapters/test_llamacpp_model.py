"""llama.cpp: the whole contract of adapters on tiny models, and what people would try on a real one."""

import numpy as np
import pytest

from calibwrap.base import Sampling
from calibwrap.questions import Chat
from calibwrap.testing import adapter_checks


def test_the_adapter_keeps_the_contract(tiny, load):
    outcomes = {check.name: check.outcome for check in adapter_checks(load(tiny.path))}
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} <= {
        "check_stop_texts"
    }  # texts too short


@pytest.fixture(scope="module")
def real(smollm_gguf):
    from calibwrap.adapters.llamacpp import LlamaCpp

    adapter = LlamaCpp.load(str(smollm_gguf), n_ctx=1024, n_threads=1, n_threads_batch=1)
    yield adapter
    adapter.close()


@pytest.mark.model
def test_a_real_model_knows_the_capital_of_france(real):
    ((paris, london),) = real.score(["The capital of France is"], [[" Paris", " London"]])
    assert paris.chosen_logprob.sum() > london.chosen_logprob.sum() + 2
    (row,) = real.next_token(["The capital of France is"])
    assert row.logprobs.shape == (1, 49_152)
    assert np.exp(row.logprobs).sum() == pytest.approx(1.0, abs=1e-9)
    assert real.provides.chat


@pytest.mark.model
def test_a_shared_prefix_gives_a_real_model_s_very_numbers(real):
    shots = "Question: What is wet?\nAnswer: water\n\n" * 3
    prompts = [shots + f"Question: What is {word}?\nAnswer:" for word in ("hot", "cold")]
    options = [[" fire in the night", " ice", " a very long way to say nothing"]] * 2
    together = real.score(prompts, options)
    for prompt, texts, scored in zip(prompts, options, together, strict=True):
        for text, scores in zip(texts, scored, strict=True):
            real.llama.reset()
            ((alone,),) = real.score([prompt], [[text]])
            np.testing.assert_allclose(scores.chosen_logprob, alone.chosen_logprob[-len(scores) :], atol=1e-4)


@pytest.mark.model
def test_a_real_model_chats_and_stops(real):
    chat = Chat((("user", "Say hello."),))
    (one,) = real.generate([chat], Sampling(max_tokens=40, temperature=0.0))[0]
    assert one.text.strip()
    assert "<|im" not in one.text
    assert one.finish in ("stop", "length")
    (stopped,) = real.generate([chat], Sampling(max_tokens=40, temperature=0.0, stop=(one.text[3:6],)))[0]
    assert stopped.text == one.text[: one.text.find(one.text[3:6])]
    assert stopped.finish == "stop"
