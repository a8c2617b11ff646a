"""The tokenizer of a GGUF file: tokens, kinds, merges and special ids of a byte-level BPE tokenizer."""

import json
from typing import Any

from calibwrap.errors import InputError, need

_DIGITS = {"type": "Digits", "individual_digits": True}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "gpt-2": [{"type": "ByteLevel", "use_regex": True}],
    "smollm": [_DIGITS, {"type": "ByteLevel", "use_regex": True}],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": _LLAMA_3}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "use_regex": False},
    ],
}
"""How a text is split before merges are applied, by llama.cpp's name of it."""


def add_tokenizer(writer: Any, tokenizer: Any, vocabulary: int) -> None:
    """Write the tokenizer into a GGUF file that has room for `vocabulary` tokens.

    Raises:
        InputError: not a byte-level BPE tokenizer that llama.cpp splits alike, or with more tokens than the model.
    """
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting(settings))
    tokens, kinds = _tokens(settings, vocabulary)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = settings["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for name in ("bos", "eos", "unk", "pad"):
        index = getattr(tokenizer, f"{name}_token_id")
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    written = tokenizer("a").input_ids
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and written[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(tokenizer.eos_token_id is not None and written[-1] == tokenizer.eos_token_id)
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def splitting(settings: Any) -> str:
    """Return llama.cpp's name of the way in which a tokenizer splits a text before merges.

    Args:
        settings: the content of a tokenizer.json.

    Raises:
        InputError: not byte-level BPE, or split in another way than the known ones.

    >>> plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    >>> model = {"type": "BPE", "byte_fallback": False, "ignore_merges": False}
    >>> splitting({"normalizer": None, "pre_tokenizer": plain, "model": model})
    'gpt-2'
    """
    model, first = settings["model"], settings["pre_tokenizer"]
    if model["type"] != "BPE" or model.get("byte_fallback") or settings["normalizer"] is not None or first is None:
        raise _foreign(f"{model['type']} with {settings['normalizer']}")
    steps = first["pretokenizers"] if first["type"] == "Sequence" else [first]
    found = [
        {name: value for name, value in step.items() if name not in ("add_prefix_space", "trim_offsets")}
        for step in steps
    ]
    for name, wanted in _SPLITS.items():
        if found == wanted and bool(model.get("ignore_merges")) == (name == "llama-bpe"):
            if any(step.get("add_prefix_space") for step in steps):
                break
            return name
    raise _foreign(str(first))


def _foreign(what: str) -> InputError:
    return InputError(
        f"export_gguf writes byte-level BPE tokenizers that split as {', '.join(_SPLITS)} do. Got {what}: convert the "
        "folder with llama.cpp's own script, python convert_hf_to_gguf.py FOLDER --outfile FILE."
    )


def _tokens(settings: Any, vocabulary: int) -> tuple[list[str], list[int]]:
    """Return the text and the kind of every id; ids that no token has are unused."""
    kinds = need("gguf", feature="writing a GGUF file", extra="train").TokenType
    found = {index: (text, kinds.NORMAL) for text, index in settings["model"]["vocab"].items()}
    for token in settings["added_tokens"]:
        found[token["id"]] = (token["content"], kinds.CONTROL if token["special"] else kinds.USER_DEFINED)
    if max(found) >= vocabulary:
        raise InputError(f"The tokenizer has {max(found) + 1} tokens and the model {vocabulary}: they do not belong.")
    every = [found.get(index, (f"[PAD{index}]", kinds.UNUSED)) for index in range(vocabulary)]
    return [text for text, _ in every], [int(kind) for _, kind in every]
