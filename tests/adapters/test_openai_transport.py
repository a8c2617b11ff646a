"""The transport against a server that fails in every way: what is retried, what is refused, what is asked only once."""

import contextlib
import email.utils
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibwrap.adapters import _openai_transport as module
from calibwrap.adapters._openai_failures import asked_wait
from calibwrap.adapters._openai_transport import Rejected, Request, Transport
from calibwrap.errors import CalibrationWarning, InputError, ServerError
from tests.adapters.openai_clients import connected
from tests.servers.fault import FaultServer
from tests.servers.fault_acts import (
    OK,
    Act,
    azure_refusal,
    cut,
    dropped,
    edited,
    failing,
    fingerprint,
    no_logprobs_403,
    rate_limited,
    refusal,
    script,
    shares,
    slow,
)
from tests.servers.fault_replies import Model

CHAT = "/chat/completions"
Opener = Callable[..., Transport]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits that no server asked for are short."""
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONGEST_BACKOFF_SECONDS", 0.02)


@pytest.fixture
def connect() -> Iterator[Opener]:
    """Open transports to a server; all are closed in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda server, **options: stack.enter_context(connected(server.url, **options))


def ask(number: int, **more: object) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": f"Question {number}?"}], "max_tokens": 1}
    return Request(CHAT, {**body, "logprobs": True, "top_logprobs": 5, **more}, tokens=100)


def test_replies_come_in_order_and_are_the_servers(connect: Opener) -> None:
    requests = [ask(number) for number in range(30)]
    with FaultServer(latency=0.002) as server:
        replies = connect(server).send(requests)
    assert [reply.body for reply in replies] == [Model().reply(CHAT, request.body) for request in requests]
    assert not any(reply.cached for reply in replies)
    assert replies[0].headers["x-request-id"] == "req_fault"


def test_no_more_are_on_their_way_than_the_limit(connect: Opener) -> None:
    with FaultServer(latency=0.03) as server:
        connect(server, max_concurrency=4).send([ask(number) for number in range(24)])
        assert server.at_once == 4


@pytest.mark.parametrize(
    "fault",
    [
        rate_limited(),
        rate_limited(retry_after=0),
        rate_limited(milliseconds=5),
        rate_limited(retry_after=email.utils.formatdate(usegmt=True)),
        rate_limited(retry_after="soon"),
        failing(408),
        failing(409),
        failing(500),
        failing(503),
        Act(502, "<html>Bad gateway</html>"),
        dropped("before"),
        dropped("after"),
        cut("length"),
        cut("json"),
        cut("text"),
        edited(lambda reply: {"error": {"message": "Upstream failed", "code": 502}}),
        edited(lambda reply: [reply]),  # type: ignore[arg-type,return-value]
    ],
    ids=repr,
)
def test_a_passing_fault_is_retried_and_counted(fault: Act, connect: Opener) -> None:
    with FaultServer(script([fault, fault]), honours_keys=False) as server:
        transport = connect(server)
        [reply] = transport.send([ask(1)])
    assert reply.body == Model().reply(CHAT, ask(1).body)
    assert (transport.usage()["requests"], transport.usage()["retries"]) == (3, 2)


def test_a_late_answer_is_asked_for_again(connect: Opener) -> None:
    with FaultServer(script([slow(5.0)])) as server:
        transport = connect(server, timeout=1.0)
        began = time.perf_counter()
        transport.send([ask(1)])
        assert transport.usage()["retries"] >= 1
        assert time.perf_counter() - began < 5.0


def test_the_servers_hint_is_waited_for(connect: Opener) -> None:
    with FaultServer(script([rate_limited(retry_after=0.4)])) as server:
        began = time.perf_counter()
        connect(server).send([ask(1)])
        assert time.perf_counter() - began >= 0.4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "3", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "3", "retry-after-ms": "?"}, 3.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 7.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:00 GMT"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
    ],
)
def test_both_forms_of_the_hint_are_read(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, now=784111770.0) == seconds


def test_too_long_a_wait_is_said_and_not_waited(connect: Opener) -> None:
    with FaultServer(script([rate_limited(retry_after=600)])) as server:
        with pytest.raises(ServerError, match="600 s"):
            connect(server).send([ask(1)])
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "fault", [rate_limited(code="insufficient_quota"), Act(401, {"error": {"message": "No"}}), failing(402)]
)
def test_what_no_waiting_mends_ends_at_once(fault: Act, connect: Opener) -> None:
    with FaultServer(script([fault])) as server:
        with pytest.raises(ServerError) as caught:
            connect(server).send([ask(1)])
        assert len(server.seen) == 1
    assert not isinstance(caught.value, Rejected)
    assert isinstance(caught.value.__cause__, openai.APIStatusError)


@pytest.mark.parametrize(
    ("fault", "status", "param", "word"),
    [
        (refusal("top_logprobs", "Unsupported parameter"), 400, "top_logprobs", "Unsupported parameter"),
        (azure_refusal("logprobs"), 422, "logprobs", "invalid values"),
        (no_logprobs_403(), 403, None, "not allowed to request logprobs"),
        (Act(422, {"detail": [{"loc": ["body", "n"], "msg": "extra"}]}), 422, "n", "extra"),
        (Act(404, {"detail": "Not Found"}), 404, None, "Not Found"),
        (Act(405, ""), 405, None, "no body"),
        (Act(501, {"error": {"message": "This server does not do chat", "code": 501}}), 501, None, "does not do chat"),
    ],
)
def test_a_refusal_is_not_repeated_and_says_what_the_server_said(
    fault: Act, status: int, param: str | None, word: str, connect: Opener
) -> None:
    with FaultServer(script([fault])) as server:
        with pytest.raises(Rejected, match=CHAT) as caught:
            connect(server).send([ask(1)])
        assert len(server.seen) == 1
    assert (caught.value.status, caught.value.param) == (status, param)
    assert word in caught.value.message
    assert word in str(caught.value)


def test_when_nothing_helps_the_last_thing_that_came_is_told(connect: Opener) -> None:
    with FaultServer(script([], then=cut("text"))) as server:
        with pytest.raises(ServerError, match=r"3 attempts.*Bad gateway"):
            connect(server, max_retries=2).send([ask(1)])
        assert len(server.seen) == 3


def test_an_address_where_nobody_listens_is_said_soon(connect: Opener) -> None:
    with FaultServer() as server:
        pass
    transport = connect(server)
    with pytest.raises(ServerError, match=r"no server at http://127.*base_url"):
        transport.send([ask(1)])
    assert transport.usage()["requests"] == 3


def test_the_first_refusal_stops_the_rest_and_what_came_is_kept(connect: Opener, tmp_path: Path) -> None:
    requests = [ask(number) for number in range(40)]
    with FaultServer(lambda number: refusal("n", "no") if number == 9 else OK, latency=0.005) as server:
        transport = connect(server, max_concurrency=3, cache=tmp_path / "answers.sqlite")
        with pytest.raises(Rejected):
            transport.send(requests)
        came = len(server.billed)
        assert 9 <= came <= 9 + 3
        replies = transport.send(requests)
        assert sum(reply.cached for reply in replies) == came
        assert server.billed_twice() == 0


def test_the_same_request_twice_is_sent_once(connect: Opener) -> None:
    with FaultServer() as server:
        transport = connect(server)
        replies = transport.send([ask(1), ask(2), ask(1)])
        assert len(server.seen) == 2
    assert replies[0].body == replies[2].body
    assert [reply.cached for reply in replies] == [False, False, True]
    assert transport.usage()["cached"] == 1


def test_draws_are_neither_merged_nor_kept_but_a_repeat_of_one_is_recognised(connect: Opener, tmp_path: Path) -> None:
    draw = Request(CHAT, ask(1).body, 100, cacheable=False)
    with FaultServer(script([OK, dropped("after")])) as server:
        transport = connect(server, max_concurrency=1, cache=tmp_path / "answers.sqlite")
        replies = [*transport.send([draw, draw]), *transport.send([draw])]
        keys = [seen.headers["idempotency-key"] for seen in server.seen]
        assert len(server.billed) == 3
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3
    assert not any(reply.cached for reply in replies)


def test_azure_is_asked_at_its_deployment() -> None:
    def reply(path: str, body: object) -> dict[str, object]:
        return {"path": path}

    with FaultServer(reply=reply) as server:
        endpoint = server.url.removesuffix("/v1")
        with openai.AzureOpenAI(azure_endpoint=endpoint, api_version="2024-10-21", api_key="any") as client:
            transport = Transport(client)
            [answer] = transport.send([ask(1)])
            transport.close()
        assert server.seen[0].headers["api-key"] == "any"
    assert answer.body["path"] == "/openai/deployments/m/chat/completions"


def test_models_are_listed_with_get(connect: Opener) -> None:
    with FaultServer() as server:
        [reply] = connect(server).send([Request("/models", {}, 0, method="GET")])
    assert reply.body["data"][0]["max_model_len"] == 4096


def test_tokens_are_counted_in_both_apis_words(connect: Opener) -> None:
    with FaultServer() as server:
        transport = connect(server)
        chat, response = transport.send([ask(1), Request("/responses", {"model": "m", "input": "Q?"}, 50)])
    usage = transport.usage()
    assert usage["prompt_tokens"] == chat.body["usage"]["prompt_tokens"] + response.body["usage"]["input_tokens"]
    assert usage["completion_tokens"] == 1 + response.body["usage"]["output_tokens"]


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (ask(1, temperature=float("nan")), "JSON"),
        (ask(1, user="\ud800"), "half of a character"),
        (ask(1, user=object()), "JSON"),
        (Request(CHAT, {}, 0, method="PUT"), "PUT"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(request_: Request, word: str, connect: Opener) -> None:
    with FaultServer() as server:
        with pytest.raises(InputError, match=word):
            connect(server).send([ask(2), request_])
        assert not server.seen


@pytest.mark.parametrize(
    ("client", "options", "word"),
    [
        (openai.AsyncOpenAI(api_key="any"), {}, "pass an openai.OpenAI"),
        (object(), {}, "Got object"),
        (openai.OpenAI(api_key="any"), {"max_concurrency": 0}, "max_concurrency"),
        (openai.OpenAI(api_key="any"), {"max_requests": -1}, "max_requests"),
    ],
)
def test_wrong_clients_and_numbers_are_refused(client: object, options: dict[str, int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Transport(client, **options)  # type: ignore[arg-type]


def test_a_changed_model_is_told_once_and_its_old_answers_are_not_used(connect: Opener, tmp_path: Path) -> None:
    with FaultServer() as server:
        transport = connect(server, cache=tmp_path / "answers.sqlite")
        transport.send([ask(1), ask(2)])
        server.plan = script([], then=edited(fingerprint("fp_second")))
        with pytest.warns(CalibrationWarning, match="fp_first.*fp_second"):
            assert transport.send([ask(1), ask(3)])[0].cached
        transport.send([ask(4)])  # a second warning would be an error
        replies = connect(server, cache=tmp_path / "answers.sqlite").send([ask(2), ask(3)])
    assert [reply.cached for reply in replies] == [False, True]


def test_a_changed_model_is_told_without_a_cache_too(connect: Opener) -> None:
    with FaultServer(lambda number: OK if number < 2 else edited(lambda reply: {**reply, "model": "other"})) as server:
        transport = connect(server)
        transport.send([ask(1), ask(2)])
        with pytest.warns(CalibrationWarning, match="'m'.* before, 'other'"):
            transport.send([ask(3)])


def test_versions_served_side_by_side_all_stay_in_use(connect: Opener, tmp_path: Path) -> None:
    requests = [ask(number) for number in range(10)]
    with FaultServer(lambda number: edited(fingerprint(f"fp_{number % 2}"))) as server:
        transport = connect(server, max_concurrency=1, cache=tmp_path / "answers.sqlite")
        with pytest.warns(CalibrationWarning, match="fp_0.*fp_1"):
            transport.send(requests)
        assert all(reply.cached for reply in transport.send(requests))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), workers=st.integers(1, 6), threads=st.integers(1, 3), count=st.integers(1, 40))
def test_every_question_is_answered_once_and_billed_once(
    seed: int, workers: int, threads: int, count: int, tmp_path_factory: pytest.TempPathFactory, connect: Opener
) -> None:
    faults = [
        (0.1, rate_limited(0.001)),
        (0.05, dropped("after")),
        (0.05, cut()),
        (0.05, cut("json")),
        (0.05, failing()),
    ]
    cache = tmp_path_factory.mktemp("stress") / "answers.sqlite"
    with FaultServer(shares(seed, faults)) as server:
        transport = connect(server, max_concurrency=workers, max_retries=40, cache=cache)
        parts = [[ask(number) for number in range(first, count, threads)] for first in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            replies = list(pool.map(transport.send, parts))
        truth = [[Model().reply(CHAT, request.body) for request in part] for part in parts]
        assert [[reply.body for reply in part] for part in replies] == truth
        usage = transport.usage()
        assert (len(server.billed), server.billed_twice()) == (count, 0)
        assert usage["requests"] == len(server.seen)
        assert usage["retries"] == len(server.seen) - count
        assert usage["completion_tokens"] == count
