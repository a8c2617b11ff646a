"""The bytes behind each token of a Transformers tokenizer, which its text does not tell.

Decoding one token alone gives U+FFFD for a part of a character, and drops the space that a SentencePiece piece begins
with. The vocabulary itself knows: byte-level tokenizers write every byte as one printable character, the others write
text with a mark for the space, and single bytes as <0x0A>.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def shows_bytes(tokenizer: Any) -> bool:
    """Return whether the bytes of the tokens of `tokenizer` can be told: it runs on the tokenizers library."""
    return bool(tokenizer.is_fast)


def token_bytes(tokenizer: Any, ids: Sequence[int]) -> list[bytes]:
    """Return the bytes of each token; b"" for special tokens and for ids that have no token.

    Args:
        tokenizer: a tokenizer of Transformers for which `shows_bytes` holds.
        ids: token ids, rows that only pad the model's vocabulary included.
    """
    steps = {step["type"]: step for step in _steps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])}
    added = tokenizer.added_tokens_decoder
    found = []
    for token in map(int, ids):
        entry = tokenizer.convert_ids_to_tokens(token)
        if entry is None or token in tokenizer.all_special_ids or (token in added and added[token].special):
            found.append(b"")
        elif token in added:
            found.append(str(entry).encode())  # written out as it stands in every kind of vocabulary
        else:
            found.append(_bytes_of(str(entry), steps))
    return found


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    """Yield the steps of a decoder, those of sequences one by one."""
    if decoder is not None:
        yield decoder
        for part in decoder.get("decoders", []):
            yield from _steps(part)


def _bytes_of(entry: str, steps: dict[str, dict[str, Any]]) -> bytes:
    if "ByteLevel" in steps:
        alphabet = byte_alphabet()
        return b"".join(bytes([alphabet[one]]) if one in alphabet else one.encode() for one in entry)
    found = _BYTE.fullmatch(entry)
    if found and "ByteFallback" in steps:
        return bytes([int(found[1], 16)])
    for mark in (
        steps.get("Metaspace", {}).get("replacement"),
        steps.get("Replace", {}).get("pattern", {}).get("String"),
    ):
        if mark:
            entry = entry.replace(mark, " ")
    return entry.encode()


@cache
def byte_alphabet() -> dict[str, int]:
    """Return the byte behind each character of a byte-level vocabulary.

    Printable characters of Latin-1 stand for themselves; the other bytes, in order, for the characters from U+0100 on.
    After Radford, Wu, Child, Luan, Amodei, Sutskever, "Language Models are Unsupervised Multitask Learners", 2019.

    >>> byte_alphabet()["Ġ"], byte_alphabet()["A"]
    (32, 65)
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + rank): byte for rank, byte in enumerate(hidden)}
