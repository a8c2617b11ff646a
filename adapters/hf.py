"""Hugging Face Transformers: the whole vocabulary, exact scores of continuations, and calibrators inside decoding."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from calibwrap.adapters import _hf_load
from calibwrap.adapters._model_files import looks_like_path, revision_of
from calibwrap.adapters._shared import (
    check_continuations,
    check_ids,
    check_length,
    check_prompts,
    check_top,
    hash_texts,
)
from calibwrap.adapters._token_bytes import shows_bytes, token_bytes
from calibwrap.adapters._tokenizer import Reader
from calibwrap.base import Adapter, Calibrator, Completion, Sampling, Stream
from calibwrap.capabilities import Provides, check_needs
from calibwrap.errors import CapabilityError, InputError, ModelError, need
from calibwrap.provenance import Provenance
from calibwrap.questions import Prompt
from calibwrap.scores import Floats, TokenScores


class Transformers(Adapter):
    """A causal language model of Transformers with its tokenizer.

    Args:
        model: a loaded causal language model, on any device; it is left as it is found.
        tokenizer: its tokenizer.
        batch_size: rows of one forward pass.
        logits_dtype: "float32" computes the output head of a half-precision model in float32, so that close
            probabilities do not fall together; "model" leaves it as it is. The softmax is in float32 always.
        hidden: whether scores hold the states that the output head read, for calibrators that want them.

    Raises:
        InputError: no tokenizer, or a model that is not a causal language model.
        CapabilityError: hidden states are asked for, and the model has no output head of its own.
    """

    name: ClassVar[str] = "hf"
    wraps: ClassVar[tuple[str, ...]] = ("transformers",)

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        batch_size: int = 8,
        logits_dtype: Literal["float32", "model"] = "float32",
        hidden: bool = False,
    ) -> None:
        """Look at the model once: what its architecture allows."""
        need("torch", feature="the 'hf' runtime", extra="hf")
        need("transformers", feature="the 'hf' runtime", extra="hf")
        from calibwrap.adapters._hf_forward import engine_of

        _check_parts(model, tokenizer, batch_size, logits_dtype)
        self._reader = Reader(tokenizer)
        self._engine: Any = engine_of(model, batch_size, logits_dtype == "float32", hidden)
        if hidden and model.get_output_embeddings() is None:
            raise CapabilityError(
                f"{type(model).__name__} has no output head whose input could be read: leave 'hidden'."
            )
        self._target = ""
        self._fingerprint: Provenance | None = None
        self.provides = Provides(
            full_vocabulary=True,
            given_ids=None,
            top=None,
            score=True,
            tokenize=True,
            token_bytes=shows_bytes(tokenizer),
            chat=bool(self._reader.template),
            hidden=hidden,
            steers=True,
            streams=True,
            context_length=getattr(model.config.get_text_config(), "max_position_embeddings", None),
            batch_size=batch_size,
        )

    @property
    def model(self) -> Any:
        """The Transformers model."""
        return self._open().model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._reader.tokenizer

    @classmethod
    def load(cls, target: str, **options: Any) -> Self:
        """Return an adapter around a model directory, a hub id or a .gguf file.

        `batch_size`, `logits_dtype` and `hidden` are this adapter's; all other options go to `from_pretrained`
        untouched. A GGUF file is turned into float32 weights unless `dtype` says otherwise.

        Raises:
            ModelError: nothing there, cut off, corrupt, or of an unknown architecture.
            InputError: a model without a tokenizer.
            MissingExtra: a package is not installed.
        """
        own = {name: options.pop(name) for name in ("batch_size", "logits_dtype", "hidden") if name in options}
        model, tokenizer = _hf_load.load_pair(str(target), options)
        adapter = cls(model, tokenizer, **own)
        adapter._target = str(target)
        return adapter

    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of what `continuation` adds, read together.

        Special tokens come once: the tokenizer's own before plain text, the template's in a chat. Where a token spans
        the boundary, it belongs to the continuation.

        Raises:
            InputError: an empty prompt, or text that is not valid Unicode.
            CapabilityError: chat messages, and the model has no chat template.
        """
        check_prompts([prompt])
        if not continuation:
            return self._reader.read(prompt)[0], []
        prefix, (tail,) = self._reader.split(prompt, [continuation])
        return prefix, tail

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token; b"" for special tokens.

        Raises:
            CapabilityError: the tokenizer does not show them.
        """
        return token_bytes(self.tokenizer, ids) if self.provides.token_bytes else super().token_bytes(ids)

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return one position a prompt: that prompt's own `ids`, else the `top` most probable, else the vocabulary.

        All values are normalised over the full vocabulary. A beginning that several prompts share is read once.

        Raises:
            InputError: prompts that are not text, lists of `ids` that do not match the prompts, or unknown ids.
            PromptTooLong: a prompt does not fit; raised before any model call.
        """
        from calibwrap.adapters import _hf_next as hf
        from calibwrap.adapters._hf_forward import inference

        engine = self._open()
        tokens = self._read_all(prompts, new=0)
        check_top(top, least=1)
        if ids is not None:
            check_ids(ids, len(prompts), engine.vocabulary)
        with inference(engine.model):
            return hf.next_token(engine, tokens, ids, top)

    @property
    def n_layers(self) -> int:
        """Number of layers; layer 0 of `states` is what the first one reads, the last is what the head reads."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    def states(self, prompts: Sequence[Prompt], layers: Sequence[int]) -> Floats:
        """Return the hidden states (N, L, D) at the last token of each of N prompts, after each of L layers.

        A beginning that several prompts share is read once.

        Raises:
            InputError: no such layer, or prompts that are not text.
            PromptTooLong: a prompt does not fit; raised before any model call.
        """
        from calibwrap.adapters import _hf_next as hf
        from calibwrap.adapters._hf_forward import inference

        engine, tokens, depth = self._open(), self._read_all(prompts, new=0), self.n_layers
        if not layers or any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= depth for n in layers):
            raise InputError(f"'layers' must be numbers from 0 to {depth}, at least one. Got {list(layers)!r}.")
        with inference(engine.model):
            return hf.last_states(engine, tokens, layers)

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return for each prompt the scores of each of its continuations; one prefix pass serves them all.

        A position's scores begin where the continuations' tokens leave those of the prompt; numbers of continuations
        may differ, a continuation may have many tokens, and several may begin alike.

        Raises:
            InputError: an empty continuation, something that is not text, or lists of different lengths.
            PromptTooLong: a prompt with a continuation does not fit; raised before any model call.
        """
        from calibwrap.adapters import _hf_score as hf
        from calibwrap.adapters._hf_forward import inference

        engine = self._open()
        check_prompts(prompts)
        check_continuations(prompts, continuations)
        check_top(top, least=0)
        jobs = []
        for index, (prompt, texts) in enumerate(zip(prompts, continuations, strict=True)):
            job = hf.Job(index, *self._reader.split(prompt, texts))
            check_length(job.longest, self.provides.context_length, f"'prompts[{index}]' with its longest continuation")
            jobs.append(job)
        with inference(engine.model):
            return hf.score(engine, jobs, top)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions for each prompt; `steer` acts on the drawing, not on the scores.

        Tokens are drawn from softmax(z / temperature) of the whole vocabulary, or of what `steer` makes of it. Nothing
        of the model's own generation config is in force but its end tokens. The end token is scored, and is not part
        of the text. With a seed, a prompt draws the same alone and among others; the same prompt twice draws twice.

        Raises:
            InputError: prompts that are not text.
            CapabilityError: `steer` does not map tokens.
            PromptTooLong: a prompt and `max_tokens` do not fit together; raised before any model call.
        """
        from calibwrap.adapters import _hf_generate as hf
        from calibwrap.adapters._hf_forward import inference

        engine = self._open()
        tokens = self._checked(prompts, sampling, steer)
        with inference(engine.model):
            return hf.generate(engine, self._reader, tokens, sampling, steer)

    def stream(self, prompt: Prompt, sampling: Sampling, steer: Calibrator | None = None, index: int = 0) -> Stream:
        """Yield the tokens of the completion that `generate` draws as number `index`, and return it.

        The drawing goes on in a thread of its own while a token is looked at, and other calls wait until it has ended.
        Closing the stream ends it at the next token.

        Raises:
            InputError: a prompt that is not text.
            CapabilityError: `steer` does not map tokens.
            PromptTooLong: prompt and `max_tokens` do not fit together; raised before any model call.
        """
        from calibwrap.adapters import _hf_stream as hf

        engine = self._open()
        (ids,) = self._checked([prompt], sampling, steer)
        return hf.stream(engine, self._reader, ids, sampling, steer, index)

    def fingerprint(self) -> Provenance:
        """Return which model this is; files are hashed at the first call.

        A model that was handed in may have been trained since it was opened, so its weights are hashed by sample
        instead of its files.
        """
        if self._fingerprint is None:
            model = self.model
            name = self._target or str(model.config.name_or_path) or type(model).__name__
            revision = revision_of(name, model.config) if self._target else _hf_load.sampled_weights(model)
            self._fingerprint = Provenance(
                runtime=self.name,
                model=Path(name).name if looks_like_path(name) else name,
                revision=revision,
                dtype=_number_format(self._engine),
                tokenizer=self._reader.hash(),
                template=hash_texts([self._reader.template]) if self._reader.template else "",
            )
        return self._fingerprint

    def close(self) -> None:
        """Let go of the model, and of the device's memory if it was loaded here; nothing works afterwards."""
        loaded, self._engine = self._engine is not None and bool(self._target), None
        if loaded:
            gc.collect()
            torch = need("torch", feature="the 'hf' runtime", extra="hf")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _open(self) -> Any:
        if self._engine is None:
            raise ModelError("This model was closed: load it again.")
        return self._engine

    def _checked(self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None) -> list[list[int]]:
        """Return the ids of all prompts, when completions can be drawn after them."""
        if steer is not None:
            check_needs(steer.kind, steer.needs, self.name, self.provides)
            if steer.level != "token" and steer.kind != "identity":
                raise CapabilityError(
                    f"Inside decoding a calibrator maps tokens, and '{steer.kind}' is of level '{steer.level}': use "
                    "one of level 'token', or calibrate the answer after decoding."
                )
        check_top(sampling.top, least=0)
        return self._read_all(prompts, new=sampling.max_tokens)

    def _read_all(self, prompts: Sequence[Prompt], new: int) -> list[list[int]]:
        check_prompts(prompts)
        tokens = [self._reader.read(prompt)[0] for prompt in prompts]
        for index, ids in enumerate(tokens):
            what = f"'prompts[{index}]'" + (f" with max_tokens={new}" if new else "")
            check_length(len(ids) + new, self.provides.context_length, what)
        return tokens


def _check_parts(model: Any, tokenizer: Any, batch_size: int, logits_dtype: str) -> None:
    if tokenizer is None or isinstance(tokenizer, (str, int)):
        raise InputError(
            f"Expected the model's tokenizer beside it. Got {tokenizer!r}: pass "
            "AutoTokenizer.from_pretrained(...) as the second argument."
        )
    if model.config.is_encoder_decoder or model.get_input_embeddings() is None or not model.can_generate():
        raise InputError(
            f"Expected a causal language model, such as AutoModelForCausalLM gives. Got {type(model).__name__}."
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"'batch_size' must be an integer of at least 1. Got {batch_size!r}.")
    if logits_dtype not in ("float32", "model"):
        raise InputError(f"'logits_dtype' must be 'float32' or 'model'. Got {logits_dtype!r}.")


def _number_format(engine: Any) -> str:
    """Return dtype, quantisation, attention implementation and the head's dtype: all of them move logits a little."""
    config = engine.model.config
    quantised = getattr(config, "quantization_config", None)
    method = quantised.get("quant_method") if isinstance(quantised, dict) else getattr(quantised, "quant_method", None)
    parts = [str(engine.model.dtype).removeprefix("torch."), f"attention={config._attn_implementation}"]
    if method is not None:
        parts.insert(0, str(getattr(method, "value", method)))
    if engine.float32_head and parts[-2] in ("bfloat16", "float16"):
        parts.append("head=float32")
    return " ".join(parts)
