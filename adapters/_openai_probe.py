"""What a server's log-probabilities are, found out by asking: a handful of requests of one token each.

For each endpoint the same prompt is asked at sampling temperatures 0.5 and 1.5. Log-probabilities of the model itself
do not move; those of a server that reports the distribution it samples from are spread three times as wide.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from calibwrap.adapters._openai_replies import Choice, Position, first_position, read_choices, to_draw_again
from calibwrap.adapters._openai_requests import (
    LIST_LENGTHS,
    PATHS,
    Dialect,
    Draw,
    adapted,
    most_tokens,
    names_logprobs,
    request_body,
    too_long,
)
from calibwrap.adapters._openai_scores import Row, TokenNumbers, sorted_row
from calibwrap.adapters._openai_transport import Rejected, Reply, Request
from calibwrap.errors import CalibwrapError, LogprobsUnavailable, PromptTooLong, ServerError
from calibwrap.questions import Chat, Prompt

Send = Callable[[Request], Reply]
Semantics = Literal["raw", "follows the sampling temperature", "cannot be told"]

PROMPT = "Which is larger, the sun or the moon? Answer with one word. Answer:"
COOL, WARM = 0.5, 1.5
DRAWS = 9
"""How often a token is drawn until one comes with its list, at most: no part of a character, and no end."""
THOUGHTS = ("<think", "<|channel", "<|thinking", "[THINK]", "<reasoning")
"""How answers begin that are thoughts first."""


@dataclass(frozen=True)
class Shown:
    """What one endpoint of one server has shown."""

    dialect: Dialect
    """How it wants to be asked."""
    top: int
    """How many tokens it lists."""
    semantics: Semantics
    spread: float
    """How many times as wide the log-probabilities are at temperature 0.5 as at 1.5: 1 or 3."""
    ids: bool
    """Whether entries carry token ids."""
    data: bool
    """Whether entries carry bytes."""
    mass: float
    """Largest sum of listed probabilities."""
    free_temperature: bool
    """Whether another temperature than 1 is accepted."""
    prompt_tokens: int
    """What the server counted for the probe's prompt; 0 when it does not say."""
    alias_of: str = ""
    """The model's name in the reply where it is another than the one asked for."""
    system_fingerprint: str = ""
    """The server's word for its version, or for that of the model."""

    @property
    def revision(self) -> str:
        """What tells of the model: its full name, and a fingerprint of OpenAI's form; others name a server's build."""
        told = self.system_fingerprint if self.system_fingerprint.startswith("fp_") else ""
        return " ".join(filter(None, (self.alias_of, told)))

    @property
    def version(self) -> str:
        """All that the server tells of versions, for people."""
        return " ".join(filter(None, (self.alias_of, self.system_fingerprint)))


def settle(send: Send, dialect: Dialect, prompt: Prompt, draw: Draw, cacheable: bool = True) -> tuple[Reply, Dialect]:
    """Return the reply to a request, and how it had to be asked.

    Raises:
        Rejected: what is asked is refused, and nothing that matters less can be given up.
    """
    while True:
        body = request_body(dialect, prompt, draw)
        try:
            return send(Request(PATHS[dialect.endpoint], body, most_tokens(prompt, draw), cacheable)), dialect
        except Rejected as refusal:
            changed = adapted(dialect, body, refusal.param, refusal.message)
            if changed is None:
                raise
            dialect = changed


def measured(send: Send, dialect: Dialect, draw: Draw) -> tuple[Reply, Dialect]:
    """Return the reply to the probe's prompt, from another draw where the first one shows nothing."""
    reply, dialect = settle(send, dialect, PROMPT, draw)
    for seed in range(1, DRAWS):
        if not to_draw_again(read_choices(dialect.endpoint, reply.body)):
            break
        reply, dialect = settle(send, dialect, PROMPT, replace(draw, seed=seed))
    return reply, dialect


def explained(refusal: Rejected, server: str) -> CalibwrapError:
    """Return the error that says what a refusal means, and what to change."""
    if too_long(refusal.message):
        told = refusal.message.rstrip(". ")
        return PromptTooLong(f"A prompt does not fit the context of {server}: {told}. Shorten it.")
    if names_logprobs(f"{refusal.param} {refusal.message}"):
        return LogprobsUnavailable(
            f"{server} refuses log-probabilities ({refusal.status}: {refusal.message}). It is no matter of the key: "
            "not every model and deployment gives them. Use another model, or a local server."
        )
    return refusal


def examine(send: Send, dialect: Dialect, server: str) -> Shown:
    """Return what an endpoint shows at two sampling temperatures.

    Raises:
        LogprobsUnavailable: log-probabilities are refused, absent, empty, or all 0 or -9999.
        SemanticsMismatch: they are above 0, or sum to more than 1.
        Rejected: the endpoint or the model is not there.
    """
    try:
        (cool, dialect), free = measured(send, dialect, Draw(temperature=COOL)), True
    except Rejected as refusal:
        if "temperature" not in f"{refusal.param} {refusal.message}":
            raise explained(refusal, server) from refusal
        (cool, dialect), free = _settled(send, dialect, Draw(), server), False
    if _thinks(read_choices(dialect.endpoint, cool.body)) and not dialect.thinking_off:
        dialect = replace(dialect, thinking_off=True)
        cool, dialect = _settled(send, dialect, Draw(temperature=COOL if free else 1.0), server)
    warm = cool
    if free:
        warm, dialect = _settled(send, dialect, Draw(temperature=WARM), server)
    positions = [first_position(read_choices(dialect.endpoint, reply.body), server) for reply in (cool, warm)]
    return _shown(dialect, positions, free, cool.body, server)


def _settled(send: Send, dialect: Dialect, draw: Draw, server: str) -> tuple[Reply, Dialect]:
    try:
        return measured(send, dialect, draw)
    except Rejected as refusal:
        raise explained(refusal, server) from refusal


def _shown(dialect: Dialect, positions: list[Position], free: bool, body: Mapping[str, Any], server: str) -> Shown:
    rows = [sorted_row(position, dialect.asked, server) for position in positions]
    entries = [entry for row in rows for entry in row.entries]
    spread = relative_spread(*rows) if free else float("nan")
    named = str(body.get("model") or "")
    usage = body.get("usage") or {}
    return Shown(
        dialect=dialect,
        top=min(_length(position, dialect.asked) for position in positions),
        semantics=_meaning(spread),
        spread=spread,
        ids=all(entry.id is not None for entry in entries),
        data=not positions[0].by_text,
        mass=max(sum(float(np.exp(entry.logprob or 0.0)) for entry in row.entries) for row in rows),
        free_temperature=free,
        prompt_tokens=int(usage.get("prompt_tokens") or usage.get("input_tokens") or 0),
        alias_of=named if named != dialect.model else "",
        system_fingerprint=str(body.get("system_fingerprint") or ""),
    )


def _length(position: Position, asked: int) -> int:
    """Return how many tokens a server lists; where texts have pushed each other out, the next customary number."""
    length = min(asked, sum(entry.logprob is not None for entry in position.listed))
    if position.by_text and any(entry.data is None for entry in position.listed):
        return min(number for number in (*LIST_LENGTHS, asked) if length <= number <= asked)
    return length


def _meaning(spread: float) -> Semantics:
    if abs(spread - 1.0) < 0.2:
        return "raw"
    return "follows the sampling temperature" if abs(spread - WARM / COOL) < 0.6 else "cannot be told"


def relative_spread(cool: Row, warm: Row) -> float:
    """Return how many times as wide the log-probabilities of `cool` are spread as those of `warm`; NaN for flat ones.

    Differences of log-probabilities are differences of logits divided by the temperature that was applied, if one
    was: the slope of one list against the other is 1 for raw values and T_warm / T_cool for tempered ones.
    """
    numbers = TokenNumbers()
    pair = [{numbers.number(entry): entry.logprob or 0.0 for entry in row.entries} for row in (cool, warm)]
    both = [token for token in pair[0] if token in pair[1]]
    if len(both) < 2:
        return float("nan")
    x, y = (np.array([values[token] - values[both[0]] for token in both]) for values in pair)
    x, y = x - x.mean(), y - y.mean()
    scale = float(y @ y)
    return float(x @ y) / scale if scale > 1e-9 else float("nan")


def _thinks(choices: list[Choice]) -> bool:
    """Return whether an answer seems to begin with thoughts: said so, marked so, or empty."""
    if not choices:
        return False
    choice = choices[0]
    first = (choice.positions or ())[:1]
    best = max((entry for place in first for entry in place.listed), key=lambda one: one.logprob or -1e9, default=None)
    return bool(choice.thoughts) or choice.positions == () or (best is not None and best.text.startswith(THOUGHTS))


def echo_fault(send: Send, shown: Shown, server: str) -> str:
    """Return why continuations cannot be scored by having the prompt sent back; empty when they can, as checked.

    The most probable words after the probe's prompt are appended to it, and the value that comes back for them in the
    prompt must be the one that was listed for them as an answer.
    """
    reply, _ = measured(send, shown.dialect, Draw())
    row = sorted_row(first_position(read_choices("completions", reply.body), server), shown.dialect.asked, server)
    plain = [entry for entry in row.entries if entry.data is not None and entry.text.strip() and entry.logprob]
    fault = "no listed token is a word"
    for entry in plain[:3]:
        text = PROMPT + entry.text
        try:
            choice = _echoed(send, shown.dialect, text, entry.text)
        except (ServerError, ValueError) as error:
            return f"refused ({error})"
        positions = choice.positions or ()
        said = "".join(position.drawn.text for position in positions)
        if PROMPT not in said or len(positions) < 3:
            return "the prompt's own log-probabilities do not come back"
        last = next((one.drawn for one in positions[-2:] if one.drawn.text == entry.text), None)
        if positions[-2].drawn.text != entry.text or last is None:
            fault = "the prompt's tokens do not end as the text does"
            continue
        value = positions[-2].drawn.logprob
        if value is not None and abs(value - (entry.logprob or 0.0)) < 0.02:
            return ""
        return f"values are at the wrong place ({entry.text!r} has {value}, and {entry.logprob:.4f} as an answer)"
    return fault


def _echoed(send: Send, dialect: Dialect, text: str, last: str) -> Choice:
    """Return a prompt as it comes back with a token after it, from another draw where an end token was kept back."""
    for seed in range(1, DRAWS):
        reply, _ = settle(send, dialect, text, Draw(top=1, echo=True, seed=seed))
        (choice,) = read_choices("completions", reply.body)
        if choice.finish != "stop" or not choice.positions or choice.positions[-1].drawn.text != last:
            break
    return choice


def prefix_mode(send: Send, shown: Shown, owner: str) -> tuple[bool, bool]:
    """Return whether an answer that is begun is gone on with, and whether the reply then repeats its beginning.

    A server that goes on reads one or two more tokens for a beginning of one letter; one that does not closes the
    turn and opens another, which takes more.
    """
    if owner not in ("vllm", "llamacpp", "sglang") or shown.dialect.endpoint != "chat":
        return False, False
    prompt = Chat((("user", PROMPT),), prefix="A")
    try:
        reply, dialect = settle(send, shown.dialect, prompt, Draw())
    except Rejected:
        return False, False
    read = int((reply.body.get("usage") or {}).get("prompt_tokens") or 0)
    (choice,) = read_choices("chat", reply.body)
    goes_on = dialect == shown.dialect and 0 < shown.prompt_tokens < read <= shown.prompt_tokens + 2
    drawn = choice.positions[0].drawn.text if choice.positions else ""
    return goes_on, choice.text.startswith(prompt.prefix) and choice.text != drawn


@dataclass(frozen=True)
class Told:
    """What a server's list of models says."""

    owner: str = ""
    """Who serves the model: vLLM says "vllm", llama-server "llamacpp"."""
    context_length: int | None = None
    names: tuple[str, ...] = ()
    """All models that are listed, by id; empty when there is no list."""
    is_named: bool = True
    """Whether the model is among them, or there is no list to tell."""


def told_of_model(send: Send, model: str) -> Told:
    """Return what the server's list of models says of `model`; nothing when there is no list."""
    try:
        listed = send(Request("/models", {}, tokens=0, method="GET")).body.get("data")
    except Rejected:
        return Told()
    entries = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    entry = next((one for one in entries if model in (one.get("id"), *(one.get("aliases") or ()))), None)
    entry = entries[0] if entry is None and len(entries) == 1 else entry or {}
    length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx")
    names = tuple(str(one["id"]) for one in entries if one.get("id"))
    is_named = not names or any(model in (one.get("id"), *(one.get("aliases") or ())) for one in entries)
    return Told(str(entry.get("owned_by") or ""), length if isinstance(length, int) else None, names, is_named)
