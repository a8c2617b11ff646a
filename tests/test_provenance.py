"""Whether a calibrator may move: what counts as the same model, what has to be measured, what is another model."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.provenance import Provenance

HASH, OTHER_HASH = "a" * 64, "b" * 64
WORDS, WORDS2, CHAT, CHAT2 = "1" * 16, "2" * 16, "3" * 16, "4" * 16
FLOAT32_GGUF = Provenance("llama-cpp", "tiny-f32.gguf", HASH, "ALL_F32, kv F16/F16, flash-attn DISABLED", WORDS, CHAT)
FOLDER = Provenance("hf", "tiny", OTHER_HASH, "float32 attention=sdpa", WORDS, CHAT)
GGUF_IN_TRANSFORMERS = Provenance("hf", "q.gguf", HASH, "gguf float32 attention=sdpa", WORDS, CHAT)
QUANTISED = Provenance("llama-cpp", "q.gguf", HASH, "Q4_1, kv F16/F16, flash-attn DISABLED", WORDS, CHAT)
SERVER = Provenance("openai", "tiny", "b8967-0123abc", template="the server's own")


@pytest.mark.parametrize(
    ("fitted", "used", "move", "summary"),
    [
        (FOLDER, FOLDER, "same", "same model"),
        (FOLDER, replace(FOLDER, model="renamed"), "same", "same model"),
        (FOLDER, FLOAT32_GGUF, "check", "same tokenizer and template on another runtime: check with --against"),
        (QUANTISED, GGUF_IN_TRANSFORMERS, "check", "same tokenizer and template on another runtime"),
        (QUANTISED, replace(QUANTISED, dtype="Q4_1, kv F32/F32"), "check", "same tokenizer and template on the same"),
        (FOLDER, SERVER, "check", "nothing that is known differs on another runtime: check with --against"),
        (SERVER, replace(SERVER, revision=""), "check", "nothing that is known differs on the same runtime"),
        (FOLDER, replace(FLOAT32_GGUF, dtype="Q4_1, kv F16/F16"), "different", "different quantisation"),
        (FOLDER, replace(FOLDER, dtype="bfloat16 attention=sdpa"), "different", "different quantisation"),
        (FOLDER, replace(FOLDER, revision=HASH), "different", "different model"),
        (SERVER, replace(SERVER, model="large"), "different", "different model"),
        (
            SERVER,
            replace(SERVER, revision="b9000-4567def"),
            "check",
            "nothing that is known differs on the same runtime",
        ),
        (SERVER, replace(SERVER, model="large", revision="fp_2"), "different", "different model"),
        (replace(FOLDER, revision="1"), replace(FOLDER, revision="2"), "different", "different model"),
        (QUANTISED, replace(QUANTISED, dtype=f"{QUANTISED.dtype}, lora 1234 x 1.0"), "different", "different model"),
        (FOLDER, replace(FLOAT32_GGUF, tokenizer=WORDS2), "different", "different tokenizer"),
        (FOLDER, replace(FLOAT32_GGUF, template=CHAT2), "different", "different template"),
        (FOLDER, replace(FOLDER, template=""), "different", "different template"),
        (FOLDER, replace(SERVER, semantics="raw at temperature 1 only"), "check", "nothing that is known differs"),
        (FOLDER, replace(FOLDER, tokenizer=""), "check", "nothing that is known differs on the same runtime"),
        (FOLDER, replace(SERVER, semantics="processed"), "different", "different semantics"),
        (FOLDER, replace(QUANTISED, tokenizer=WORDS2), "different", "different quantisation, tokenizer"),
    ],
)
def test_verdicts(fitted, used, move, summary):
    verdict = fitted.verdict(used)
    assert verdict.move == move
    assert verdict.summary.startswith(summary)
    assert bool(verdict.reasons) == (move != "same")
    assert ("--against" in verdict.advice) == (move != "same")
    assert ("fit it again" in verdict.advice) == (move == "different")


def test_reasons_of_a_refusal_name_only_what_decides():
    assert FOLDER.verdict(QUANTISED).reasons == (f"dtype: {FOLDER.dtype} against {QUANTISED.dtype}",)


def test_what_a_server_does_not_tell_is_a_reason_to_measure():
    assert f"tokenizer: {WORDS} against not told" in FOLDER.verdict(SERVER).reasons


def test_a_changed_build_of_a_server_is_a_reason_to_measure():
    (reason,) = replace(SERVER, revision="fp_1").verdict(replace(SERVER, revision="fp_2")).reasons
    assert reason == "revision: fp_1 against fp_2: a changed build may have moved the numbers"


words = st.sampled_from(["", "a", "b", "float32", "Q4_1, kv F16/F16", HASH, OTHER_HASH])
records = st.builds(Provenance, *[words] * 7)


@given(records, records)
def test_the_way_back_has_the_same_verdict(one, two):
    there, back = one.verdict(two), two.verdict(one)
    assert (there.move, there.summary) == (back.move, back.summary)


@given(records)
def test_a_model_is_itself(one):
    assert one.verdict(one).move == "same"
