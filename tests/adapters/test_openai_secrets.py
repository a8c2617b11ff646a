"""The API key is in the header of the request, and nowhere else: no error, no log, no cache file, no repr has it."""

import logging
import traceback
from pathlib import Path
from typing import Any

import openai
import pytest

from calibwrap.adapters import _openai_transport as module
from calibwrap.adapters._openai_secrets import Redactor, public_url
from calibwrap.adapters._openai_transport import Rejected, Request
from calibwrap.errors import CalibwrapError
from tests.adapters.openai_clients import connected
from tests.servers.fault import FaultServer
from tests.servers.fault_acts import Act, cut, dropped, edited, key_echo, script

KEY = "marker-4f9c-never-to-be-seen-7781"
ASK = Request("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Q?"}]}, 100)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.001)


def error(status: int, message: str, **more: Any) -> Act:
    return Act(status, {"error": {"message": message, **more}})


@pytest.mark.parametrize(
    "fault",
    [
        *(key_echo(status) for status in (400, 401, 402, 403, 404, 405, 408, 409, 422, 429, 500, 501, 503)),
        error(429, "{key}", code="insufficient_quota"),
        error(400, "No", param="{key}"),
        Act(429, {"error": {"message": "{key}"}}, {"Retry-After": "600"}),
        Act(502, "<html>{key}</html>"),
        Act(400, {"detail": "x" * 185 + "{key}"}),
        Act(422, {"detail": [{"loc": ["header", "{key}"], "msg": "bad"}]}),
        edited(lambda reply: {"error": {"message": f"gateway was told {KEY}", "code": 500}}),
        edited(lambda reply: f"no object but {KEY}"),  # type: ignore[arg-type,return-value]
        cut("text"),
        cut("length"),
        dropped(),
    ],
    ids=repr,
)
def test_no_error_and_no_log_shows_the_key(fault: Act, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        FaultServer(script([], then=fault)) as server,
        connected(server.url, KEY, max_retries=1, cache=tmp_path / "answers.sqlite") as transport,
    ):
        with pytest.raises(CalibwrapError) as caught:
            transport.send([ASK])
        assert KEY in server.seen[0].headers["authorization"], "the server must have seen what may not come back"
        shown = [*traceback.format_exception(caught.value), repr(caught.value), repr(transport)]
    if isinstance(caught.value, Rejected):
        shown.extend((caught.value.message, str(caught.value.param)))
    for text in (*shown, *map(str, vars(caught.value).values()), caplog.text):
        assert KEY not in text
    everything_without(KEY, tmp_path)


def everything_without(secret: str, folder: Path) -> None:
    """The open and the closed files hold no secret."""
    for path in folder.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


def test_the_cache_has_no_key_though_question_and_answer_had_it(tmp_path: Path) -> None:
    def echo(path: str, body: Any) -> dict[str, Any]:
        return {"model": "m", "system_fingerprint": KEY, "text": f"Bearer {KEY}", "asked": body}

    question = Request("/chat/completions", {"model": "m", "prompt": f"What is {KEY}?"}, 100)
    with FaultServer(reply=echo) as server:
        with connected(server.url, KEY, cache=tmp_path / "answers.sqlite") as transport:
            [reply] = transport.send([question])
            everything_without(KEY, tmp_path)
            assert transport.send([question])[0].cached
        assert server.seen[0].body["prompt"] == question.body["prompt"], "what is sent is what was asked"
    everything_without(KEY, tmp_path)
    assert KEY not in repr(reply)


def test_no_secret_of_any_place_is_shown(tmp_path: Path) -> None:
    places = {
        "password": "pass-11-word-55",
        "query": "query-22-token-66",
        "header": "header-33-token-77",
        "parameter": "param-44-token-88",
    }
    said = error(400, " ".join(places.values()))
    with FaultServer(script([], then=said)) as server:
        base_url = server.url.replace("127.0.0.1", f"user:{places['password']}@127.0.0.1")
        client = openai.OpenAI(
            base_url=f"{base_url}?code={places['query']}",
            api_key=KEY,
            default_headers={"X-Gateway-Token": places["header"]},
            default_query={"key": places["parameter"]},
        )
        clean = Redactor(client).message(" ".join(places.values()))
        cache = tmp_path / "answers.sqlite"
        with connected(base_url, KEY, cache=cache) as transport, pytest.raises(Rejected) as caught:
            transport.send([ASK])
    assert clean == "[secret] [secret] [secret] [secret]"
    assert places["password"] not in "".join(traceback.format_exception(caught.value))
    everything_without(places["password"], tmp_path)


def test_a_renewed_key_is_known() -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="the-first-key-of-all")
    redact = Redactor(client)
    client.api_key = KEY
    assert KEY not in redact.exact(f"now {KEY}")
    assert "first-key" not in redact.exact("before the-first-key-of-all")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Incorrect API key provided: sk-proj-ab****************wxyz.", "Incorrect API key provided: [secret]"),
        ("header was 'Authorization: Bearer abcdefghij123'", "header was 'Authorization: Bearer [secret]'"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_1 expired", "token [secret] expired"),
        ("Use Bearer tokens, or ask for a task-list.", "Use Bearer tokens, or ask for a task-list."),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_errors(text: str, clean: str) -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none")
    assert Redactor(client).message(text) == clean
    assert Redactor(client).exact(text) == text


def test_public_url() -> None:
    assert public_url("http://user@host:8000/v1/") == "http://host:8000/v1"
    assert public_url("https://host/openai?api-key=abc#x") == "https://host/openai"
