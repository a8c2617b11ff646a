"""The OpenAI adapter on real servers around one tiny model, beside Transformers on the same weights."""

import warnings

import numpy as np
import pytest

from calibwrap.adapters.hf import Transformers
from calibwrap.adapters.openai_api import OpenAI
from calibwrap.base import Sampling
from calibwrap.errors import CapabilityError, InputError, PromptTooLong
from calibwrap.questions import Chat
from tests.servers import shared

PROMPTS = ("In the morning the sun", "Question: which planet is red?\nAnswer:", "Un café")
CHATS = (Chat((("user", "which planet is red?"),)), Chat((("system", "Be brief."), ("user", "Is water wet?"))))
CLOSE = 5e-3
"""Largest difference in log-probability between engines of the same 32-bit weights."""


@pytest.fixture(scope="module")
def truth():
    adapter = Transformers.load(str(shared.model().directory))
    yield adapter
    adapter.close()


@pytest.fixture(scope="module", params=shared.KINDS)
def api(request):
    server = shared.server(request.param)
    adapter = OpenAI.load(server.model, base_url=server.base_url)
    adapter.kind = request.param
    yield adapter
    adapter.close()


def only(*kinds):
    """Run a test on the servers that offer what it is about."""
    return pytest.mark.parametrize("api", kinds, indirect=True, scope="module")


def spelled(tokenizer):
    """Return the bytes of each token of a byte-level tokenizer (Radford et al., 2019); b"" for special ones."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in printable]
    values = {chr(value): value for value in printable} | {chr(256 + n): value for n, value in enumerate(others)}
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    return [b"" if name in special else bytes(values[letter] for letter in name) for name in names]


def row_by_bytes(truth, prompt):
    """Return bytes -> probability of the tokens that alone have those bytes, and all probabilities."""
    (scores,) = truth.next_token([prompt])
    probabilities = np.exp(scores.logprobs[0])
    names = spelled(truth.tokenizer)
    unique = {name: p for name, p in zip(names, probabilities, strict=True) if names.count(name) == 1 and name}
    return unique, probabilities


@pytest.mark.parametrize("prompt", [*PROMPTS, *CHATS], ids=range(5))
def test_lists_are_the_models_own(api, truth, prompt):
    wanted, every = row_by_bytes(truth, prompt)
    (found,) = api.next_token([prompt], top=api.provides.top)
    names = api.token_bytes(found.ids[0].tolist())
    for name, value in zip(names, found.logprobs[0], strict=True):
        if name in wanted:
            assert value == pytest.approx(np.log(wanted[name]), abs=CLOSE)
    assert sum(name in wanted for name in names) >= 5
    hidden = max(0.0, every.sum() - np.exp(found.logprobs[0]).sum())
    assert np.exp(found.log_tail[0]) == pytest.approx(hidden, abs=1e-4)
    unlisted = [p for name, p in wanted.items() if name not in names]
    assert max(unlisted) <= np.exp(found.log_cut[0]) * (1 + CLOSE)


@only("llama-server")
def test_ids_are_the_models_where_the_server_tells_them(api, truth):
    (found,), (wanted,) = api.next_token(PROMPTS[:1], top=20), truth.next_token(PROMPTS[:1], top=20)
    assert found.ids[0].tolist() == wanted.ids[0].tolist()
    np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=CLOSE)


def test_the_probe_sees_each_server_for_what_it_is(api):
    found = api.probe()
    assert "they are the model's own" in found["Sampling temperature"]
    wanted = {
        "vllm": ("vllm", "gone on with", "scored, checked against an answer", "512"),
        "llama-server": ("llamacpp", "gone on with", "not scored", "512"),
        "llama_cpp.server": ("llama_cpp.server", "cannot be given", "not scored", "not told"),
    }[api.kind]
    names = ("Server", "Beginning of an answer", "Continuations", "Context length")
    assert all(found[name].startswith(value) for name, value in zip(names, wanted, strict=True)), found
    assert api.provides.plain
    assert api.provides.chat


@only("vllm", "llama-server")
def test_begun_answers_are_gone_on_with(api, truth):
    prompt = Chat((("user", "which planet is red?"),), prefix="The answer is")
    if api.kind == "vllm":  # it writes the beginning as the template writes a message, with a space before it
        wanted, _ = row_by_bytes(truth, "<s>[user] which planet is red?\n[assistant] The answer is")
    else:
        wanted, _ = row_by_bytes(truth, prompt)
    (found,) = api.next_token([prompt], top=20)
    pairs = zip(api.token_bytes(found.ids[0].tolist()), found.logprobs[0], strict=True)
    shared_names = [(value, wanted[name]) for name, value in pairs if name in wanted]
    assert len(shared_names) >= 5
    assert all(value == pytest.approx(np.log(p), abs=CLOSE) for value, p in shared_names)
    ((completion,),) = api.generate([prompt], Sampling(max_tokens=4, temperature=0.0))
    assert not completion.text.startswith("The answer is")


@only("vllm")
def test_continuations_are_scored_token_by_token(api, truth):
    continuations = [[" sun", " A sun", "☃", "x"], [" B"], [" Größe", "é☃é"]]
    found, wanted = api.score(PROMPTS, continuations), truth.score(PROMPTS, continuations)
    for ours, theirs in zip(found, wanted, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.chosen_logprob, other.chosen_logprob, atol=CLOSE)


@only("vllm")
def test_scored_positions_may_list_rivals(api, truth):
    ((found,),) = api.score(PROMPTS[:1], [[" A sun"]], top=3)
    ((wanted,),) = truth.score(PROMPTS[:1], [[" A sun"]], top=3)
    assert found.logprobs.shape[0] == wanted.logprobs.shape[0]
    assert (np.exp(found.logprobs).sum(axis=1) + np.exp(found.log_tail)).max() <= 1 + 1e-4


@only("llama_cpp.server", "llama-server")
def test_shifted_or_missing_echoes_are_refused(api):
    with pytest.raises(CapabilityError, match="score"):
        api.score(PROMPTS[:1], [[" sun"]])


@only("vllm")
def test_chats_and_empty_texts_are_not_scored(api):
    with pytest.raises(CapabilityError, match="plain template"):
        api.score(CHATS[:1], [[" sun"]])
    with pytest.raises(InputError, match="none empty"):
        api.score(PROMPTS[:1], [[""]])


def test_drawn_tokens_have_their_own_raw_value_at_any_temperature(api, truth):
    wanted, _ = row_by_bytes(truth, PROMPTS[0])
    compared = 0
    for temperature in (0.0, 0.6, 1.0, 1.7):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # llama-server keeps parts of characters to itself
            (group,) = api.generate(PROMPTS[:1], Sampling(n=8, max_tokens=1, temperature=temperature, seed=5))
        for one in group:
            if len(one.scores) == 0:
                continue
            (name,) = api.token_bytes(one.scores.chosen.tolist())
            if name in wanted:
                assert one.scores.chosen_logprob[0] == pytest.approx(np.log(wanted[name]), abs=CLOSE)
                compared += 1
    assert compared > 4


def test_a_seed_repeats_and_completions_differ(api):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (api.generate(CHATS[:1], Sampling(n=4, max_tokens=6, seed=9))[0] for _ in range(2))
    assert [completion.text for completion in one] == [completion.text for completion in other]
    assert len({completion.text for completion in one}) > 1


def test_a_prompt_that_does_not_fit_is_named(api):
    for call in (
        lambda: api.next_token([PROMPTS[0], "word " * 600], top=2),
        lambda: api.generate([Chat((("user", "word " * 600),))], Sampling(max_tokens=2)),
    ):
        with pytest.raises(PromptTooLong, match="context"):
            call()


def test_lists_may_hold_the_whole_vocabulary(truth):
    server = shared.server("llama-server")
    api = OpenAI.load(server.model, base_url=server.base_url, top_logprobs=400)
    (found,), (wanted,) = api.next_token(PROMPTS[:1], top=api.provides.top), truth.next_token(PROMPTS[:1])
    assert found.logprobs.shape == wanted.logprobs.shape
    np.testing.assert_allclose(found.logprobs[0], wanted.logprobs[0][found.ids[0]], atol=CLOSE)
    assert np.exp(found.log_tail[0]) < 1e-5
    api.close()
