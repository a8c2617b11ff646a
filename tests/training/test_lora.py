"""Adapters as the settings ask for them, for every trainer the same."""

from peft import get_peft_model

from calibwrap.training.lora import lora_config, without_peft
from calibwrap.training.settings import Lora
from tests.adapters import hf_models


def test_what_is_asked_for_is_what_peft_is_told():
    config = lora_config(Lora(rank=3, alpha=5, dropout=0.25, targets=["q_proj", "v_proj"]))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    assert config.target_modules == {"q_proj", "v_proj"}
    assert config.task_type == "CAUSAL_LM"
    assert lora_config(None) is None


def test_the_model_inside_has_the_adapters_layers():
    model = hf_models.llama()
    assert without_peft(model) is model
    inner = without_peft(get_peft_model(model, lora_config(Lora(rank=2))))
    assert type(inner) is type(model)
    assert any("lora_A" in name for name, _ in inner.named_parameters())
