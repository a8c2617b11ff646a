"""A budget is never gone over: alone, by many at once, and against a server that counts."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calibwrap.adapters import _openai_transport as module
from calibwrap.adapters._openai_budget import Budget
from calibwrap.adapters._openai_transport import Request
from calibwrap.adapters._openai_workers import Stopped
from calibwrap.errors import BudgetExceeded
from tests.adapters.openai_clients import connected
from tests.servers.fault import FaultServer
from tests.servers.fault_acts import dropped, rate_limited, shares


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.01)


def ask(number: int, tokens: int = 100) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": f"Question {number}?"}], "max_tokens": 1}
    return Request("/chat/completions", body, tokens)


def test_what_does_not_fit_is_refused_with_the_sums() -> None:
    budget = Budget(max_tokens=100)
    budget.reserve(60)
    budget.settle(60, 45)
    with pytest.raises(BudgetExceeded, match=r"may cost 56 tokens, and 45 of max_tokens=100 are spent in 1 requests"):
        budget.reserve(56)
    budget.reserve(55)
    budget.settle(55, 55)
    assert (budget.requests, budget.tokens) == (2, 100)


def test_a_request_waits_for_others_that_may_turn_out_cheaper() -> None:
    budget = Budget(max_tokens=100)
    budget.reserve(90)
    began = threading.Event()

    def second() -> None:
        began.set()
        budget.reserve(90)

    thread = threading.Thread(target=second)
    thread.start()
    began.wait()
    budget.settle(90, 10)
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert budget.requests == 2


def test_one_who_waits_can_be_stopped() -> None:
    budget = Budget(max_tokens=100)
    budget.reserve(90)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        budget.reserve(90, stop)


def test_many_at_once_never_go_over() -> None:
    budget = Budget(max_requests=180, max_tokens=5_000)
    spent: list[int] = []
    refused: list[BudgetExceeded] = []

    def spend(seed: int) -> None:
        dice = random.Random(seed)
        while True:
            estimate = dice.randint(1, 60)
            real = dice.randint(0, estimate)
            try:
                budget.reserve(estimate)
            except BudgetExceeded as error:
                refused.append(error)
                return
            spent.append(real)
            budget.settle(estimate, real)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(spend, range(6)))
    assert len(refused) == 6
    assert len(spent) == budget.requests <= 180
    assert sum(spent) == budget.tokens <= 5_000
    assert budget.requests == 180 or budget.tokens > 5_000 - 60


def test_the_server_sees_no_request_too_many_and_the_rest_can_be_asked_later(tmp_path: Path) -> None:
    requests = [ask(number) for number in range(40)]
    cache = tmp_path / "answers.sqlite"
    with FaultServer(shares(5, [(0.3, rate_limited(0.001)), (0.1, dropped())]), latency=0.002) as server:
        with (
            connected(server.url, max_requests=25, cache=cache) as transport,
            pytest.raises(BudgetExceeded, match="max_requests=25") as caught,
        ):
            transport.send(requests)
        assert len(server.seen) == 25
        with connected(server.url, max_requests=200, cache=cache) as again:
            replies = again.send(requests)
            kept = sum(reply.cached for reply in replies)
        assert f"{kept} answers are kept in {cache}" in str(caught.value)
        assert 0 < kept < 25
        assert len(server.seen) <= 25 + 200
        assert server.billed_twice() == 0


def test_tokens_stay_below_the_limit_and_use_it(tmp_path: Path) -> None:
    with FaultServer() as server:
        with connected(server.url, max_tokens=1_000) as transport:
            with pytest.raises(BudgetExceeded, match=r"max_tokens=1000.*pass cache=FILE"):
                transport.send([ask(number) for number in range(100)])
            usage = transport.usage()
        spent = usage["prompt_tokens"] + usage["completion_tokens"]
        each = server.reply("/chat/completions", ask(10).body)["usage"]["total_tokens"]
        assert len(server.billed) == usage["requests"] >= (1_000 - 100) // each
    assert 1_000 - 100 - each < spent <= 1_000


def test_an_answer_lost_on_the_way_counts_since_it_may_be_billed() -> None:
    with FaultServer(shares(0, [(1.0, dropped())])) as server:
        with (
            connected(server.url, max_tokens=350) as transport,
            pytest.raises(BudgetExceeded, match="300 of max_tokens"),
        ):
            transport.send([ask(1)])
        assert len(server.seen) == 3


def test_answers_from_the_cache_cost_nothing(tmp_path: Path) -> None:
    requests = [ask(number) for number in range(5)]
    with FaultServer() as server, connected(server.url, cache=tmp_path / "answers.sqlite") as transport:
        first = transport.send(requests)
    with connected(server.url, cache=tmp_path / "answers.sqlite", max_requests=0, max_tokens=0) as transport:
        again = transport.send(requests)
        assert transport.usage() == {
            "requests": 0,
            "retries": 0,
            "cached": 5,
            "prompt_tokens": 0,
            "completion_tokens": 0,
        }
    assert [reply.body for reply in again] == [reply.body for reply in first]
