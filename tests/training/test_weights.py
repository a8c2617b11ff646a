"""Weights in and out: every source trains, folders appear whole, and what was saved answers as the model did."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

import calibwrap as cw
from calibwrap.errors import InputError, ModelError
from calibwrap.training import save_weights
from calibwrap.training.weights import load_trainable, replacing_folder, resolve
from tests.adapters import gguf_models, hf_models

QUESTION = cw.Question("Which planet is red?", ["Mars", "Rome", "Paris"], answer=0)
TEXT = "The capital of France is Paris."


def with_lora(model, seed=0):
    """Return the model with LoRA layers that change what it says."""
    torch.manual_seed(seed)
    peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.1)
    return peft.eval()


def logprobs(model, tokenizer):
    return hf_models.plain_logprobs(model, tokenizer(TEXT).input_ids)


def test_merged_weights_answer_as_the_adapted_model_did(tmp_path):
    tokenizer, model = hf_models.byte_level(), hf_models.llama()
    plain = logprobs(model, tokenizer)
    peft = with_lora(model)
    adapted = logprobs(peft, tokenizer)
    assert np.abs(adapted - plain).max() > 0.1
    saved = save_weights(peft, tokenizer, tmp_path)
    assert (saved.adapter, saved.weights) == (tmp_path / "adapter", tmp_path / "weights")
    again, its_tokenizer = load_trainable(str(saved.weights))
    np.testing.assert_allclose(logprobs(again, its_tokenizer), adapted, atol=2e-5)
    with cw.wrap(f"hf:{saved.weights}") as lm:
        scores = lm.scores([QUESTION])
    expected = cw.wrap(again, its_tokenizer).scores([QUESTION])
    np.testing.assert_array_equal(scores.logprobs, expected.logprobs)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "weights"]
    assert list(saved.weights.glob("*.safetensors"))
    assert not list(tmp_path.rglob("*.bin"))


def test_an_adapter_opens_on_the_base_that_it_names(tmp_path):
    tokenizer = hf_models.byte_level()
    base = save_weights(hf_models.llama(), tokenizer, tmp_path / "base").weights
    peft = with_lora(load_trainable(str(base))[0])
    expected = logprobs(peft, tokenizer)
    saved = save_weights(peft, tokenizer, tmp_path / "run", merge=False, base=str(base))
    assert saved.weights is None
    assert not (tmp_path / "run" / "weights").exists()
    np.testing.assert_allclose(logprobs(*load_trainable(str(saved.adapter))), expected, atol=2e-5)


def test_an_adapter_without_a_base_or_with_a_foreign_one_is_told(tmp_path):
    tokenizer = hf_models.byte_level()
    saved = save_weights(with_lora(hf_models.llama()), tokenizer, tmp_path / "run", merge=False)
    with pytest.raises(ModelError, match="does not say what it was trained on"):
        load_trainable(str(saved.adapter))
    config = saved.adapter / "adapter_config.json"
    other = save_weights(hf_models.llama(hidden_size=16), tokenizer, tmp_path / "other").weights
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(other)}))
    with pytest.raises(ModelError, match="does not fit its base"):
        load_trainable(str(saved.adapter))
    config.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_trainable(str(saved.adapter))


def test_a_gguf_file_becomes_weights_that_can_be_saved(tmp_path):
    file = gguf_models.write_llama(tmp_path / "tiny.gguf", gguf_models.byte_pairs(), add_bos=False)
    model, tokenizer = load_trainable(str(file.path))
    assert all(weight.dtype == torch.float32 and weight.requires_grad for weight in model.parameters())
    saved = save_weights(model, tokenizer, tmp_path / "out")
    again, its_tokenizer = load_trainable(str(saved.weights))
    assert its_tokenizer(TEXT).input_ids == tokenizer(TEXT).input_ids
    np.testing.assert_array_equal(logprobs(again, its_tokenizer), logprobs(model, tokenizer))


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path):
    tokenizer = hf_models.byte_level()
    folder = save_weights(hf_models.llama(), tokenizer, tmp_path).weights
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_trainable(str(folder))[1].pad_token == "</s>"
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="no end token"):
        load_trainable(str(folder))


def half_a_save(target):
    with replacing_folder(target) as part:
        (part / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt


def test_a_killed_save_leaves_the_old_folder(tmp_path):
    tokenizer, target = hf_models.byte_level(), tmp_path / "weights"
    save_weights(hf_models.llama(seed=0), tokenizer, tmp_path)
    before = (target / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        half_a_save(target)
    assert (target / "model.safetensors").read_bytes() == before
    save_weights(hf_models.llama(seed=1), tokenizer, tmp_path)
    assert (target / "model.safetensors").read_bytes() != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights"]


def test_sources_that_are_nowhere_are_told():
    with pytest.raises(ModelError, match="no model directory"):
        load_trainable("./nothing-here")
    with pytest.raises(ModelError, match="no file"):
        load_trainable("./nothing-here.gguf")
    assert resolve("./nothing-here") == "./nothing-here"
