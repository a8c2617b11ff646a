"""Low-rank adapters in PEFT's terms: what the settings ask for, and the model that the adapters act in."""

from typing import Any

from calibwrap.errors import need
from calibwrap.training.settings import Lora


def lora_config(lora: Lora | None) -> Any:
    """Return PEFT's configuration of the adapters that `lora` asks for; None, for all weights, where it is None.

    Raises:
        MissingExtra: the package peft is not installed.

    >>> config = lora_config(Lora(rank=4, targets=["q_proj"]))
    >>> config.r, config.lora_alpha, sorted(config.target_modules)
    (4, 32, ['q_proj'])
    """
    if lora is None:
        return None
    peft = need("peft", feature="training with LoRA", extra="train")
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def without_peft(model: Any) -> Any:
    """Return the Transformers model inside PEFT's, whose layers the adapters are part of; any other as it is.

    Raises:
        MissingExtra: the package peft is not installed.
    """
    peft = need("peft", feature="training", extra="train")
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model
