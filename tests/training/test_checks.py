"""What ends a run whichever the method."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from calibwrap.errors import CapabilityError, InputError, ModelError
from calibwrap.training.checks import check_finite, check_trackers, check_whole


@pytest.mark.parametrize(("fsdp", "stage"), [(True, None), (False, 3), (False, 2), (False, None)])
def test_models_in_pieces_are_refused(fsdp, stage):
    """FSDP needs an accelerator; what is looked at of the trainer stands in for it."""
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    trainer = SimpleNamespace(is_fsdp_enabled=fsdp, args=SimpleNamespace(deepspeed_plugin=plugin))
    is_whole = not fsdp and stage != 3
    with nullcontext() if is_whole else pytest.raises(CapabilityError, match="Somebody reads it, and FSDP and ZeRO-3"):
        check_whole(trainer, "Somebody reads it")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_is_told(value):
    check_finite(torch.tensor(1e30, requires_grad=True), 4)
    with pytest.raises(ModelError, match="The loss after 4 steps is"):
        check_finite(torch.tensor(value), 4)


def test_a_tracker_that_is_not_installed_is_told(monkeypatch):
    """As Transformers sees it: which trackers are installed here does not matter."""
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["tensorboard"])
    for names in ([], ["all"], ["none"], ["tensorboard"]):
        check_trackers(names)
    with pytest.raises(InputError, match=r"not installed: wandb, mlflow\. .*Installed: tensorboard"):
        check_trackers(["wandb", "tensorboard", "mlflow"])
    with pytest.raises(InputError, match="must name trackers of Transformers"):
        check_trackers(["nope"])
