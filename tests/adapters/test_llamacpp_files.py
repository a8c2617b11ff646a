"""Files, templates, identity and lifetime of the llama.cpp adapter. L11 is doubled BOS."""

import dataclasses
import hashlib

import llama_cpp
import pytest

from calibwrap.adapters.llamacpp import LlamaCpp
from calibwrap.base import Sampling
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, InputError, ModelError
from calibwrap.questions import Chat

from . import gguf_models as models

CHAT = Chat((("user", "A B"),))


@pytest.mark.parametrize("cut", [5, 24, 1000, 3000, 0.25, 0.5, 0.99, -1])
def test_a_file_that_is_cut_off_is_one_sentence(tiny_bos, tmp_path, capfd, cut):
    data = tiny_bos.path.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: int(cut * len(data)) if isinstance(cut, float) else cut])
    with pytest.raises(ModelError, match="cut off") as caught:
        LlamaCpp.load(str(path), n_threads=1)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("start", [b"", b"GG", b"PK\x03\x04 a zip file", b"\x00" * 4096])
def test_another_kind_of_file_is_named(tmp_path, start):
    path = tmp_path / "model.gguf"
    path.write_bytes(start)
    with pytest.raises(ModelError, match="not a GGUF file"):
        LlamaCpp.load(str(path))


def test_no_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="no readable model file"):
        LlamaCpp.load(str(tmp_path / "absent.gguf"))
    with pytest.raises(ModelError, match="no readable model file"):
        LlamaCpp.load(str(tmp_path))


def test_loading_is_silent(tiny_bos, load, capfd):
    load(tiny_bos.path).next_token(["A"])
    assert capfd.readouterr() == ("", "")


def test_only_a_llama_is_wrapped():
    with pytest.raises(InputError, match="Got str"):
        LlamaCpp("model.gguf")


def test_context_length_is_honest(tiny_bos, load):
    assert load(tiny_bos.path).provides.context_length == 512  # what it was trained on, not the default of 4096
    assert load(tiny_bos.path, n_ctx=0).provides.context_length == 512
    assert load(tiny_bos.path, n_ctx=300).provides.context_length == 300
    assert load(tiny_bos.path, n_ctx=1024).provides.context_length == 1024


def test_provides_tells_what_there_is(tiny_bos, tiny_no_bos, load):
    has = {"score": True, "tokenize": True, "token_bytes": True, "chat": True, "steers": True, "streams": True}
    expected = Provides(True, None, None, **has, context_length=512, batch_size=1)
    assert load(tiny_bos.path).provides == expected
    assert load(tiny_no_bos.path).provides == dataclasses.replace(expected, chat=False)


def test_l11_a_template_that_writes_bos_gives_one_bos(tiny_bos, load):
    adapter = load(tiny_bos.path)
    ids, _ = adapter.tokenize(CHAT)
    assert ids.count(1) == 1
    assert ids[0] == 1
    assert ids.count(2) == 1  # the template's eos_token is a token too, not four characters
    assert adapter._vocabulary.rendered(CHAT) == "<s>[user] A B</s>[assistant] <0>"


def test_l11_thinking_is_off_and_the_prefix_comes_last(tiny_bos, load):
    rendered = load(tiny_bos.path)._vocabulary.rendered(Chat((("user", "A"),), prefix="So:"))
    assert rendered.endswith("[assistant] <0>So:")


def test_l11_the_template_alone_decides_about_bos(gguf_folder, load):
    plain = models.write_llama(
        gguf_folder / "plain.gguf", models.byte_fallback(), add_bos=True, template=models.PLAIN_TEMPLATE
    )
    adapter = load(plain.path)
    assert 1 not in adapter.tokenize(CHAT)[0]
    assert adapter.tokenize("A B")[0] == [1, *adapter.tokenize(CHAT)[0]]


def test_l11_no_template_no_chat(tiny_no_bos, load):
    adapter = load(tiny_no_bos.path)
    for call in (
        adapter.tokenize,
        lambda chat: adapter.score([chat], [["A"]]),
        lambda chat: adapter.next_token([chat]),
    ):
        with pytest.raises(CapabilityError, match="no chat template"):
            call(CHAT)


def test_l11_a_refusing_template_is_named(gguf_folder, load):
    refusing = models.write_llama(
        gguf_folder / "refusing.gguf", models.byte_fallback(), add_bos=True, template=models.REFUSING_TEMPLATE
    )
    with pytest.raises(InputError, match="no system role"):
        load(refusing.path).tokenize(Chat((("system", "x"), ("user", "y"))))


def test_a_template_of_any_length_is_read_whole(gguf_folder, load):
    for length in (1023, 1024, 1025):  # llama-cpp-python's own metadata lose the last character at 1024
        template = "x" * length
        path = gguf_folder / f"{length}.gguf"
        models.write_llama(path, models.byte_fallback(), add_bos=True, template=template)
        assert load(path)._vocabulary.template == template


def test_control_tokens_count_in_chats_and_are_text_in_texts(tiny_no_bos, tiny_bos, load):
    plain = load(tiny_no_bos.path).tokenize("A<|im_end|>")[0]
    assert 2 not in plain
    assert bytes(token - 3 for token in plain) == b"A<|im_end|>"
    assert load(tiny_bos.path).tokenize(Chat((("user", "A</s>"),)))[0].count(2) == 2


def test_the_fingerprint_names_file_numbers_and_words(tiny_bos, tiny_no_bos, load):
    one = load(tiny_bos.path).fingerprint()
    assert (one.runtime, one.model, one.semantics) == ("llama-cpp", "bos.gguf", "raw")
    assert one.revision == hashlib.sha256(tiny_bos.path.read_bytes()).hexdigest()
    assert one.dtype == "ALL_F32, kv F32/F32, flash-attn DISABLED"
    assert one == load(tiny_bos.path).fingerprint()
    half = load(tiny_bos.path, type_k=1, type_v=1, flash_attn=True).fingerprint()
    assert half.dtype == "ALL_F32, kv F16/F16, flash-attn ENABLED"
    other = load(tiny_no_bos.path).fingerprint()
    assert other.template == ""
    assert set(dict(one.__dict__.items() ^ other.__dict__.items())) == {"model", "revision", "tokenizer", "template"}


def test_the_file_is_hashed_again_only_after_a_change(tiny_bos, tmp_path, load, monkeypatch):
    path = tmp_path / "copy.gguf"
    path.write_bytes(tiny_bos.path.read_bytes())
    adapter = load(path)
    before = adapter.fingerprint().revision
    with monkeypatch.context() as patch:
        patch.setattr("calibwrap.adapters._llamacpp_files.hash_file", lambda _: pytest.fail("read again"))
        assert adapter.fingerprint().revision == before
    path.write_bytes(b"GGUF changed")
    assert adapter.fingerprint().revision != before
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read any more"):
        adapter.fingerprint()


def test_after_close_there_is_an_error_and_no_crash(tiny_bos, load):
    adapter = load(tiny_bos.path)
    adapter.close()
    adapter.close()
    for call in (
        lambda: adapter.next_token(["A"]),
        lambda: adapter.score(["A"], [["B"]]),
        lambda: adapter.generate(["A"], Sampling()),
        lambda: adapter.tokenize("A"),
        adapter.fingerprint,
    ):
        with pytest.raises(ModelError, match="was closed"):
            call()


def test_a_handed_in_llama_is_left_alone_and_may_be_closed_by_its_owner(tiny_bos):
    llama = llama_cpp.Llama(str(tiny_bos.path), n_ctx=64, n_threads=1, verbose=False)
    adapter = LlamaCpp(llama)
    assert adapter.fingerprint().model == "bos.gguf"
    adapter.close()
    assert llama.create_completion("A", max_tokens=1)["choices"]
    llama.close()
    with pytest.raises(ModelError, match="was closed"):
        adapter.next_token(["A"])
    with pytest.raises(ModelError, match="was closed"):
        LlamaCpp(llama)
