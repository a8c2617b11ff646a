"""What a training run is asked to do: one validated record a method, read from YAML. Unknown keys are errors."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST_SEED = 2**32 - 1
"""Larger ones NumPy does not take."""
Positive = Annotated[float, Field(gt=0)]


def _trainable(source: str) -> str:
    """Return a source of weights without the runtime "hf:" in front of it, which is the one that trains."""
    runtime, colon, _ = source.partition(":")
    if colon and runtime in ("llama-cpp", "openai", "vllm"):
        raise ValueError(f"training opens weights with Transformers: give a folder, id or file, without '{runtime}:'")
    return source.removeprefix("hf:")


def _patterned(targets: str | list[str]) -> str | list[str]:
    """Return LoRA's targets, of which a single text is a regular expression."""
    try:
        re.compile(targets if isinstance(targets, str) else "")
    except re.error as error:
        raise ValueError(f"a text names layers by a regular expression, and this is none: {error}") from error
    return targets


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(_Strict):
    """Low-rank adapters instead of all weights (Hu et al., LoRA, 2021)."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Annotated[str | list[str], AfterValidator(_patterned)] = "all-linear"
    """Names of layers, or one regular expression."""


class QuestionSet(_Strict):
    """A question set: a file, a folder, or the name of a packaged set, as `load_questions` takes them."""

    source: str
    split: str = ""
    limit: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=0, ge=0, le=LARGEST_SEED)
    """Order of the questions; None keeps the file's."""

    def load(self) -> list[Any]:
        """Return the questions, as `load_questions` does; it says what it raises."""
        from calibwrap.data import load_questions

        return load_questions(self.source, split=self.split, limit=self.limit, seed=self.seed)


class HeldOut(QuestionSet):
    """Questions that are never trained on, on which accuracy and ECE are measured while training goes on."""

    readout: str = "continuation"
    every_steps: int = Field(default=20, ge=1)


class StatedHeldOut(HeldOut):
    """The same for a model that states its confidence, which is what is measured."""

    readout: Literal["verbalized"] = "verbalized"


class TrainSettings(_Strict):
    """What every method that trains weights is told."""

    model: Annotated[str, AfterValidator(_trainable)]
    """A folder or hub id of Transformers weights, a folder of a LoRA adapter, a GGUF file, or a packaged model; "hf:"
    may stand in front."""
    output: Path
    """Folder of checkpoints, weights, model card and log."""
    train: QuestionSet
    held_out: HeldOut | None = None
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    max_steps: int = Field(default=60, ge=1)
    batch_size: int = Field(default=6, ge=1)
    """Examples at a time and process, pairs for CATTO, questions for the others; a step has `gradient_accumulation`
    times as many."""
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: Positive = 2e-4
    max_length: int = Field(default=512, ge=8)
    """Tokens of prompt and answer together; a longer example is an error that names it, never cut in silence."""
    lora: Lora | None = Lora()
    """None trains all weights."""
    merge: bool = True
    """Whether the output folder holds merged weights beside the adapter."""
    save_steps: int = Field(default=20, ge=1)
    report_to: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = []
    """Transformers' trackers: "tensorboard", "wandb", ..."""
    threads: int = Field(default=1, ge=1)
    bf16: bool = False
    """Train in bfloat16 by autocast; weights, and what is read to evaluate, stay float32."""


class CattoSettings(TrainSettings):
    """DPO with CATTO's calibration loss (Parikh et al., CATTO, 2026)."""

    method: Literal["catto"] = "catto"
    preference_loss: list[str] = ["sigmoid"]
    """TRL's names: sigmoid is DPO, ipo, robust, ..."""
    beta: Positive = 0.1
    weight: float = Field(default=0.1, ge=0)
    """Lambda; 0 is TRL's preference loss alone."""
    loss: Literal["l1", "l2", "bce"] = "l1"
    target: Literal["surrogate", "hard"] = "surrogate"
    margin_scale: Positive = 1.0
    detach_target: bool = False
    invert_rejected: bool = False
    over: Literal["tokens", "pair"] = "tokens"
    """What has a confidence: each token (the paper), or the choice between the two answers of a pair (ours)."""
    rejected: Literal["random", "hardest"] = "random"
    """Which wrong option stands against the right one."""
    template: Literal["cloze", "cloze-chat", "letter", "letter-chat"] = "cloze"
    """How questions are written: options' texts as answers, or their letters; plain, or in the chat template."""


class CftSettings(TrainSettings):
    """Calibration-aware fine-tuning (Xiao et al., Restoring Calibration for Aligned LLMs, 2025)."""

    method: Literal["cft"] = "cft"
    readout: str = "continuation"
    """How questions are written and options scored: "continuation" trains option texts, "label" their letters."""


class RcftSettings(TrainSettings):
    """The same with the ECE regulariser and the likelihood of question and answer."""

    method: Literal["rcft"] = "rcft"
    readout: str = "continuation"
    """How questions are written and options scored: "continuation" trains option texts, "label" their letters."""
    weight: float = Field(default=1.0, ge=0)
    """Lambda of the regulariser."""
    likelihood: bool = True
    """False trains the regulariser alone, for the ablation."""
    n_bins: int = Field(default=10, ge=2)
    least_in_bin: int = Field(default=5, ge=1)
    rank_break: Literal["uniform", "allow"] = "uniform"
    """What a bin too inaccurate for its top option's rank does: the rest is shared evenly, or the top option drops."""


class RewardingDoubtSettings(TrainSettings):
    """Confidence said in words, by reinforcement learning (Stangel, Bani-Harouni et al., Rewarding Doubt, 2025)."""

    method: Literal["rewarding-doubt"] = "rewarding-doubt"
    held_out: StatedHeldOut | None = None
    algorithm: Literal["exact", "grpo", "rloo"] = "rloo"
    """Draw confidences, as TRL's RLOO and GRPO do, or take the expected reward over all eleven levels at once."""
    reward: Literal["log", "brier"] = "log"
    preset: Literal["paper", "official"] = "paper"
    answer_temperature: Positive = 0.6
    answer_tokens: int = Field(default=32, ge=1)
    draws: int = Field(default=8, ge=2)
    """Confidences drawn for each answer; "exact" draws none."""
    entropy_weight: float = Field(default=0.02, ge=0)
    """Reward of one nat of the confidence's entropy, for "exact"; without it the first good level takes everything."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the first model, for "grpo" and "rloo"; the official code begins at 0.05."""
    answer_kl_weight: float = Field(default=0.0, ge=0)
    """Weight of the answer tokens' KL divergence from the first model, for "exact": it holds the answers in place."""
    judge: Literal["options", "aliases"] = "options"


class HeadSettings(_Strict):
    """A CATTO head on a frozen model."""

    method: Literal["head"] = "head"
    model: str
    """A spec, as `cw.wrap` takes it: "hf:...", "llama-cpp:...", ..."""
    output: Path
    """The calibrator's file."""
    train: QuestionSet
    held_out: QuestionSet
    level: Literal["token", "option"] = "token"
    """What the head maps: positions of the vocabulary, or rows of options."""
    readout: str = "continuation"
    """How options are read, at level "option"."""
    wrong: Literal["none", "random", "all"] = "random"
    """Which wrong options' texts are read beside the right one's, at level "token"."""
    features: Literal["scores", "hidden"] = "scores"
    target: Literal["surrogate", "hard"] = "hard"
    margin_scale: Positive = 1.0
    loss: Literal["l1", "l2", "bce"] = "bce"
    top: int = Field(default=20, ge=2)
    """Listed tokens a position that features are computed from."""
    width: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    max_epochs: int = Field(default=200, ge=1)
    patience: int = Field(default=20, ge=1)


AnySettings = Annotated[
    CattoSettings | CftSettings | RcftSettings | RewardingDoubtSettings | HeadSettings, Field(discriminator="method")
]
