"""CATTO on TRL's DPO trainer: lambda times the calibration loss of both sequences beside any preference loss of TRL.

TRL's trainer never keeps the logits of the policy: a fused output head works them out tile by tile and returns each
token's log-probability. That is nearly all that CATTO's loss needs (see `calibwrap.training.catto`). What is missing is
the best other token w, which is seen in the same tiles, and log p_w = z_w - z_y + log p_y takes two rows of the head.
So nothing runs twice in the model, and the gradient goes back through TRL's own.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer

from calibwrap.errors import InputError
from calibwrap.questions import TEMPLATES, Question
from calibwrap.training.catto import TokenLoss
from calibwrap.training.catto_autograd import sequence_mean, token_losses
from calibwrap.training.checks import check_finite, check_whole
from calibwrap.training.head_tiles import tiles_are_shown, tiles_watched
from calibwrap.training.lora import lora_config, without_peft
from calibwrap.training.output_head import OutputHead
from calibwrap.training.pairs import check_lengths, preference_pairs
from calibwrap.training.settings import CattoSettings


@dataclass
class CATTOConfig(DPOConfig):  # type: ignore[misc]
    """TRL's `DPOConfig` and what CATTO adds to it.

    Raises:
        InputError: a weight below 0, or a value that `TokenLoss` refuses.
    """

    catto_weight: float = field(default=0.1, metadata={"help": "Lambda; 0 is TRL's trainer alone."})
    catto_loss: str = field(default="l1", metadata={"help": "l1 (the paper), l2 or bce."})
    catto_target: str = field(default="surrogate", metadata={"help": "surrogate (the paper) or hard."})
    margin_scale: float = field(default=1.0, metadata={"help": "Kappa, slope of the surrogate."})
    detach_target: bool = field(default=False, metadata={"help": "Hold the target constant in the gradient."})
    invert_rejected: bool = field(default=False, metadata={"help": "Target 1 - s for the rejected sequence."})
    catto_over: str = field(default="tokens", metadata={"help": "tokens (the paper) or pair."})

    def __post_init__(self) -> None:
        """Check CATTO's fields, then TRL's."""
        if not 0.0 <= self.catto_weight < float("inf"):
            raise InputError(f"'catto_weight' must be finite and at least 0. Got {self.catto_weight!r}.")
        if self.catto_over not in ("tokens", "pair"):
            raise InputError(f"'catto_over' must be 'tokens' or 'pair'. Got {self.catto_over!r}.")
        if self.catto_over == "pair" and self.invert_rejected:
            raise InputError("'invert_rejected' is about the rejected tokens: with catto_over='pair' there are none.")
        self.token_loss(rejected=False)
        super().__post_init__()

    def token_loss(self, *, rejected: bool) -> TokenLoss:
        """Return the loss of the tokens of one side of the pairs."""
        return TokenLoss(
            self.catto_loss,  # type: ignore[arg-type]  # checked there; TRL's command line reads plain texts
            self.margin_scale,
            self.catto_target,  # type: ignore[arg-type]
            self.detach_target,
            invert=rejected and self.invert_rejected,
        )


class _WatchedCall:
    """The model as the trainer calls it; keeps what the call of the policy showed."""

    def __init__(self, model: Any, head: OutputHead, *, tiles: bool) -> None:
        self.model, self.head, self.tiles = model, head, tiles

    def __call__(self, **inputs: Any) -> Any:
        if not inputs.get("fused_lm_head"):  # TRL's second, deprecated call for whoever wants full logits
            return self.model(**inputs)
        with self.head.watched() as seen, tiles_watched() if self.tiles else nullcontext() as found:
            outputs = self.model(**inputs)
        self.hidden: Tensor = seen[0]
        self.log_probs: Tensor = outputs.log_probs
        self.others: Tensor | None = None if found is None else found.ids
        return outputs

    def best_others(self, keep: Tensor, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the best other token (n,) at the n positions of `keep`: TRL scores these alone, or all of them."""
        if self.others is not None and self.others.numel() == len(targets):
            return self.others
        if self.others is not None and self.others.numel() == self.log_probs.numel():
            return self.others.view(self.log_probs.shape)[:, -keep.shape[1] :][keep]
        return self.head.best_others(hidden.detach(), targets)


class CATTOMixin:
    """Adds CATTO's loss to TRL's `DPOTrainer` or to a subclass of it; its `args` must be a `CATTOConfig`.

    The loss is that of TRL plus `catto_weight` times the sum of the calibration losses of the chosen and the rejected
    sequences, each a mean over its response tokens (TRL's end-of-text token included) and then over sequences. With
    `catto_over="pair"`, which is ours and not the paper's, it is the loss of the choice between both sequences, whose
    log-odds are the difference of their summed log-probabilities. With weight 0 the loss is TRL's, and nothing more is
    logged. Else logged: `preference_loss`, `catto_loss`, `catto/confidence`, and of tokens `catto/chosen` and
    `catto/rejected`, whose sum `catto_loss` is.

    Raises:
        InputError: `args` is no `CATTOConfig`.
        CapabilityError: weights that are sharded (FSDP, DeepSpeed ZeRO-3), or an unusual output head.
        ModelError: while training, a loss that is NaN or infinite.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Build TRL's trainer, then find the policy's output head."""
        super().__init__(*args, **options)
        trainer: Any = self
        if not isinstance(trainer.args, CATTOConfig):
            raise InputError(f"Expected 'args' to be a CATTOConfig. Got {type(trainer.args).__name__}.")
        if trainer.args.catto_weight == 0.0:
            return
        check_whole(trainer, "CATTO reads rows of the output head between the model's calls")
        model = trainer.accelerator.unwrap_model(trainer.model)
        self._output_head = OutputHead.of(without_peft(model))
        self._tiles = tiles_are_shown()

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any], return_outputs: bool) -> Any:
        trainer: Any = self
        of_trl = super()._compute_loss  # type: ignore[misc]  # TRL's trainer stands behind the mixin
        if trainer.args.catto_weight == 0.0:
            computed = of_trl(model, inputs, return_outputs)
            check_finite(computed[0] if return_outputs else computed, trainer.state.global_step)
            return computed
        call = _WatchedCall(model, self._output_head, tiles=self._tiles)
        computed = of_trl(call, inputs, return_outputs)
        preference, outputs = computed if return_outputs else (computed, None)
        calibration = self._calibration_loss(call, inputs)
        loss = preference + trainer.args.catto_weight * calibration
        check_finite(loss, trainer.state.global_step)
        self._note(preference_loss=preference, catto_loss=calibration)
        return (loss, outputs) if return_outputs else loss

    def _calibration_loss(self, call: _WatchedCall, inputs: Mapping[str, Any]) -> Tensor:
        """Return the losses of chosen and rejected sequences, added, or of the pairs; the chosen ones come first."""
        trainer: Any = self
        keep = inputs["completion_mask"][:, 1:].bool()
        length = keep.shape[1]
        if trainer.args.catto_over == "pair":
            return self._pair_loss((call.log_probs[:, -length:] * keep).sum(dim=1))
        targets = inputs["input_ids"][:, 1:][keep]
        hidden = call.hidden[:, -length - 1 : -1][keep]
        of_target = call.log_probs[:, -length:][keep]
        head = self._output_head
        others = call.best_others(keep, hidden, targets)
        of_other = of_target + head.logits_at(hidden, others) - head.logits_at(hidden, targets)
        sequences, pairs = keep.nonzero()[:, 0], len(keep) // 2
        parts = []
        for rejected, rows in ((False, sequences < pairs), (True, sequences >= pairs)):
            losses = token_losses(of_target[rows], of_other[rows], trainer.args.token_loss(rejected=rejected))
            parts.append(sequence_mean(losses, sequences[rows] - rejected * pairs, pairs))
        confidence = torch.maximum(of_target, of_other).detach().exp().mean()
        self._note(**{"catto/chosen": parts[0], "catto/rejected": parts[1], "catto/confidence": confidence})
        return parts[0] + parts[1]

    def _pair_loss(self, logprobs: Tensor) -> Tensor:
        """Return the mean loss of choosing between two sequences, from the (2 N,) log-probabilities of all."""
        trainer: Any = self
        chosen, rejected = logprobs.float().chunk(2)
        odds = chosen - rejected
        self._note(**{"catto/confidence": odds.detach().abs().sigmoid().mean()})
        return token_losses(logsigmoid(odds), logsigmoid(-odds), trainer.args.token_loss(rejected=False)).mean()

    def _note(self, **values: Tensor) -> None:
        """Log means over the processes, as TRL logs its own."""
        trainer: Any = self
        metrics = trainer._metrics["train" if trainer.model.training else "eval"]
        for name, value in values.items():
            metrics[name].append(trainer.accelerator.gather_for_metrics(value.detach()).mean().item())


class CATTOTrainer(CATTOMixin, DPOTrainer):  # type: ignore[misc]
    """TRL's `DPOTrainer` with CATTO's calibration loss; built and used in the same way.

    Source: Parikh, Sai, Shivaswamy, Panchal, Lan, CATTO: Balancing Preferences and Confidence in Language Models, 2026.
    """


def build(
    settings: CattoSettings,
    model: Any,
    tokenizer: Any,
    arguments: Mapping[str, Any],
    held_out: Sequence[Question] | None = None,
) -> CATTOTrainer:
    """Return the trainer that `settings` ask for, with pairs made of the questions of `settings.train`.

    Args:
        settings: what to train.
        model: a Transformers causal model; LoRA is put around it where the settings ask for it.
        tokenizer: its tokenizer.
        arguments: keyword arguments of `TrainingArguments`.
        held_out: questions whose pairs become the trainer's evaluation set.

    Raises:
        PromptTooLong: a pair longer than `settings.max_length`, by the name of its question.
        QuestionError: a question without an answer.
    """
    from calibwrap.wrap import wrap

    lm = wrap(model, tokenizer) if settings.rejected == "hardest" else None
    sets = []
    for asked in (settings.train.load(), held_out):
        pairs = None
        if asked is not None:
            template = TEMPLATES[settings.template]
            pairs = preference_pairs(asked, rejected=settings.rejected, lm=lm, seed=settings.seed, template=template)
            check_lengths(pairs, tokenizer, settings.max_length)
        sets.append(pairs)
    return CATTOTrainer(
        model=model,
        ref_model=None if settings.lora else deepcopy(model),
        args=_config(settings, arguments),
        train_dataset=sets[0],
        eval_dataset=sets[1],
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
    )


def _config(settings: CattoSettings, arguments: Mapping[str, Any]) -> CATTOConfig:
    return CATTOConfig(
        **arguments,
        loss_type=list(settings.preference_loss),
        beta=settings.beta,
        max_length=settings.max_length,
        catto_weight=settings.weight,
        catto_loss=settings.loss,
        catto_target=settings.target,
        margin_scale=settings.margin_scale,
        detach_target=settings.detach_target,
        invert_rejected=settings.invert_rejected,
        catto_over=settings.over,
    )
