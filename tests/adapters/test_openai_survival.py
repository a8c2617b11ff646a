"""A run that is interrupted or killed: it ends soon, and no answer that came is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.fault import FaultServer
from tests.servers.fault_acts import Act, rate_limited, script, slow

CHILD = """
import signal, sys, openai
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
from calibwrap.adapters import _openai_workers
from calibwrap.adapters._openai_transport import Request, Transport
_openai_workers._GRACE_SECONDS = 0.5
url, cache, count = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
transport = Transport(openai.OpenAI(base_url=url, api_key="any"), max_concurrency=4, cache=cache)
body = {"model": "m", "max_tokens": 1}
bodies = [{**body, "messages": [{"role": "user", "content": str(n)}]} for n in range(count)]
requests = [Request("/chat/completions", body, 10) for body in bodies]
print("ready", flush=True)
replies = transport.send(requests)
print(sum(reply.cached for reply in replies))
"""


def child(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-c", CHILD, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("fault", [slow(60.0), rate_limited(retry_after=60)], ids=["answers late", "asks to wait"])
def test_ctrl_c_ends_a_run_soon(fault: Act) -> None:
    with FaultServer(script([], then=fault)) as server:
        process = child(server.url, "", 20)
        until(lambda: server.at_once > 0)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert "KeyboardInterrupt" in errors


def test_kill_9_loses_no_answer_that_came(tmp_path: Path) -> None:
    cache = tmp_path / "answers.sqlite"
    with FaultServer(latency=0.02, honours_keys=False) as server:
        process = child(server.url, cache, 80)
        until(lambda: len(server.billed) > 25)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        billed = len(server.billed)
        output, _ = child(server.url, cache, 80).communicate(timeout=60)
        assert billed - 4 <= int(output) <= billed
        assert server.billed_twice() <= 4
        assert len({seen.digest for seen in server.billed}) == 80


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()
