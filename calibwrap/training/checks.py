"""What ends a training run whichever the method: a model that no process has whole, and a loss that is no number."""

import math
from typing import Any

from calibwrap.errors import CapabilityError, ModelError


def check_whole(trainer: Any, why: str) -> None:
    """Return nothing when every process has the whole model.

    Args:
        trainer: a trainer of Transformers.
        why: who wants the whole model and what for; the error's sentence begins with it.

    Raises:
        CapabilityError: FSDP or DeepSpeed's ZeRO-3 keep it in pieces.
    """
    plugin = trainer.args.deepspeed_plugin
    if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
        raise CapabilityError(
            f"{why}, and FSDP and ZeRO-3 keep it in pieces: use DDP (accelerate launch --multi_gpu), ZeRO-2, or "
            "weight 0."
        )


def check_finite(loss: Any, step: int) -> None:
    """Return nothing when the loss after `step` steps, a scalar tensor, is a number.

    Raises:
        ModelError: it is NaN or infinite.

    >>> import torch
    >>> check_finite(torch.tensor(0.5), step=3)
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ModelError(f"The loss after {step} steps is {value}: start a new run with a lower learning rate.")
