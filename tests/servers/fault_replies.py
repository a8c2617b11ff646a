"""The model of the fault server: replies that look like an API's, a deterministic function of the prompt alone.

It has a vocabulary of about a hundred tokens, answer letters first; its log-probabilities are those of one softmax over
that vocabulary, rounded to float32 as servers do, so the listed top 20 are right and their mass is below one.
"""

import hashlib
import json
import math
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LETTERS = "ABCDEFGHIJ"
VOCABULARY: tuple[bytes, ...] = (
    *(letter.encode() for letter in LETTERS),
    *(f" {letter}".encode() for letter in LETTERS),
    *(word.encode() for word in (" yes", " no", "yes", "no", "The", " Paris", " Rome", "é", "東", ".", "\n", " ")),
    b"\xe2\x98",
    b"\x82",
    *(letter.encode() for letter in string.ascii_lowercase),
    *(f" {letter}".encode() for letter in string.ascii_lowercase),
    *(str(digit).encode() for digit in range(10)),
)
"""Token id -> bytes; two of them are halves of one character."""
END = "<|end|>"


class BadRequest(Exception):
    """The server answers with this status and body."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Model:
    """What kind of API is imitated."""

    fingerprint: str | None = "fp_first"
    """The `system_fingerprint` of each reply; None sends null."""
    serves: str | None = None
    """The model's name in replies; None repeats the name that was asked for."""
    cap: int = 20
    """Most top log-probabilities; more is a 400."""
    ids: bool = False
    """Whether entries carry an `id`, as llama-server's do."""
    bytes_told: bool = True
    """Whether entries carry `bytes`; else null."""
    follows_temperature: bool = False
    """Whether log-probabilities are those after the sampling temperature."""
    endpoints: tuple[str, ...] = ("/chat/completions", "/completions", "/responses", "/models")
    """What else is asked for is a 404."""

    def reply(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to `body` posted to `path`."""
        makers = {
            "/chat/completions": self._chat,
            "/completions": self._completion,
            "/responses": self._responses,
            "/models": self._models,
        }
        if path not in self.endpoints:
            raise BadRequest(404, {"error": {"message": f"Unknown path {path}", "type": "invalid_request_error"}})
        return makers[path](body)

    def _models(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self.serves or "fault", "object": "model", "max_model_len": 4096}]}

    def _chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        prompt = json.dumps(body["messages"])
        top = body.get("top_logprobs", 0) if body.get("logprobs") else None
        most = body.get("max_completion_tokens", body.get("max_tokens", 4))
        choices = []
        for index in range(body.get("n") or 1):
            drawn = self._drawn(prompt, body, most, index)
            content = [self._entry(token, row, self._capped(top, "top_logprobs")) for token, row in drawn]
            text = b"".join(VOCABULARY[token] for token, _ in drawn).decode("utf-8", "replace")
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None if top is None else {"content": content, "refusal": None},
                    "finish_reason": "length",
                }
            )
        return self._envelope("chat.completion", body, choices, prompt, most)

    def _completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("echo"):
            raise BadRequest(400, refused("echo", "echo is not supported with this model.")[1])
        prompts = [body["prompt"]] if isinstance(body["prompt"], str) else list(body["prompt"])
        top, most = body.get("logprobs"), body.get("max_tokens", 4)
        choices = []
        for prompt in prompts:
            for index in range(body.get("n") or 1):
                drawn = self._drawn(prompt, body, most, index)
                choices.append(self._completion_choice(len(choices), prompt, drawn, self._capped(top, "logprobs")))
        return self._envelope("text_completion", body, choices, "".join(prompts), most * len(prompts))

    def _completion_choice(
        self, index: int, prompt: str, drawn: Sequence[tuple[int, np.ndarray]], top: int | None
    ) -> dict[str, Any]:
        texts = [_text(token) for token, _ in drawn]
        listed = [_listed(row, token, top or 0) for token, row in drawn]
        offsets = [len(prompt) + sum(map(len, texts[:position])) for position in range(len(texts))]
        logprobs = {
            "tokens": texts,
            "token_logprobs": [float(row[token]) for token, row in drawn],
            "top_logprobs": [
                {_text(token): float(row[token]) for token in ids} for ids, (_, row) in zip(listed, drawn, strict=True)
            ],
            "text_offset": offsets,
        }
        return {
            "index": index,
            "text": b"".join(VOCABULARY[token] for token, _ in drawn).decode("utf-8", "replace"),
            "logprobs": None if top is None else logprobs,
            "finish_reason": "length",
        }

    def _responses(self, body: Mapping[str, Any]) -> dict[str, Any]:
        prompt = json.dumps(body["input"])
        wanted = "message.output_text.logprobs" in (body.get("include") or ())
        most = body.get("max_output_tokens", 4)
        drawn = self._drawn(prompt, body, most, 0)
        top = self._capped(body.get("top_logprobs", 0), "top_logprobs")
        part = {
            "type": "output_text",
            "text": b"".join(VOCABULARY[token] for token, _ in drawn).decode("utf-8", "replace"),
            "annotations": [],
            "logprobs": [self._entry(token, row, top) for token, row in drawn] if wanted else [],
        }
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "incomplete",
            "content": [part],
        }
        tokens = {"input_tokens": len(prompt), "output_tokens": most, "total_tokens": len(prompt) + most}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1767225600,
            "status": "incomplete",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"},
            "model": self.serves or body.get("model"),
            "output": [message],
            "usage": tokens,
        }

    def _envelope(
        self, kind: str, body: Mapping[str, Any], choices: list[dict[str, Any]], prompt: str, most: int
    ) -> dict[str, Any]:
        usage = {"prompt_tokens": len(prompt), "completion_tokens": most * max(1, body.get("n") or 1)}
        return {
            "id": "cmpl-1",
            "object": kind,
            "created": 1767225600,
            "model": self.serves or body.get("model"),
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }

    def _capped(self, top: int | None, parameter: str) -> int | None:
        if top is not None and not 0 <= top <= self.cap:
            raise BadRequest(*refused(parameter, f"Invalid value for '{parameter}': must be <= {self.cap}.", 400))
        return top

    def _drawn(self, prompt: str, body: Mapping[str, Any], most: int, index: int) -> list[tuple[int, np.ndarray]]:
        """Return the drawn tokens, each with the log-probabilities that the server reports at its position."""
        temperature = body.get("temperature")
        temperature = 1.0 if temperature is None else float(temperature)
        dice = random.Random(f"{prompt}|{body.get('seed')}|{index}")
        drawn = []
        for position in range(most):
            raw = logprobs(prompt, position)
            scaled = raw if temperature in (0.0, 1.0) else raw / temperature
            scaled = scaled - math.log(np.exp(scaled).sum())
            token = int(raw.argmax()) if temperature == 0.0 else _choice(dice, scaled)
            drawn.append((token, (scaled if self.follows_temperature else raw).astype(np.float32)))
        return drawn

    def _entry(self, token: int, row: np.ndarray, top: int | None) -> dict[str, Any]:
        listed = [] if top is None else _listed(row, None, top)
        return {**self._token(token, row), "top_logprobs": [self._token(other, row) for other in listed]}

    def _token(self, token: int, row: np.ndarray) -> dict[str, Any]:
        entry: dict[str, Any] = {"token": _text(token), "logprob": float(row[token])}
        entry["bytes"] = list(VOCABULARY[token]) if self.bytes_told else None
        return {"id": token, **entry} if self.ids else entry


def logprobs(prompt: str, position: int = 0) -> np.ndarray:
    """Return the log-probabilities (V,) of all tokens at `position` after `prompt`: what the truth is."""
    seed = int.from_bytes(hashlib.sha256(f"{position}|{prompt}".encode()).digest()[:8], "little")
    logits = np.random.default_rng(seed).normal(0.0, 1.5, len(VOCABULARY))
    logits[: len(LETTERS)] += 3.0  # answer letters are what a model that was asked for one would say
    logits[:4] += 2.0
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


def refused(parameter: str | None, message: str, status: int = 400) -> tuple[int, dict[str, Any]]:
    """Return status and body of a refusal in OpenAI's shape."""
    error = {"message": message, "type": "invalid_request_error", "param": parameter, "code": "unsupported_parameter"}
    return status, {"error": error}


def _listed(row: np.ndarray, token: int | None, top: int) -> list[int]:
    """Return the most probable tokens, the drawn one besides when it is given."""
    best = [int(index) for index in np.argsort(-row, kind="stable")[:top]]
    return best if token is None or token in best else [*best, token]


def _text(token: int) -> str:
    return VOCABULARY[token].decode("utf-8", "replace")


def _choice(dice: random.Random, row: np.ndarray) -> int:
    return dice.choices(range(len(row)), weights=np.exp(row))[0]
