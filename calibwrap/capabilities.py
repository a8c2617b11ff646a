"""What a backend can give and what a part wants, as data with the same names, and the one comparison of both."""

from dataclasses import dataclass

from calibwrap.errors import CapabilityError


@dataclass(frozen=True)
class Provides:
    """What a backend can give. None means no limit."""

    full_vocabulary: bool = False
    """Every next-token log-probability."""
    given_ids: int | None = 0
    """How many given token ids it scores exactly at the next position."""
    top: int | None = 0
    """Length of its longest list of most probable tokens."""
    score: bool = False
    """Exact log-probabilities of a given continuation."""
    decides: bool = False
    """Probabilities of a question's options from an endpoint made for that, without tokens."""
    tokenize: bool = False
    """Token ids of a text in its context."""
    token_bytes: bool = False
    """The bytes of the tokens that it lists."""
    plain: bool = True
    """Text that goes on just as it stands; False where a text becomes a user's message."""
    chat: bool = False
    """A chat template of the model's own."""
    hidden: bool = False
    """Hidden states of the scored positions."""
    steers: bool = False
    """A calibrator can act inside decoding."""
    streams: bool = False
    """Tokens come as they are drawn."""
    context_length: int | None = None
    """How many tokens fit, prompt and answer together."""
    batch_size: int = 8
    """How many prompts it reads together; long work is handed over, and kept, in pieces of this many."""

    @property
    def labels(self) -> bool:
        """Whether labels can be read at the next position: as given ids, or in a list that shows ids or bytes."""
        by_id = self.tokenize and (self.given_ids is None or self.given_ids > 1)
        return by_id or (self.top != 0 and (self.tokenize or self.token_bytes))

    @property
    def traces(self) -> bool:
        """Whether the label that a drawn text names can be read: lists at every position, with the tokens' bytes."""
        return self.token_bytes and self.top != 0


@dataclass(frozen=True)
class Needs:
    """What a readout, calibrator or decoder wants of a backend; the same names as in `Provides`."""

    full_vocabulary: bool = False
    given_ids: int = 0
    score: bool = False
    decides: bool = False
    tokenize: bool = False
    labels: bool = False
    traces: bool = False
    plain: bool = False
    chat: bool = False
    hidden: bool = False
    steers: bool = False
    streams: bool = False


_INSTEAD = {
    "full_vocabulary": "use an option-level calibrator, which needs the options only",
    "given_ids": "use readout='continuation' where the backend scores continuations",
    "score": "use readout='label' with lettered options",
    "decides": "use readout='label', or a server that offers /decisions or /systemone",
    "tokenize": "use a runtime that shows its tokenizer: hf or llama-cpp",
    "labels": "use a server that lists log-probabilities of the most probable tokens",
    "traces": "use a backend that lists log-probabilities with its tokens, or Greedy, which needs none",
    "plain": "use a chat template, such as questions.LETTER_CHAT (readout 'label:letter-chat')",
    "chat": "use a plain template, such as questions.LETTER or questions.CLOZE",
    "hidden": "use a calibrator on scores",
    "steers": "calibrate the answer after decoding",
    "streams": "use hf, llama-cpp, or openai in front of a server, such as vLLM's own for a model of vLLM",
}


def check_needs(who: str, needs: Needs, backend: str, provides: Provides) -> None:
    """Return nothing when `provides` covers `needs`.

    Raises:
        CapabilityError: names the backend, the first need that it cannot meet, and the nearest alternative.

    >>> check_needs("the label readout", Needs(given_ids=4), "toy", Provides(given_ids=None))
    """
    for name, instead in _INSTEAD.items():
        wanted, given = getattr(needs, name), getattr(provides, name)
        if wanted and given is not None and given < wanted:
            raise CapabilityError(f"{who} needs {name}={wanted}, and the backend '{backend}' has {given}: {instead}.")


def check_reference(who: str, needs: Needs, backend: str, provides: Provides) -> None:
    """Return nothing when a reference model's `provides` covers `needs`; asked before any model reads anything.

    Raises:
        CapabilityError: as `check_needs`, and says that the reference is meant.

    >>> check_reference("the label readout", Needs(given_ids=4), "toy", Provides(given_ids=None))
    """
    try:
        check_needs(who, needs, backend, provides)
    except CapabilityError as error:
        raise CapabilityError(f"Of the reference: {error} 'reference_readout' says how it is read.") from error
