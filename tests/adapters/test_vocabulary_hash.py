"""One vocabulary has one hash, whichever file format and runtime it comes from; another one has another."""

import warnings

import pytest
import torch

from calibwrap.adapters._vocabulary_hash import hash_vocabulary
from calibwrap.adapters.hf import Transformers

WORDS = [(0, "<s>"), (1, "\u2581the"), (2, "\u2581\u2581"), (3, "ab")]


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (WORDS[::-1], True),
        ([(0, "<s>"), (1, "\u2581the"), (2, "  "), (3, "ab")], True),
        ([*WORDS, (4, "[PAD4]"), (5, "[PAD5]")], True),
        ([*WORDS, (4, "[PAD5]")], False),
        ([*WORDS, (4, "new")], False),
        ([(0, "<s>"), (2, "\u2581the"), (1, "\u2581\u2581"), (3, "ab")], False),
        ([(0, "<s>"), (1, "the"), (2, "\u2581\u2581"), (3, "ab")], False),
    ],
    ids=["other order", "spaces", "padding", "no padding", "one more", "other ids", "another token"],
)
def test_only_the_way_of_writing_is_left_out(other, is_same):
    assert (hash_vocabulary(WORDS) == hash_vocabulary(other)) == is_same


def test_a_file_has_one_hash_in_both_runtimes_and_may_be_moved_with_a_check(tiny_bos, load):
    torch.set_num_threads(1)
    llama = load(tiny_bos.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' deprecations while they load
        other = Transformers.load(str(tiny_bos.path))
    try:
        one, two = llama.fingerprint(), other.fingerprint()
    finally:
        other.close()
    assert one.tokenizer == two.tokenizer
    assert one.template == two.template
    assert one.verdict(two).move == "check"
    assert one.verdict(two).summary == "same tokenizer and template on another runtime: check with --against"
