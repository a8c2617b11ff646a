"""Training that keeps, restores or teaches calibration: CATTO, CFT and RCFT, Rewarding Doubt, and the CATTO head.

Losses and rewards are pure functions; trainers stand on TRL's and are imported when they are first used, so that this
door opens without torch. Nothing outside imports this package, but for the command `calibwrap train`.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "CATTOConfig": "catto_trainer",
    "CATTOMixin": "catto_trainer",
    "CATTOTrainer": "catto_trainer",
    "CFTConfig": "cft_trainer",
    "CFTTrainer": "cft_trainer",
    "BinAccuracies": "rcft",
    "RCFTConfig": "cft_trainer",
    "RCFTTrainer": "cft_trainer",
    "RegimeReport": "regime",
    "RewardingDoubtTrainer": "doubt_trainer",
    "bin_accuracies": "rcft",
    "brier_reward": "rewards",
    "catto_loss": "catto",
    "catto_loss_and_gradient": "catto",
    "ece_regulariser": "rcft",
    "export_gguf": "gguf",
    "log_score_reward": "rewards",
    "positions_of_options": "head_positions",
    "preference_pairs": "pairs",
    "rcft_targets": "rcft",
    "record_positions": "head",
    "regime_report": "regime",
    "save_weights": "weights",
    "traced_pairs": "pairs",
    "train": "run",
    "train_catto_head": "head",
}
"""Public names and the files that they live in."""

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Return a public name; its file is imported when it is first used."""
    if name in _HOMES:
        return getattr(import_module(f"calibwrap.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'calibwrap.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all public names."""
    return sorted({*globals(), *_HOMES})
