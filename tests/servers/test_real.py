"""The real servers start, answer, fail with their log, and leave nothing running."""

import json
import os
import urllib.request

import pytest

from . import real, shared


def ask(server, path, body):
    """The plain reply of a server, without any library in between."""
    request = urllib.request.Request(
        server.base_url + path,
        json.dumps(body | {"model": server.model}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
        return json.load(reply)


@pytest.mark.parametrize("kind", shared.KINDS)
def test_a_real_server_lists_log_probabilities_on_both_endpoints(kind):
    server = shared.server(kind)
    common = {"max_tokens": 1, "temperature": 1.0}
    plain = ask(server, "/completions", {"prompt": "Answer:", "logprobs": 3, **common})
    talk = {"messages": [{"role": "user", "content": "which?"}], "logprobs": True, "top_logprobs": 3}
    chat = ask(server, "/chat/completions", talk | common)
    assert plain["choices"][0]["logprobs"]
    assert len(chat["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) in (3, 4)


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
