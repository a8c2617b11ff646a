"""What a backend can give, in words that a person understands."""

from calibwrap.capabilities import Needs, Provides

SEMANTICS = {
    "raw": "the model's own: temperature 1, before penalties and truncation",
    "raw at temperature 1 only": "the model's own at temperature 1, where they are read; else they follow the sampling",
    "processed": "processed: they follow the sampling settings, and cannot be calibrated",
}
"""What the words of `Provenance.semantics` mean."""


_WANTED = {
    "full_vocabulary": "the probabilities of all tokens",
    "given_ids": "exact probabilities of named tokens",
    "score": "exact probabilities of whole answers",
    "decides": "a decision endpoint",
    "tokenize": "the runtime's tokenizer",
    "labels": "probabilities of the letters at the next position",
    "traces": "lists of probabilities at every position of a drawn text",
    "plain": "text that goes on just as it stands, and not as a message of a chat",
    "chat": "a chat template",
    "hidden": "hidden states",
    "steers": "decoding that a calibrator can act in",
    "streams": "tokens as they are drawn",
}
"""What each field of `Needs` asks for."""


def lacks(needs: Needs, provides: Provides) -> str:
    """Return the first thing that is needed and not given, in words; empty when all is given.

    >>> lacks(Needs(score=True), Provides()), lacks(Needs(score=True), Provides(score=True))
    ('exact probabilities of whole answers', '')
    """
    for name, told in _WANTED.items():
        wanted, given = getattr(needs, name), getattr(provides, name)
        if wanted and given is not None and given < wanted:
            return told
    return ""


def abilities(provides: Provides, semantics: str = "raw") -> dict[str, str]:
    """Return a sentence for each thing that a user may want of a backend.

    >>> told = abilities(Provides(top=20, token_bytes=True, plain=False, chat=True))
    >>> told["next token"]
    'the 20 most probable tokens; an option that is not among them gets bounds'
    >>> told["whole answers"]
    "no: use readout 'label', which reads one token"
    """
    return {
        "next token": _next_token(provides),
        "named tokens": _named_tokens(provides),
        "labels": _labels(provides),
        "whole answers": "exact log-probability of any text after a prompt"
        if provides.score
        else "no: use readout 'label', which reads one token",
        "decisions": "probabilities of the options straight from the server"
        if provides.decides
        else "no: options are read from tokens",
        "prompts": _prompts(provides),
        "log-probabilities": SEMANTICS.get(semantics, semantics),
        "inside decoding": "yes: sampling can follow a calibrator"
        if provides.steers
        else "no: answers are calibrated after decoding",
        "streaming": "yes: each token with its probability, as it is drawn"
        if provides.streams
        else "no: answers come whole",
        "hidden states": "yes" if provides.hidden else "no",
        "context": "not told" if provides.context_length is None else f"{provides.context_length:,} tokens",
        "work at a time": f"{provides.batch_size} prompts",
    }


def _next_token(provides: Provides) -> str:
    if provides.full_vocabulary:
        return "the whole vocabulary"
    if provides.top is None:
        return "as many of the most probable tokens as are asked for"
    if provides.top == 0:
        return "nothing"
    return f"the {provides.top} most probable tokens; an option that is not among them gets bounds"


def _named_tokens(provides: Provides) -> str:
    if provides.given_ids is None:
        return "exact, any number of them"
    if provides.given_ids:
        return f"exact, up to {provides.given_ids} of them a prompt"
    return "no"


def _labels(provides: Provides) -> str:
    if not provides.labels:
        return "no: neither tokens nor their bytes are told"
    by_id = provides.tokenize and (provides.given_ids is None or provides.given_ids > 1)
    return "exact, by token id" if by_id else "found in the list by their " + ("ids" if provides.tokenize else "bytes")


def _prompts(provides: Provides) -> str:
    if not provides.plain:
        return "chat only; a plain text becomes a user's message"
    return "plain text and chat" if provides.chat else "plain text; the model has no chat template"
