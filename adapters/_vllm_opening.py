"""Opening a vLLM engine and closing it again, and what it knows of its model beside its settings."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibwrap.adapters._model_files import looks_like_path
from calibwrap.adapters._vllm_facts import STEERING
from calibwrap.errors import InputError, ModelError, need

FEATURE = "the 'vllm' runtime"
_NO_STEERING = ("speculative_config", "spec_method", "spec_model", "spec_tokens")
"""Options of an engine that decodes speculatively; vLLM takes no plug-in beside them."""


def open_engine(target: str, options: Mapping[str, Any]) -> Any:
    """Return a `vllm.LLM` for the model at `target`, made with `options` and calibwrap's plug-in.

    Raises:
        MissingExtra: vLLM is not installed.
        ModelError: nothing there, or vLLM could not start; its own error is chained.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # its log would mix with a command's results
    vllm = need("vllm", feature=FEATURE, extra="vllm")
    if looks_like_path(target) and not Path(target).exists():
        raise ModelError(f"There is no model directory '{target}': give a directory or a hub id.")
    from vllm.platforms import current_platform  # vLLM finds out about the hardware at this import

    try:
        return vllm.LLM(target, **options_of(options, on_cpu=bool(current_platform.is_cpu())))
    except ImportError:
        raise  # a broken installation says so itself
    except Exception as error:  # vLLM's errors have no base that all its versions share
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:400].rstrip(".:")
        raise ModelError(
            f"vLLM could not start with the model '{target}' ({reason}): check the model's files, the memory that is "
            "free and the options; what vLLM logged says more."
        ) from error


def options_of(options: Mapping[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """Return the options of `vllm.LLM`: the user's own untouched, and what calibrated decoding needs.

    >>> options_of({"dtype": "float32"}, on_cpu=False)["logits_processors"] == [STEERING]
    True
    """
    found: dict[str, Any] = {"enable_chunked_prefill": False} if on_cpu else {}  # see `Facts.seeds`
    found.update(options)
    if not any(options.get(name) for name in _NO_STEERING):
        others = [one for one in options.get("logits_processors") or [] if one != STEERING]
        found["logits_processors"] = [*others, STEERING]
    return found


def shut_down(llm: Any) -> None:
    """Return nothing, having ended the engine's processes."""
    llm.llm_engine.engine_core.shutdown()


def tokenizer_of(llm: Any) -> Any:
    """Return the engine's tokenizer, with the chat template that the engine was made with, if any.

    Raises:
        InputError: the engine has none, or one that is not of Transformers.
    """
    transformers = need("transformers", feature=FEATURE, extra="vllm")
    if llm.model_config.skip_tokenizer_init:
        raise InputError("This vLLM engine has no tokenizer: load it without skip_tokenizer_init.")
    tokenizer = llm.get_tokenizer()
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        raise InputError(
            f"Expected an engine with a tokenizer of Transformers. Got {type(tokenizer).__name__}: load it with "
            "tokenizer_mode='hf'."
        )
    if llm.chat_template:
        tokenizer = copy.copy(tokenizer)
        tokenizer.chat_template = llm.chat_template
    return tokenizer


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end a text: those of the model's generation config and the tokenizer's."""
    own = model.try_get_generation_config().get("eos_token_id")
    listed = own if isinstance(own, list) else [own]
    return sorted({int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None})


def number_format(config: Any) -> str:
    """Return dtype, quantisation, cache format and sharding: all of them move logits a little."""
    model, cache, shards = config.model_config, config.cache_config, config.parallel_config.tensor_parallel_size
    parts = [str(model.quantization)] if model.quantization else []
    parts.append(str(model.dtype).removeprefix("torch."))
    parts += [f"kv={cache.cache_dtype}"] if cache.cache_dtype != "auto" else []
    parts += [f"tensor-parallel={shards}"] if shards > 1 else []
    return " ".join(parts)
