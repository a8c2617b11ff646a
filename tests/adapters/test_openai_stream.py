"""Streams of servers: equal to the same request without streaming, paid for, and named when they break off."""

import math
import time
import warnings

import numpy as np
import openai
import pytest

import calibwrap as cw
from calibwrap.adapters import openai_api
from calibwrap.adapters._openai_events import merged
from calibwrap.adapters.openai_api import OpenAI
from calibwrap.base import Sampling
from calibwrap.errors import BudgetExceeded, CapabilityError, LogprobsUnavailable, PromptTooLong, ServerError
from calibwrap.questions import Chat
from calibwrap.streaming import Pieces
from tests.servers import fault_acts as acts
from tests.servers import shared
from tests.servers.fault import FaultServer
from tests.servers.fault_replies import Model

HELLO = Chat((("user", "Hello"),))
CHAT_ONLY = ("/chat/completions",)
SEEDED = Sampling(max_tokens=6, seed=3, top=2)
PROMPTS = ("In the morning the sun", "Un café ☂", Chat((("user", "which planet is red?"),)))


@pytest.fixture(autouse=True)
def _fresh_findings():
    openai_api._PROBED.clear()


@pytest.fixture
def serve():
    """Start a fault server, and return it with an adapter; `plan` begins after the adapter has asked what there is."""
    started = []

    def start(*plan, model=None, **options):
        server = FaultServer(None, model or Model(endpoints=CHAT_ONLY)).__enter__()
        client = openai.OpenAI(base_url=server.url, api_key="any", timeout=5.0)
        adapter = OpenAI(client, model="m", **options)
        started.append((server, adapter, client))
        assert adapter.provides.streams
        first = len(server.seen)
        server.plan = lambda number: plan[number - first] if number - first < len(plan) else acts.OK
        return server, adapter

    yield start
    for server, adapter, client in started:
        adapter.close()
        client.close()
        server.__exit__()


def taken(stream):
    """Return all pieces and the completion."""
    pieces = Pieces(stream)
    return list(pieces), pieces.result


def equal(one, other, tolerance=0.0):
    assert (one.text, one.finish) == (other.text, other.finish)
    assert dict(one.settings) == dict(other.settings)
    assert one.scores.chosen.tolist() == other.scores.chosen.tolist()
    for name in ("logprobs", "chosen_logprob", "log_tail", "log_cut"):
        np.testing.assert_allclose(getattr(one.scores, name), getattr(other.scores, name), atol=tolerance)


@pytest.mark.parametrize("prompt", [HELLO, "Hello"], ids=["chat", "completions"])
def test_a_stream_is_the_answer_without_streaming(serve, prompt):
    _, adapter = serve(model=Model())
    pieces, completion = taken(adapter.stream(prompt, SEEDED))
    ((whole,),) = adapter.generate([prompt], SEEDED)
    equal(completion, whole)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [int(piece.scores.chosen[0]) for piece in pieces] == whole.scores.chosen.tolist()
    np.testing.assert_array_equal(np.concatenate([piece.scores.logprobs for piece in pieces]), whole.scores.logprobs)


def test_the_number_of_a_completion_is_added_to_the_seed(serve):
    server, adapter = serve()
    taken(adapter.stream(HELLO, SEEDED, index=2))
    assert server.seen[-1].body["seed"] == 5


def test_usage_is_counted_as_the_server_tells_it(serve):
    _, adapter = serve()
    before = adapter.usage()
    taken(adapter.stream(HELLO, SEEDED))
    spent = {name: adapter.usage()[name] - before[name] for name in before}
    assert (spent["requests"], spent["completion_tokens"], spent["retries"]) == (1, 6, 0)
    assert spent["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        ("length", "connection failed"),
        ("json", "not JSON"),
        ("text", "connection ended before the answer did"),
        ("error", "The engine died"),
    ],
)
def test_a_stream_that_breaks_off_says_what_had_come_and_is_not_asked_again(serve, cut, why):
    server, adapter = serve(acts.cut(cut))
    ((whole,),) = adapter.generate([HELLO], SEEDED)
    server.plan = lambda number: acts.cut(cut)
    before, shown = len(server.seen), []
    with pytest.raises(ServerError, match=why) as broken:
        shown.extend(piece.text for piece in adapter.stream(HELLO, SEEDED))
    assert len(server.seen) == before + 1
    text = "".join(shown)
    assert text
    assert whole.text.startswith(text)
    assert f"{len(shown)} tokens had come" in str(broken.value)
    assert repr(text[-60:]) in str(broken.value)


def test_what_fails_before_its_first_event_is_asked_again(serve):
    server, adapter = serve(acts.rate_limited(0.01), acts.failing(503), acts.dropped("before"))
    before = adapter.usage()
    pieces, _ = taken(adapter.stream(HELLO, SEEDED))
    assert len(pieces) == 6
    assert adapter.usage()["requests"] - before["requests"] == 4
    assert adapter.usage()["retries"] - before["retries"] == 3
    assert len([seen for seen in server.seen if seen.billed and seen.body.get("stream")]) == 1


def test_closing_early_ends_the_connection_and_counts_the_estimate(serve):
    server, adapter = serve(acts.cut("wait"), max_tokens=10_000)
    budget = adapter._transport._budget
    before = budget.tokens
    stream = adapter.stream(HELLO, Sampling(max_tokens=500))
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5.0
    while not server.left_by_client and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.left_by_client
    assert budget.tokens - before > 500
    assert budget._open == 0
    ((whole,),) = adapter.generate([HELLO], SEEDED)
    assert whole.text


def test_a_budget_is_kept(serve):
    server, adapter = serve(max_requests=8)
    before = len(server.seen)
    taken(adapter.stream(HELLO, SEEDED))
    with pytest.raises(BudgetExceeded, match="max_requests=8"):
        [taken(adapter.stream(HELLO, SEEDED)) for _ in range(10)]
    assert before < len(server.seen) == 8


def test_a_whole_seeded_answer_is_kept_for_both_ways_of_asking(serve, tmp_path):
    server, adapter = serve(cache=tmp_path / "answers.db")
    pieces, completion = taken(adapter.stream(HELLO, SEEDED))
    before = len(server.seen)
    again, same = taken(adapter.stream(HELLO, SEEDED))
    ((whole,),) = adapter.generate([HELLO], SEEDED)
    assert len(server.seen) == before
    equal(same, completion)
    equal(whole, completion)
    assert [piece.text for piece in again] == [piece.text for piece in pieces]
    assert adapter.usage()["cached"] == 2


def test_what_has_no_seed_or_broke_off_is_not_kept(serve, tmp_path):
    server, adapter = serve(acts.OK, acts.OK, acts.cut("text"), cache=tmp_path / "answers.db")
    before = len(server.seen)
    for _ in range(2):
        taken(adapter.stream(HELLO, Sampling(max_tokens=6)))
    with pytest.raises(ServerError):
        taken(adapter.stream(HELLO, SEEDED))
    taken(adapter.stream(HELLO, SEEDED))
    assert len(server.seen) == before + 4


def test_a_server_that_refuses_the_usage_of_streams_is_asked_without(serve):
    server, adapter = serve(acts.refusal("stream_options", "Unknown parameter: 'stream_options'."))
    taken(adapter.stream(HELLO, SEEDED))
    taken(adapter.stream(HELLO, SEEDED))
    bodies = [seen.body for seen in server.seen if seen.body.get("stream")]
    assert ["stream_options" in body for body in bodies] == [True, False, False]


def test_refusals_keep_their_names(serve):
    _, adapter = serve(acts.refusal("messages", "This model's maximum context length is 8 tokens."))
    with pytest.raises(PromptTooLong):
        adapter.stream(HELLO, SEEDED)


def test_text_without_log_probabilities_is_refused(serve):
    _, adapter = serve(acts.edited(acts.null_logprobs))
    with pytest.raises(LogprobsUnavailable):
        taken(adapter.stream(HELLO, SEEDED))


def test_answers_of_the_responses_endpoint_are_not_streamed():
    with (
        FaultServer(None, Model(endpoints=("/responses",))) as server,
        openai.OpenAI(base_url=server.url, api_key="any") as client,
    ):
        adapter = OpenAI(client, model="m")
        assert not adapter.provides.streams
        with pytest.raises(CapabilityError, match="Responses"):
            adapter.stream(HELLO, Sampling())
        with pytest.raises(CapabilityError, match=r"streams=True.*vLLM"):
            cw.CalibratedLM(adapter).stream(HELLO)
        adapter.close()


def test_events_without_an_index_of_zero_belong_to_another_completion():
    parts = [
        {"choices": [{"index": 0, "text": "A"}, {"index": 1, "text": "B"}]},
        {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": {"total_tokens": 3}},
    ]
    body = merged(parts)
    assert (body["choices"][0]["text"], body["usage"]) == ("A", {"total_tokens": 3})


@pytest.fixture(scope="module", params=shared.KINDS)
def api(request):
    server = shared.server(request.param)
    adapter = OpenAI.load(server.model, base_url=server.base_url)
    yield adapter
    adapter.close()


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(3))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_server_streams_what_it_answers(api, prompt, temperature):
    sampling = Sampling(max_tokens=10, seed=7, temperature=temperature, top=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llama-server keeps parts of characters to itself
        ((whole,),) = api.generate([prompt], sampling)
        pieces, completion = taken(api.stream(prompt, sampling))
    equal(completion, whole, tolerance=1e-4)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert len(pieces) == len(whole.scores)


def test_the_answer_of_a_real_stream_is_the_answer(api):
    lm = cw.CalibratedLM(api)
    prompt, decoder = PROMPTS[0], cw.Greedy(max_tokens=8)
    with lm.stream(prompt, decoder) as stream:
        tokens = list(stream)
    answer = lm(prompt, decoder)
    assert stream.answer.text == answer.text == "".join(token.text for token in tokens)
    assert stream.answer.confidence == pytest.approx(answer.confidence, rel=1e-3)
    mean = math.exp(sum(math.log(token.probability) for token in tokens) / len(tokens))
    assert tokens[-1].confidence == pytest.approx(mean)


def test_a_real_stream_that_is_closed_early_leaves_the_server_free(api):
    with cw.CalibratedLM(api).stream(PROMPTS[0], cw.Greedy(max_tokens=200)) as stream:
        next(stream)
    began = time.monotonic()
    ((whole,),) = api.generate([PROMPTS[0]], Sampling(max_tokens=1, temperature=0.0))
    assert whole.text
    assert time.monotonic() - began < 30.0
