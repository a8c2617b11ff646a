"""Bytes of tokens, for byte-level vocabularies and for pieces with byte fallback."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from calibwrap.adapters._token_bytes import byte_alphabet, shows_bytes, token_bytes

from . import hf_models as models


@functools.cache
def fallback():
    """Pieces with a mark for the space and single bytes, as Llama 2 and Gemma have them."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "A", "▁A", "B"]
    tokenizer = Tokenizer(
        BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[("▁", "A")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.add_tokens(["<tool>"])
    return made


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=30)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_the_bytes_of_all_tokens_are_those_of_the_text(text):
    for tokenizer in (models.byte_level(), fallback()):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(token_bytes(tokenizer, ids)) == text.encode()


def test_v11_tokens_that_decode_alike_have_different_bytes():
    """Alone, every part of a character is U+FFFD; a label would collide with every other such token."""
    for tokenizer in (models.byte_level(), fallback()):
        ids = tokenizer("☃", add_special_tokens=False)["input_ids"]
        assert {tokenizer.decode([token]) for token in ids} == {"\ufffd"}
        assert token_bytes(tokenizer, ids) == [bytes([byte]) for byte in "☃".encode()]


def test_a_space_belongs_to_its_token():
    assert token_bytes(fallback(), fallback().convert_tokens_to_ids(["A", "▁A"])) == [b"A", b" A"]
    pieces = models.metaspace()
    ids = pieces(" yes", add_special_tokens=False)["input_ids"]
    assert b"".join(token_bytes(pieces, ids)).endswith(b" yes")


@pytest.mark.parametrize("make", [models.byte_level, models.metaspace, fallback])
def test_special_tokens_and_padding_rows_have_none(make):
    tokenizer = make()
    assert token_bytes(tokenizer, [*tokenizer.all_special_ids, len(tokenizer) + 5]) == [b""] * (
        len(tokenizer.all_special_ids) + 1
    )


def test_tokens_that_were_added_stand_as_written():
    assert token_bytes(fallback(), [fallback().convert_tokens_to_ids("<tool>")]) == [b"<tool>"]


def test_a_vocabulary_of_words_is_its_text():
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"Größe": 0, "[U]": 1}, "[U]")), unk_token="[U]"
    )
    assert shows_bytes(words)
    assert token_bytes(words, [0]) == ["Größe".encode()]


def test_the_alphabet_has_one_character_a_byte():
    assert sorted(byte_alphabet().values()) == list(range(256))
    own = pre_tokenizers.ByteLevel.alphabet()
    assert set(byte_alphabet()) == set(own)
