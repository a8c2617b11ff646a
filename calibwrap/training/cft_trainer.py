"""CFT and RCFT on the Transformers trainer: likelihood of the answer, or of question and answer with L_ECE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from calibwrap.adapters.hf import Transformers
from calibwrap.errors import CapabilityError, InputError, need
from calibwrap.questions import Question
from calibwrap.readouts import Label
from calibwrap.training.checks import check_finite, check_whole
from calibwrap.training.e_step import EStep, bins_of, first_choices, measured_bins
from calibwrap.training.lora import lora_config, without_peft
from calibwrap.training.option_batches import (
    Collator,
    encoded,
    likelihood,
    option_logprobs,
    questions_of,
    trained_readout,
)
from calibwrap.training.packing import can_pack
from calibwrap.training.rcft import ece_regulariser
from calibwrap.training.settings import CftSettings, RcftSettings


@dataclass
class CFTConfig(TrainingArguments):  # type: ignore[misc]
    """Transformers' `TrainingArguments`, how questions are written, and how long they may be."""

    readout: str = field(default="continuation", metadata={"help": "continuation (option texts) or label (letters)."})
    max_length: int = field(default=512, metadata={"help": "Most tokens of prompt and option together."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Leave it: the columns are the trainer's."})


@dataclass
class RCFTConfig(CFTConfig):
    """`CFTConfig` and the regulariser's settings.

    Raises:
        InputError: a weight below 0, nothing to train on, or an unknown `rank_break`.
    """

    ece_weight: float = field(default=1.0, metadata={"help": "Lambda of L_ECE; 0 is the likelihood alone."})
    likelihood: bool = field(default=True, metadata={"help": "False trains L_ECE alone."})
    n_bins: int = field(default=10, metadata={"help": "Bins of the E-step, before sparse ones are merged."})
    least_in_bin: int = field(default=5, metadata={"help": "Fewest questions in a bin."})
    rank_break: str = field(default="uniform", metadata={"help": "uniform or allow, see rcft_targets."})

    def __post_init__(self) -> None:
        """Check the regulariser's fields, then Transformers'."""
        if not 0.0 <= self.ece_weight < float("inf"):
            raise InputError(f"'ece_weight' must be finite and at least 0. Got {self.ece_weight!r}.")
        if not self.likelihood and self.ece_weight == 0.0:
            raise InputError("Nothing is left to train on: set 'likelihood' to true, or 'ece_weight' above 0.")
        if self.rank_break not in ("uniform", "allow"):
            raise InputError(f"'rank_break' must be 'uniform' or 'allow'. Got {self.rank_break!r}.")
        super().__post_init__()


class CFTTrainer(Trainer):  # type: ignore[misc]
    """Calibration-aware fine-tuning: the likelihood of the right answer's tokens, the prompt masked.

    Questions are written as the readout of `args.readout` writes them. The loss is the mean over all answer tokens of
    the batch (Transformers' own normalisation, gradient accumulation included). No end token is learnt.

    Args:
        model: a loaded causal language model of Transformers, or one with PEFT's adapters around it.
        args: a `CFTConfig`.
        train_dataset: questions, or a data set with the columns prompt, options and answer.
        eval_dataset: the same, for the evaluation loss: the likelihood alone.
        processing_class: the tokenizer.
        peft_config: PEFT's configuration, such as LoRA; None trains the model as it is.
        options: all else that Transformers' `Trainer` takes.

    Raises:
        InputError: `args` is of another class, an unfit readout, or no questions.
        CapabilityError: several GPUs for one process.
        QuestionError: a question without an answer.
        PromptTooLong: a question that is longer than `args.max_length`.
        ModelError: while training, a loss that is NaN or infinite.

    Source: Xiao et al., Restoring Calibration for Aligned Large Language Models: A Calibration-Aware Fine-Tuning
    Approach, 2025.
    """

    config_class: ClassVar[type[CFTConfig]] = CFTConfig
    learns_prompt: ClassVar[bool] = False
    """Whether question tokens are part of the likelihood."""

    def __init__(
        self,
        model: Any,
        args: CFTConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        peft_config: Any = None,
        **options: Any,
    ) -> None:
        """Tokenise the questions, put adapters around the model, and build Transformers' trainer."""
        if not isinstance(args, self.config_class):
            raise InputError(f"Expected 'args' to be a {self.config_class.__name__}. Got {type(args).__name__}.")
        if args.n_gpu > 1:
            raise CapabilityError("One process a GPU is needed: start this with 'accelerate launch'.")
        self.readout = trained_readout(args.readout)
        self.adapter = Transformers(without_peft(model), processing_class, batch_size=args.per_device_eval_batch_size)
        self.questions = questions_of(train_dataset)
        sets = [self.questions, None if eval_dataset is None else questions_of(eval_dataset)]
        examples = [None if own is None else encoded(own, self.readout, self.adapter, args.max_length) for own in sets]
        super().__init__(
            model=_with_adapters(model, peft_config, args),
            args=args,
            data_collator=Collator(
                pad=processing_class.pad_token_id or 0,
                labels=isinstance(self.readout, Label),
                options=self.reads_options(args),
                learns_prompt=self.learns_prompt,
                packs=can_pack(without_peft(model), args.max_length),
            ),
            train_dataset=examples[0],
            eval_dataset=examples[1],
            processing_class=processing_class,
            **options,
        )
        # compute_loss divides by the number of labelled tokens itself, whether or not the model could
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._noted: dict[str, list[float]] = {}

    @classmethod
    def reads_options(cls, args: Any) -> bool:
        """Return whether the loss needs the scores of all options."""
        return False

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of one batch; Transformers' trainer calls it."""
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
        outputs = model(**texts, use_cache=False)
        log_z = torch.logsumexp(outputs.logits.float(), dim=-1)
        loss = self.objective(outputs.logits, log_z, inputs, num_items_in_batch)
        check_finite(loss, self.state.global_step)
        return (loss, outputs) if return_outputs else loss

    def objective(self, logits: Tensor, log_z: Tensor, inputs: Mapping[str, Tensor], items: Any) -> Tensor:
        """Return the loss of one batch from its logits (R, L, V)."""
        return self.mean_likelihood(logits, log_z, inputs["labels"], items)

    def mean_likelihood(self, logits: Tensor, log_z: Tensor, labels: Tensor, items: Any) -> Tensor:
        """Return the negative log-likelihood a token, over all `items` tokens of the optimiser's step."""
        total = likelihood(logits, log_z, labels)
        if items is None:
            return total / (labels[:, 1:] >= 0).sum()
        shared = self.args.average_tokens_across_devices
        return total / items * (self.accelerator.num_processes if shared else 1)


class RCFTTrainer(CFTTrainer):
    """Regularised CFT: the likelihood of question and answer, plus `args.ece_weight` times L_ECE over the options.

    When an epoch begins, the model as it is answers all training questions (the E-step): its confidences are binned and
    each question is given the accuracy of its bin, until the next epoch. L_ECE of a batch is the unbiased estimate of
    the whole training set's, from the scores that the readout would give. With weight 0 there is no E-step, and the
    loss is the likelihood alone. Logged: `likelihood`, `ece_loss`, and of each E-step `e_step_accuracy`, `e_step_ece`
    and `e_step_bins`: these three are of TRAINING questions.

    Built and used as `CFTTrainer`; `args` is an `RCFTConfig`.

    Raises:
        CapabilityError: with a weight above 0, a model that FSDP or DeepSpeed's ZeRO-3 keeps in pieces.
    """

    config_class: ClassVar[type[CFTConfig]] = RCFTConfig
    learns_prompt: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        """Build the trainer, and have the E-step run when an epoch begins."""
        super().__init__(*args, **options)
        if self.args.ece_weight > 0.0:
            check_whole(self, "RCFT's E-step asks the model in each process")
            self.add_callback(EStep(self.e_step, self.use_bins))

    @classmethod
    def reads_options(cls, args: Any) -> bool:
        """Return whether the loss needs the scores of all options."""
        return bool(args.ece_weight > 0.0)

    def e_step(self) -> dict[str, Any]:
        """Return the E-step's record of the model as it is; processes share the work."""
        from accelerate.utils import gather_object

        from calibwrap.metrics import ece

        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        found = gather_object(first_choices(self.questions, self.readout, self.adapter, process, processes))
        record = measured_bins(found, self.args.n_bins, self.args.least_in_bin)
        _, confidence, correct = zip(*found, strict=True)
        self.log(
            {
                "e_step_accuracy": sum(correct) / len(correct),
                "e_step_ece": ece(confidence, correct, n_bins=self.args.n_bins),
                "e_step_bins": len(record["rows"]),
            }
        )
        return record

    def use_bins(self, record: Mapping[str, Any]) -> None:
        """Regularise towards these bins from now on."""
        self.bins, self.members = bins_of(record)

    def objective(self, logits: Tensor, log_z: Tensor, inputs: Mapping[str, Tensor], items: Any) -> Tensor:
        """Return likelihood + weight * L_ECE of one batch; the evaluation loss is the likelihood."""
        mean = self.mean_likelihood(logits, log_z, inputs["labels"], items)
        if not self.model.training or self.args.ece_weight == 0.0:
            return mean
        scores = option_logprobs(logits, log_z, inputs, isinstance(self.readout, Label))
        members = self.members[inputs["index"].cpu().numpy()]
        penalty = ece_regulariser(scores, self.bins, members, rank_break=self.args.rank_break, sampled=True)
        penalty = penalty / self.current_gradient_accumulation_steps
        self._noted.setdefault("likelihood", []).append(mean.item())
        self._noted.setdefault("ece_loss", []).append(penalty.item())
        weighted = self.args.ece_weight * penalty
        return mean + weighted if self.args.likelihood else weighted

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Add the parts of the loss to what is logged: as the loss itself, means over steps and processes."""
        if "loss" in logs:
            for name, values in self._noted.items():
                step = self.current_gradient_accumulation_steps * sum(values) / len(values)
                of_all = self.accelerator.gather(torch.tensor([step], device=self.args.device))
                logs[name] = of_all.mean().item()
            self._noted.clear()
        super().log(logs, *args, **options)


def build(
    settings: CftSettings | RcftSettings,
    model: Any,
    tokenizer: Any,
    arguments: Mapping[str, Any],
    held_out: Sequence[Question] | None = None,
) -> CFTTrainer:
    """Return the trainer that `settings` ask for, on the questions of `settings.train`.

    Args:
        settings: what to train.
        model: a causal language model of Transformers; LoRA is put around it where the settings ask for it.
        tokenizer: its tokenizer.
        arguments: keyword arguments of `TrainingArguments`.
        held_out: questions that become the trainer's evaluation set.

    Raises:
        InputError: a readout that cannot be trained.
        QuestionError: a question without an answer.
        PromptTooLong: a question longer than `settings.max_length`, by name.
    """
    parts = {
        "model": model,
        "train_dataset": settings.train.load(),
        "eval_dataset": held_out,
        "processing_class": tokenizer,
        "peft_config": lora_config(settings.lora),
    }
    shared = {**arguments, "readout": settings.readout, "max_length": settings.max_length}
    if isinstance(settings, CftSettings):
        return CFTTrainer(args=CFTConfig(**shared), **parts)
    config = RCFTConfig(
        **shared,
        ece_weight=settings.weight,
        likelihood=settings.likelihood,
        n_bins=settings.n_bins,
        least_in_bin=settings.least_in_bin,
        rank_break=settings.rank_break,
    )
    return RCFTTrainer(args=config, **parts)


def _with_adapters(model: Any, peft_config: Any, args: Any) -> Any:
    """Return `model` with PEFT's adapters around it, if there are to be any."""
    if peft_config is None:
        return model
    peft = need("peft", feature="training with LoRA", extra="train")
    found = peft.get_peft_model(model, peft_config)
    if args.gradient_checkpointing:
        found.enable_input_require_grads()
    return found
