"""One real vLLM engine on its CPU build, beside Transformers with the same weights.

The numbers in test names are those of vLLM's known pitfalls (docs/vllm.md).
"""

import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

import calibwrap as cw
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, InputError, ModelError, PromptTooLong
from calibwrap.questions import LETTER, LETTER_CHAT, Chat, Question
from calibwrap.readouts import Continuation, Label

from . import vllm_models as models

PROMPTS = ["The capital of France", "Un café", "Question: which planet is red? Answer:" * 3]
TEXTS = [" is Paris", " Rome. A", "☃"]
CLOSE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def engine():
    return models.shared_adapter()


@pytest.fixture(scope="module")
def truth():
    return models.transformers()


@pytest.fixture(scope="module")
def row(truth):
    """Log-probabilities after the first prompt."""
    return truth.next_token(PROMPTS[:1])[0].logprobs[0]


def test_v3_v5_300_given_ids_are_exact_whatever_their_rank(engine, truth):
    asked = [[*range(300)], [*range(329, 29, -1)], [7, 7, 3]]
    found = engine.next_token(PROMPTS, ids=asked)
    for scores, own, wanted in zip(found, asked, truth.next_token(PROMPTS), strict=True):
        assert scores.ids.tolist() == [own]
        np.testing.assert_allclose(scores.logprobs[0], wanted.logprobs[0, own], **CLOSE)


@pytest.mark.parametrize("top", [1, 20, None])
def test_next_token_as_transformers_has_it(engine, truth, top):
    for mine, theirs in zip(*(one.next_token(PROMPTS, top=top) for one in (engine, truth)), strict=True):
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, **CLOSE)
        assert mine.is_full == theirs.is_full
        if top:
            np.testing.assert_array_equal(mine.ids, theirs.ids)


def test_v3_no_token_outside_a_list_has_more_than_its_cut(engine, truth):
    for scores, whole in zip(engine.next_token(PROMPTS, top=5), truth.next_token(PROMPTS), strict=True):
        rest = np.delete(whole.logprobs[0], scores.ids[0])
        assert rest.max() <= scores.log_cut[0] + 1e-4
        assert scores.log_cut[0] < scores.log_tail[0]


@pytest.mark.parametrize("top", [0, 5, None])
def test_v7_continuations_are_scored_at_their_own_places(engine, truth, top):
    """vLLM's scores of a prompt begin with None; one place off, every value would be another token's."""
    texts = [TEXTS, [" A", "é"], [" yes"]]
    for mine, theirs in zip(*(one.score(PROMPTS, texts, top=top) for one in (engine, truth)), strict=True):
        for one, two in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.chosen, two.chosen)
            np.testing.assert_allclose(one.chosen_logprob, two.chosen_logprob, **CLOSE)
            np.testing.assert_allclose(one.logprobs, two.logprobs, **CLOSE)


def test_v7_options_of_one_token_cost_one_request(engine, truth, monkeypatch):
    sent = []
    run = engine._run
    monkeypatch.setattr(engine, "_run", lambda prompts, settings: sent.append(len(prompts)) or run(prompts, settings))
    options = [["A", "B", "."]]
    assert all(len(engine.tokenize(PROMPTS[1], text)[1]) == 1 for text in options[0])
    (mine,), (theirs,) = (one.score(PROMPTS[1:2], options) for one in (engine, truth))
    assert sum(sent) == 1
    for one, two in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.chosen_logprob, two.chosen_logprob, **CLOSE)


LETTERS = [replace(LETTER, separator="", name="close"), LETTER_CHAT]


@pytest.mark.parametrize("readout", [*(Label(template=template) for template in LETTERS), Continuation()])
def test_readouts_agree_with_transformers(engine, truth, readout):
    questions = [Question("Which planet is red?", ["Mars", "Venus", "Paris"]), Question("Is water wet?", ["yes", "no"])]
    mine, theirs = (readout.ask(one, questions) for one in (engine, truth))
    np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-4)
    np.testing.assert_allclose(mine.label_mass, theirs.label_mass, atol=1e-4)


def test_v12_thinking_is_switched_off_and_special_tokens_come_once(engine, truth):
    chat = Chat((("user", "Is water wet?"),), prefix=" It")
    ids, _ = engine.tokenize(chat)
    assert ids == truth.tokenize(chat)[0]
    text = engine._reader.tokenizer.decode(ids)
    assert "<think>" not in text
    assert text.count("<s>") == 1


def test_v2_scores_do_not_follow_the_sampling_temperature(engine, row):
    """At 0.5 and 1.5 the same token has the same value, that of temperature 1."""
    seen = {}
    for temperature in (0.5, 1.5):
        sampling = Sampling(n=32, max_tokens=1, temperature=temperature, seed=3)
        for one in engine.generate(PROMPTS[:1], sampling)[0]:
            token = int(one.scores.chosen[0])
            np.testing.assert_allclose(one.scores.chosen_logprob[0], row[token], **CLOSE)
            seen.setdefault(token, set()).add(temperature)
    assert any(len(both) == 2 for both in seen.values())


def test_v3_drawn_tokens_outside_the_list_keep_the_list_whole(engine, row):
    drawn = engine.generate(PROMPTS[:1], Sampling(n=40, max_tokens=1, seed=3, top=3))[0]
    outside = 0
    for one in drawn:
        token = int(one.scores.chosen[0])
        assert one.scores.ids[0].tolist() == np.argsort(-row)[:3].tolist()
        np.testing.assert_allclose(one.scores.chosen_logprob[0], row[token], **CLOSE)
        outside += token not in one.scores.ids[0]
    assert outside > 0


def fits(tokens, logprobs):
    """Return the p-value of the chi-square test, rare tokens together."""
    expected = np.exp(logprobs) / np.exp(logprobs).sum() * len(tokens)
    counts = np.bincount(tokens, minlength=len(expected))
    often = expected >= 5
    seen, wanted = ([*array[often], array[~often].sum()] for array in (counts, expected))
    return chisquare(seen, wanted).pvalue


def first_tokens(engine, steer=None, temperature=1.0):
    (drawn,) = engine.generate(PROMPTS[:1], Sampling(n=2000, max_tokens=1, temperature=temperature, seed=5), steer)
    return np.array([one.scores.chosen[0] for one in drawn]), drawn


def test_v9_nothing_of_the_repository_s_settings_is_in_force(engine, row):
    """Its generation_config.json says top_k=1, temperature 0.2 and one token; draws follow the whole softmax."""
    from vllm import SamplingParams, TokensPrompt

    hostile = engine.llm.get_default_sampling_params()
    assert hostile.top_k == 1  # vLLM did read it, and would use it
    ids = engine.tokenize(PROMPTS[0])[0]
    (own,) = engine.llm.generate(TokensPrompt(prompt_token_ids=ids), None, use_tqdm=False)
    assert len(own.outputs[0].token_ids) == 1
    assert isinstance(hostile, SamplingParams)
    tokens, _ = first_tokens(engine)
    assert fits(tokens, row) > 1e-3
    assert fits(tokens, row / 0.8) < 1e-6  # the test is able to fail
    ((long,),) = engine.generate(PROMPTS[:1], Sampling(max_tokens=5, seed=1))
    assert len(long.scores) > 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_v6_draws_follow_the_calibrated_distribution_and_scores_stay_raw(engine, row, temperature):
    tokens, drawn = first_tokens(engine, Temperature(1.6, level="token"), temperature)
    assert fits(tokens, row / (1.6 * temperature)) > 1e-3
    assert fits(tokens, row / temperature) < 1e-6
    for one in drawn[:50]:
        np.testing.assert_allclose(one.scores.chosen_logprob[0], row[one.scores.chosen[0]], **CLOSE)
    assert "temperature" in str(drawn[0].settings["steer"]).lower()


def test_one_engine_serves_many_calibrators_and_none(engine):
    """A calibrator acts on its own request, and leaves nothing behind."""
    plain = Sampling(n=4, max_tokens=6, seed=9)
    before = [one.text for one in engine.generate(PROMPTS[:1], plain)[0]]
    hot = [one.text for one in engine.generate(PROMPTS[:1], plain, Temperature(4.0, level="token"))[0]]
    cold = [one.text for one in engine.generate(PROMPTS[:1], plain, Temperature(0.001, level="token"))[0]]
    assert before == [one.text for one in engine.generate(PROMPTS[:1], plain)[0]]
    assert hot != before != cold
    greedy = engine.generate(PROMPTS[:1], replace(plain, n=1, temperature=0.0))[0][0].text
    assert greedy in cold


def test_v1_a_token_calibrator_takes_whole_rows_only(engine, row):
    """What a list cuts off cannot be divided by T; the whole row can, and stays normalised."""
    calibrator = Temperature(2.0, level="token")
    whole = calibrator(engine.next_token(PROMPTS[:1])[0])
    wanted = row / 2 - np.log(np.exp(row / 2).sum())
    np.testing.assert_allclose(whole.logprobs[0], wanted, **CLOSE)
    with pytest.raises(CapabilityError, match="whole vocabulary"):
        calibrator(engine.next_token(PROMPTS[:1], top=20)[0])


def test_a_seed_draws_the_same_alone_and_in_company(engine):
    sampling = Sampling(n=3, max_tokens=5, seed=2)
    alone = engine.generate(PROMPTS[1:2], sampling)[0]
    among = engine.generate([*PROMPTS, PROMPTS[1]], sampling)
    assert [one.text for one in alone] == [one.text for one in among[1]]
    assert [one.text for one in among[3]] != [one.text for one in among[1]]  # the same prompt twice draws twice
    twice = [engine.generate(PROMPTS[:1], Sampling(max_tokens=8))[0][0].text for _ in range(4)]
    assert len(set(twice)) > 1


def test_greedy_texts_are_those_of_transformers(engine, truth):
    greedy = Sampling(n=2, max_tokens=12, temperature=0.0)
    for mine, theirs in zip(*(one.generate(PROMPTS, greedy) for one in (engine, truth)), strict=True):
        assert [one.text for one in mine] == [one.text for one in theirs]
        np.testing.assert_allclose(mine[0].scores.chosen_logprob, theirs[0].scores.chosen_logprob, **CLOSE)


def test_stop_texts_and_end_tokens_as_transformers_has_them(engine, truth):
    ((long,),) = engine.generate(PROMPTS[:1], Sampling(max_tokens=12, temperature=0.0))
    stop = next(one for one in long.text[2:] if one.isalpha())
    greedy = Sampling(max_tokens=12, temperature=0.0, stop=("never", stop))
    (mine,), (theirs,) = (one.generate(PROMPTS[:1], greedy)[0] for one in (engine, truth))
    assert (mine.text, mine.finish) == (theirs.text, theirs.finish) == (long.text[: long.text.index(stop)], "stop")
    np.testing.assert_array_equal(mine.scores.chosen, theirs.scores.chosen)


def test_v10_readings_are_repeated_and_told(engine):
    """On a CPU there is next to no jitter; it is measured all the same, and never assumed."""
    assert 0.0 <= engine.jitter() < 1e-4
    found = engine.probe()
    assert "nats over 5 readings" in found["jitter"]
    assert (found["model runner"], found["calibrated decoding"]) == ("V1", "yes")


def test_the_fingerprint_knows_the_same_tokenizer_template_and_files(engine, truth):
    mine, theirs = engine.fingerprint(), truth.fingerprint()
    assert (mine.tokenizer, mine.template, mine.semantics) == (theirs.tokenizer, theirs.template, "raw")
    assert (mine.runtime, mine.dtype) == ("vllm", "float32")
    opened = models.quietly(lambda: type(truth).load(engine.llm.model_config.model))
    assert (mine.revision, mine.model) == (opened.fingerprint().revision, opened.fingerprint().model)


def test_wrap_finds_the_adapter_by_the_loaded_object(engine):
    lm = cw.wrap(engine.llm)
    assert lm.adapter.name == "vllm"
    fitted = lm.with_calibrator(Temperature(2.0))
    answer = fitted.choose("Which planet is red?", ["Mars", "Venus"])
    assert answer.text in ("Mars", "Venus")
    lm.adapter.close()  # handed in: its owner goes on with it
    with pytest.raises(ModelError, match="closed"):
        lm.adapter.next_token(PROMPTS)
    assert engine.next_token(PROMPTS[:1], top=1)


def test_the_page_about_vllm_runs(engine, monkeypatch, tmp_path):
    """The code of docs/vllm.md, with the shared engine in place of one that would have to start."""
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "vllm.md"
    asked = []

    def load(target, **options):
        asked.append((target, options))
        return type(engine)(engine.llm)

    monkeypatch.setattr(type(engine), "load", load)
    blocks = re.findall(r"^```py\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)  # noqa: S102 - our own page
    assert asked == [("DIR_OR_ID", {"max_model_len": 4096, "tensor_parallel_size": 2})]
    assert names["completion"].settings["steer"].startswith("Temperature")


def test_threads_wait_for_each_other(engine):
    found = {}

    def read(index):
        found[index] = engine.next_token([PROMPTS[index]], top=5)[0].logprobs

    threads = [threading.Thread(target=read, args=(index,)) for index in range(len(PROMPTS))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for index, scores in enumerate(engine.next_token(PROMPTS, top=5)):
        np.testing.assert_allclose(found[index], scores.logprobs, **CLOSE)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda e: e.next_token(PROMPTS, ids=[[1]]), InputError, "one list of token ids a prompt: 3"),
        (lambda e: e.next_token(PROMPTS[:1], ids=[[330]]), InputError, "from 0 to 329"),
        (lambda e: e.next_token(PROMPTS[:1], ids=[[]]), InputError, "not empty"),
        (lambda e: e.score(PROMPTS, [[" A"]]), InputError, "one list of texts a prompt: 3"),
        (lambda e: e.score(PROMPTS[:1], [[" A", ""]]), InputError, "none empty"),
        (lambda e: e.tokenize("\ud800"), InputError, "surrogate"),
        (lambda e: e.generate(PROMPTS, Sampling(max_tokens=128)), PromptTooLong, "128"),
        (lambda e: e.generate(PROMPTS, Sampling(temperature=3.0)), CapabilityError, "from 0.01 to 2"),
        (lambda e: e.generate(PROMPTS, Sampling(), Temperature(2.0)), CapabilityError, "level 'option'"),
    ],
)
def test_what_cannot_be_asked_is_named_before_any_request(engine, monkeypatch, call, error, match):
    monkeypatch.setattr(engine, "_run", lambda *_: pytest.fail("a request was sent"))
    with pytest.raises(error, match=match):
        call(engine)


def test_other_objects_are_refused():
    with pytest.raises(InputError, match=r"vllm\.LLM"):
        models.vllm_class()("not an engine")


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="no model directory"):
        models.vllm_class().load(str(tmp_path / "nothing"))


def test_a_directory_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"could not start with the model .*config.json.*logged says more"):
        models.quietly(lambda: models.vllm_class().load(str(tmp_path)))


def test_an_engine_that_turns_out_unfit_is_not_left_running(engine, monkeypatch):
    """Loaded here and then refused, its processes must end."""
    import calibwrap.adapters.vllm_engine as module

    closed = []
    monkeypatch.setattr(module, "open_engine", lambda *_: "an engine")
    monkeypatch.setattr(module, "shut_down", closed.append)
    with pytest.raises(InputError, match=r"vllm\.LLM"):
        type(engine).load("owner/name")
    assert closed == ["an engine"]
