"""Drawing: the whole distribution, steered or not, reproducible, with honest texts.

The numbers in test names are those of llama.cpp's known pitfalls: L3 bias and processor drop each other, L4 errors are
lost, L6 texts collide, L7 samplers truncate by default.
"""

from dataclasses import dataclass
from typing import ClassVar

import llama_cpp
import numpy as np
import pytest
from scipy.stats import chisquare

from calibwrap.adapters.llamacpp import LlamaCpp, logits_processor
from calibwrap.base import Calibrator, Sampling
from calibwrap.errors import CapabilityError, InputError, ModelError

PROMPT = "The A B"


@dataclass(frozen=True)
class Divided(Calibrator):
    """A temperature on tokens."""

    kind: ClassVar[str] = "divided"
    value: float = 2.0
    level: str = "token"

    def logits(self, logprobs):
        return logprobs / self.value


@dataclass(frozen=True)
class Broken(Divided):
    def logits(self, logprobs):
        raise ArithmeticError("broken on purpose")


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def fits(tokens, probabilities):
    """Return the p-value of the chi-square test, rare tokens together."""
    counts = np.bincount(tokens, minlength=len(probabilities))
    often = probabilities * len(tokens) >= 5
    seen, wanted = ([*array[often], array[~often].sum()] for array in (counts, probabilities * len(tokens)))
    return chisquare(seen, wanted).pvalue


def first_tokens(adapter, steer=None, draws=4000, temperature=1.0):
    sampling = Sampling(n=draws, max_tokens=1, temperature=temperature, seed=5)
    (completions,) = adapter.generate([PROMPT], sampling, steer)
    return np.array([one.scores.chosen[0] for one in completions])


@pytest.fixture
def logits(tiny, load):
    adapter = load(tiny.path)
    return adapter, tiny.logits(adapter.tokenize(PROMPT)[0])[-1]


def test_l7_draws_follow_the_whole_softmax(logits):
    adapter, row = logits
    tokens = first_tokens(adapter)
    assert fits(tokens, softmax(row)) > 1e-3
    assert len(set(tokens.tolist()) - set(np.argsort(-row)[:40].tolist())) > 20  # top_k=40 would have dropped them
    assert fits(tokens, softmax(row / 1.2)) < 1e-6  # the test is able to fail


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_follow_temperature_times_calibration(logits, temperature):
    adapter, row = logits
    steered = first_tokens(adapter, Divided(1.5), temperature=temperature)
    assert fits(steered, softmax(row / (1.5 * temperature))) > 1e-3
    assert fits(steered, softmax(row / temperature)) < 1e-6


def test_a_calibrator_that_gives_no_number_is_named(logits):
    @dataclass(frozen=True)
    class Lost(Divided):
        def logits(self, logprobs):
            return np.full_like(logprobs, np.nan)

    with pytest.raises(InputError, match="NaN from"):
        logits[0].generate([PROMPT], Sampling(max_tokens=1), Lost())


def test_scores_are_raw_whatever_the_settings(logits, tiny):
    adapter, _ = logits
    ids, _ = adapter.tokenize(PROMPT)
    for steer, temperature in ((None, 0.0), (None, 3.0), (Divided(3.0), 1.0)):
        sampling = Sampling(n=2, max_tokens=6, temperature=temperature, seed=1, top=None)
        for one in adapter.generate([PROMPT], sampling, steer)[0]:
            drawn = one.scores.chosen.tolist()
            np.testing.assert_allclose(one.scores.chosen_logprob, tiny.continuation(ids, drawn), atol=1e-5)
            assert one.scores.is_full
            assert one.scores.logprobs.shape == (len(drawn), len(tiny.weights["output"]))


def test_greedy_takes_the_most_probable_each_time(logits):
    adapter, row = logits
    (completions,) = adapter.generate([PROMPT], Sampling(n=2, max_tokens=5, temperature=0.0, top=1))
    assert completions[0].scores.chosen[0] == row.argmax()
    assert completions[0].text == completions[1].text
    np.testing.assert_array_equal(completions[0].scores.ids[:, 0], completions[0].scores.chosen)


def test_same_seed_same_draw_alone_or_in_a_batch(tiny, load):
    sampling = Sampling(n=3, max_tokens=8, seed=7)
    batch = load(tiny.path).generate([PROMPT, "B C", PROMPT], sampling)
    alone = load(tiny.path).generate(["B C"], sampling)[0]
    chosen = [[one.scores.chosen.tolist() for one in many] for many in (batch[1], alone, batch[0], batch[2])]
    assert chosen[0] == chosen[1]
    assert chosen[2] == chosen[3]
    assert len({tuple(ids) for ids in chosen[0]}) == 3
    other = load(tiny.path).generate(["B C"], Sampling(n=3, max_tokens=8, seed=8))[0]
    assert [one.scores.chosen.tolist() for one in other] != chosen[0]
    free = [load(tiny.path).generate([PROMPT], Sampling(max_tokens=12))[0][0].text for _ in range(2)]
    assert free[0] != free[1]


def scripted(adapter, monkeypatch, ids):
    """Let the adapter draw the given ids, whatever the model says."""
    script = iter(ids)
    monkeypatch.setattr("calibwrap.adapters.llamacpp.drawer", lambda *_: lambda row: next(script))
    return adapter


def byte(value):
    return 3 + value


def test_l6_a_character_of_several_tokens_comes_out_whole(tiny_bos, load, monkeypatch):
    ids = [byte(value) for value in "é☃".encode()]
    (one,) = scripted(load(tiny_bos.path), monkeypatch, ids).generate(["A"], Sampling(max_tokens=5))[0]
    assert one.text == "é☃"


def test_l6_half_a_character_is_one_replacement(tiny_bos, load, monkeypatch):
    ids = [byte(ord("x")), *(byte(value) for value in "☃".encode()[:2])]
    (one,) = scripted(load(tiny_bos.path), monkeypatch, ids).generate(["A"], Sampling(max_tokens=3))[0]
    assert one.text == "x\ufffd"
    assert one.finish == "length"


def test_the_end_token_is_scored_and_not_written(tiny_bos, load, monkeypatch):
    ids = [byte(ord("x")), 2, byte(ord("y"))]
    (one,) = scripted(load(tiny_bos.path), monkeypatch, ids).generate(["A"], Sampling(max_tokens=9))[0]
    assert (one.text, one.finish, one.scores.chosen.tolist()) == ("x", "stop", ids[:2])


def test_a_stop_text_ends_and_is_cut_off(tiny_bos, load, monkeypatch):
    ids = [byte(value) for value in b"yes. No"]
    (one,) = scripted(load(tiny_bos.path), monkeypatch, ids).generate(["A"], Sampling(max_tokens=9, stop=("!", ". ")))[
        0
    ]
    assert (one.text, one.finish, len(one.scores)) == ("yes", "stop", 5)


def test_settings_say_what_was_in_force(tiny_bos, load):
    (one,) = load(tiny_bos.path).generate(["A"], Sampling(max_tokens=1, temperature=0.5, seed=3), Divided(4.0))[0]
    assert one.settings["temperature"] == 0.5
    assert (one.settings["top_k"], one.settings["top_p"], one.settings["min_p"]) == (0, 1.0, 0.0)
    assert "value=4.0" in one.settings["steer"]


def test_only_token_level_steers(tiny_bos, load):
    with pytest.raises(CapabilityError, match="level 'token'"):
        load(tiny_bos.path).generate(["A"], Sampling(), Divided(level="option"))
    with pytest.raises(CapabilityError, match="level 'token'"):
        logits_processor(Divided(level="option"))


@pytest.fixture
def llama(tiny_bos):
    return llama_cpp.Llama(str(tiny_bos.path), n_ctx=128, n_threads=1, type_k=0, type_v=0, verbose=False)


PROMPT_IDS = [1, 70, 71, 72]


def without(arguments, name):
    return {key: value for key, value in arguments.items() if key != name}


def drawn_by_runtime(llama, calibrator, temperature, draws=1500):
    """Return first tokens that the runtime's own sampler draws, each with a seed of its own."""
    tokens = []
    for seed in range(draws):
        llama.set_seed(seed)
        with logits_processor(calibrator) as arguments:  # `generate` says "temp" where `create_completion` does not
            steps = llama.generate(PROMPT_IDS, **{"temp": temperature, **without(arguments, "temperature")})
            tokens.append(next(steps))
    return np.array(tokens)


def test_l7_the_runtime_s_own_sampler_follows_the_calibrator(llama, tiny_bos):
    row = tiny_bos.logits(PROMPT_IDS)[-1]
    tokens = drawn_by_runtime(llama, Divided(1.5), 1.2)
    assert fits(tokens, softmax(row / (1.5 * 1.2))) > 1e-3
    assert fits(tokens, softmax(row / 1.2)) < 1e-6


def test_l3_bias_beside_a_processor_is_noticed(llama):
    with pytest.raises(ModelError, match="logit_bias"), logits_processor(Divided()) as arguments:
        llama.create_completion(PROMPT, max_tokens=3, logit_bias={70: 5.0}, **arguments)


def test_l3_bias_goes_through_the_processor(llama):
    with logits_processor(Divided(), bias={byte(ord("q")): 1000.0}) as arguments:
        reply = llama.create_completion(PROMPT, max_tokens=3, **arguments)
    assert reply["choices"][0]["text"] == "qqq"


def test_l3_every_block_gets_lists_of_its_own(llama):
    guard = logits_processor(Divided())
    with guard as first, guard as second:
        llama.create_completion(PROMPT, max_tokens=1, **first)
    assert first["logits_processor"] is not second["logits_processor"]


def test_l4_an_error_in_the_calibrator_surfaces_as_itself(llama):
    with pytest.raises(ArithmeticError, match="on purpose"), logits_processor(Broken()) as arguments:
        llama.create_completion(PROMPT, max_tokens=50, seed=0, **arguments)
    assert llama.n_tokens < 20  # after the step, not after all of them


def test_l4_an_error_surfaces_without_the_stopping_criterion_too(llama):
    guard = logits_processor(Broken())
    processors = llama_cpp.LogitsProcessorList([guard])
    with pytest.raises(ArithmeticError, match="on purpose"), guard:
        llama.create_completion(PROMPT, max_tokens=2, logits_processor=processors)


def test_an_error_of_the_caller_is_not_masked():
    with pytest.raises(KeyError), logits_processor(Divided()):
        raise KeyError("mine")


def test_the_runtime_s_draws_are_the_adapter_s_distribution(llama):
    adapter = LlamaCpp(llama)
    with logits_processor(Divided()) as arguments:
        llama.create_completion(PROMPT, max_tokens=4, **{**arguments, "temperature": 0.0})
    start = len(adapter.tokenize(PROMPT)[0])
    drawn = llama.input_ids[start : llama.n_tokens].tolist()
    (mine,) = adapter.generate([PROMPT], Sampling(max_tokens=4, temperature=0.0), Divided())[0]
    assert len(drawn) >= 3
    assert drawn == mine.scores.chosen.tolist()[: len(drawn)]
