"""Settings that cannot work are refused in one sentence, before a client is made or a request is sent."""

from collections.abc import Mapping
from pathlib import Path

import openai
import pytest

import calibwrap as cw
from calibwrap.adapters import openai_api
from calibwrap.adapters.openai_api import OpenAI
from calibwrap.errors import BudgetExceeded, InputError, ModelError, PromptTooLong, ServerError
from tests.servers.fault import FaultServer
from tests.servers.fault_replies import BadRequest, Model, refused

HERE = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither key nor address come from outside, and no finding from another test's server on the same port."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    openai_api._PROBED.clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("top_logprobs", value) for value in (0, 2.5, True, "abc", None)),
        *(("max_requests", value) for value in (-1, 1.5, True, "abc")),
        *(("max_tokens", value) for value in (-1, 0.5, "abc")),
        *(("max_retries", value) for value in (-1, "abc", None)),
        *(("max_concurrency", value) for value in (0, "abc", None)),
        *(("context_length", value) for value in (0, "abc")),
        *(("cache", value) for value in (True, "", 7)),
        *(("timeout", value) for value in ("abc", True, 0, -1.0, float("nan"), float("inf"))),
        *(("default_headers", value) for value in ("abc", ["a"], {"X-A": "b\nc"})),
        *(("default_query", value) for value in ("abc", 3)),
        *(("base_url", value) for value in (8000, True, "", "127.0.0.1:80", "localhost:80/v1", "ftp://h/v1")),
        *(("base_url", value) for value in ("http://", "http://h:99999/v1", "http://[::1", "http://a b/v1")),
        ("azure_endpoint", "x.example.org"),
        ("organization", 5),
        ("endpoint", ["chat"]),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    options: dict[str, object] = {"base_url": HERE, "api_key": "any", name: value}
    if name == "azure_endpoint":
        del options["base_url"]
    with pytest.raises(InputError, match=f"'{name}'") as caught:
        cw.wrap("openai:m", **options)
    others = {"top_logprobs", "endpoint", "model", "max_retries", "max_concurrency"} - {name}
    assert not any(f"'{other}'" in str(caught.value) for other in others), "one sentence for one option"


def test_values_of_the_right_kind_are_taken() -> None:
    lm = OpenAI.load("m", base_url=HERE, timeout=None, max_requests=0, max_tokens=None, default_headers={"X-A": "b c"})
    lm.close()
    assert (lm.model, lm.usage()["requests"]) == ("m", 0)


@pytest.mark.parametrize("key", ["sk-SECRET\nNEWLINE", "sk-SECRET ", "sk-SECR\u00c9T", "sk-SECRET\x00", ""])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'api_key' must be printable ASCII") as caught:
        OpenAI.load("m", base_url=HERE, api_key=key)
    assert "SECR" not in f"{caught.value!r}"
    if "\x00" in key or not key:
        return
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="'OPENAI_API_KEY' must be") as caught:
        OpenAI.load("m", base_url=HERE)
    assert "SECR" not in f"{caught.value!r}"
    with openai.OpenAI(base_url=HERE, api_key=key) as client, pytest.raises(InputError, match="ASCII"):
        cw.wrap(client, model="m")


def test_a_key_of_digits_is_to_be_quoted() -> None:
    with pytest.raises(InputError, match="Got int; on the command line") as caught:
        OpenAI.load("m", base_url=HERE, api_key=987654)  # type: ignore[arg-type]
    assert "987654" not in str(caught.value)


def test_a_function_may_give_the_key() -> None:
    lm = OpenAI.load("m", base_url=HERE, api_key=lambda: "any")  # type: ignore[arg-type,return-value]
    lm.close()
    assert lm.model == "m"


def test_an_address_from_outside_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:80/v1")
    with pytest.raises(InputError, match=r"'OPENAI_BASE_URL'.*put http"):
        OpenAI.load("m")


def test_an_address_is_shown_without_its_password() -> None:
    with pytest.raises(InputError, match="'host:x/v1'") as caught:
        OpenAI.load("m", base_url="http://me:PASS@host:x/v1?code=QUERY")
    assert caught.value.__cause__ is None
    assert not {"PASS", "QUERY"} & set(str(caught.value).replace(":", " ").replace("?", " ").split())


def test_a_client_of_a_bad_address_is_refused() -> None:
    with openai.OpenAI(base_url="127.0.0.1:80", api_key="any") as client, pytest.raises(InputError, match="http://"):
        cw.wrap(client, model="m")


@pytest.mark.parametrize(
    ("kind", "words"),
    [(openai.AsyncOpenAI, r"pass an openai\.OpenAI with the same"), (openai.AsyncAzureOpenAI, r"openai\.AzureOpenAI")],
)
def test_an_asynchronous_client_has_a_synchronous_twin(kind: type, words: str) -> None:
    more = {"azure_endpoint": "https://x.example.org", "api_version": "1"} if "Azure" in kind.__name__ else {}
    with pytest.raises(InputError, match=words):
        cw.wrap(kind(api_key="any", **more), model="m")


def test_a_client_needs_a_models_name() -> None:
    with (
        openai.OpenAI(base_url=HERE, api_key="any") as client,
        pytest.raises(InputError, match=r"wrap\(client, model="),
    ):
        cw.wrap(client)


def test_an_option_that_nobody_has_is_named_with_a_near_one() -> None:
    with pytest.raises(InputError, match=r"'top_logprob' is no option.*Did you mean 'top_logprobs'"):
        cw.wrap("openai:m", base_url=HERE, top_logprob=5)
    with pytest.raises(InputError, match="'base_url' or 'azure_endpoint'"):
        OpenAI.load("m", base_url=HERE, azure_endpoint="https://x.example.org")
    with pytest.raises(ServerError, match="api_version"):
        OpenAI.load("m", azure_endpoint="https://x.example.org", api_key="any")


def test_a_closed_model_says_so() -> None:
    with FaultServer() as server:
        lm = cw.wrap("openai:m", base_url=server.url)
        lm.adapter.next_token(["Sky?"], top=5)
        lm.close()
        lm.close()
        with pytest.raises(ModelError, match="was closed"):
            lm.choose("Sky?", ["blue", "green"])
        with pytest.raises(ModelError, match="was closed"):
            next(iter(lm.stream("Sky?")))
        with openai.OpenAI(base_url=server.url, api_key="any") as client:
            lm = cw.wrap(client, model="m")
        with pytest.raises(ModelError, match="was closed"):
            lm.choose("Sea?", ["blue", "green"])
        lm.close()


def test_half_a_character_in_a_prompt_is_named() -> None:
    words = r"A prompt holds '\\ud800'.*UTF-8"
    with (
        FaultServer() as server,
        cw.wrap("openai:m", base_url=server.url) as lm,
        pytest.raises(InputError, match=words),
    ):
        lm.choose("A \ud800?", ["blue", "green"])


@pytest.mark.parametrize("limit", ["max_tokens", "max_requests"])
def test_a_budget_of_nothing_sends_nothing(limit: str) -> None:
    with FaultServer() as server:
        with pytest.raises(BudgetExceeded, match=f"budget of {limit}=0 is used up") as caught:
            cw.wrap("openai:m", base_url=server.url, **{limit: 0})
        assert "not kept" not in str(caught.value)
        assert not server.seen


def test_what_was_paid_and_is_not_kept_is_counted() -> None:
    with FaultServer() as server:
        with pytest.raises(BudgetExceeded, match=r"1 answer that came is not kept.*command line --set cache=FILE"):
            cw.wrap("openai:m", base_url=server.url, max_requests=2)  # the list of models is no answer
        assert len(server.seen) == 2


def test_a_cached_run_asks_again_only_for_what_was_refused(tmp_path: Path) -> None:
    with FaultServer() as server:
        asked, billed = [], []
        for _ in range(3):
            openai_api._PROBED.clear()
            before = len(server.seen), len(server.billed)
            with cw.wrap("openai:m", base_url=server.url, cache=tmp_path / "answers.sqlite") as lm:
                lm.adapter.next_token(["Q?"], top=5)
            asked.append(len(server.seen) - before[0])
            billed.append(len(server.billed) - before[1])
    assert asked[0] > billed[0] > 5
    assert billed[1:] == [0, 0]
    assert asked[1] == asked[2] == asked[0] - billed[0]


@pytest.mark.parametrize("end", ["", "."])
def test_a_servers_sentence_ends_before_the_advice(end: str) -> None:
    words = r"400 tokens were sent\. Shorten it\.$"
    message = f"The maximum context length is 256 tokens, and 400 tokens were sent{end}"

    def reply(path: str, body: Mapping[str, object]) -> dict[str, object]:
        if "long" in str(body):
            raise BadRequest(*refused("messages", message))
        return Model().reply(path, body)

    with (
        FaultServer(reply=reply) as server,
        cw.wrap("openai:m", base_url=server.url) as lm,
        pytest.raises(PromptTooLong, match=words),
    ):
        lm.adapter.next_token(["long"], top=1)
