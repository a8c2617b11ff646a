"""The real servers start, answer, fail with their log, and leave nothing running."""

import json
import os
import urllib.request

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.base import Sampling
from calibwrap.cli import main
from calibwrap.errors import CapabilityError
from calibwrap.readouts import Label

from . import matched, real, shared

READOUT = Label(min_mass=0.0)  # the smallest mass of a random model may be below what deserves a warning
QUESTIONS = [
    cw.Question(f"Which {thing} is red?", ["Mars", "Venus", "Rome", "rain"][: 2 + index % 3], answer=0, id=f"q{index}")
    for index, thing in enumerate(("planet", "town", "sea", "umbrella", "café", "☂"))
]
every_kind = pytest.mark.parametrize("kind", shared.KINDS)


@pytest.fixture(scope="module")
def truth():
    """The same weights on Transformers."""
    return cw.wrap(f"hf:{shared.model().directory}")


@pytest.fixture
def served():
    """Open a server of a kind as its users do; closed in the end."""
    opened = []

    def of(kind, **options):
        server = shared.server(kind)
        opened.append(cw.wrap(f"openai:{server.model}", base_url=server.base_url, **options))
        return opened[-1]

    yield of
    for lm in opened:
        lm.close()


def ask(server, path, body):
    """The plain reply of a server, without any library in between."""
    request = urllib.request.Request(
        server.base_url + path,
        json.dumps(body | {"model": server.model}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
        return json.load(reply)


@every_kind
def test_a_real_server_lists_log_probabilities_on_both_endpoints(kind):
    server = shared.server(kind)
    common = {"max_tokens": 1, "temperature": 1.0}
    plain = ask(server, "/completions", {"prompt": "Answer:", "logprobs": 3, **common})
    talk = {"messages": [{"role": "user", "content": "which?"}], "logprobs": True, "top_logprobs": 3}
    chat = ask(server, "/chat/completions", talk | common)
    assert plain["choices"][0]["logprobs"]
    assert len(chat["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) in (3, 4)


@every_kind
def test_the_label_readout_gives_the_probabilities_of_the_weights(kind, truth, served):
    exact = truth.scores(QUESTIONS, READOUT)
    whole = served(kind, top_logprobs=matched.VOCABULARY).scores(QUESTIONS, READOUT)
    assert not whole.n_missing.any()
    np.testing.assert_allclose(whole.probabilities, exact.probabilities, atol=1e-4)
    short = served(kind, top_logprobs=5).scores(QUESTIONS, READOUT)
    assert short.n_missing.any()
    assert (short.lower - 1e-4 <= exact.probabilities).all()
    assert (exact.probabilities <= short.upper + 1e-4).all()


@every_kind
def test_log_probabilities_stay_raw_whatever_the_sampling_temperature(kind, truth, served):
    lm = served(kind, top_logprobs=20)
    prompts = ["Question: is water wet?\nAnswer:", "A. Mars\nB."]
    for prompt in prompts:
        exact = np.sort(truth.adapter.next_token([prompt])[0].logprobs[0])[::-1][:5]
        for temperature in (0.0, 0.5, 1.5):
            ((drawn,),) = lm.adapter.generate([prompt], Sampling(max_tokens=1, temperature=temperature, seed=1, top=5))
            np.testing.assert_allclose(np.sort(drawn.scores.logprobs[0])[::-1][:5], exact, atol=5e-3)


@every_kind
def test_continuations_are_scored_where_a_server_can_and_refused_where_not(kind, truth, served):
    lm = served(kind)
    if kind != "vllm":
        with pytest.raises(CapabilityError, match="score"):
            lm.scores(QUESTIONS, "continuation")
        return
    exact, got = truth.scores(QUESTIONS, "continuation"), lm.scores(QUESTIONS, "continuation")
    np.testing.assert_allclose(got.probabilities, exact.probabilities, atol=5e-3)


SHOWN = {
    "vllm": {"Server": "vllm", "Continuations": "scored, checked against an answer", "Context length": "512"},
    "llama_cpp.server": {"Token ids": "not listed; tokens are told apart by text", "Context length": "not told"},
    "llama-server": {"Server": "llamacpp", "Token ids": "listed", "Token bytes": "listed", "Context length": "512"},
}
"""What `check` must find out about each, besides what holds for all."""


@every_kind
def test_check_explains_the_server(kind, monkeypatch, capsys):
    server = shared.server(kind)
    words = ["calibwrap", "check", f"openai:{server.model}", "--set", f"base_url={server.base_url}", "--json"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    found = told["probe"]
    assert found["Sampling temperature"] == "does not change them: they are the model's own"
    assert "20 most probable tokens" in found["Log-probabilities"]
    assert "chat completions" in found["Endpoints"]
    assert "completions (20 listed)" in found["Endpoints"]
    assert {name: found[name] for name in SHOWN[kind]} == SHOWN[kind]
    if kind != "vllm":
        assert found["Continuations"].startswith("not scored: the prompt's")


def test_a_server_that_was_ended_is_gone():
    with real.llama_server(shared.model().gguf) as server:
        os.kill(server.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)


def test_a_server_that_cannot_start_shows_its_log(tmp_path):
    nothing = tmp_path / "nothing.gguf"
    nothing.write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"(?s)The server ended with .*nothing\.gguf"), real.llama_server(nothing):
        pass
