"""A runtime of one's own: a model that is a table, and the adapter that shows it to calibwrap.

The model counts which byte follows which in the lines of a text. Its tokens are the 256 bytes and one more for the end
of a line, so it reads every text and its probabilities can be looked up. To see what the conformance checks say:

    python examples/table_adapter.py
"""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from calibwrap import Adapter, Calibrator, Chat, Completion, Needs, Provenance, Provides, Sampling, TokenScores
from calibwrap.capabilities import check_needs
from calibwrap.errors import InputError
from calibwrap.questions import Prompt
from calibwrap.scores import Floats, log_softmax

END = 256


def count_bytes(text: str) -> Floats:
    """Return log-probabilities (257, 257): row = last byte, column = next byte or the end."""
    ids = [END if byte == ord("\n") else byte for byte in text.encode()]
    counts = np.full((END + 1, END + 1), 0.01)  # nothing is impossible
    np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
    return log_softmax(np.log(counts))


class Table(Adapter):
    """The contract around a table of log-probabilities."""

    name: ClassVar[str] = "table"

    def __init__(self, table: Floats) -> None:
        """Take a loaded model; say what it can do."""
        self.table = table
        self.provides = Provides(full_vocabulary=True, given_ids=None, top=None, score=True, tokenize=True, steers=True)

    @classmethod
    def load(cls, target: str, **options: Any) -> Self:
        """Return the adapter of the spec "table:FILE": a text file to count."""
        with open(target, encoding="utf-8") as file:
            return cls(count_bytes(file.read(), **options))

    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of both; bytes never merge across the boundary."""
        return self._read([prompt])[0], list(continuation.encode())

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return the row after each prompt: given ids, the likeliest, or all."""
        rows = [self.table[start[-1]] for start in self._read(prompts)]
        if ids is None:
            return [_listed(row[None], None, top) for row in rows]
        wanted = [np.array([own]) for own in ids]
        return [TokenScores(row[own], ids=own) for row, own in zip(rows, wanted, strict=True)]

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return one row for each byte that a continuation adds."""
        pairs = zip(self._read(prompts), continuations, strict=True)
        return [[self._scored(start, text, top) for text in texts] for start, texts in pairs]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None = None
    ) -> list[list[Completion]]:
        """Return draws; the scores are the table's own, whatever the temperature and `steer` do."""
        starts = self._read(prompts)
        return [[self._draw(start, sampling, steer, turn) for turn in range(sampling.n)] for start in starts]

    def fingerprint(self) -> Provenance:
        """Return which model this is."""
        digest = hashlib.sha256(self.table.tobytes()).hexdigest()
        return Provenance(self.name, "byte-table", revision=digest, dtype="float64", tokenizer="bytes")

    def close(self) -> None:
        """Free nothing: a table is just memory."""

    def _read(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        if isinstance(prompts, (str, Chat)):
            raise InputError("'prompts' must be a list of prompts. Got a single one: put it in a list.")
        return [self._bytes(prompt) for prompt in prompts]

    def _bytes(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, Chat):
            check_needs("a chat prompt", Needs(chat=True), self.name, self.provides)
        if not isinstance(prompt, str) or not prompt:
            raise InputError(f"A prompt must be a text that is not empty. Got {prompt!r}.")
        return list(prompt.encode())

    def _scored(self, start: Sequence[int], text: str, top: int | None) -> TokenScores:
        if not text:
            raise InputError("A continuation must not be empty: leave it out.")
        added = list(text.encode())
        return _listed(self.table[[start[-1], *added[:-1]]], added, top)

    def _draw(self, start: Sequence[int], sampling: Sampling, steer: Calibrator | None, turn: int) -> Completion:
        random = np.random.default_rng(None if sampling.seed is None else (sampling.seed, turn))
        drawn: list[int] = []
        rows: list[Floats] = []
        text, is_stopped = "", False
        while len(drawn) < sampling.max_tokens and not is_stopped:
            rows.append(self.table[[*start, *drawn][-1]])
            drawn.append(_pick(rows[-1], sampling.temperature, steer, random))
            text, is_stopped = _cut(drawn, sampling.stop)
        scores = _listed(np.array(rows), drawn, sampling.top)
        settings = {"temperature": sampling.temperature, "seed": sampling.seed, "steer": str(steer)}
        return Completion(text, scores, "stop" if is_stopped else "length", settings)


def _listed(rows: Floats, chosen: Sequence[int] | None, top: int | None) -> TokenScores:
    """Return rows (T, V) as scores: all of them, the `top` likeliest, or (0) the chosen tokens only."""
    own = None if chosen is None else np.asarray(chosen)
    value = None if own is None else rows[np.arange(len(own)), own]
    if top is None:
        return TokenScores(rows, chosen=own, chosen_logprob=value)
    ids = own[:, None] if top == 0 and own is not None else np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return TokenScores(np.take_along_axis(rows, ids, axis=1), ids=ids, chosen=own, chosen_logprob=value)


def _pick(row: Floats, temperature: float, steer: Calibrator | None, random: np.random.Generator) -> int:
    """Return the next token: the calibrator first, the sampling temperature on top of it."""
    logits = row if steer is None else steer(TokenScores(row[None])).logprobs[0]
    if temperature == 0.0:
        return int(np.argmax(logits))
    return int(random.choice(len(logits), p=np.exp(log_softmax(logits / temperature))))


def _cut(drawn: Sequence[int], stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text of all tokens together, up to the first stop text, and whether anything ended it."""
    text = bytes(token for token in drawn if token != END).decode("utf-8", errors="replace")
    found = [text.find(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text, bool(found) or drawn[-1] == END


if __name__ == "__main__":
    from calibwrap.testing import adapter_checks

    for check in adapter_checks(Table(count_bytes(__doc__))):
        print(f"{check.name}: {check.outcome}")
