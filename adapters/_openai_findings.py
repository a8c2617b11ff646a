"""All that a probe of one model on one server has found, and how a person reads it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from calibwrap.adapters._openai_decisions import Path, decision_body, find_path, most_tokens, read_decided
from calibwrap.adapters._openai_probe import Send, Shown, Told, echo_fault, examine, prefix_mode, told_of_model
from calibwrap.adapters._openai_replies import Endpoint
from calibwrap.adapters._openai_requests import Dialect
from calibwrap.adapters._openai_transport import Rejected, Request
from calibwrap.errors import CalibwrapError, CapabilityError, LogprobsUnavailable, SemanticsMismatch, ServerError
from calibwrap.questions import Question

Wanted = Literal["auto", "chat", "completions", "responses"]
NAMES: Mapping[Endpoint, str] = {"chat": "chat completions", "responses": "Responses", "completions": "completions"}
_SERVERS = {"me": "llama_cpp.server"}
"""Servers that name themselves badly."""
_SKY = Question("What is the sky?", ["blue", "green"], context="The sky is blue.")


@dataclass(frozen=True)
class Findings:
    """What a server offers for one model."""

    chat: Shown | None
    """The endpoint for messages; None when none gives log-probabilities."""
    plain: Shown | None
    """The endpoint for text as it stands."""
    faults: Mapping[Endpoint, CalibwrapError] = field(default_factory=dict)
    """Why an endpoint that was asked cannot be used."""
    echo: str = "not asked"
    """Why continuations cannot be scored; empty when they can."""
    goes_on: bool = False
    """Whether an answer that is begun (`Chat.prefix`) is gone on with."""
    repeats_prefix: bool = False
    """Whether the reply then repeats its beginning."""
    decisions: Path | None = None
    """The endpoint that answers questions with probabilities of their options."""
    told: Told = field(default_factory=Told)
    """What the server's list of models says."""

    @property
    def shown(self) -> tuple[Shown, ...]:
        """The endpoints that can be used."""
        return tuple(one for one in (self.chat, self.plain) if one is not None)

    @property
    def other_model(self) -> str:
        """The model that answers in the place of one that the server does not list; empty when there is no such."""
        names = {
            one.alias_of
            for one in self.shown
            if one.alias_of in self.told.names
            and not one.alias_of.startswith(f"{one.dialect.model}-")  # a dated version
        }
        return "" if self.told.is_named else ", ".join(sorted(names))

    @property
    def top(self) -> int:
        """The longest list that every usable endpoint gives."""
        return min((one.top for one in self.shown), default=0)


def probe(send: Send, model: str, wanted: Wanted, asked: int, extras: bool, server: str) -> Findings:
    """Return what `server` offers for `model`; some 6 to 10 requests of one token each.

    Raises:
        LogprobsUnavailable: no endpoint gives log-probabilities.
        SemanticsMismatch: what it gives are no log-probabilities.
        ServerError: it offers none of the endpoints, or not this model.
    """
    told = told_of_model(send, model)
    faults: dict[Endpoint, CalibwrapError] = {}

    def first_usable(*endpoints: Endpoint) -> Shown | None:
        for endpoint in endpoints:
            try:
                return examine(send, Dialect(model, endpoint, asked, extras), server)
            except (CapabilityError, Rejected) as error:
                faults[endpoint] = error
        return None

    for_chat: dict[Wanted, tuple[Endpoint, ...]] = {
        "auto": ("chat", "responses"), "chat": ("chat",), "responses": ("responses",), "completions": (),
    }  # fmt: skip
    chat = first_usable(*for_chat[wanted])
    plain = first_usable("completions") if wanted in ("auto", "completions") else None
    decisions = _decisions(send, model) if wanted == "auto" else None
    if chat is None and plain is None and decisions is None:
        raise _nothing(faults, model, server, told)
    goes_on, repeats = (False, False) if chat is None else prefix_mode(send, chat, told.owner)
    echo = "completions cannot be used" if plain is None else echo_fault(send, plain, server)
    return Findings(chat, plain, faults, echo, goes_on, repeats, decisions, told)


def _decisions(send: Send, model: str) -> Path | None:
    """Return the server's decision endpoint, as an answer from it shows."""

    def ask(path: Path) -> bool:
        body = decision_body(path, model, _SKY)
        try:
            read_decided(send(Request(path, body, most_tokens(body))).body, _SKY)
        except Rejected as refusal:
            raise Rejected(str(refusal), status=404) from refusal  # whatever it refuses, it does not decide
        return True

    try:
        return find_path(ask)[0]
    except (CapabilityError, ServerError):
        return None


def _nothing(faults: Mapping[Endpoint, CalibwrapError], model: str, server: str, told: Told) -> CalibwrapError:
    """Return the error that says why no endpoint can be used: the most telling one."""
    for kind in (SemanticsMismatch, LogprobsUnavailable):
        for fault in faults.values():
            if isinstance(fault, kind):
                return fault
    are_absent = all(isinstance(fault, Rejected) and fault.status == 404 for fault in faults.values())
    if are_absent and not told.is_named:
        return ServerError(f"{server} has no model {model!r}. It lists: {listed(told.names)}.")
    by_reason: dict[str, list[str]] = {}
    for endpoint, fault in faults.items():
        reason = f"refused ({fault.status}: {fault.message})" if isinstance(fault, Rejected) else str(fault).rstrip(".")
        by_reason.setdefault(reason, []).append(NAMES[endpoint])
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
    if are_absent and not told.names:
        reasons = f"There is no list of models either: 'base_url' usually ends in /v1. {reasons}"
    named = (
        repr(model) if told.is_named else f"{model!r}, which is not among those that it lists ({listed(told.names)})"
    )
    return ServerError(
        f"{server} offers no endpoint for the model {named}. {reasons}. Check the model's name and 'base_url'; a "
        "model that was retired needs another one, and a calibrator fitted for that."
    )


def listed(names: tuple[str, ...], most: int = 10) -> str:
    """Return names for people, the first `most` of them.

    >>> listed(("a", "b", "c"), most=2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def described(findings: Findings) -> dict[str, str]:
    """Return what was found as question -> finding, for people."""
    usable = {one.dialect.endpoint: f"{NAMES[one.dialect.endpoint]} ({one.top} listed)" for one in findings.shown}
    not_usable = [f"{NAMES[name]}: {_brief(fault)}" for name, fault in findings.faults.items()]
    return {
        "Endpoints": ", ".join(usable.values()) or "none with log-probabilities",
        "Not usable": "; ".join(not_usable) or "none of those asked",
        "Not asked": _not_asked(findings),
        "Model": _model(findings),
        "Server": _SERVERS.get(findings.told.owner, findings.told.owner) or "does not say what it is",
        "Log-probabilities": _each(findings, lambda one: f"there, the {one.top} most probable tokens"),
        "Sampling temperature": _each(findings, _temperature),
        "Token ids": _each(findings, lambda one: "listed" if one.ids else "not listed; tokens are told apart by text"),
        "Token bytes": _each(findings, lambda one: "listed" if one.data else "not listed; taken from the text"),
        "Largest listed mass": _each(findings, lambda one: f"{one.mass:.4f}"),
        "Refused settings": _each(findings, lambda one: ", ".join(sorted(one.dialect.refused)) or "none"),
        "Thoughts before the answer": _each(findings, _thoughts),
        "Plain text": "as it stands" if findings.plain else "becomes a user's message",
        "Beginning of an answer": "gone on with" if findings.goes_on else "cannot be given",
        "Continuations": "scored, checked against an answer" if not findings.echo else f"not scored: {findings.echo}",
        "Decision endpoint": findings.decisions or "none",
        "Context length": str(findings.told.context_length or "not told"),
        "Version": _each(findings, lambda one: one.version or "not told"),
    }


def _not_asked(findings: Findings) -> str:
    """Return the endpoints that there was no need to ask."""
    asked = {*findings.faults, *(one.dialect.endpoint for one in findings.shown)}
    left = ", ".join(NAMES[endpoint] for endpoint in NAMES if endpoint not in asked)
    if left == NAMES["responses"] and findings.chat is not None:
        return f"{left}, since {NAMES['chat']} give log-probabilities"
    return left or "none"


def _model(findings: Findings) -> str:
    if findings.told.is_named:
        return "listed by the server" if findings.told.names else "the server lists no models"
    answers = f"; {findings.other_model!r} answers in its place" if findings.other_model else ""
    return f"not among those that the server lists ({listed(findings.told.names)}){answers}"


def _each(findings: Findings, say: Callable[[Shown], str]) -> str:
    """Return one text where all endpoints agree, else one for each."""
    texts = {NAMES[one.dialect.endpoint]: say(one) for one in findings.shown}
    if len(set(texts.values())) <= 1:
        return next(iter(texts.values()), "no endpoint to ask")
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _temperature(one: Shown) -> str:
    if not one.free_temperature:
        return "cannot be set; everything is at 1"
    if one.semantics == "raw":
        return "does not change them: they are the model's own"
    if one.semantics == "cannot be told":
        return f"cannot be told (spread {one.spread:.3g}); drawn at temperature 1 only"
    return "changes them: right at temperature 1, the only one that is used"


def _thoughts(one: Shown) -> str:
    return "switched off by request" if one.dialect.thinking_off else "none seen"


def _brief(fault: CalibwrapError) -> str:
    """Return the sentences of an error that fit a line or two; the first one in any case.

    >>> _brief(ServerError("It is gone. " + "Much more is to be said of that. " * 9))
    'It is gone. Much more is to be said of that. Much more is to be said of that. Much more is to be said of that.'
    """
    first, *others = re.split(r"(?<=[.:;]) ", str(fault).strip())
    for sentence in others:
        if len(first) + len(sentence) > 130:
            break
        first += f" {sentence}"
    return first.rstrip(":;")
