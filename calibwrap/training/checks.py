"""What ends a run whichever the method: a model that no process has whole, a loss that is no number, no tracker."""

import math
from collections.abc import Sequence
from typing import Any

from calibwrap.errors import CapabilityError, InputError, ModelError, need

_UNLISTED = {"azure_ml", "flyte"}
"""Trackers that Transformers leaves out of its list of installed ones; it tells itself when they are missing."""


def check_trackers(names: Sequence[str]) -> None:
    """Return nothing when Transformers knows all trackers of `report_to` and their packages are installed.

    Raises:
        InputError: it does not, or one is not installed.
        MissingExtra: Transformers itself is not installed.

    >>> check_trackers(["none"])
    """
    integrations = need("transformers", feature="training", extra="train").integrations
    wanted = [name for name in names if name not in ("all", "none")]
    try:
        integrations.get_reporting_integration_callbacks(wanted)
    except ValueError as error:
        raise InputError(f"'report_to' must name trackers of Transformers. Got {list(names)}: {error}") from error
    there = integrations.integration_utils.get_available_reporting_integrations() if wanted else []
    absent = [name for name in wanted if name not in there and name not in _UNLISTED]
    if absent:
        raise InputError(
            f"'report_to' names trackers that are not installed: {', '.join(absent)}. Install their packages, or leave "
            f"them out. Installed: {', '.join(there) or 'none'}."
        )


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
