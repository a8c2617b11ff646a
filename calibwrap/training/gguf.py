"""Llama weights as a GGUF file, for llama.cpp: tensors of one folder of Transformers weights, one at a time.

Other architectures are refused by name; llama.cpp's own script converts them. Names and layout are those of the GGUF
specification (ggml project, docs/gguf.md).
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calibwrap.errors import InputError, ModelError, need
from calibwrap.files import replacing
from calibwrap.training.weights import WEIGHTS

OutType = Literal["f32", "f16", "q8_0"]
"""Number format of the matrices; norms and biases, which are small, stay in float32."""

_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}


def export_gguf(folder: str | Path, file: str | Path, *, outtype: OutType = "f32") -> Path:
    """Return `file`, a GGUF file of the Llama weights and the byte-level BPE tokenizer in `folder`.

    The file appears whole or not at all, and one tensor is in memory at a time. Matrices whose rows are no multiple of
    32 long stay in float16 with "q8_0", as llama.cpp's own script leaves them.

    Args:
        folder: safetensors weights with their config and tokenizer, such as `save_weights` writes.
        file: where to write.
        outtype: "f32" loses nothing; "f16" halves the file; "q8_0" quantises to 8 bits.

    Raises:
        InputError: another architecture, tokenizer or rotary scaling than this function writes, a wrong `outtype`, or
            a folder to write to that does not exist.
        ModelError: the folder cannot be read, or holds a weight that Llama does not have.
        MissingExtra: the package gguf is not installed.
    """
    from calibwrap.training.gguf_tokenizer import add_tokenizer

    if outtype not in _FILE_TYPES:
        raise InputError(f"'outtype' must be one of {', '.join(_FILE_TYPES)}. Got {outtype!r}.")
    gguf = need("gguf", feature="writing a GGUF file", extra="train")
    folder, file = Path(folder), Path(file)
    if not file.parent.is_dir():
        raise InputError(f"The folder of '{file}' does not exist: make it first, or choose another file.")
    if file.is_dir():
        raise InputError(f"'{file}' is a folder: give the path of a file, such as '{file / 'model.gguf'}'.")
    config, tokenizer = _opened(folder)
    with ExitStack() as opened, replacing(file) as part:
        tensors = dict(_tensors(folder, config, opened))
        writer = gguf.GGUFWriter(part, "llama")
        opened.callback(writer.close)
        _add_hyperparameters(writer, config, folder.resolve().name)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[outtype]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_tokenizer(writer, tokenizer, int(config.vocab_size))
        _write_tensors(writer, tensors, config, outtype)
        writer.close()
    return file


def _opened(folder: Path) -> tuple[Any, Any]:
    """Return configuration and tokenizer of a folder whose architecture can be written."""
    transformers = need("transformers", feature="writing a GGUF file", extra="train")
    if not (folder / "config.json").is_file():
        hint = ""
        if (folder / "adapter_config.json").exists():
            hint = " This folder holds an adapter: save merged weights."
        elif (folder / WEIGHTS / "config.json").exists():
            hint = f" What training wrote stands in '{folder / WEIGHTS}'."
        raise ModelError(f"'{folder}' holds no config.json: give a folder of Transformers weights.{hint}")
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The model in '{folder}' cannot be read: {str(error).splitlines()[0]}") from error
    rope = config.rope_parameters["rope_type"] if config.model_type == "llama" else "default"
    for what, found, wanted in (
        ("architecture", config.model_type, "llama"),
        ("quantisation", getattr(config, "quantization_config", None), None),
        ("rotary scaling", rope, "default"),
        ("activation", getattr(config, "hidden_act", "silu"), "silu"),
    ):
        if found != wanted:
            raise InputError(
                f"export_gguf writes the {what} {wanted!r}. Got {found!r} in '{folder}': convert it with llama.cpp's "
                "own script, python convert_hf_to_gguf.py FOLDER --outfile FILE."
            )
    return config, tokenizer


def _add_hyperparameters(writer: Any, config: Any, name: str) -> None:
    """Write what llama.cpp must know about a Llama before its tensors."""
    head = int(config.head_dim)
    writer.add_name(name)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if head * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head)
        writer.add_value_length(head)


def _tensors(folder: Path, config: Any, opened: ExitStack) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield (GGUF name, (open safetensors file, name in it)) of every weight that llama.cpp reads."""
    gguf = need("gguf", feature="writing a GGUF file", extra="train")
    from safetensors import SafetensorError, safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"'{folder}' holds no safetensors weights: save the model with save_pretrained first.")
    for path in files:
        try:
            source = opened.enter_context(safe_open(path, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"The weights in '{path}' cannot be read: {error}.") from error
        for own in source.keys():  # noqa: SIM118 - an open safetensors file is no mapping
            if own == "lm_head.weight" and config.tie_word_embeddings:
                continue  # llama.cpp uses the embeddings where there is no output matrix
            name = names.get_name(own, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise ModelError(f"'{path}' holds the weight '{own}', which a Llama does not have.")
            yield name, (source, own)


def _write_tensors(writer: Any, tensors: Mapping[str, tuple[Any, str]], config: Any, outtype: OutType) -> None:
    """Write the table of tensors, then their data, in the same order."""
    gguf = need("gguf", feature="writing a GGUF file", extra="train")
    formats = {}
    for name, (source, own) in tensors.items():
        shape = source.get_slice(own).get_shape()
        formats[name] = _format(shape, outtype)
        block, size = gguf.GGML_QUANT_SIZES[formats[name]]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), int(np.prod(shape)) // block * size, formats[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (source, own) in tensors.items():
        array = source.get_tensor(own).float().numpy()
        if ".attn_q." in name:
            array = interleaved(array, config.num_attention_heads)
        elif ".attn_k." in name:
            array = interleaved(array, config.num_key_value_heads)
        writer.write_tensor_data(gguf.quants.quantize(array, formats[name]))


def _format(shape: list[int], outtype: OutType) -> Any:
    """Return the number format of a tensor of this shape."""
    kinds = need("gguf", feature="writing a GGUF file", extra="train").GGMLQuantizationType
    if outtype == "f32" or len(shape) < 2:
        return kinds.F32
    return kinds.Q8_0 if outtype == "q8_0" and shape[-1] % 32 == 0 else kinds.F16


def interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return query or key rows in llama.cpp's order: of each head, entries of the two rotary halves take turns.

    Transformers turns entry i together with entry i + D/2 of a head of D entries; llama.cpp turns neighbours.

    >>> interleaved(np.arange(4, dtype=np.float32), heads=1).tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])  # (heads, 2, D/2, ...)
    return halves.swapaxes(1, 2).reshape(weight.shape)
