"""vLLM in this process: exact log-probabilities of given tokens, scored continuations, calibrators inside decoding.

All that is read is what vLLM itself returns in its `raw_logprobs` mode: natural-log probabilities of the whole
vocabulary's softmax at temperature 1. Prompts are sent as token ids, never as text.
"""

import atexit
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from calibwrap.adapters._model_files import looks_like_path, revision_of
from calibwrap.adapters._shared import check_continuations, check_ids, check_length, check_prompts, hash_texts
from calibwrap.adapters._token_bytes import shows_bytes, token_bytes
from calibwrap.adapters._tokenizer import Reader
from calibwrap.adapters._vllm_drawing import completions, seeds, settings_of
from calibwrap.adapters._vllm_facts import STEERING, check_drawing, facts_of, list_length, provides_of
from calibwrap.adapters._vllm_opening import FEATURE, ends_of, number_format, open_engine, shut_down, tokenizer_of
from calibwrap.adapters._vllm_reading import ONE_POSITION, given_scores, in_chunks, token_scores
from calibwrap.adapters._vllm_wire import to_text
from calibwrap.base import Adapter, Calibrator, Completion, Sampling
from calibwrap.capabilities import check_needs
from calibwrap.errors import CalibwrapError, CapabilityError, InputError, ModelError, need
from calibwrap.provenance import Provenance
from calibwrap.questions import Prompt
from calibwrap.scores import TokenScores

__all__ = ["STEERING", "VLLM"]

_READINGS = 5
"""How often `probe` reads one position."""


class VLLM(Adapter):
    """A `vllm.LLM`, handed in or loaded here.

    One lock an engine: calls from several threads wait for each other, and each call is one batch to vLLM. A handed-in
    engine stays its owner's. To steer one, make it with `logits_processors=[calibwrap.adapters.vllm_engine.STEERING]`.
    """

    name: ClassVar[str] = "vllm"
    wraps: ClassVar[tuple[str, ...]] = ("vllm",)

    def __init__(self, llm: Any) -> None:
        """Wrap a loaded `vllm.LLM`; its configuration is read once.

        Raises:
            InputError: `llm` is something else, or has no tokenizer of Transformers.
            CapabilityError: the engine does not generate.
            SemanticsMismatch: it returns logits in place of log-probabilities.
        """
        vllm = need("vllm", feature=FEATURE, extra="vllm")
        if not isinstance(llm, vllm.LLM):
            raise InputError(f"'llm' must be a vllm.LLM. Got {type(llm).__name__}.")
        self._vllm, self._llm = vllm, llm
        self._reader = Reader(tokenizer_of(llm))
        self._config = llm.llm_engine.vllm_config
        self._facts = facts_of(self._config, vllm.SamplingParams.__struct_fields__)
        self._ends = ends_of(self._config.model_config, self._reader.tokenizer)
        self._lock = threading.Lock()
        self._owned = False
        self._fingerprint: Provenance | None = None
        self.provides = provides_of(
            self._facts, chat=bool(self._reader.template), token_bytes=shows_bytes(self._reader.tokenizer)
        )

    @property
    def llm(self) -> Any:
        """The `vllm.LLM`."""
        if self._llm is None:
            raise ModelError("This engine was closed: load it again.")
        return self._llm

    @classmethod
    def load(cls, target: str, **options: Any) -> Self:
        """Return an adapter around an engine for a model directory or a hub id; `options` go to `vllm.LLM` untouched.

        Only calibwrap's plug-in is added to `logits_processors`, unless the engine decodes speculatively. On a CPU
        prompts are read whole unless `enable_chunked_prefill` says otherwise: seeded draws would end the engine.

        Raises:
            MissingExtra: vLLM is not installed.
            ModelError: nothing there, or vLLM could not start; its own error is chained.
        """
        llm = open_engine(str(target), options)
        try:
            adapter = cls(llm)
        except CalibwrapError:
            shut_down(llm)
            raise
        adapter._owned = True
        atexit.register(_shut_down_if_alive, weakref.ref(llm))
        return adapter

    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Return the ids of the prompt and of what `continuation` adds, read together; special tokens come once.

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
        """Return the bytes of each token; b"" for a token without text.

        Raises:
            CapabilityError: the tokenizer does not show them.
        """
        if not self.provides.token_bytes:
            return super().token_bytes(ids)
        return token_bytes(self._reader.tokenizer, ids)

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return one position a prompt: that prompt's own `ids`, else the `top` most probable, else the vocabulary.

        Given ids are exact; beyond 128 they are read in several requests, whose prompt vLLM computes once.

        Raises:
            InputError: prompts that are not text, lists of `ids` that do not match the prompts, or unknown ids.
            CapabilityError: a longer list than `max_logprobs`, or given ids with a vLLM that cannot score them.
            PromptTooLong: a prompt and one token do not fit; raised before any model call.
        """
        if ids is None:
            listed = list_length(self._facts, top, least=1)
            tokens = self._read_all(prompts, new=1)
            replies = self._run(tokens, [{**ONE_POSITION, "logprobs": listed}] * len(tokens))
            drawn = [reply.outputs[0].logprobs for reply in replies]
            return [token_scores(positions, None, listed, self._facts.vocabulary) for positions in drawn]
        tokens = self._read_all(prompts, new=1)
        self._check_ids(ids, len(prompts))
        return self._given(tokens, ids)

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return for each prompt the scores of each of its continuations, all in one call to vLLM.

        A prompt whose continuations add one token each is read once, at its next position, which uses vLLM's prefix
        cache. Longer continuations are one request each, their prompt computed anew: vLLM keeps no log-probabilities
        in that cache.

        Raises:
            InputError: an empty continuation, something that is not text, or lists of different lengths.
            CapabilityError: a longer list than `max_logprobs`, or an engine whose prompt scores are wrong.
            PromptTooLong: a prompt with a continuation and one token do not fit; raised before any model call.
        """
        check_prompts(prompts)
        check_continuations(prompts, continuations)
        if not self.provides.score:
            raise CapabilityError(
                "This vLLM engine gives wrong scores of prompts: load it without kv_sharing_fast_prefill."
            )
        listed = list_length(self._facts, top, least=0)
        pairs = [self._reader.split(*pair) for pair in zip(prompts, continuations, strict=True)]
        for index, (prefix, tails) in enumerate(pairs):
            longest = len(prefix) + max(map(len, tails)) + 1
            check_length(longest, self.provides.context_length, f"'prompts[{index}]' with its longest continuation")
        short = {
            index
            for index, (_, tails) in enumerate(pairs)
            if listed == 0 and self._facts.reads_ids and all(len(tail) == 1 for tail in tails)
        }
        found = {index: one for index, one in zip(sorted(short), self._scored_once(pairs, sorted(short)), strict=True)}
        rest = [index for index in range(len(pairs)) if index not in short]
        found.update(zip(rest, self._scored_in_full([pairs[index] for index in rest], listed), strict=True))
        return [found[index] for index in range(len(pairs))]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions for each prompt, in one request each; scores are raw.

        Tokens are drawn from softmax(z / temperature) of the whole vocabulary, or of what `steer` makes of it. Nothing
        of the model's own generation config is in force but its end tokens. With a seed a draw depends on seed, prompt
        and sample alone, as far as the engine's logits do not depend on the batch.

        Raises:
            InputError: prompts that are not text.
            CapabilityError: a temperature that vLLM refuses, `steer` does not map tokens, or the engine cannot steer.
            SemanticsMismatch: the engine's log-probabilities would follow temperature or calibrator.
            PromptTooLong: a prompt and `max_tokens` do not fit together; raised before any model call.
        """
        check_drawing(self._facts, sampling, steer is not None)
        listed = list_length(self._facts, sampling.top, least=0)
        extra = {} if steer is None else {"extra_args": self._extra(steer)}
        tokens = self._read_all(prompts, new=sampling.max_tokens)
        own_seeds = seeds(tokens, sampling.seed) if self._facts.seeds else [None] * len(tokens)
        settings = [settings_of(sampling, seed, listed, self._ends) for seed in own_seeds]
        replies = self._run(tokens, [{**one, **extra} for one in settings])
        named = [{**one, "steer": "" if steer is None else str(steer)} for one in settings]
        return [
            completions(reply, sampling, own, self._reader, self._ends, self._facts.vocabulary)
            for reply, own in zip(replies, named, strict=True)
        ]

    def fingerprint(self) -> Provenance:
        """Return which model this is; files are hashed at the first call."""
        if self._fingerprint is None:
            model = self._config.model_config
            name = str(model.model)
            self._fingerprint = Provenance(
                runtime=self.name,
                model=Path(name).name if looks_like_path(name) else name,
                revision=revision_of(name, model.hf_config) or str(model.revision or ""),
                dtype=number_format(self._config),
                tokenizer=self._reader.hash(),
                template=hash_texts([self._reader.template]) if self._reader.template else "",
                semantics=self._facts.semantics,
            )
        return self._fingerprint

    def probe(self) -> Mapping[str, str]:
        """Return the engine's settings that decide what its numbers mean, and how far they move from run to run."""
        facts = self._facts
        longest = "the whole vocabulary" if facts.max_logprobs == -1 else f"{facts.max_logprobs} tokens"
        return {
            "log-probabilities": f"{facts.semantics} ({facts.logprobs_mode})",
            "longest list": f"{longest} (max_logprobs)",
            "given token ids": "exact" if facts.reads_ids else "not in this version of vLLM",
            "model runner": facts.runner,
            "calibrated decoding": "yes" if self.provides.steers else "no: the engine was made without the plug-in",
            "jitter": f"{self.jitter():.2g} nats over {_READINGS} readings of one position",
        }

    def jitter(self, prompt: Prompt = "Question: is water wet? Answer:") -> float:
        """Return how far the log-probability of one position's likeliest token moves between readings, in nats."""
        tokens = self._read_all([prompt], new=1)
        runs = [self._run(tokens, [{**ONE_POSITION, "logprobs": 0}]) for _ in range(_READINGS)]
        values = [next(iter(run[0].outputs[0].logprobs[0].values())).logprob for run in runs]
        return float(max(values) - min(values))

    def close(self) -> None:
        """Let go of the engine, and end its processes if it was loaded here; nothing works afterwards."""
        llm, self._llm = self._llm, None
        if llm is not None and self._owned:
            shut_down(llm)

    def _read_all(self, prompts: Sequence[Prompt], new: int) -> list[list[int]]:
        check_prompts(prompts)
        tokens = [self._reader.read(prompt)[0] for prompt in prompts]
        for index, ids in enumerate(tokens):
            check_length(len(ids) + new, self.provides.context_length, f"'prompts[{index}]' with max_tokens={new}")
        return tokens

    def _run(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return vLLM's replies to prompts of token ids, in their order."""
        llm = self.llm
        if not prompts:
            return []
        params = [self._vllm.SamplingParams(**one) for one in settings]
        inputs = [self._vllm.TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts]
        with self._lock:
            try:
                return list(llm.generate(inputs, params, use_tqdm=False))
            except Exception as error:  # vLLM's errors have no base that all its versions share
                raise ModelError(
                    f"vLLM did not answer ({error}): look at what it logged above; load the engine again if it ended."
                ) from error

    def _given(self, tokens: Sequence[Sequence[int]], ids: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Return the exact scores of each prompt's own ids."""
        jobs = [(index, chunk) for index, own in enumerate(ids) for chunk in in_chunks(own)]
        settings = [{**ONE_POSITION, "logprob_token_ids": chunk} for _, chunk in jobs]
        replies: dict[int, list[Any]] = {}
        for (index, _), reply in zip(jobs, self._run([tokens[index] for index, _ in jobs], settings), strict=True):
            replies.setdefault(index, []).append(reply.outputs[0].logprobs[0])
        return [given_scores(own, replies[index]) for index, own in enumerate(ids)]

    def _scored_once(
        self, pairs: Sequence[tuple[list[int], list[list[int]]]], which: Sequence[int]
    ) -> list[list[TokenScores]]:
        """Return the scores of continuations of one token each, all read at their prompt's next position."""
        firsts = [[tail[0] for tail in pairs[index][1]] for index in which]
        rows = self._given([pairs[index][0] for index in which], firsts)
        return [
            [
                TokenScores([[value]], ids=[[token]], chosen=[token], chosen_logprob=[value])  # type: ignore[arg-type]
                for token, value in zip(own, row.logprobs[0], strict=True)
            ]
            for own, row in zip(firsts, rows, strict=True)
        ]

    def _scored_in_full(
        self, pairs: Sequence[tuple[list[int], list[list[int]]]], listed: int
    ) -> list[list[TokenScores]]:
        """Return the scores of continuations, each read with its whole prompt."""
        joints = [prefix + tail for prefix, tails in pairs for tail in tails]
        replies = iter(self._run(joints, [{**ONE_POSITION, "prompt_logprobs": listed}] * len(joints)))
        size = self._facts.vocabulary
        return [
            [token_scores(next(replies).prompt_logprobs[len(prefix) :], tail, listed, size) for tail in tails]
            for prefix, tails in pairs
        ]

    def _extra(self, steer: Calibrator) -> dict[str, str]:
        """Return what a request carries to be steered, tried once here: an error there would end the engine."""
        from calibwrap.adapters._vllm_steering import EXTRA

        if steer.level != "token" and steer.kind != "identity":
            raise CapabilityError(
                f"Inside decoding a calibrator maps tokens, and '{steer.kind}' is of level '{steer.level}': use one of "
                "level 'token', or calibrate the answer after decoding."
            )
        check_needs(f"the calibrator '{steer.kind}'", steer.needs, self.name, self.provides)
        steer(np.zeros((1, self._facts.vocabulary)))
        return {EXTRA: to_text(steer)}

    def _check_ids(self, ids: Sequence[Sequence[int]], prompts: int) -> None:
        if not self._facts.reads_ids:
            raise CapabilityError(
                "This version of vLLM does not score given token ids: use top=... and its bounds, or a vLLM whose "
                "SamplingParams take 'logprob_token_ids'."
            )
        check_ids(ids, prompts, self._facts.vocabulary)


def _shut_down_if_alive(reference: "weakref.ref[Any]") -> None:
    """End the engine's processes while the interpreter is still whole."""
    llm = reference()
    if llm is not None:
        shut_down(llm)
