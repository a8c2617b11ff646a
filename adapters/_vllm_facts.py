"""What a loaded vLLM engine is set to, read from its own configuration once, and what follows for calibration."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from calibwrap.adapters._shared import check_top
from calibwrap.base import Sampling
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, SemanticsMismatch

STEERING = "calibwrap.adapters._vllm_steering:Steering"
"""The plug-in's name for `vllm.LLM(logits_processors=[...])`."""
GIVEN_IDS_A_REQUEST = 128
"""How many token ids vLLM scores in one request."""
LARGEST_BATCH = 64
"""Prompts handed over in one piece, however many the engine takes: what a killed run loses is at most this."""


@dataclass(frozen=True)
class Facts:
    """One engine's settings, as far as log-probabilities and sampling depend on them."""

    logprobs_mode: str
    """What the engine returns: raw_logprobs, processed_logprobs, raw_logits or processed_logits."""
    max_logprobs: int
    """Longest list of log-probabilities; -1 is the whole vocabulary."""
    vocabulary: int
    """Size of the output head."""
    context_length: int
    """Tokens that fit, prompt and answer together."""
    sequences: int
    """Sequences that run together."""
    runner: Literal["V1", "V2"]
    """Model runner, which decides the interface of plug-ins."""
    steers: bool
    """Whether the plug-in of calibwrap was given when the engine was made."""
    speculates: bool
    """Whether a draft model proposes tokens."""
    reads_ids: bool
    """Whether this version of vLLM takes `logprob_token_ids`."""
    scores_prompts: bool
    """Whether log-probabilities of a prompt are right."""
    generates: bool
    """Whether the model generates at all."""
    seeds: bool
    """Whether a request may bring its own seed."""

    @property
    def semantics(self) -> str:
        """Meaning of the values: "raw", or "processed" where they follow temperature and plug-ins."""
        return "raw" if self.logprobs_mode == "raw_logprobs" else "processed"


def facts_of(config: Any, request_fields: Collection[str]) -> Facts:
    """Return the facts of an engine.

    Args:
        config: its `VllmConfig`.
        request_fields: names of the fields of this version's `SamplingParams`.
    """
    model = config.model_config
    plugs = [
        one if isinstance(one, str) else f"{one.__module__}:{one.__qualname__}" for one in model.logits_processors or ()
    ]
    reads_ids = "logprob_token_ids" in request_fields
    # Versions from before given ids could be read had one runner, and no property that says so.
    runner: Literal["V1", "V2"] = "V2" if reads_ids and config.use_v2_model_runner else "V1"
    return Facts(
        logprobs_mode=str(model.logprobs_mode),
        max_logprobs=int(model.max_logprobs),
        vocabulary=int(model.get_vocab_size()),
        context_length=int(model.max_model_len),
        sequences=int(config.scheduler_config.max_num_seqs),
        runner=runner,
        steers=STEERING in plugs,
        speculates=config.speculative_config is not None,
        reads_ids=reads_ids,
        scores_prompts=not config.cache_config.kv_sharing_fast_prefill,
        generates=model.runner_type == "generate",
        # On a CPU, runner V1 of vLLM 0.32 dies of a seeded request whose prompt it reads in chunks: it sets back the
        # request's generator by an offset, which generators of a CPU do not have.
        seeds=runner == "V2"
        or config.device_config.device_type != "cpu"
        or not config.scheduler_config.enable_chunked_prefill,
    )


def provides_of(facts: Facts, *, chat: bool, token_bytes: bool) -> Provides:
    """Return what an engine with these settings can give.

    Raises:
        CapabilityError: the engine was made for embeddings or classes.
        SemanticsMismatch: it returns logits, which are not normalised.
    """
    if not facts.generates:
        raise CapabilityError("This vLLM engine does not generate: load the model with runner='generate'.")
    if not facts.logprobs_mode.endswith("_logprobs"):
        raise SemanticsMismatch(
            f"This vLLM engine returns {facts.logprobs_mode} in place of log-probabilities: load it with "
            "logprobs_mode='raw_logprobs', which is vLLM's default."
        )
    full = facts.max_logprobs == -1
    return Provides(
        full_vocabulary=full,
        given_ids=None if facts.reads_ids else 0,
        top=None if full else facts.max_logprobs,
        score=facts.scores_prompts,
        tokenize=True,
        token_bytes=token_bytes,
        chat=chat,
        steers=facts.steers and not facts.speculates,
        context_length=facts.context_length,
        batch_size=min(facts.sequences, LARGEST_BATCH),
    )


def list_length(facts: Facts, top: int | None, least: int) -> int:
    """Return `logprobs=` of a request that lists `top` tokens, None being the whole vocabulary.

    Raises:
        InputError: `top` is below `least`.
        CapabilityError: the engine was made with a smaller `max_logprobs`.
    """
    check_top(top, least)
    if facts.max_logprobs == -1:
        return -1 if top is None else min(top, facts.vocabulary)
    if top is None or top > facts.max_logprobs:
        wanted = "the whole vocabulary" if top is None else f"a list of {top} tokens"
        raise CapabilityError(
            f"This vLLM engine lists at most max_logprobs={facts.max_logprobs} tokens, and {wanted} was asked for: "
            f"load it with max_logprobs={-1 if top is None else top}, or score the tokens you need with ids=[...]."
        )
    return top


def check_drawing(facts: Facts, sampling: Sampling, steered: bool) -> None:
    """Return nothing when such a draw, steered or not, is possible and comes with raw log-probabilities.

    Raises:
        CapabilityError: vLLM draws at no such temperature or with no seed, or has no plug-in to steer with.
        SemanticsMismatch: the engine would return values of the changed distribution.
    """
    temperature = sampling.temperature
    if temperature != 0.0 and not 0.01 <= temperature <= 2.0:
        raise CapabilityError(
            f"vLLM draws at temperature 0, or from 0.01 to 2. Got {temperature}: choose one of these; a calibrator's "
            "temperature may be any when it steers."
        )
    if sampling.seed is not None and temperature and not facts.seeds:
        raise CapabilityError(
            "This vLLM engine would end at a seeded draw, since it reads prompts in chunks on a CPU: make it with "
            "enable_chunked_prefill=False, let calibwrap load the model, or draw with seed=None."
        )
    if steered and facts.speculates:
        raise CapabilityError("vLLM steers no engine that decodes speculatively: load it without speculative_config.")
    if steered and not facts.steers:
        raise CapabilityError(
            f"This vLLM engine was made without calibwrap's plug-in, so that nothing can steer it: make it with "
            f"logits_processors=['{STEERING}'], or let calibwrap load the model."
        )
    if facts.semantics != "raw" and (steered or temperature not in (0.0, 1.0)):
        raise SemanticsMismatch(
            "This vLLM engine returns processed_logprobs, which follow the temperature and the calibrator, and so are "
            "not the model's own: load it with logprobs_mode='raw_logprobs', or draw at temperature 1 without steering."
        )
