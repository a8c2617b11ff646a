"""An exact language model so small that every probability can be written down, and the adapter around it.

`ToyModel` is a bigram model: the next token depends on the last known token only. Ten tokens, eight of which can be
drawn: an end token, three letters, a word, a letter outside ASCII, and a snowman whose three bytes are two tokens. Text
that it does not know is read as two <other> a byte (one for each hexadecimal digit) and looked through, so that every
template can be tried on it.

`ToyAdapter` keeps the whole `Adapter` contract in plain steps: read it before you write an adapter of your own.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from calibwrap.adapters._shared import check_length, check_prompts, cut_at_stop, hash_texts, split_joint
from calibwrap.base import Adapter, Calibrator, Completion, Sampling, Stream
from calibwrap.capabilities import Needs, Provides, check_needs
from calibwrap.errors import CapabilityError, InputError
from calibwrap.provenance import Provenance
from calibwrap.questions import Chat, Prompt
from calibwrap.scores import Floats, TokenScores, log_softmax
from calibwrap.streaming import Piece, consumed, grown, settled

TOKENS = (b"", b"", b" A", b" B", b" C", b" sun", "é".encode(), b"\xe2\x98", b"\x83", "\ufffd".encode())
"""Bytes of each token; the first two and the last have no text of their own."""
BOS, END, SNOW, MAN, OTHER = 0, 1, 7, 8, 9
"""Ids of the begin and end tokens, of both halves of the snowman, and of whatever is unknown."""
LETTER_IDS = [2, 3, 4]
"""Ids of the letters."""
_IDS = {TOKENS[token]: token for token in range(END + 1, OTHER)}
_PIECES = re.compile(b"|".join([*map(re.escape, sorted(_IDS, key=len, reverse=True)), b"."]), re.DOTALL)


@dataclass(frozen=True, eq=False)
class ToyModel:
    """A bigram model whose row v holds the log-probabilities of what follows token v.

    >>> model = ToyModel.random(seed=0)
    >>> model.encode("a sun☃")
    [0, 9, 9, 5, 7, 8]
    >>> float(np.exp(model.next_logprobs([0, 7])[8]))  # the second half of the snowman always follows the first
    1.0
    """

    logprobs: Floats
    """(V, V) log-probabilities, each row normalised; -inf where a token never follows."""

    def __post_init__(self) -> None:
        """Check the matrix and lock it."""
        matrix = np.array(self.logprobs, dtype=np.float64)
        size = len(TOKENS)
        if matrix.shape != (size, size) or not np.allclose(np.exp(matrix).sum(axis=1), 1.0):
            raise InputError(f"'logprobs' must be ({size}, {size}) with rows that sum to 1. Got shape {matrix.shape}.")
        matrix.flags.writeable = False
        object.__setattr__(self, "logprobs", matrix)

    @classmethod
    def random(cls, seed: int = 0, spread: float = 1.0) -> Self:
        """Return a model of normal random logits with standard deviation `spread`, the three letters likeliest."""
        logits = np.random.default_rng(seed).normal(0.0, spread, (len(TOKENS), len(TOKENS)))
        logits[:, LETTER_IDS] += 1.5  # so that most of the probability is on the labels of a question
        logits[:, [BOS, MAN, OTHER]] = -np.inf
        logits[SNOW] = -np.inf
        logits[SNOW, MAN] = 0.0
        return cls(log_softmax(logits))

    def sharpened(self, factor: float) -> "ToyModel":
        """Return the model with all log-probabilities multiplied by `factor`: above 1 it is over-confident.

        On options of one token each, temperature `factor` undoes it exactly, whatever their number.
        """
        with np.errstate(invalid="ignore"):
            return ToyModel(log_softmax(np.where(np.isfinite(self.logprobs), factor * self.logprobs, -np.inf)))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, the begin token first, longest token first."""
        ids = [BOS]
        for piece in _PIECES.findall(text.encode("utf-8")):
            ids += [_IDS[piece]] if piece in _IDS else [OTHER, OTHER]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of all `ids` together: a character may need several tokens, so never decode one by one."""
        return b"".join(TOKENS[token] for token in ids).decode("utf-8", errors="replace")

    def next_logprobs(self, ids: Sequence[int]) -> Floats:
        """Return the log-probabilities (V,) of what follows `ids`: the row of the last token that is not <other>."""
        state = next((token for token in reversed(ids) if token != OTHER), BOS)
        return np.asarray(self.logprobs[state])

    def sequence_logprob(self, prompt: str, continuation: str) -> float:
        """Return log P(continuation | prompt), summed over the tokens that the continuation adds."""
        start, joint = self.encode(prompt), self.encode(prompt + continuation)
        shared = split_joint(start, [joint])
        return float(sum(self.next_logprobs(joint[:at])[joint[at]] for at in range(shared, len(joint))))


class ToyAdapter(Adapter):
    """The `Adapter` contract around a `ToyModel`, kept exactly.

    `provides` may be narrowed, so that the toy stands for a weaker backend, such as an interface that lists the three
    most probable tokens only. `calls` counts the calls of each method.

    >>> adapter = ToyAdapter(ToyModel.random(seed=0))
    >>> adapter.next_token(["sun"], top=2)[0].logprobs.shape, adapter.calls["next_token"]
    ((1, 2), 1)
    """

    name: ClassVar[str] = "toy"
    everything: ClassVar[Provides] = Provides(
        full_vocabulary=True, given_ids=None, top=None, score=True, tokenize=True, token_bytes=True, chat=True,
        steers=True, streams=True, context_length=1024,
    )  # fmt: skip

    def __init__(self, model: ToyModel | None = None, provides: Provides = everything) -> None:
        """Wrap a model; nothing is loaded here, so `close` has nothing to free."""
        self.model = model or ToyModel.random()
        self.provides = provides
        self.calls: Counter[str] = Counter()

    @classmethod
    def load(cls, target: str, **options: Any) -> Self:
        """Return an adapter around the random model of seed `target`; `options` are those of `ToyModel.random`."""
        return cls(ToyModel.random(int(target), **options))

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions for each prompt; the draw depends on seed and prompt, not on the batch."""
        self.calls["generate"] += 1
        check_needs("generate", Needs(steers=steer is not None), self.name, self.provides)
        self._check_top(sampling.top)
        starts = self._read(prompts)
        return [
            [consumed(self._draw(start, sampling, steer, index)) for index in range(sampling.n)] for start in starts
        ]

    def stream(self, prompt: Prompt, sampling: Sampling, steer: Calibrator | None = None, index: int = 0) -> Stream:
        """Yield the tokens of the completion that `generate` would draw as number `index`, and return it."""
        self.calls["stream"] += 1
        check_needs("stream", Needs(streams=True, steers=steer is not None), self.name, self.provides)
        self._check_top(sampling.top)
        return self._draw(self._read([prompt])[0], sampling, steer, index)

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return one position a prompt: that prompt's own `ids`, else the `top` most probable, else the vocabulary."""
        self.calls["next_token"] += 1
        if ids is None:
            self._check_top(top)
        else:
            widest = max((len(wanted) for wanted in ids), default=0)
            check_needs("next_token", Needs(given_ids=widest), self.name, self.provides)
        rows = [self.model.next_logprobs(start) for start in self._read(prompts)]
        if ids is None:
            return [self._listed([row], top) for row in rows]
        return [TokenScores(row[list(own)][None], ids=[list(own)]) for row, own in zip(rows, ids, strict=True)]  # type: ignore[arg-type]

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return for each prompt the scores of its continuations, all from the first token that any of them adds."""
        self.calls["score"] += 1
        check_needs("score", Needs(score=True), self.name, self.provides)
        self._check_top(top)
        starts = self._read(prompts)
        results = []
        for prompt, start, texts in zip(prompts, starts, continuations, strict=True):
            joints = [self._joint(prompt, text) for text in texts]
            shared = split_joint(start, joints) if joints else len(start)
            results.append([self._scored(joint, shared, top) for joint in joints])
        return results

    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of what `continuation` adds to it."""
        check_needs("tokenize", Needs(tokenize=True), self.name, self.provides)
        start = self.model.encode(self._text(prompt))
        joint = self.model.encode(self._text(prompt) + continuation)
        shared = split_joint(start, [joint]) if continuation else len(start)
        return joint[:shared], joint[shared:]

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token; the begin and end tokens have none."""
        if not self.provides.token_bytes:
            return super().token_bytes(ids)
        return [TOKENS[token] for token in ids]

    def fingerprint(self) -> Provenance:
        """Return which model this is; two toys with one matrix are one model."""
        return Provenance(
            runtime=self.name,
            model="toy-bigram",
            revision=hash_texts([self.model.logprobs.tobytes()]),
            dtype="float64",
            tokenizer=hash_texts(TOKENS),
            template=hash_texts(["<role>content"]) if self.provides.chat else "",
        )

    def close(self) -> None:
        """Free nothing: the model was handed in."""

    def _text(self, prompt: Prompt) -> str:
        check_prompts([prompt])
        if isinstance(prompt, Chat):
            check_needs("a chat prompt", Needs(chat=True), self.name, self.provides)
            return "".join(f"<{role}>{content}" for role, content in prompt.messages) + f"<assistant>{prompt.prefix}"
        return prompt

    def _read(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        check_prompts(prompts)
        starts = [self.model.encode(self._text(prompt)) for prompt in prompts]
        for start in starts:
            check_length(len(start), self.provides.context_length, "The prompt")
        return starts

    def _joint(self, prompt: Prompt, text: str) -> list[int]:
        if not isinstance(text, str) or not text:
            raise InputError(f"'continuations' must hold texts that are not empty. Got {text!r}: leave it out.")
        joint = self.model.encode(self._text(prompt) + text)
        check_length(len(joint), self.provides.context_length, "Prompt and continuation")
        return joint

    def _check_top(self, top: int | None) -> None:
        limit = self.provides.top
        if top is None:
            check_needs("top=None", Needs(full_vocabulary=True), self.name, self.provides)
        elif limit is not None and top > limit:
            raise CapabilityError(f"top={top} is more than the {limit} that the backend '{self.name}' lists: ask less.")

    def _listed(self, rows: Sequence[Floats], top: int | None, chosen: Sequence[int] | None = None) -> TokenScores:
        """Return (T, L) scores of (V,) rows: the chosen token only, the `top` ones, or the whole vocabulary."""
        table = np.asarray(rows).reshape(-1, len(TOKENS))  # (T, V)
        own = None if chosen is None else np.asarray(chosen, dtype=np.int64)
        value = None if own is None else table[np.arange(len(own)), own]
        if top is None:
            return TokenScores(table, chosen=own, chosen_logprob=value)
        ids = np.argsort(-table, axis=1, kind="stable")[:, :top] if top or own is None else own[:, None]
        listed = np.take_along_axis(table, ids, axis=1)
        scores = TokenScores(listed, ids=ids, chosen=own, chosen_logprob=value)
        return replace(scores, log_cut=listed[:, -1]) if top else scores  # what is not listed lies below the last one

    def _scored(self, joint: Sequence[int], shared: int, top: int | None) -> TokenScores:
        rows = [self.model.next_logprobs(joint[:at]) for at in range(shared, len(joint))]
        return self._listed(rows, top, joint[shared:])

    def _draw(self, start: Sequence[int], sampling: Sampling, steer: Calibrator | None, index: int) -> Stream:
        random = np.random.default_rng(None if sampling.seed is None else (sampling.seed, index))
        drawn: list[int] = []
        rows: list[Floats] = []
        text, shown, is_done, is_stopped = "", "", self._room(start, sampling) < 1, False
        while not is_done:
            rows.append(self.model.next_logprobs([*start, *drawn]))  # raw: neither temperature nor steer touches it
            drawn.append(self._pick(rows[-1], sampling.temperature, steer, random))
            text, is_stopped = cut_at_stop(self.model.decode(drawn), sampling.stop)
            is_stopped = is_stopped or drawn[-1] == END
            is_done = is_stopped or len(drawn) >= self._room(start, sampling)
            sure = text if is_done else settled(text, sampling.stop)
            yield Piece(grown(shown, sure), self._listed(rows[-1:], sampling.top, drawn[-1:]))
            shown = sure
        return Completion(
            text=text,
            scores=self._listed(rows, sampling.top, drawn),
            finish="stop" if is_stopped else "length",
            settings=self._settings(sampling, steer),
        )

    def _room(self, start: Sequence[int], sampling: Sampling) -> int:
        limit = self.provides.context_length
        return sampling.max_tokens if limit is None else min(sampling.max_tokens, limit - len(start))

    def _pick(self, row: Floats, temperature: float, steer: Calibrator | None, random: np.random.Generator) -> int:
        logits = row if steer is None else steer(TokenScores(row[None])).logprobs[0]
        if temperature == 0.0:
            return int(np.argmax(logits))
        return int(random.choice(len(logits), p=np.exp(log_softmax(logits / temperature))))

    def _settings(self, sampling: Sampling, steer: Calibrator | None) -> dict[str, Any]:
        names = ("temperature", "max_tokens", "seed", "stop")
        return {name: getattr(sampling, name) for name in names} | {"steer": "" if steer is None else str(steer)}
