"""Requests that say more than the prompt: told something before it, or asked again after an answer.

A flow does not know its prompt, and needs not: a `Reworded` request says what to add, and whoever drives the decoder
adds it. Everything else about the request is drawn as ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from calibwrap.base import Sampling
from calibwrap.errors import InputError
from calibwrap.questions import Chat, Prompt


@dataclass(frozen=True)
class Reworded(Sampling):
    r"""A request to go on from more than the prompt.

    A text is joined with line breaks; of a chat, what stands before goes into its first user message, and a reply
    becomes the assistant's turn before another one of the user.

    >>> Reworded(reply=" Paris", say="Right?").prompt_of("Capital of France?\nAnswer:")
    'Capital of France?\nAnswer: Paris\nRight?'
    >>> Reworded(reply="Paris", say="Right?").prompt_of(Chat((("user", "Capital?"),))).messages
    (('user', 'Capital?'), ('assistant', 'Paris'), ('user', 'Right?'))
    """

    before: str = ""
    """What the model is told before the prompt; may be empty."""
    reply: str | None = None
    """An answer of the model's own to go on from; None where it has given none."""
    say: str = ""
    """What is said after that answer."""
    labels: tuple[str, ...] = ()
    """Labels whose probabilities are read at the next token; nothing is drawn then. None: draw as ever."""

    def __post_init__(self) -> None:
        """Check the fields once."""
        super().__post_init__()
        if (self.reply is None) != (not self.say):
            raise InputError(f"'reply' and 'say' belong together. Got {self.reply!r} and {self.say!r}.")

    def prompt_of(self, prompt: Prompt) -> Prompt:
        """Return what the model reads."""
        if isinstance(prompt, Chat):
            return self._chat_of(prompt)
        told = f"{self.before}\n\n{prompt}" if self.before else prompt
        return told if self.reply is None else f"{told}{self.reply.rstrip()}\n{self.say}"

    def _chat_of(self, chat: Chat) -> Chat:
        messages = list(chat.messages)
        if self.before:
            first = next((index for index, (role, _) in enumerate(messages) if role == "user"), 0)
            role, content = messages[first]
            messages[first] = (role, f"{self.before}\n\n{content}")
        if self.reply is None:
            return Chat(tuple(messages), prefix=chat.prefix)
        return Chat((*messages, ("assistant", f"{chat.prefix}{self.reply}"), ("user", self.say)))


def drawn_as(request: Sampling) -> Sampling:
    """Return the request without its words: what can be drawn together for many prompts.

    >>> drawn_as(Reworded(max_tokens=8, reply="Paris", say="Right?")) == Sampling(max_tokens=8)
    True
    """
    if not isinstance(request, Reworded):
        return request
    if request.labels:
        return replace(request, before="", reply=None, say="")
    return Sampling(**{field.name: getattr(request, field.name) for field in fields(Sampling)})


def together(requests: Mapping[int, Sampling]) -> dict[Sampling, list[int]]:
    """Return which of the numbered requests can be served by one call, under what they have in common.

    >>> list(together({0: Sampling(), 1: Sampling(seed=1), 2: Reworded(before="Be brief.")}).values())
    [[0, 2], [1]]
    """
    groups: dict[Sampling, list[int]] = {}
    for index, request in requests.items():
        groups.setdefault(drawn_as(request), []).append(index)
    return groups


def worded(prompt: Prompt, request: Sampling) -> Prompt:
    """Return what the model reads for a request."""
    return request.prompt_of(prompt) if isinstance(request, Reworded) else prompt
