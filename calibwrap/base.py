"""The contracts: Adapter, Readout, Calibrator, Decoder, and the small records that they exchange.

    prompt ----> decoder.flow() -- Sampling --> adapter.generate -- Completion --> calibrator --> decoder --> Answer
    question --> readout.ask(adapter) -- OptionScores --> calibrator --> Answer

Capabilities are data (`Provides`), wants are data (`Needs`); capabilities.py compares them once, before any model call.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.capabilities import Needs, Provides
from calibwrap.errors import CapabilityError, InputError
from calibwrap.provenance import FitReport, Provenance
from calibwrap.questions import Prompt, Question
from calibwrap.scores import Decided, Floats, OptionScores, TokenScores, checked_logits, log_softmax
from calibwrap.streaming import Piece
from calibwrap.traces import AnswerRule

Level = Literal["option", "token", "confidence"]


@dataclass(frozen=True)
class Sampling:
    """How to draw completions. The defaults leave the model's distribution untouched: no top-k, top-p or penalty."""

    n: int = 1
    """Completions for each prompt."""
    max_tokens: int = 64
    """Most tokens to draw."""
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy. Not to be confused with `Temperature.value`, which calibrates."""
    seed: int | None = None
    """Same seed, same draw."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; they are not part of it."""
    top: int | None = 0
    """Listed tokens a position: 0 the drawn one only, None the whole vocabulary."""
    answer: AnswerRule | None = None
    """How a completion names its answer; whoever drives the decoder then fills `Completion.labels`."""

    def __post_init__(self) -> None:
        """Check the fields once."""
        if self.n < 1 or self.max_tokens < 1 or not 0.0 <= self.temperature < float("inf") or (self.seed or 0) < 0:
            raise InputError(f"'n', 'max_tokens' >= 1, 'temperature' finite and >= 0, 'seed' >= 0 or None. Got {self}.")
        if any(not text for text in self.stop):
            raise InputError("'stop' must not hold an empty text.")


@dataclass(frozen=True)
class Completion:
    """One drawn text."""

    text: str
    """The text, without the stop text and without special tokens."""
    scores: TokenScores
    """Raw distribution at each of the T drawn positions; `chosen` are the drawn tokens, the end token included."""
    finish: Literal["stop", "length"]
    """Whether the model (or a stop text) ended it, or `max_tokens` did."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The sampling settings that were really in force, calibrator's temperature included."""
    labels: OptionScores | None = None
    """One row, over the labels, where the answer is named; None when none was asked for or none could be read."""


class Adapter(ABC):
    """One runtime, holding one loaded model or client. Reports the RAW distribution whatever the sampling settings."""

    name: ClassVar[str]
    """The word before the colon in a spec, such as "hf"."""
    wraps: ClassVar[tuple[str, ...]] = ()
    """Top-level packages whose loaded objects `wrap` hands to this adapter."""
    caches: ClassVar[bool] = False
    """Whether `load` takes `cache=FILE`, in which paid answers are kept."""
    provides: Provides
    """What this very model on this runtime can give."""

    @classmethod
    @abstractmethod
    def load(cls, target: str, **options: Any) -> Self:
        """Return an adapter around the model at `target`; `options` go to the runtime untouched."""

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: "Calibrator | None" = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions for each prompt; `steer` (token level) acts on the drawing, not on scores."""

    def stream(self, prompt: Prompt, sampling: Sampling, steer: "Calibrator | None" = None, index: int = 0) -> "Stream":
        """Yield the tokens of completion number `index` as they are drawn, where `provides.streams`; return it."""
        raise CapabilityError(f"The backend '{self.name}' streams no tokens: use hf, llama-cpp or openai.")

    @abstractmethod
    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return one position a prompt: that prompt's own `ids`, else the `top` most probable, else the vocabulary."""

    @abstractmethod
    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return for each prompt the scores of each of its continuations; one prefix pass serves them all."""

    def decide(self, questions: Sequence[Question]) -> list[Decided]:
        """Return the options' probabilities, where `provides.decides`: `context` is judged, `prompt` says what for."""
        raise CapabilityError(f"The backend '{self.name}' has no decision endpoint: use readout='label'.")

    @abstractmethod
    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of what `continuation` adds to it, as the model would read them together."""

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token, where `provides.token_bytes`; b"" for a token without text."""
        raise CapabilityError(f"The backend '{self.name}' does not show the bytes of its tokens.")

    @abstractmethod
    def fingerprint(self) -> Provenance:
        """Return which model this is."""

    def probe(self) -> Mapping[str, str]:
        """Return what asking a server has shown, a finding for each question; empty where a runtime needs no asking."""
        return {}

    def usage(self) -> Mapping[str, int]:
        """Return what was spent so far: requests, tokens and answers from the cache; empty where nothing is billed."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Free what was loaded here; a loaded object that was handed in is left alone."""


class Readout(ABC):
    """How a question becomes option scores: what to ask the model, and what to read."""

    name: ClassVar[str]
    needs: Needs
    min_mass: float = 0.0
    """Mean `label_mass` of a question set below which its scores deserve a `CalibrationWarning`."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name, settings and template in one text; two scores compare only when it is equal."""

    @abstractmethod
    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return the scores of all options of all questions."""


class Calibrator(ABC):
    """A frozen record whose fields ARE the fitted numbers; calling it maps scores to scores. None is ever unfitted."""

    kind: ClassVar[str]
    """Name in saved files."""
    level: Level = "option"
    """What it maps: scores of options, of tokens, or one confidence."""
    needs: ClassVar[Needs] = Needs()
    keeps_argmax: ClassVar[bool] = False
    """Whether the first choice, and so the accuracy, always stays."""
    report: FitReport | None = None

    @abstractmethod
    def logits(self, logprobs: Floats) -> Floats:
        """Return unnormalised log-probabilities (N, K) for log-probabilities (N, K); -inf stays -inf."""

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return lower and upper bounds (N, K) of calibrated probabilities; `CapabilityError` where none are honest."""
        raise CapabilityError(
            f"{self.kind} needs each option's exact probability, and {int(scores.is_cut.sum())} rows were cut off "
            "by the backend: use temperature, or a backend that scores given tokens."
        )

    @overload
    def __call__(self, scores: TokenScores) -> TokenScores: ...
    @overload
    def __call__(self, scores: OptionScores) -> OptionScores: ...
    @overload
    def __call__(self, scores: ArrayLike) -> Floats: ...

    def __call__(self, scores: Any) -> Any:
        """Return calibrated scores of the same kind and shape; still log-normalised, bounds carried through.

        `scores` may be OptionScores, TokenScores of the whole vocabulary, or an (N, K) array of log-probabilities or
        logits (both give the same), with -inf where there is no option.

        Raises:
            InputError: NaN inside, or a wrong shape.
            CapabilityError: truncated scores that this calibrator cannot map honestly.
        """
        if isinstance(scores, TokenScores):
            return self._on_tokens(scores)
        if isinstance(scores, OptionScores):
            return self._on_options(scores)
        return log_softmax(self.logits(log_softmax(checked_logits("scores", scores)[0])))

    def _on_options(self, scores: OptionScores) -> OptionScores:
        logprobs = log_softmax(self.logits(scores.logprobs))
        lower, upper = (np.exp(logprobs),) * 2 if scores.is_exact else self.bounds(scores)
        return replace(scores, logprobs=logprobs, lower=lower, upper=upper)

    def _on_tokens(self, scores: TokenScores) -> TokenScores:
        if not scores.is_full:
            raise CapabilityError(
                f"{self.kind} on tokens needs the whole vocabulary, and a list of {scores.logprobs.shape[1]} came: "
                "ask the backend for all tokens (top=None), or calibrate at option level."
            )
        logprobs = log_softmax(self.logits(scores.logprobs))
        chosen = None if scores.chosen is None else logprobs[np.arange(len(scores)), scores.chosen]
        return replace(scores, logprobs=logprobs, chosen_logprob=chosen, log_z=None)


@dataclass(frozen=True)
class Answer:
    """What a user gets: a text and the probability that it is right."""

    text: str
    """The chosen option's text, or the generated text."""
    confidence: float
    """Probability in [0, 1] that `text` is right; of free text, what its decoder says it is."""
    bounds: tuple[float, float]
    """Interval that `confidence` lies in for certain; both equal it where nothing was cut off."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Probability of each option, where there are options."""
    candidates: tuple[Completion, ...] = ()
    """The completions that a decoder chose from: all that were drawn."""
    calibrated_by: str = "identity"
    """Kind of the calibrator; "identity" is the model's own confidence, "none" a number that no calibrator touched."""
    unparsed: int = 0
    """How many candidates named no answer that could be read; they had no vote."""


def answer_of(question: Question, scores: OptionScores, row: int, kind: str) -> Answer:
    """Return the answer that row number `row` of the scores gives; `kind` is that of the calibrator on them."""
    best = int(scores.choice[row])
    probabilities = dict(zip(question.options, scores.probabilities[row].tolist(), strict=False))
    bounds = (float(scores.lower[row, best]), float(scores.upper[row, best]))
    return Answer(question.options[best], float(scores.confidence[row]), bounds, probabilities, (), kind)


Flow = Generator[Sampling, Sequence[Completion], Answer]
Stream = Generator[Piece, None, Completion]


class Decoder(ABC):
    """A way to an answer, without I/O: `flow` yields `Sampling` requests, is sent completions, returns the `Answer`."""

    needs: ClassVar[Needs] = Needs()

    @abstractmethod
    def flow(self) -> Flow:
        """Return a fresh generator for one prompt; many run in lock-step."""
