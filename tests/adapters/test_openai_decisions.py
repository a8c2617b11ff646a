"""Decision endpoints of both shapes: on a loopback server that speaks them, and on vLLM's real one.

OpenAI's endpoint runs nowhere but at OpenAI, so its shape is held against the SDK's own types. vLLM serves /systemone
for any Qwen3, so a tiny random one is asked for real and compared with a forward pass of Transformers.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai.types.decision import Decision as SdkReply
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import calibwrap as cw
from calibwrap.adapters._openai_decisions import decision_body, find_path, most_tokens, read_decided
from calibwrap.adapters._openai_transport import Rejected
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError, ServerError
from tests.servers import matched, real
from tests.servers.fault import FaultServer
from tests.servers.fault_replies import BadRequest

Reply = Callable[[str, Mapping[str, Any]], dict[str, Any]]
QUESTIONS = [
    cw.Question("Which tone?", ["calm", "angry", "sad"], answer=1, id="tone", context="Go away!"),
    cw.Question("Is it spam?", ["yes", "no"], answer=1, id="spam", context="See you at nine."),
    cw.Question("Which planet is red?", ["Venus", "Mars", "Earth", "Saturn"], answer=1, id="planet"),
]


def truth(judged: str, asked: str, options: list[str]) -> list[float]:
    """Return what the server holds of each option: a function of the texts alone."""
    weights = [hashlib.sha256(f"{judged}|{asked}|{option}".encode()).digest()[0] + 1 for option in options]
    return [weight / sum(weights) for weight in weights]


def not_found() -> BadRequest:
    return BadRequest(404, {"error": {"message": "no such path"}})


def openai_shape(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if path != "/decisions":
        raise not_found()
    TypeAdapter(DecisionCreateParams).validate_python(dict(body))
    answers = []
    for question in body["questions"]:
        options = [choice["value"] for choice in question["choices"]]
        found = list(zip(options, truth(body["input"], question["instructions"], options), strict=True))
        best, confidence = max(found, key=lambda pair: pair[1])
        told = [{"value": value, "probability": probability} for value, probability in reversed(found)]
        answers.append({"type": "choice", "choice": best, "confidence": confidence, "probabilities": told})
    usage = {
        "input_tokens": 40, "output_tokens": 0, "total_tokens": 40,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    reply = {"answers": answers, "model": body["model"], "usage": usage}
    SdkReply.model_validate(reply, strict=True)
    return reply


def systemone_shape(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if path != "/systemone":
        raise not_found()
    answers, told = {}, {}
    for name, question in body["questions"].items():
        options = list(question["criteria"])
        found = truth(body["state"], question["instructions"], options)
        answers[name] = {"type": "choice", "probabilities": dict(zip(options, found, strict=True)), "confidence": 0.5}
        told[name] = {"label_mass": 0.9, "argmax_is_label": True}
    return {"answers": answers, "diagnostics": told, "usage": {"input_tokens": 40, "output_tokens": 1}}


SHAPES = {"/decisions": openai_shape, "/systemone": systemone_shape}


@pytest.fixture(params=SHAPES)
def server(request: pytest.FixtureRequest) -> Iterator[FaultServer]:
    with FaultServer(reply=SHAPES[request.param]) as running:
        yield running


def connect(server: FaultServer, **options: Any) -> cw.CalibratedLM:
    return cw.wrap("openai:judge", base_url=server.url, api_key="any", **options)


def expected(question: cw.Question) -> list[float]:
    if question.context:
        return truth(question.context, question.prompt, list(question.options))
    return truth(question.prompt, cw.Decision().instructions, list(question.options))


def test_options_get_the_probabilities_of_either_shape(server: FaultServer) -> None:
    with connect(server) as lm:
        assert lm.adapter.provides.decides
        scores = lm.scores(QUESTIONS, readout="decision")
    for index, question in enumerate(QUESTIONS):
        row = scores.probabilities[index, : len(question.options)]
        np.testing.assert_allclose(row, expected(question), rtol=1e-12)
    assert scores.is_exact
    told = np.nan if server.reply is openai_shape else 0.9
    np.testing.assert_array_equal(scores.label_mass, [told] * 3)


def planted(value: float) -> list[cw.Question]:
    """Return questions whose answers are drawn from the server's distribution at temperature `value`."""
    random = np.random.default_rng(0)
    questions = []
    for index in range(250):
        bare = cw.Question("Which tone?", ["calm", "angry", "sad"], context=f"Letter {index}.", id=str(index))
        weights = np.array(expected(bare)) ** (1 / value)
        questions.append(replace(bare, answer=int(random.choice(3, p=weights / weights.sum()))))
    return questions


def test_a_temperature_is_fitted_saved_and_used_on_them(server: FaultServer, tmp_path: Path) -> None:
    with connect(server) as lm:
        fitted = lm.fit(planted(2.0), readout="decision")
        fitted.save(tmp_path / "c.json")
        again = lm.with_calibrator(cw.load(tmp_path / "c.json"), strict=True)
        answer = again.choose_batch(QUESTIONS)[0]
    assert isinstance(fitted.calibrator, cw.Temperature)
    assert fitted.calibrator.value == pytest.approx(2.0, rel=0.25)
    assert again.readout.label == "decision"
    weights = np.array(expected(QUESTIONS[0])) ** (1 / fitted.calibrator.value)
    assert list(answer.probabilities.values()) == pytest.approx(weights / weights.sum())


def test_a_repeated_run_costs_nothing(server: FaultServer, tmp_path: Path) -> None:
    with connect(server, cache=tmp_path / "answers.sqlite") as lm:
        first = lm.scores(QUESTIONS, readout="decision")
    billed = len(server.billed)
    with connect(server, cache=tmp_path / "answers.sqlite") as lm:
        again = lm.scores(QUESTIONS, readout="decision")
    assert len(server.billed) == billed
    np.testing.assert_array_equal(first.logprobs, again.logprobs)


def test_a_chat_server_has_no_such_endpoint() -> None:
    with FaultServer() as server, connect(server) as lm:
        assert not lm.adapter.provides.decides
        with pytest.raises(CapabilityError, match="needs decides=True"):
            lm.scores(QUESTIONS, readout="decision")
        with pytest.raises(CapabilityError, match="no decision endpoint"):
            lm.adapter.decide(QUESTIONS)


def broken(answer: Any) -> dict[str, Any]:
    return {"answers": [answer]}


BROKEN: dict[str, dict[str, Any]] = {
    "declined to answer question 'spam'": broken({"type": "refusal", "name": None}),
    r"probabilities of \['yes'\]": broken({"type": "choice", "probabilities": [{"value": "yes", "probability": 1.0}]}),
    r"probabilities of \['no', 'perhaps'\]": {
        "answers": {"question": {"type": "choice", "probabilities": {"no": 0.5, "perhaps": 0.5}}}
    },
    "each must come once": broken(
        {"type": "choice", "probabilities": [{"value": value, "probability": 0.3} for value in ("yes", "no", "no")]}
    ),
    "valid string": broken({"type": "choice", "probabilities": [{"value": True, "probability": 1.0}]}),
    "'choice' or 'refusal'": broken({"type": "predicate", "probability": 0.5}),
    "probabilities of \\[\\]": broken({"type": "choice", "choice": "yes", "confidence": 0.9}),
    "0 came": {"answers": {"other": {"type": "choice", "probabilities": {"yes": 1.0, "no": 0.0}}}},
    "2 came": {"answers": [{"type": "refusal"}, {"type": "refusal"}]},
    "another shape": {"choices": []},
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_reply_of_no_use_is_named_and_nothing_is_made_up(words: str) -> None:
    with pytest.raises(ServerError, match=words):
        read_decided(BROKEN[words], QUESTIONS[1])


def test_one_option_is_no_question() -> None:
    with pytest.raises(InputError, match="2 or more options"):
        decision_body("/decisions", "m", cw.Question("Which?", ["only"], id="one"))


def test_the_estimate_covers_every_character_even_where_each_is_a_token() -> None:
    body = decision_body("/decisions", "m", cw.Question("東京?", ["は", "い"], context="☂" * 100))
    assert most_tokens(body) > 300 + 256


def refusing(**statuses: int) -> Callable[[str], str]:
    def ask(path: str) -> str:
        status = statuses.get(path.strip("/"))
        if status is not None:
            raise Rejected("no", status=status)
        return path

    return ask


def test_the_second_endpoint_is_tried_where_the_first_is_absent_and_only_there() -> None:
    assert find_path(refusing()) == ("/decisions", "/decisions")
    for status in (404, 405, 501):
        assert find_path(refusing(decisions=status))[0] == "/systemone"
    with pytest.raises(Rejected):
        find_path(refusing(decisions=400))
    with pytest.raises(CapabilityError, match="no decision endpoint") as told:
        find_path(refusing(decisions=404, systemone=501))
    assert isinstance(told.value.__cause__, Rejected)


LABELS = "ABCD"


def tiny_qwen(folder: Path) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Write a random Qwen3 whose tokenizer has each of vLLM's labels as one token after the chat template."""
    tokenizer = matched.byte_level()
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.chat_template = matched.TEMPLATE.replace("[assistant]", "<s>[assistant]")
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, initializer_range=0.2, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def forward(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, question: cw.Question) -> np.ndarray:
    """Return the probability of each option's letter after the prompt that vLLM writes, over the whole vocabulary."""
    options = "".join(f"{label}: {option}\n" for label, option in zip(LABELS, question.options, strict=False))
    asked = f"Question: {question.prompt}\n{options}Answer with the letter of one option only."
    messages = [{"role": "user", "content": f"{question.context}\n\n{asked}"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    labels = tokenizer.convert_tokens_to_ids(list(LABELS[: len(question.options)]))
    with torch.no_grad():
        return model(ids["input_ids"]).logits[0, -1].softmax(-1)[labels].double().numpy()


def test_vllm_decides_as_a_forward_pass_says(tmp_path: Path) -> None:
    model, tokenizer = tiny_qwen(tmp_path / "qwen")
    questions = [question for question in QUESTIONS if question.context]
    with (
        real.vllm_server(tmp_path / "qwen") as server,
        cw.wrap(f"openai:{server.model}", base_url=server.base_url) as lm,
    ):
        assert lm.adapter.provides.decides
        with pytest.warns(CalibrationWarning, match="labels together"):  # random weights put little mass on letters
            scores = lm.scores(questions, readout="decision")
    for index, question in enumerate(questions):
        truth = forward(model, tokenizer, question)
        np.testing.assert_allclose(scores.probabilities[index, : len(truth)], truth / truth.sum(), atol=1e-5)
        assert scores.label_mass[index] == pytest.approx(truth.sum(), rel=1e-4)
    assert scores.is_exact
