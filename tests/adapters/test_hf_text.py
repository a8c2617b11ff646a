"""What the Transformers adapter reads: special tokens once, boundaries by joint tokenisation."""

import pytest

from calibwrap.adapters.hf import Transformers
from calibwrap.errors import CapabilityError, InputError
from calibwrap.questions import Chat

from . import hf_models as models

CHAT = Chat((("user", "Is water wet?"),))


@pytest.fixture(scope="module")
def spaced():
    """A model behind a SentencePiece-like tokenizer that puts BOS before and EOS behind a text."""
    return Transformers(models.llama(models.metaspace()), models.metaspace())


@pytest.fixture(params=["byte-level", "metaspace"])
def adapter(request, spaced):
    return {"byte-level": models.adapter("llama"), "metaspace": spaced}[request.param]


@pytest.mark.parametrize("prompt", ["Question: is water wet? Answer:", "Question: is water wet? Answer: ", "The cap"])
@pytest.mark.parametrize("text", [" yes", "yes", "ital of France", " Rome, and no"])
def test_h8_prompt_and_continuation_are_read_together(adapter, prompt, text):
    """The ids are those of the whole text, the prompt keeps only what it shares, and no end token is added."""
    before, after = adapter.tokenize(prompt, text)
    tokenizer = adapter.tokenizer
    whole = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
    bos = list(adapter._reader.leading)
    assert before + after == bos + whole
    assert before == adapter.tokenize(prompt)[0][: len(before)]
    assert after
    assert tokenizer.eos_token_id not in after


def test_h8_a_token_across_the_boundary_belongs_to_the_continuation():
    """Byte-level: a space at the prompt's end melts into the next word, which plain concatenation would miss."""
    adapter = models.adapter("llama")
    loose, _ = adapter.tokenize("is water wet? ")
    before, after = adapter.tokenize("is water wet? ", "Answer")
    assert len(before) < len(loose)
    assert adapter._reader.text(after) == " Answer"
    scores = adapter.score(["is water wet? "], [["Answer", "Xylophone"]])[0]
    assert [adapter._reader.text(one.chosen.tolist()) for one in scores] == [" Answer", " Xylophone"]


def test_h8_a_dummy_space_comes_once(spaced):
    """The tokenizer alone would put a space before the continuation; read together it does not."""
    before, after = spaced.tokenize("The cap", "ital")
    assert spaced._reader.text(before + after) == "The capital"


def test_h9_plain_text_gets_bos_once_and_never_eos(spaced):
    tokenizer = models.metaspace()
    assert tokenizer("The")["input_ids"][-1] == tokenizer.eos_token_id
    for text in ("The capital", "<s>The capital"):
        ids, _ = spaced.tokenize(text)
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in ids


def test_h9_a_chat_has_the_template_s_bos_and_no_second_one(adapter):
    tokenizer = adapter.tokenizer
    ids, _ = adapter.tokenize(CHAT)
    assert ids.count(tokenizer.bos_token_id) == 1
    messages = [{"role": "user", "content": "Is water wet?"}]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == wanted


def test_h9_the_beginning_of_the_answer_follows_the_generation_prompt():
    adapter = models.adapter("llama")
    ids, _ = adapter.tokenize(Chat(CHAT.messages, prefix=" Answer:"))
    assert adapter._reader.text(ids).endswith("[assistant] Answer:")
    _, after = adapter.tokenize(CHAT, " yes")
    assert adapter._reader.text(after) == " yes"


def test_h9_thinking_is_switched_off():
    tokenizer = models.byte_level(models.THINKING)
    messages = [{"role": "user", "content": "Is water wet?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False).endswith("<think>")
    adapter = Transformers(models.llama(), tokenizer)
    assert adapter._reader.text(adapter.tokenize(CHAT)[0]).endswith("[assistant]")


def test_a_chat_without_template_is_refused():
    adapter = Transformers(models.llama(), models.byte_level(None))
    assert not adapter.provides.chat
    with pytest.raises(CapabilityError, match="no chat template"):
        adapter.next_token([CHAT])


def test_a_template_that_refuses_the_messages_is_named():
    tokenizer = models.byte_level("{{ raise_exception('no system role') }}")
    with pytest.raises(InputError, match="no system role"):
        Transformers(models.llama(), tokenizer).tokenize(CHAT)


def test_text_in_many_scripts_comes_back():
    adapter = models.adapter("llama")
    text = "naïve café, Москва, 東京 ☂ 🙂"
    assert adapter._reader.text(adapter.tokenize(text)[0]) == text
    before, after = adapter.tokenize("An umbrella: ", "☂")
    assert adapter._reader.text(before + after) == "An umbrella: ☂"
