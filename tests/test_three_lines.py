"""The three lines on every runtime, with real engines: wrap a model, give it a calibrator, ask with Confidence@8.

Transformers, llama.cpp and the two servers have the very same weights; the engine that the tests of vLLM share has
others, and so another Transformers model beside it as the truth.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.decoders import traces_of
from calibwrap.errors import CapabilityError
from calibwrap.scores import log_softmax
from tests.adapters import vllm_models
from tests.adapters.conftest import EXACT
from tests.servers import matched, shared

PROMPT = "no, and"
"""After it both models are likely to name a label, small and random as they are."""
COOL = cw.Temperature(2.0)
WARM = cw.Temperature(1.7, level="token")
NEAR = 2e-4
"""How far apart the runtimes' own rounding may be."""
RUNTIMES = ("hf", "llama-cpp", "vllm", "vllm server", "llama-server")
STEERING = ("hf", "llama-cpp", "vllm")


@dataclass(frozen=True)
class Runtime:
    """A wrapped model, the same weights on Transformers, and labels that both are likely to name."""

    name: str
    lm: cw.CalibratedLM
    truth: cw.Adapter
    labels: tuple[str, ...]

    def decoder(self, **settings):
        return cw.ConfidenceAtK(**{"k": 8, "labels": self.labels, "marker": "", "max_tokens": 1, **settings})


def wrapped(name):
    """Wrap the model of a runtime as its users do; no engine or server is started that other tests do not share."""
    if name == "hf":
        return cw.wrap(f"hf:{shared.model().directory}")
    if name == "llama-cpp":
        return cw.wrap(f"llama-cpp:{shared.model().gguf}", **EXACT)
    if name == "vllm":
        return cw.wrap(vllm_models.shared_adapter())
    server = shared.server(name.removesuffix(" server"))
    return cw.wrap(f"openai:{server.model}", base_url=server.base_url, top_logprobs=matched.VOCABULARY)


@pytest.fixture(scope="module")
def truth():
    return cw.wrap(f"hf:{shared.model().directory}").adapter


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request, truth):
    lm = wrapped(request.param)
    if request.param == "vllm":
        yield Runtime(request.param, lm, vllm_models.transformers(), ("ital", "an", "U", "is"))
        return
    yield Runtime(request.param, lm, truth, ("A", "B", "C", "D"))
    lm.close()


def wanted(runtime, text, temperature, level="option"):
    """Return the calibrated probabilities of the labels (K,) after a text, worked out from Transformers' own row."""
    row = runtime.truth.next_token([text])[0].logprobs[0]
    tokens = runtime.truth.token_bytes(range(len(row)))
    row = log_softmax(row[None] / (temperature if level == "token" else 1.0))[0]
    forms = [
        {f"{space}{label}{stop}".encode() for space in ("", " ") for stop in ("", ".")} for label in runtime.labels
    ]
    mass = np.array([sum(np.exp(row[i]) for i, token in enumerate(tokens) if token in form) for form in forms])
    mass **= 1.0 if level == "token" else 1.0 / temperature
    return mass / mass.sum()


def check(scores, expected):
    """Check label scores (1, K) of a trace against the truth (K,): equal, but for what a list of 100 tokens hides."""
    assert (scores.lower[0] - NEAR <= expected).all()
    assert (expected <= scores.upper[0] + NEAR).all()


def test_the_three_lines(runtime):
    lm = runtime.lm.with_calibrator(COOL)
    answer = lm(PROMPT, decoder=runtime.decoder())

    traces = traces_of(runtime.decoder().rule, answer.candidates)
    assert len(answer.candidates) == 8
    assert len(traces) == 8 - answer.unparsed > 0
    assert answer.text in runtime.labels
    assert 0.0 <= answer.bounds[0] <= answer.confidence <= answer.bounds[1] <= 1.0
    assert answer.calibrated_by == "temperature"
    assert answer.confidence == max(trace.confidence for trace in traces)
    expected = wanted(runtime, PROMPT, COOL.value)
    for trace in traces:  # each begins with its label, so that all read the position after the prompt
        check(trace.scores, expected)
        assert (trace.scores.upper - trace.scores.lower).max() < 0.02


def test_runtimes_of_the_same_weights_state_the_same_confidence(truth):
    """Both read lists of 100 tokens, so that even what is hidden is the same."""
    both = {}
    for name in ("hf", "llama-cpp"):
        with wrapped(name).with_calibrator(COOL) as lm:
            decoder = Runtime(name, lm, truth, ("A", "B", "C", "D")).decoder()
            traces = traces_of(decoder.rule, lm(PROMPT, decoder=decoder).candidates)
            both[name] = [trace.probabilities for trace in traces]
    assert both["hf"]
    assert both["llama-cpp"]
    np.testing.assert_allclose(*np.broadcast_arrays(both["hf"][0], both["llama-cpp"]), atol=NEAR, rtol=0)


def test_the_same_trace_has_the_same_confidence_on_transformers(runtime):
    """A trace whose text Transformers cuts into the tokens that were drawn can be read there again.

    The random model of the shared vLLM engine names no label after a marker: there all traces are unparsed.
    """
    lm, decoder = runtime.lm.with_calibrator(COOL), runtime.decoder(k=16, marker="D", max_tokens=8)
    compared, answer = 0, lm(PROMPT, decoder)
    for trace in traces_of(decoder.rule, answer.candidates):
        drawn = lm.adapter.token_bytes(trace.completion.scores.chosen.tolist())
        before = drawn[: decoder.rule.named_by(drawn, trace.completion.text).first]
        text = PROMPT + b"".join(before).decode("utf-8", "replace")
        ids, start = (runtime.truth.tokenize(said)[0] for said in (text, PROMPT))
        if runtime.truth.token_bytes(ids) == runtime.truth.token_bytes(start) + before:
            compared += 1
            check(trace.scores, wanted(runtime, text, COOL.value))
    assert compared if runtime.name != "vllm" else answer.unparsed == 16


def test_steering_is_for_runtimes_that_can(runtime):
    lm, decoder = runtime.lm.with_calibrator(WARM), runtime.decoder()
    if runtime.name not in STEERING:
        with pytest.raises(CapabilityError, match=r"steer=True needs steers=True, and the backend 'openai'"):
            lm(PROMPT, decoder, steer=True)
        return
    steered = lm(PROMPT, decoder, steer=True)
    traces = traces_of(decoder.rule, steered.candidates)
    assert (len(steered.candidates), steered.calibrated_by) == (8, "temperature")
    assert all("1.7" in str(one.settings) for one in steered.candidates)
    assert not any("1.7" in str(one.settings) for one in lm(PROMPT, decoder).candidates)
    assert traces
    expected = wanted(runtime, PROMPT, WARM.value, "token")
    for trace in traces:
        np.testing.assert_allclose(trace.probabilities, expected, atol=NEAR, rtol=0)


def test_a_stream_steers_as_the_answer_does(runtime):
    lm, decoder = runtime.lm.with_calibrator(WARM), replace(runtime.decoder(), k=1, max_tokens=12)
    if not (runtime.name in STEERING and lm.adapter.provides.streams):
        with pytest.raises(CapabilityError, match=r"streams=True|steers=True"):
            lm.stream(PROMPT, decoder, steer=True)
        return
    stream = lm.stream(PROMPT, decoder, steer=True)
    tokens = [token.id for token in stream]
    (whole,) = lm(PROMPT, decoder, steer=True).candidates
    assert tokens == whole.scores.chosen.tolist()
    assert [stream.answer.text, len(tokens)] == [lm(PROMPT, decoder, steer=True).text, 12]
