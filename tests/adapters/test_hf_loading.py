"""Opening, identifying and closing models with the Transformers adapter, broken files included."""

import json

import numpy as np
import pytest
import torch

from calibwrap.adapters.hf import Transformers
from calibwrap.base import Sampling
from calibwrap.errors import InputError, ModelError
from calibwrap.testing import adapter_checks
from calibwrap.wrap import wrap

from . import hf_models as models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    models.llama().save_pretrained(path)
    models.byte_level().save_pretrained(path)
    return path


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_the_conformance_kit_passes(family):
    found = adapter_checks(Transformers(models.FAMILIES[family](), models.byte_level()))
    assert sum(check.outcome == "passed" for check in found) > len(found) / 2


def test_load_gives_the_saved_model(folder):
    loaded = Transformers.load(str(folder), batch_size=2, logits_dtype="model")
    direct = models.adapter("llama")
    np.testing.assert_allclose(loaded.next_token(["A"])[0].logprobs, direct.next_token(["A"])[0].logprobs, atol=1e-5)
    assert loaded._engine.batch_size == 2
    provides = loaded.provides
    assert (provides.full_vocabulary, provides.given_ids, provides.top, provides.context_length) == (
        True,
        None,
        None,
        128,
    )
    assert (provides.score, provides.tokenize, provides.chat, provides.steers, provides.streams) == (True,) * 5
    assert not provides.hidden


@pytest.mark.parametrize("base", ["smollm2-135m-instruct", "/models/small.gguf"])
def test_an_adapter_whose_base_is_a_gguf_file_is_told_what_to_open(tmp_path, base):
    """Transformers would ask the hub for that name."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    with pytest.raises(ModelError, match=rf"holds a LoRA adapter of '{base}'.*open the merged weights"):
        Transformers.load(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter configuration in .* cannot be read: 'base_model_name_or_path'"):
        Transformers.load(str(tmp_path))


def test_an_adapter_of_a_folder_opens_with_its_base(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(models.llama(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    expected = Transformers(adapted.base_model.model, models.byte_level()).next_token(["A"])[0].logprobs
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(tmp_path)
    models.byte_level().save_pretrained(tmp_path)
    found = Transformers.load(str(tmp_path)).next_token(["A"])[0].logprobs
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_options_reach_from_pretrained(folder):
    assert Transformers.load(str(folder), dtype=torch.bfloat16).model.dtype == torch.bfloat16
    assert Transformers.load(str(folder), attn_implementation="eager").fingerprint().dtype == "float32 attention=eager"


def test_h12_the_fingerprint_tells_models_apart(folder):
    base = Transformers.load(str(folder)).fingerprint()
    assert base.model == folder.name
    assert base.runtime == "hf"
    assert base == Transformers.load(str(folder)).fingerprint()
    half = Transformers.load(str(folder), dtype=torch.bfloat16).fingerprint()
    assert [text.partition(":")[0] for text in base.differences(half)] == ["dtype"]
    eager = Transformers.load(str(folder), attn_implementation="eager").fingerprint()
    assert [text.partition(":")[0] for text in base.differences(eager)] == ["dtype"]


def test_h12_training_template_and_tokenizer_change_the_fingerprint():
    def fingerprint(model, tokenizer=None):
        return Transformers(model, tokenizer or models.byte_level()).fingerprint()

    base = fingerprint(models.llama())
    assert base == fingerprint(models.llama())
    assert base.revision != fingerprint(models.llama(seed=1)).revision
    trained = models.llama()
    with torch.no_grad():
        trained.lm_head.weight += 1e-3
    assert base.revision != fingerprint(trained).revision
    assert base.template != fingerprint(models.llama(), models.byte_level(models.THINKING)).template
    assert base.tokenizer != fingerprint(models.llama(models.metaspace()), models.metaspace()).tokenizer


def test_wrap_finds_the_adapter_by_the_type_of_the_model():
    lm = wrap(models.llama(), models.byte_level())
    assert lm.adapter.name == "hf"
    answer = lm.choose("Which planet is red?", ["Mars", "Venus"])
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)


def test_close_lets_go_of_the_model_and_says_so(folder):
    adapter = Transformers.load(str(folder))
    adapter.close()
    adapter.close()
    for call in (lambda: adapter.next_token(["A"]), lambda: adapter.generate(["A"], Sampling()), adapter.fingerprint):
        with pytest.raises(ModelError, match="closed"):
            call()


def test_a_missing_tokenizer_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="tokenizer"):
        Transformers(models.llama())
    models.llama().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer"):
        Transformers.load(str(tmp_path))


def test_what_is_no_causal_language_model_is_named(tmp_path):
    from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

    small = {
        "vocab_size": 32,
        "num_hidden_layers": 1,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    for model in (
        BertModel(BertConfig(**small)),
        T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)),
    ):
        with pytest.raises(InputError, match="causal language model"):
            Transformers(model, models.byte_level())


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": True}, {"logits_dtype": "float16"}])
def test_wrong_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Transformers(models.llama(), models.byte_level(), **options)


def test_missing_places_are_named(tmp_path):
    for target in (tmp_path / "nothing", tmp_path / "nothing.gguf"):
        with pytest.raises(ModelError, match="nothing"):
            Transformers.load(str(target))
    with pytest.raises(ModelError, match="config"):
        Transformers.load(str(tmp_path))


def test_cut_weights_are_named(folder, tmp_path):
    for file in folder.iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(ModelError, match="incomplete"):
        Transformers.load(str(tmp_path))


def test_absent_weights_are_not_made_up(folder, tmp_path):
    """Transformers fills a layer that the file lacks with random numbers and goes on."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] += 1
    config.pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="lacks"):
        Transformers.load(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"no model at all" * 100])
def test_a_file_that_is_no_gguf_is_named(content, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        Transformers.load(str(path))
