"""A small server that does what no real server does on demand: 429 storms, half bodies, lost connections, odd values.

In a test::

    with FaultServer(script([rate_limited(retry_after=0.01), dropped(), OK])) as server:
        client = openai.OpenAI(base_url=server.url, api_key="any")

By itself, from the root of the repository::

    python -m tests.servers.fault --port 8765 --seed 1 --limited 0.2 --dropped 0.05 --cut 0.02 --log bills.jsonl

The acts are in fault_acts.py, the replies in fault_replies.py.
A plan is a function of the number of the request (0, 1, ...) to what the server does with it. What was computed is
billed, once for each Idempotency-Key where keys are honoured; the bills can be read afterwards.
"""

import argparse
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from . import fault_events
from .fault_acts import OK, Act, Plan, cut, dropped, rate_limited, script, shares
from .fault_replies import BadRequest, Model


@dataclass(frozen=True)
class Seen:
    """One request that reached the server."""

    number: int
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    """Names in lower case."""
    billed: bool
    """Whether it was computed now; a repeated Idempotency-Key that is honoured is not."""

    @property
    def digest(self) -> str:
        """Hash of path and body: what was asked, whatever the key says."""
        return hashlib.sha256(json.dumps([self.path, self.body], sort_keys=True).encode()).hexdigest()


class FaultServer:
    """The server on a free port of the loopback address; use it in a `with` statement."""

    def __init__(
        self,
        plan: Plan | None = None,
        model: Model | None = None,
        *,
        reply: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None,
        honours_keys: bool = True,
        latency: float = 0.0,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        """Listen; `reply` takes path and body and takes the place of the model, `latency` is added to each request."""
        self.plan = plan or script([OK])
        self.reply = reply or (model or Model()).reply
        self.seen: list[Seen] = []
        self.honours_keys = honours_keys
        self.latency = latency
        self.left_by_client = False
        """Whether the client ended a stream that had not come to its end."""
        self.at_once = 0
        """Most requests that were handled at the same time."""
        self._log = log
        self._now = 0
        self._lock = threading.Lock()
        self._kept: dict[str, bytes] = {}
        self._number = 0
        server = self

        class Bound(_Handler):
            fault = server

        self._http = _Http(("127.0.0.1", port), Bound)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The `base_url` for a client."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def billed(self) -> list[Seen]:
        """The requests that were computed."""
        with self._lock:
            return [seen for seen in self.seen if seen.billed]

    @property
    def in_flight(self) -> int:
        """How many requests are being handled."""
        with self._lock:
            return self._now

    def billed_twice(self) -> int:
        """Return how many computed requests were computed before."""
        digests = [seen.digest for seen in self.billed]
        return len(digests) - len(set(digests))

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def enter(self) -> tuple[int, Act]:
        """Count a request in, and return its number and what to do with it."""
        with self._lock:
            number = self._number
            self._number += 1
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        return number, self.plan(number)

    def leave(self) -> None:
        """Count a request out."""
        with self._lock:
            self._now -= 1

    def answer(self, number: int, path: str, body: Mapping[str, Any], headers: Mapping[str, str], act: Act) -> bytes:
        """Return the reply's body, and bill it where it is computed: not for a fault that comes before."""
        computes = act.status == 200 and act.drop != "before"
        key = headers.get("idempotency-key") if self.honours_keys else None
        data = b""
        with self._lock:
            kept = self._kept.get(key or "")
        try:
            if computes:
                data = kept or json.dumps((act.edit or _same)(self.reply(path, body))).encode()
        except BadRequest:
            computes = False
            raise
        finally:
            with self._lock:
                seen = Seen(number, path, body, headers, computes and kept is None)
                self.seen.append(seen)
                if key and computes:
                    self._kept.setdefault(key, data)
                self._write(seen)
        return data

    def _write(self, seen: Seen) -> None:
        if self._log is not None:
            line = {"number": seen.number, "path": seen.path, "digest": seen.digest, "billed": seen.billed}
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the receipt of its headers
    fault: FaultServer

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        if len(sent) < length:  # the client was killed before it had sent all: nothing was asked
            self.close_connection = True
        else:
            self._handle(json.loads(sent or b"{}"))

    def do_GET(self) -> None:
        self._handle({})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _handle(self, body: Mapping[str, Any]) -> None:
        number, act = self.fault.enter()
        try:
            self._act(number, body, act)
        finally:
            self.fault.leave()

    def _act(self, number: int, body: Mapping[str, Any], act: Act) -> None:
        time.sleep(self.fault.latency + act.delay)
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.split("?")[0].removeprefix("/v1")
        try:
            data = self.fault.answer(number, path, body, headers, act)
        except BadRequest as error:
            self._send(error.status, json.dumps(error.body).encode(), {})
            return
        if act.drop:
            self._hang_up()
        elif act.status != 200:
            told = act.error if isinstance(act.error, str) else json.dumps(act.error)
            key = headers.get("authorization", headers.get("api-key", ""))
            self._send(act.status, told.replace("{key}", key).encode(), act.headers)
        elif body.get("stream"):
            try:
                self._send_events(fault_events.events_of(json.loads(data)), act)
            except ConnectionError:
                self.fault.left_by_client = self.close_connection = True
        else:
            self._send_reply(data, act)

    def _send_events(self, events: Sequence[Mapping[str, Any]], act: Act) -> None:
        """Send the events of a stream; a cut ends it in the middle, in one of several ways."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent: list[Mapping[str, Any] | str] = [*events, "[DONE]"]
        ends = {"json": ['{"choices": [{"delta'], "error": [fault_events.ERROR]}
        if act.cut:
            sent = [*events[: len(events) // 2], *ends.get(act.cut, [])]
        for event in sent:
            data = fault_events.lines_of(event)
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        if act.cut == "wait":
            self.connection.settimeout(10.0)
            self.fault.left_by_client = self.close_connection = self.connection.recv(1) == b""
        elif act.cut == "length":
            self._hang_up()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _send_reply(self, data: bytes, act: Act) -> None:
        if act.cut == "length":
            self._send(200, data[: len(data) // 2], act.headers, promised=len(data))
            self._hang_up()
        elif act.cut == "json":
            self._send(200, data[: len(data) // 2], act.headers)
        elif act.cut == "text":
            self._send(200, b"<html>Bad gateway</html>", act.headers)
        else:
            self._send(200, data, act.headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], promised: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) if promised is None else promised))
        self.send_header("x-request-id", "req_fault")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _same(reply: dict[str, Any]) -> dict[str, Any]:
    return reply


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("limited", "dropped", "cut"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="share of the requests")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds a request")
    parser.add_argument("--no-keys", action="store_true", help="do not honour Idempotency-Key")
    parser.add_argument("--log", type=Path)
    return parser.parse_args()


def main() -> None:
    """Serve until stopped; the first line printed is the base URL."""
    chosen = _arguments()
    acts = [(chosen.limited, rate_limited(0.05)), (chosen.dropped, dropped()), (chosen.cut, cut())]
    plan = shares(chosen.seed, acts)
    with FaultServer(
        plan, honours_keys=not chosen.no_keys, latency=chosen.latency, port=chosen.port, log=chosen.log
    ) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
