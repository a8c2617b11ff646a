"""llama.cpp through llama-cpp-python: GGUF files on a CPU, log-probabilities from the raw logits of the context.

Nothing of llama-cpp-python's own `logprobs=` is used: it needs `logits_all=True` (context x vocabulary floats), keys
tokens by text, and shifts the scores of a prompt by one where the model has no BOS token.
"""

import atexit
import contextlib
import io
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from calibwrap.adapters._llamacpp_batch import Request, steps_together
from calibwrap.adapters._llamacpp_drawing import drawer
from calibwrap.adapters._llamacpp_engine import Engine, Row, check_open
from calibwrap.adapters._llamacpp_files import check_gguf, file_hash, number_format
from calibwrap.adapters._llamacpp_scores import given_scores, token_scores
from calibwrap.adapters._llamacpp_steering import check_token_level, logits_processor
from calibwrap.adapters._llamacpp_stream import Trace, drawn
from calibwrap.adapters._llamacpp_vocabulary import Vocabulary
from calibwrap.adapters._shared import (
    check_ids,
    check_length,
    check_prompts,
    check_top,
    hash_texts,
    split_joint,
)
from calibwrap.adapters._vocabulary_hash import hash_vocabulary
from calibwrap.base import Adapter, Calibrator, Completion, Sampling, Stream
from calibwrap.capabilities import Provides, check_needs
from calibwrap.errors import InputError, ModelError, need
from calibwrap.provenance import Provenance
from calibwrap.questions import Prompt
from calibwrap.scores import TokenScores

__all__ = ["LlamaCpp", "logits_processor"]

DEFAULT_CONTEXT = 4096
"""Tokens of context when nobody asks for another number; a model trained on fewer is used up to those."""


class LlamaCpp(Adapter):
    """A `llama_cpp.Llama`, handed in or loaded here.

    One lock a `Llama`: calls from several threads wait for each other. A handed-in object stays its owner's, who may
    use it between two calls (not during one).
    """

    name = "llama-cpp"
    wraps: ClassVar[tuple[str, ...]] = ("llama_cpp",)

    def __init__(self, llama: Any, *, context_length: int | None = None) -> None:
        """Wrap a loaded `llama_cpp.Llama`; `context_length` limits the context further than its `n_ctx`.

        Raises:
            InputError: `llama` is something else.
            ModelError: it was closed, or it cannot generate.
        """
        api = need("llama_cpp", feature="the llama.cpp adapter", extra="llama-cpp")
        if not isinstance(llama, api.Llama):
            raise InputError(f"'llama' must be a llama_cpp.Llama. Got {type(llama).__name__}.")
        check_open(llama)
        self.llama = llama
        self._owned = False
        self._engine = Engine(llama)
        self._vocabulary = Vocabulary(llama)
        self._requests: dict[int, tuple[Prompt, Calibrator | None, Request]] = {}
        limit = self._engine.n_ctx
        self._context_length = limit if context_length is None else min(context_length, limit)
        self.provides = Provides(
            full_vocabulary=True,
            given_ids=None,
            top=None,
            score=True,
            tokenize=True,
            token_bytes=True,
            chat=bool(self._vocabulary.template),
            steers=True,
            streams=True,
            context_length=self._context_length,
            batch_size=1,
        )

    @classmethod
    def load(cls, target: str, **options: Any) -> Self:
        """Return an adapter around the GGUF file `target`; `options` go to `llama_cpp.Llama` untouched.

        Prompts are read by as many threads as tokens are drawn by (`n_threads`, half of the cores): llama.cpp's own
        default for prompts takes every core, and then waits for any that is busy with something else. Without `n_ctx`
        the context holds 4096 tokens, or what the model was trained on if that is fewer (0 asks for
        what it was trained on). `verbose` is False. KV-cache types and flash attention are llama.cpp's defaults.

        Raises:
            MissingExtra: llama-cpp-python is not installed.
            ModelError: the file is missing, cut off, not a GGUF file, or of an unknown architecture.
        """
        api = need("llama_cpp", feature="the llama.cpp adapter", extra="llama-cpp")
        path = Path(target)
        check_gguf(path)
        settings = {"n_ctx": DEFAULT_CONTEXT, "verbose": False, **_threads(options), **options}
        noise = contextlib.nullcontext() if settings["verbose"] else contextlib.redirect_stderr(io.StringIO())
        try:
            with noise:  # warnings of the native library come through Python's stderr even when it is not verbose
                llama = api.Llama(str(path), **settings)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise ModelError(
                f"llama.cpp could not load {path} ({path.stat().st_size} bytes): the file is cut off, or of a kind "
                f"that this llama.cpp does not know, or the options do not fit ({error}). Compare its SHA-256 with "
                "the publisher's."
            ) from error
        atexit.register(_close_if_alive, weakref.ref(llama))
        trained = None if "n_ctx" in options else api.llama_model_n_ctx_train(llama.model)
        adapter = cls(llama, context_length=trained)
        adapter._owned = True
        return adapter

    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of what `continuation` adds to it, tokenised together.

        Control tokens written in a plain text are text; in a chat, and in what follows it, they count.
        """
        check_prompts([prompt])
        ids = self._vocabulary.read(prompt)
        if not continuation:
            return ids, []
        joint = self._vocabulary.read(prompt, continuation)
        shared = split_joint(ids, [joint])
        return joint[:shared], joint[shared:]

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token; b"" for control tokens."""
        return [self._vocabulary.piece(token) for token in ids]

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return one position a prompt: that prompt's own `ids`, else the `top` most probable, else the vocabulary.

        Raises:
            InputError: an empty prompt, not one list of ids a prompt, an unknown id, or `top` below 1.
            PromptTooLong: a prompt does not fit; raised before any decoding.
        """
        check_top(top, least=1)
        contexts = self._contexts(prompts, room=0)
        if ids is not None:
            check_ids(ids, len(prompts), self._vocabulary.size)
        found = []
        for index, context in enumerate(contexts):
            with self._engine.lock:
                row = self._engine.next_row(context)
            found.append(token_scores([row], None, top) if ids is None else given_scores(row, ids[index]))
        return found

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return the scores of each prompt's continuations: one pass over the prompt, one batch a continuation.

        `chosen` are the tokens from where the continuations part from the prompt, which may be its last token where
        the tokenizer merges across the boundary; it is the same place for all continuations of one prompt.

        Raises:
            InputError: an empty continuation, or not one list a prompt.
            PromptTooLong: a prompt with its continuation does not fit; raised before any decoding.
        """
        check_prompts(prompts)
        check_top(top, least=0)
        if len(prompts) != len(continuations):
            raise InputError(f"Expected continuations for {len(prompts)} prompts. Got {len(continuations)} lists.")
        plans = [self._plan(*pair) for pair in zip(prompts, continuations, strict=True)]
        found = []
        for prefix, suffixes in plans:
            with self._engine.lock:
                found.append(self._scored(prefix, suffixes, top))
        return found

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions a prompt, drawn from the whole softmax; scores are raw.

        The distribution drawn from is softmax(logits / T), or with `steer` its calibrated log-probabilities divided
        by T: a fitted temperature and the sampling temperature multiply. The completions of a prompt read it once and
        are decoded in one batch, in a context beside the model's own for as long as it takes. Completion i is drawn
        by the seed and i alone, and the same call gives the same; llama.cpp rounds by how many it decodes at a time,
        so that one of several may part from the same one drawn alone where two tokens are close.

        Raises:
            InputError: an empty prompt.
            CapabilityError: `steer` is not of level "token".
            PromptTooLong: a prompt and `max_tokens` do not fit together; raised before any decoding.
        """
        contexts = self._checked(prompts, sampling, steer)
        completions = []
        for context in contexts:
            with self._engine.lock:
                completions.append(self._completions(context, sampling, steer))
        return completions

    def stream(self, prompt: Prompt, sampling: Sampling, steer: Calibrator | None = None, index: int = 0) -> Stream:
        """Yield the tokens of the completion that `generate` draws as number `index`, and return it.

        With `sampling.n` above 1 all completions grow in one batch, as `generate` draws them, bit for bit. Number 0
        begins the drawing, and its stream ends when all are drawn; the others are kept for as long as `sampling`, the
        very object, lives, and each is given away once. Asked for in another order, they are drawn anew.

        The model is held while a token is drawn, not between two tokens: other calls may come in between, and then
        what they pushed out of the context is read again.

        Raises:
            InputError: an empty prompt.
            CapabilityError: `steer` is not of level "token".
            PromptTooLong: prompt and `max_tokens` do not fit together; raised before any decoding.
        """
        (context,) = self._checked(prompts=[prompt], sampling=sampling, steer=steer)
        if sampling.n == 1:
            trace = Trace(self._vocabulary, sampling, _settings(sampling, steer), drawer(sampling, steer, index))
            return drawn(self._engine, context, trace)
        kept = self._requests.get(id(sampling))
        if index and kept is not None and kept[0] == prompt and kept[1] is steer and kept[2].take(index):
            return kept[2].stream(index)
        own = replace(sampling)  # what is kept must not itself keep `sampling` alive
        request = Request(self._engine, context, self._traces(own, steer))
        request.take(index)
        if kept is None:
            weakref.finalize(sampling, self._requests.pop, id(sampling), None)
        self._requests[id(sampling)] = prompt, steer, request
        return request.stream(index)

    def fingerprint(self) -> Provenance:
        """Return file name, SHA-256, quantisation with cache types, and hashes of tokenizer and template."""
        path = Path(self.llama.model_path)
        template = self._vocabulary.template
        return Provenance(
            runtime=self.name,
            model=path.name,
            revision=file_hash(path),
            dtype=number_format(self.llama, self._engine.api),
            tokenizer=hash_vocabulary(enumerate(self._vocabulary.entries())),
            template=hash_texts([template]) if template else "",
        )

    def close(self) -> None:
        """Free the model if `load` made it; a handed-in `Llama` is left alone."""
        if self._owned:
            with self._engine.lock:
                self.llama.close()

    def _checked(self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None) -> list[list[int]]:
        """Return the ids of all prompts, when completions can be drawn after them."""
        if steer is not None:
            check_token_level(steer)
            check_needs(f"the calibrator '{steer.kind}'", steer.needs, self.name, self.provides)
        check_top(sampling.top, least=0)
        return self._contexts(prompts, room=sampling.max_tokens)

    def _contexts(self, prompts: Sequence[Prompt], room: int) -> list[list[int]]:
        """Return the ids of all prompts, each with `room` tokens left in the context."""
        check_prompts(prompts)
        contexts = [self._vocabulary.read(prompt) for prompt in prompts]
        for index, context in enumerate(contexts):
            what = f"'prompts[{index}]'" + (f" with max_tokens={room}" if room else "")
            check_length(len(context) + room, self._context_length, what)
        return contexts

    def _plan(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the ids that all continuations of a prompt share, and what each adds."""
        if isinstance(continuations, str) or not all(isinstance(text, str) and text for text in continuations):
            raise InputError(f"Each prompt needs a list of texts, none empty. Got {continuations!r}.")
        joints = [self._vocabulary.read(prompt, text) for text in continuations]
        for joint in joints:
            check_length(len(joint), self._context_length, "A prompt with its continuation")
        shared = split_joint(self._vocabulary.read(prompt), joints) if joints else 0
        return joints[0][:shared] if joints else [], [joint[shared:] for joint in joints]

    def _scored(self, prefix: list[int], suffixes: list[list[int]], top: int | None) -> list[TokenScores]:
        if not suffixes:
            return []
        first = self._engine.next_row(prefix)
        return [token_scores(self._rows(first, prefix, suffix), suffix, top) for suffix in suffixes]

    def _rows(self, first: Row, prefix: list[int], suffix: list[int]) -> Iterator[Row]:
        """Yield the logits that each token of `suffix` was drawn from."""
        yield first
        if len(suffix) > 1:
            yield from self._engine.rows_after(prefix, suffix[:-1])

    def _completions(self, context: list[int], sampling: Sampling, steer: Calibrator | None) -> list[Completion]:
        traces = self._traces(sampling, steer)
        for _ in steps_together(self._engine, context, traces):
            pass
        return [trace.completion for trace in traces if trace.completion is not None]  # each is there

    def _traces(self, sampling: Sampling, steer: Calibrator | None) -> list[Trace]:
        settings = _settings(sampling, steer)
        draws = (drawer(sampling, steer, index) for index in range(sampling.n))
        return [Trace(self._vocabulary, sampling, settings, draw) for draw in draws]


def _close_if_alive(reference: "weakref.ref[Any]") -> None:
    """Free a model while the interpreter is still whole; llama-cpp-python's own finaliser complains after that."""
    llama = reference()
    if llama is not None:
        llama.close()


def _settings(sampling: Sampling, steer: Calibrator | None) -> dict[str, Any]:
    """Return what was really in force: nothing was truncated or penalised."""
    names = ("temperature", "max_tokens", "seed", "stop")
    untruncated = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    steering = {"steer": "" if steer is None else str(steer)}
    return {name: getattr(sampling, name) for name in names} | untruncated | steering


def _threads(options: Mapping[str, Any]) -> dict[str, int]:
    """Return the default number of threads for reading prompts."""
    return {"n_threads_batch": options.get("n_threads") or max(1, (os.cpu_count() or 2) // 2)}
