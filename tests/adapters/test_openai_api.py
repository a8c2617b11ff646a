"""The OpenAI adapter against a server that misbehaves on demand: O1 to O12, and what the probe makes of it."""

import json
import math
from functools import partial

import numpy as np
import openai
import pytest

import calibwrap as cw
from calibwrap.adapters import openai_api
from calibwrap.adapters.openai_api import OpenAI
from calibwrap.base import Sampling
from calibwrap.capabilities import Provides
from calibwrap.errors import (
    CalibrationWarning,
    CapabilityError,
    InputError,
    LogprobsUnavailable,
    PromptTooLong,
    SemanticsMismatch,
    ServerError,
)
from calibwrap.questions import Chat
from tests.servers import fault_acts as acts
from tests.servers.fault import FaultServer
from tests.servers.fault_replies import VOCABULARY, BadRequest, Model, logprobs, refused

HELLO = Chat((("user", "Hello"),))
CHAT_ONLY = ("/chat/completions",)


@pytest.fixture(autouse=True)
def _fresh_findings():
    """What one test's server showed is not what another's on the same port shows."""
    openai_api._PROBED.clear()


@pytest.fixture(scope="module")
def client():
    """One pool of connections for all: making one takes longer than most tests."""
    with openai.OpenAI(api_key="any-key-at-all", base_url="http://127.0.0.1:9/v1") as made:
        yield made


@pytest.fixture
def serve(client):
    """Start a fault server, and return it with an adapter; all are ended afterwards."""
    started = []

    def start(model=None, *, reply=None, plan=None, **options):
        server = FaultServer(plan, model, reply=reply).__enter__()
        adapter = OpenAI(client.copy(base_url=server.url), model=options.pop("name", "m"), **options)
        started.append((server, adapter))
        return server, adapter

    yield start
    for server, adapter in started:
        adapter.close()
        server.__exit__()


def every(edit):
    """A plan that changes each reply."""
    return acts.script([], then=acts.edited(lambda reply: edit(reply) if "choices" in reply else reply))


def refusing(names, model=None, status=400, say="Unsupported parameter: '{name}'."):
    """Return a reply function that refuses bodies with any of `names`, one at a time."""
    inner = (model or Model()).reply

    def reply(path, body):
        for name in names:
            if name in body:
                raise BadRequest(*refused(name, say.format(name=name), status))
        return inner(path, body)

    return reply


@pytest.mark.parametrize(
    "edit",
    [acts.null_logprobs, acts.absent_logprobs, acts.empty_logprobs, acts.zero_values, acts.sentinel_values],
    ids=lambda edit: edit.__name__,
)
def test_o1_silently_missing_logprobs_are_found_before_the_first_question(serve, edit):
    _, adapter = serve(Model(endpoints=CHAT_ONLY), plan=every(edit))
    with pytest.raises(LogprobsUnavailable, match=r"127\.0\.0\.1"):
        cw.wrap(adapter)


def test_o2_thinking_is_switched_off_where_it_stands_in_the_way(serve):
    def reply(path, body):
        found = Model(endpoints=CHAT_ONLY).reply(path, body)
        if body.get("chat_template_kwargs") != {"enable_thinking": False}:
            found["choices"][0]["message"]["reasoning_content"] = "Hm"
        return found

    _, adapter = serve(reply=reply)
    assert adapter.probe()["Thoughts before the answer"] == "switched off by request"
    assert adapter.next_token([HELLO], top=3)[0].logprobs.shape == (1, 3)


def test_o2_thoughts_that_stay_are_refused(serve):
    def reply(path, body):
        found = Model(endpoints=CHAT_ONLY).reply(path, body)
        found["choices"][0]["message"]["reasoning_content"] = "Hm, let me see"
        return found

    _, adapter = serve(reply=reply)
    with pytest.raises(LogprobsUnavailable, match="thinks before it answers"):
        _ = adapter.provides


def test_o4_what_a_list_does_not_show_is_bounded(serve):
    _, adapter = serve()
    for prompt in ("one", "two", "three"):
        (found,) = adapter.next_token([prompt], top=20)
        truth = np.exp(logprobs(prompt).astype(np.float32).astype(float))
        shown = [VOCABULARY.index(text) for text in adapter.token_bytes(found.ids[0].tolist()) if text in VOCABULARY]
        hidden = np.delete(truth, shown)
        assert hidden.sum() <= np.exp(found.log_tail[0]) + 1e-9
        assert hidden.max() <= np.exp(found.log_cut[0]) + 1e-9
        assert np.exp(found.logprobs[0, 0]) == pytest.approx(truth.max(), rel=1e-6)


def test_o5_reordered_lists_with_null_bytes_say_the_same(serve):
    _, plain = serve()
    _, odd = serve(Model(bytes_told=False), plan=every(acts.reordered))
    for prompt in ("one", HELLO):
        (one,), (other,) = plain.next_token([prompt], top=5), odd.next_token([prompt], top=5)
        np.testing.assert_array_equal(one.logprobs, other.logprobs)
        assert plain.token_bytes(one.ids[0]) == odd.token_bytes(other.ids[0])


def test_o6_measuring_is_at_temperature_1_without_truncation(serve):
    server, adapter = serve()
    _ = adapter.provides
    before = len(server.seen)
    adapter.next_token(["one", HELLO], top=3)
    for seen in server.seen[before:]:
        wanted = {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": 1,
        }
        assert wanted.items() <= seen.body.items()


def test_o6_values_that_follow_the_temperature_are_found_and_only_used_at_1(serve):
    _, raw = serve()
    _, follows = serve(Model(follows_temperature=True))
    assert raw.fingerprint().semantics == "raw"
    assert follows.fingerprint().semantics == "raw at temperature 1 only"
    assert "right at temperature 1" in follows.probe()["Sampling temperature"]
    (one,), (other,) = raw.next_token(["p"], top=5), follows.next_token(["p"], top=5)
    np.testing.assert_array_equal(one.logprobs, other.logprobs)
    follows.generate(["p"], Sampling(max_tokens=2, seed=1))
    with pytest.raises(SemanticsMismatch, match=r"follow the sampling temperature.*temperature=1\.0"):
        follows.generate(["p"], Sampling(max_tokens=2, temperature=0.5))
    raw.generate(["p"], Sampling(max_tokens=2, temperature=0.5, seed=1))


def test_o7_settings_that_are_refused_are_left_out_and_logprobs_never(serve):
    server, adapter = serve(reply=refusing(["top_k", "min_p", "repeat_penalty", "seed"]))
    assert adapter.probe()["Refused settings"] == "min_p, repeat_penalty, top_k"
    adapter.generate(["one"], Sampling(max_tokens=2, seed=4))
    last = server.seen[-1].body
    assert "seed" not in last
    assert last["logprobs"]


def test_o7_all_settings_that_one_refusal_names_are_left_out_at_once(serve):
    def reply(path, body):
        known = {"top_k", "min_p", "typical_p", "repetition_penalty", "repeat_penalty"} & set(body)
        if known:
            message = f"Unrecognized request arguments supplied: {', '.join(sorted(known))}"
            raise BadRequest(*refused(None, message))
        return Model(endpoints=CHAT_ONLY).reply(path, body)

    server, adapter = serve(reply=reply)
    _ = adapter.provides
    assert sum(seen.path == "/chat/completions" and not seen.billed for seen in server.seen) == 1


def test_o7_a_length_is_given_under_the_name_that_is_accepted(serve):
    say = "Unsupported parameter: '{name}' is not supported with this model. Use 'max_completion_tokens' instead."
    server, adapter = serve(reply=refusing(["max_tokens"], Model(endpoints=CHAT_ONLY), say=say))
    adapter.next_token([HELLO], top=3)
    assert server.seen[-1].body["max_completion_tokens"] == 1


def test_o7_a_model_that_wants_its_own_temperature_is_measured_at_it(serve):
    say = "Unsupported value: '{name}' does not support this value. Only the default (1) is supported."
    _, adapter = serve(reply=refusing(["temperature"], Model(endpoints=CHAT_ONLY), say=say))
    assert adapter.next_token([HELLO], top=3)[0].logprobs.shape == (1, 3)
    assert adapter.probe()["Sampling temperature"] == "cannot be set; everything is at 1"
    with pytest.raises(CapabilityError, match=r"temperature=1\.0"):
        adapter.generate([HELLO], Sampling(temperature=0.0))


@pytest.mark.parametrize(
    "act",
    [acts.no_logprobs_403(), acts.azure_refusal("logprobs"), acts.refusal("logprobs", "Unsupported: 'logprobs'.")],
    ids=["403", "422", "400"],
)
def test_o7_refused_logprobs_are_no_matter_of_the_key(serve, act):
    def reply(path, body):
        if "logprobs" in body:
            raise BadRequest(act.status, act.error)
        return Model(endpoints=CHAT_ONLY).reply(path, body)

    _, adapter = serve(reply=reply)
    with pytest.raises(LogprobsUnavailable, match="no matter of the key"):
        _ = adapter.provides


def test_o7_a_longer_list_than_allowed_is_asked_shorter(serve):
    _, adapter = serve(Model(cap=5), top_logprobs=40)
    assert adapter.provides.top == 5
    with pytest.raises(CapabilityError, match="A list of 6 tokens"):
        adapter.next_token(["one"], top=6)


def test_o8_limits_and_lost_connections_do_not_change_the_answers(serve):
    _, calm = serve()
    wanted = calm.next_token([f"p{index}" for index in range(12)], top=3)
    rough = acts.shares(3, [(0.2, acts.rate_limited(0.01)), (0.1, acts.dropped())])
    _, adapter = serve(plan=rough)
    for one, other in zip(wanted, adapter.next_token([f"p{index}" for index in range(12)], top=3), strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)
    assert adapter.usage()["retries"] > 0


def test_o9_a_second_run_is_free_and_lists_of_other_lengths_are_other_requests(serve, tmp_path):
    server, first = serve(cache=tmp_path / "answers.sqlite")
    wanted = first.next_token(["one", HELLO], top=7)
    first.close()
    openai_api._PROBED.clear()
    second = OpenAI.load("m", base_url=server.url, cache=tmp_path / "answers.sqlite")
    billed = len(server.billed)
    for one, other in zip(wanted, second.next_token(["one", HELLO], top=7), strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)
    assert len(server.billed) == billed
    third = OpenAI.load("m", base_url=server.url, cache=tmp_path / "answers.sqlite", top_logprobs=4)
    third.next_token(["one"], top=4)
    assert len(server.billed) > billed
    second.close()
    third.close()


def test_o9_draws_without_a_seed_are_never_kept(serve, tmp_path):
    server, adapter = serve(cache=tmp_path / "answers.sqlite")
    _ = adapter.provides
    for sampling, fresh in (
        (Sampling(max_tokens=2), 2),
        (Sampling(max_tokens=2, seed=5), 1),
        (Sampling(temperature=0), 1),
    ):
        before = len(server.billed)
        adapter.generate(["one"], sampling)
        adapter.generate(["one"], sampling)
        assert len(server.billed) - before == fresh


def test_o9_the_fingerprint_names_the_version(serve):
    _, adapter = serve(Model(fingerprint="fp_7", serves="m-2026-01-01"))
    assert adapter.fingerprint().revision == "m-2026-01-01 fp_7"
    assert adapter.fingerprint() == adapter.fingerprint()


def test_o9_a_server_build_is_shown_and_is_no_part_of_the_model(serve):
    _, adapter = serve(Model(fingerprint="b0-unknown"))
    assert adapter.fingerprint().revision == ""
    assert adapter.probe()["Version"] == "b0-unknown"


def ending_first(model, ends):
    """Return a reply function whose draws end at once where `ends(body)`, as llama_cpp.server shows that."""

    def reply(path, body):
        found = model.reply(path, body)
        if path == "/models" or not ends(body):
            return found
        (choice,) = found["choices"]
        choice["finish_reason"] = "stop"
        if path == "/completions":
            empty = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            return {**found, "choices": [{**choice, "text": "", "logprobs": empty}]}
        message = {"role": "assistant", "content": ""}
        return {**found, "choices": [{**choice, "message": message, "logprobs": {"content": []}}]}

    return reply


def test_an_answer_that_ends_at_once_is_drawn_again(serve):
    model = Model(endpoints=("/chat/completions", "/completions", "/models"))
    _, adapter = serve(reply=ending_first(model, lambda body: body.get("seed") in (None, 1)))
    assert (adapter.provides.chat, adapter.provides.plain) == (True, True)
    (found,) = adapter.next_token(["Hello"], top=4)
    np.testing.assert_allclose(found.logprobs[0], np.sort(logprobs("Hello"))[::-1][:4], rtol=1e-6)


def test_a_model_that_always_ends_at_once_is_told_why(serve):
    model = Model(endpoints=("/chat/completions", "/completions", "/models"))
    _, adapter = serve(reply=ending_first(model, lambda body: True))
    with pytest.raises(LogprobsUnavailable, match="ended its answer at once") as caught:
        _ = adapter.provides
    assert "thoughts" not in str(caught.value)


def test_a_model_that_another_one_stands_in_for_is_warned_of(serve):
    _, adapter = serve(Model(serves="large"), name="nope")
    with pytest.warns(CalibrationWarning, match=r"lists no model 'nope', and 'large' answers in its place"):
        findings = adapter.probe()
    assert findings["Model"] == "not among those that the server lists (large); 'large' answers in its place"


def test_an_alias_that_is_listed_is_no_stand_in(serve):
    def reply(path, body):
        listed = {"data": [{"id": "m-2026-01-01"}, {"id": "m"}]}
        return listed if path == "/models" else Model(serves="m-2026-01-01").reply(path, body)

    _, adapter = serve(reply=reply)
    assert adapter.probe()["Model"] == "listed by the server"


def test_o10_a_wrong_name_is_answered_with_the_right_ones(serve):
    def reply(path, body):
        if path == "/models":
            return {"data": [{"id": "small"}, {"id": "large"}]}
        raise BadRequest(*refused("model", "The model `old` does not exist.", 404))

    _, adapter = serve(reply=reply, name="old")
    with pytest.raises(ServerError, match=r"has no model 'old'\. It lists: small, large\.$"):
        _ = adapter.provides


@pytest.mark.parametrize("status", [400, 403])
def test_what_the_endpoints_say_is_told_though_the_name_is_not_listed(serve, status):
    def reply(path, body):
        if path == "/models":
            return {"data": [{"id": "small"}, {"id": "large"}]}
        raise BadRequest(status, {"error": {"message": "Blocked by the firewall"}})

    _, adapter = serve(reply=reply, name="old")
    said = rf"model 'old', which is not among those that it lists \(small, large\)\..*{status}: Blocked by the firewall"
    with pytest.raises(ServerError, match=said):
        _ = adapter.provides


def test_an_address_without_v1_is_guessed_and_said_once(serve):
    def reply(path, body):
        raise BadRequest(404, {"error": {"message": "Not Found."}})

    _, adapter = serve(reply=reply)
    with pytest.raises(ServerError, match=r"'base_url' usually ends in /v1") as caught:
        _ = adapter.provides
    assert str(caught.value).count("Not Found") == 1


def test_another_kind_of_reply_is_told_without_internals(serve):
    _, adapter = serve(reply=lambda path, body: {"content": "x", "tokens": []})
    with pytest.raises(ServerError, match=r"without 'choices'.*usually ends in /v1") as caught:
        _ = adapter.provides
    assert "KeyError" not in str(caught.value)


def test_o10_a_model_that_is_gone_is_named(serve):
    def reply(path, body):
        raise BadRequest(*refused("model", "The model `old` does not exist.", 404))

    _, adapter = serve(reply=reply, name="old")
    with pytest.raises(ServerError, match=r"no endpoint for the model 'old'.*does not exist.*retired"):
        cw.wrap(adapter)


def test_o11_n_at_once_where_it_is_allowed(serve):
    server, adapter = serve()
    _ = adapter.provides
    before = len(server.seen)
    (group,) = adapter.generate([HELLO], Sampling(n=5, max_tokens=3, seed=2))
    assert (len(group), len(server.seen) - before) == (5, 1)
    assert len({tuple(one.scores.chosen.tolist()) for one in group}) > 1


def test_o11_one_by_one_with_a_seed_each_where_n_is_refused(serve):
    say = "Value must be between 1 <= value <= 1 for '{name}'"
    server, adapter = serve(reply=refusing(["n"], say=say))
    groups = adapter.generate([HELLO, "two"], Sampling(n=3, max_tokens=3, seed=10))
    assert [len(group) for group in groups] == [3, 3]
    seeds = [seen.body["seed"] for seen in server.billed if seen.path == "/chat/completions" and "seed" in seen.body]
    assert sorted(seeds) == [10, 11, 12]


def test_o11_a_server_that_ignores_n_is_asked_again(serve):
    def reply(path, body):
        return Model().reply(path, {name: value for name, value in body.items() if name != "n"})

    _, adapter = serve(reply=reply)
    (group,) = adapter.generate([HELLO], Sampling(n=3, max_tokens=3))
    assert len(group) == 3


def test_o12_responses_where_chat_has_no_logprobs(serve):
    def reply(path, body):
        found = Model(endpoints=("/chat/completions", "/responses")).reply(path, body)
        return acts.null_logprobs(found) if path == "/chat/completions" else found

    server, adapter = serve(reply=reply)
    assert adapter.provides.chat
    assert not adapter.provides.plain
    assert "Responses" in adapter.probe()["Endpoints"]
    (found,) = adapter.next_token(["Hello"], top=4)
    truth = np.sort(logprobs(json.dumps([{"role": "user", "content": "Hello"}])))[::-1]
    np.testing.assert_allclose(found.logprobs[0], truth[:4], rtol=1e-6)
    assert server.seen[-1].body["include"] == ["message.output_text.logprobs"]
    ((completion,),) = adapter.generate([HELLO], Sampling(max_tokens=3))
    assert (len(completion.scores), completion.finish) == (3, "length")


def test_o12_responses_that_want_log_probabilities_switched_on(serve):
    def reply(path, body):
        if path == "/responses" and not body.get("logprobs"):
            raise BadRequest(*refused(None, "top_logprobs requires logprobs to be set to true", 400))
        return Model(endpoints=("/responses",)).reply(path, body)

    server, adapter = serve(reply=reply, endpoint="responses")
    assert adapter.provides.top == 20
    assert server.seen[-1].body["logprobs"] is True


def test_o12_responses_that_nobody_asked_are_named(serve):
    _, adapter = serve()
    assert adapter.probe()["Not asked"] == "Responses, since chat completions give log-probabilities"
    assert adapter.probe()["Not usable"] == "none of those asked"


def test_o12_responses_without_their_logprobs_are_refused(serve):
    def reply(path, body):
        return Model(endpoints=("/responses",)).reply(path, {**body, "include": []})

    _, adapter = serve(reply=reply, endpoint="responses")
    with pytest.raises(LogprobsUnavailable, match="empty list"):
        _ = adapter.provides


def test_what_is_provided_is_what_was_seen(serve):
    _, adapter = serve(max_concurrency=3)
    wanted = Provides(top=20, token_bytes=True, chat=True, plain=True, streams=True, context_length=4096, batch_size=12)
    assert adapter.provides == wanted


def test_a_completions_only_server_takes_no_chats(serve):
    _, adapter = serve(Model(endpoints=("/completions",)))
    assert adapter.provides.plain
    assert not adapter.provides.chat
    with pytest.raises(CapabilityError, match="chat"):
        adapter.generate([HELLO], Sampling(max_tokens=1))


def test_a_chat_only_server_reads_plain_text_as_a_message(serve):
    server, adapter = serve(Model(endpoints=CHAT_ONLY))
    adapter.next_token(["Hello"], top=2)
    assert server.seen[-1].body["messages"] == [{"role": "user", "content": "Hello"}]
    assert not adapter.provides.plain


def test_the_probe_is_asked_once_a_process(serve):
    server, adapter = serve()
    _ = adapter.provides
    count = len(server.seen)
    again = OpenAI.load("m", base_url=server.url)
    assert again.provides == adapter.provides
    assert len(server.seen) == count == 9
    again.close()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda a: a.next_token(["x"], ids=[[1]]), CapabilityError),
        (lambda a: a.next_token(["x"]), CapabilityError),
        (lambda a: a.next_token(["x"], top=0), InputError),
        (lambda a: a.tokenize("x"), CapabilityError),
        (lambda a: a.score(["x"], [["y"]]), CapabilityError),
        (lambda a: a.generate(["x"], Sampling(top=None)), CapabilityError),
        (lambda a: a.generate([Chat((("user", "x"),), prefix="So")], Sampling()), CapabilityError),
        (lambda a: a.decide([cw.Question("x", ["a", "b"])]), CapabilityError),
    ],
)
def test_what_a_server_cannot_do_is_refused_by_name(serve, call, kind):
    _, adapter = serve()
    with pytest.raises(kind):
        call(adapter)


def test_a_prompt_that_is_too_long_is_named(serve):
    def reply(path, body):
        if len(json.dumps(body)) > 2000:
            message = "This model's maximum context length is 256 tokens. However, you requested 400."
            raise BadRequest(*refused("messages", message))
        return Model().reply(path, body)

    _, adapter = serve(reply=reply)
    with pytest.raises(PromptTooLong, match="256 tokens"):
        adapter.next_token(["short", "long " * 500], top=1)


def test_a_decision_endpoint_is_read(serve):
    def reply(path, body):
        if path == "/decisions":
            values = [choice["value"] for choice in body["questions"][0]["choices"]]
            shares = [{"value": value, "probability": 1 / len(values)} for value in values]
            return {"answers": [{"type": "choice", "probabilities": shares}]}
        raise BadRequest(404, {"error": {"message": "Not found"}})

    _, adapter = serve(reply=reply)
    assert adapter.provides.decides
    assert adapter.provides.top == 0
    (decided,) = adapter.decide([cw.Question("Which?", ["a", "b"], context="x")])
    assert decided.probabilities == (0.5, 0.5)
    with pytest.raises(CapabilityError, match="decision endpoint only"):
        adapter.generate(["x"], Sampling())


def test_label_readout_through_the_api_has_bounds(serve):
    _, adapter = serve()
    question = cw.Question("Which?", ["w", "x", "y", "z"])
    found = cw.wrap(adapter).scores([question, cw.Question("Another?", ["u", "v"])], readout="label")
    assert (found.lower <= found.probabilities + 1e-12).all()
    assert (found.probabilities <= found.upper + 1e-12).all()


def test_a_missing_key_is_named_for_servers_elsewhere_only(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for options in ({}, {"base_url": "https://api.example.org/v1"}):
        with pytest.raises(ServerError, match="set OPENAI_API_KEY"):
            OpenAI.load("m", **options)
    OpenAI.load("m", base_url="http://localhost:9/v1").close()


def test_options_go_to_the_client_and_azure_has_its_own(serve):
    adapter = OpenAI.load("m", base_url="http://localhost:9/v1", timeout=3.5)
    assert adapter._owned.timeout == 3.5
    adapter.close()
    azure = OpenAI.load("d", azure_endpoint="https://x.example.org", api_version="2024-10-21", api_key="k" * 12)
    assert isinstance(azure._owned, openai.AzureOpenAI)
    azure.close()
    with pytest.raises(InputError, match="nonsense"):
        OpenAI.load("m", base_url="http://localhost:9/v1", nonsense=1)


@pytest.mark.parametrize("options", [{"endpoint": "nowhere"}, {"top_logprobs": 0}, {"model": ""}])
def test_wrong_values_are_named(options):
    client = openai.OpenAI(base_url="http://localhost:9/v1", api_key="x")
    with pytest.raises(InputError):
        OpenAI(client, **{"model": "m", **options})


def test_other_clients_are_refused():
    with pytest.raises(InputError, match="AsyncOpenAI"):
        OpenAI(openai.AsyncOpenAI(api_key="x"), model="m")


def test_a_handed_in_client_is_wrapped_and_left_open(serve):
    server, _ = serve()
    client = openai.OpenAI(base_url=server.url, api_key="any-key-at-all")
    lm = cw.wrap(client, model="m")
    assert lm.adapter.provides.top == 20
    lm.adapter.close()
    assert not client.is_closed()
    client.close()


def test_settings_say_what_was_in_force(serve):
    _, adapter = serve(reply=partial(refusing(["min_p"])))
    ((one,),) = adapter.generate(["x"], Sampling(max_tokens=2, temperature=0.7, seed=3))
    assert one.settings["temperature"] == 0.7
    assert "min_p" not in one.settings
    assert one.settings["top_k"] == 0


def test_drawn_tokens_are_listed_beside_their_rivals(serve):
    _, adapter = serve(Model(ids=True))
    ((one,),) = adapter.generate(["x"], Sampling(max_tokens=6, seed=3, top=4))
    for position in range(6):
        truth = logprobs("x", position)
        assert one.scores.chosen_logprob[position] == pytest.approx(truth[VOCABULARY.index(
            adapter.token_bytes([int(one.scores.chosen[position])])[0])], rel=1e-5)  # fmt: skip
        assert math.exp(one.scores.logprobs[position, 0]) == pytest.approx(math.exp(truth.max()), rel=1e-5)


def test_a_control_token_that_is_named_and_not_said_has_no_bytes(serve):
    def reply(path, body):
        found = Model(endpoints=CHAT_ONLY).reply(path, body)
        if body.get("seed") == 8:
            entry = {"token": "</s>", "bytes": list(b"</s>"), "logprob": -0.5}
            found["choices"][0]["logprobs"]["content"].append({**entry, "top_logprobs": [entry]})
            found["choices"][0]["finish_reason"] = "stop"
        return found

    _, adapter = serve(reply=reply)
    ((one,),) = adapter.generate([HELLO], Sampling(max_tokens=3, seed=8))
    parts = adapter.token_bytes(one.scores.chosen.tolist())
    assert (len(parts), parts[-1], one.finish) == (4, b"", "stop")
