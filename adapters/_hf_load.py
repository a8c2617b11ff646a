"""Opening a model with Transformers: a directory, a hub id or a GGUF file; broken ones are told in one sentence."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibwrap.adapters._model_files import looks_like_path
from calibwrap.errors import InputError, ModelError, need

_FOR_TOKENIZER = (
    "cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token", "trust_remote_code",
)  # fmt: skip
"""Options that say where a repository is; the tokenizer is looked for in the same place."""

_TRAINED = "weights"
"""Folder in which `calibwrap train` leaves whole weights."""


def load_pair(target: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the model and the tokenizer at `target`.

    Raises:
        ModelError: nothing there, cut off, corrupt, of an unknown architecture, or without some of its weights.
        InputError: a model without a tokenizer.
    """
    path = Path(target)
    if path.suffix.lower() == ".gguf":
        begins = check_gguf(path)
        place = str(path.parent)
        torch = need("torch", feature="loading a model", extra="hf")
        options = {"dtype": torch.float32, "gguf_file": path.name, **options}
        return _model(target, place, options), _beginning(_tokenizer(target, place, options), begins)
    if looks_like_path(target) and not path.is_dir():
        raise ModelError(f"There is no model directory '{target}': give a directory, a .gguf file or a hub id.")
    _check_base(path)
    return _model(target, target, options), _tokenizer(target, target, options)


def load_tokenizer(target: str) -> Any:
    """Return the tokenizer of `load_pair` alone; no weights are read.

    Raises:
        ModelError: a GGUF file that is absent or broken.
        InputError: there is none.
    """
    path = Path(target)
    if path.suffix.lower() != ".gguf":
        return _tokenizer(target, target, {})
    begins = check_gguf(path)
    return _beginning(_tokenizer(target, str(path.parent), {"gguf_file": path.name}), begins)


def _check_base(folder: Path) -> None:
    """Refuse a LoRA adapter on a GGUF file or a packaged model, which is one: PEFT would ask the hub for that name."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    from calibwrap.data import packaged_models

    try:
        base = str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The adapter configuration in '{folder}' cannot be read: {_first_line(error)}.") from error
    if base.endswith(".gguf") or base in {model.name for model in packaged_models()}:
        raise ModelError(
            f"'{folder}' holds a LoRA adapter of '{base}', and Transformers puts none on a GGUF file: open the merged "
            "weights, which training writes into the folder 'weights' beside it unless 'merge' is false."
        )


def _model(target: str, place: str, options: Mapping[str, Any]) -> Any:
    need("torch", feature="the 'hf' runtime", extra="hf")
    transformers = need("transformers", feature="the 'hf' runtime", extra="hf")
    from safetensors import SafetensorError

    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        advice = (
            "check the name, fetch the files again if they are incomplete, or use a model of a supported architecture."
        )
        if (Path(target) / _TRAINED / "config.json").is_file():
            advice = f"what training wrote stands in '{Path(target) / _TRAINED}'."
        raise ModelError(
            f"Transformers could not open the model '{target}' ({_first_line(error)}): {advice}"
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"The model '{target}' lacks {len(missing)} weights, such as '{missing[0]}', and would answer at random "
            "there: load a complete causal language model."
        )
    return model


def _tokenizer(target: str, place: str, options: Mapping[str, Any]) -> Any:
    transformers = need("transformers", feature="the 'hf' runtime", extra="hf")
    kept = {name: value for name, value in options.items() if name in (*_FOR_TOKENIZER, "gguf_file")}
    try:
        return transformers.AutoTokenizer.from_pretrained(place, **kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"No tokenizer could be opened at '{target}' ({_first_line(error)}): save one there with "
            "tokenizer.save_pretrained(...), or pass a loaded pair: Transformers(model, tokenizer)."
        ) from error


def _beginning(tokenizer: Any, begins: bool | None) -> Any:
    """Return the tokenizer, made to write a begin token before every text where the GGUF file asks for one.

    Transformers reads the vocabulary from the file and passes over this wish; without its begin token a model such as
    Gemma gives other probabilities.
    """
    bos = tokenizer.bos_token
    if begins and bos is not None and tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        processors = need("tokenizers", feature="loading a .gguf file", extra="hf").processors
        known = [(bos, tokenizer.bos_token_id)]
        before = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=known)
        backend = tokenizer.backend_tokenizer
        old = backend.post_processor
        backend.post_processor = before if old is None else processors.Sequence([old, before])
    return tokenizer


def check_gguf(path: Path) -> bool | None:
    """Return whether the GGUF file, which is whole, asks for a begin token; None when it does not say.

    Raises:
        ModelError: absent, not a GGUF file, or cut off.
        MissingExtra: the package gguf is not installed.
    """
    if not path.is_file():
        raise ModelError(f"There is no file '{path}': give the path of a .gguf file that exists.")
    gguf = need("gguf", feature="loading a .gguf file", extra="hf")
    try:
        reader = gguf.GGUFReader(path)
        wish = reader.get_field("tokenizer.ggml.add_bos_token")
        begins = None if wish is None else bool(wish.contents())
    except (ValueError, IndexError, KeyError, OverflowError, OSError, MemoryError) as error:
        raise ModelError(
            f"The file '{path}' is not a whole GGUF file ({path.stat().st_size} bytes; {_first_line(error)}): fetch it "
            "again and compare its SHA-256 with the publisher's."
        ) from error
    if not reader.tensors:
        raise ModelError(f"The file '{path}' holds no tensors: fetch it again, or give the file with the weights.")
    return begins


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".:")


def sampled_weights(model: Any) -> str:
    """Return a hash over every 1000th value or so of each weight, for a model whose files nobody can vouch for.

    Training moves nearly all weights, so a sample tells; to read all of a large model would take minutes.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1000)].float().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(sample.tobytes())
    return "sampled:" + digest.hexdigest()[:16]
