"""Rewarding Doubt: trainers in which only the tokens of the stated confidence are learned.

Each round the current model answers, and the answer becomes part of the prompt; what is drawn, rewarded and learned
from is the confidence after it. So no answer token has a gradient, by construction: it is never a completion.
"""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

from calibwrap.adapters.hf import Transformers
from calibwrap.errors import InputError, ModelError
from calibwrap.freetext.judging import Judge
from calibwrap.questions import FreeQuestion, Question
from calibwrap.readouts.verbalized import LEVELS, said_level
from calibwrap.training.doubt_anchor import answer_divergence, answer_span, predicting
from calibwrap.training.doubt_answers import (
    Drawing,
    Row,
    check_lengths,
    confidence_prompt,
    drawn_answers,
    judged,
    judged_rows,
)
from calibwrap.training.doubt_forward import last_logits
from calibwrap.training.doubt_levels import LevelTokens, expected_reward, level_entropy
from calibwrap.training.doubt_measures import read_stated, stated_measures
from calibwrap.training.lora import lora_config, without_peft
from calibwrap.training.rewards import reward_table
from calibwrap.training.settings import RewardingDoubtSettings

with warnings.catch_warnings():
    # TRL imports vLLM wherever that is installed, used or not: it warns of a release that it does not know, and vLLM
    # loads parts of torch that announce their end
    warnings.filterwarnings("ignore", "TRL currently supports vLLM", UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

MALFORMED = len(LEVELS)
"""Row of the reward table of a statement that cannot be read."""


@dataclass
class _DoubtArguments:
    """What Rewarding Doubt adds to a trainer's arguments."""

    reward: Literal["log", "brier"] = "log"
    """Logarithmic score, or Brier."""
    preset: Literal["paper", "official"] = "paper"
    """Of the logarithmic score."""
    answer_temperature: float = 0.6
    """Sampling temperature of answers."""
    answer_top_p: float = 0.9
    """Share of the probability that answers are drawn from."""
    answer_tokens: int = 32
    """Longest answer in free text."""


@dataclass
class RewardingDoubtConfig(_DoubtArguments, RLOOConfig):  # type: ignore[misc]
    """Arguments of `RewardingDoubtTrainer`: those of TRL's RLOO, and a few more."""

    num_generations: int | None = 8
    max_completion_length: int | None = 4
    """A space, the two tokens of 10, and an end."""


@dataclass
class RewardingDoubtGRPOConfig(_DoubtArguments, GRPOConfig):  # type: ignore[misc]
    """Arguments of `RewardingDoubtGRPOTrainer`: those of TRL's GRPO, and a few more."""

    num_generations: int | None = 8
    max_completion_length: int | None = 4
    """A space, the two tokens of 10, and an end."""


@dataclass
class ExactDoubtConfig(_DoubtArguments, TrainingArguments):  # type: ignore[misc]
    """Arguments of `ExactDoubtTrainer`: those of Transformers' trainer, and a few more."""

    entropy_weight: float = 0.02
    """Reward of one nat of entropy: without it the first good level takes all the probability, and learning ends."""
    answer_kl_weight: float = 0.0
    """Weight of the answer tokens' KL divergence from the first model, which is the model without its adapter."""
    remove_unused_columns: bool | None = False


class _DoubtMixin:
    """Answers first: what the three trainers share. `evaluate` measures stated confidences on whole question sets."""

    judge: Judge | None
    args: Any
    model: Any
    processing_class: Any
    state: Any
    control: Any

    def _reader(self) -> Transformers:
        """Return the model as it is now, as readouts see it."""
        model = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
        return Transformers(without_peft(model), self.processing_class, batch_size=16)

    def _answered(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return rows whose prompt holds an answer of the current model, and whether it is "correct"."""
        drawing = Drawing(self.args.answer_temperature, self.args.answer_top_p, self.args.answer_tokens)
        answers = drawn_answers(self._reader(), rows, drawing, lambda: float(torch.rand(())))
        verdicts = judged(rows, answers, self.judge)
        return [
            {
                "prompt": confidence_prompt(row, answer),
                "correct": right,
                "question": row["question"],
                "asked": row["prompt"],
                "answer": answer,
            }
            for row, answer, right in zip(rows, answers, verdicts, strict=True)
        ]

    def training_step(self, *args: Any, **options: Any) -> Any:
        """Return the loss of one step.

        Raises:
            ModelError: it is not finite.
        """
        loss = super().training_step(*args, **options)  # type: ignore[misc]
        if not torch.isfinite(loss).all():
            raise ModelError(
                f"The loss became {float(loss)} in step {self.state.global_step + 1}, so training ended: lower "
                "learning_rate, and go on from the last checkpoint."
            )
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return `stated_measures` of the model's likeliest answers to the held-out questions, and log them."""
        rows = list(self.eval_dataset if eval_dataset is None else eval_dataset)  # type: ignore[attr-defined]
        was_training = self.model.training
        self.model.eval()
        levels, correct = read_stated(self._reader(), rows, self.judge, self.args.answer_tokens)
        table = reward_table(self.args.reward, self.args.preset)
        found = stated_measures(levels, correct, table)
        measures = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(measures)  # type: ignore[attr-defined]
        self.control = self.callback_handler.on_evaluate(  # type: ignore[attr-defined]
            self.args, self.state, self.control, measures
        )
        self.model.train(was_training)
        return measures


class _DrawnMixin(_DoubtMixin):
    """Confidences are drawn by TRL's trainer, several after each answer, and rewarded."""

    def __init__(self, model: Any, *, args: Any, judge: Judge | None = None, **options: Any) -> None:
        """Put the reward in its place; all else is TRL's."""
        self.judge = judge
        table = reward_table(args.reward, args.preset)

        def confidence(completions: Sequence[str], correct: Sequence[bool], log_metric: Any, **_: Any) -> list[float]:
            """Return one reward a completion; the name is the one that the log shows."""
            levels = [said_level(text) for text in completions]
            heard = [level for level in levels if level is not None]
            log_metric("malformed", 1.0 - len(heard) / len(levels))
            if heard:
                log_metric("stated", sum(heard) / len(heard) / (MALFORMED - 1))
            rows = [MALFORMED if level is None else level for level in levels]
            return [float(table[row, int(right)]) for row, right in zip(rows, correct, strict=True)]

        super().__init__(model=model, reward_funcs=confidence, args=args, **options)  # type: ignore[call-arg]

    def _generate_and_score_completions(self, inputs: Sequence[Row]) -> Any:
        """Return TRL's batch, for one answer drawn for each group of equal prompts."""
        size = self.num_generations  # type: ignore[attr-defined]
        groups = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        if any(len(group) != size or len({row["prompt"] for row in group}) != 1 for group in groups):
            raise InputError(
                f"The batch of a process must hold whole groups of {size} confidences for one answer: make "
                "per_device_train_batch_size a multiple of num_generations."
            )
        answered = self._answered([group[0] for group in groups])
        self._metrics["train"]["answers/accuracy"].append(  # type: ignore[attr-defined]
            sum(row["correct"] for row in answered) / len(answered)
        )
        repeated = [row for row in answered for _ in range(size)]
        return super()._generate_and_score_completions(repeated)  # type: ignore[misc]


class RewardingDoubtTrainer(_DrawnMixin, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO on stated confidences: an answer is drawn, then `num_generations` confidences after it.

    Built as TRL's trainers are: `RewardingDoubtTrainer(model=..., args=RewardingDoubtConfig(...), train_dataset=...,
    eval_dataset=..., processing_class=..., peft_config=..., judge=...)`, with data sets of `question_rows`. `judge` is
    None for the very option, or an alias by TriviaQA's rules.

    References:
        Stangel, Bani-Harouni et al.: Rewarding doubt (2025); Ahmadian et al.: Back to basics (2024), for RLOO.
    """


class RewardingDoubtGRPOTrainer(_DrawnMixin, GRPOTrainer):  # type: ignore[misc]
    """The same on TRL's GRPO."""


class ExactDoubtTrainer(_DoubtMixin, Trainer):  # type: ignore[misc]
    """Rewarding Doubt without drawing confidences: the loss is minus the expected reward over all eleven levels.

    The gradient is what RLOO and GRPO estimate from draws, for one forward pass and no generation. What is no level
    counts as malformed with the probability that it has. `entropy_weight` times the entropy is added to the reward, and
    `answer_kl_weight` times the divergence of the answer's tokens from the first model to the loss, which needs LoRA.
    """

    def __init__(
        self,
        model: Any,
        *,
        args: ExactDoubtConfig,
        train_dataset: Any,
        processing_class: Any,
        peft_config: Any = None,
        judge: Judge | None = None,
        **options: Any,
    ) -> None:
        """Find the levels' tokens; all else is Transformers'."""
        self.judge = judge
        self._table = torch.tensor(reward_table(args.reward, args.preset))
        self._noted: dict[str, list[float]] = defaultdict(list)
        super().__init__(
            model=model if peft_config is None else get_peft_model(model, peft_config),
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            data_collator=list,
            **options,
        )

    def compute_loss(self, model: Any, inputs: Sequence[Row], *_: Any, **__: Any) -> Any:
        """Return minus the mean expected reward of confidences in fresh answers, and the weighted anchor of these."""
        answered = self._answered(inputs)
        correct = torch.tensor([row["correct"] for row in answered], device=self._table.device)
        rows, place = self._tokens([row["prompt"] for row in answered])
        predicts = torch.zeros((len(rows), len(place.chain)), dtype=torch.bool)
        if self.args.answer_kl_weight:
            spans = [answer_span(self._reader(), row, own) for row, own in zip(answered, rows, strict=True)]
            predicts = predicting([len(own) for own in rows], spans, at_least=len(place.chain))
        first = self._first_logits(rows, predicts.shape[1]) if self.args.answer_kl_weight else None
        logits = self._logits(model, rows, predicts.shape[1])
        levels = place.probabilities(logits[:, -len(place.chain) :])
        reward = expected_reward(levels, self._table.to(levels), correct.to(levels.device))
        self._note(levels.detach(), reward.detach(), correct)
        loss = -(reward + self.args.entropy_weight * level_entropy(levels)).mean()
        if first is None:
            return loss
        divergence = answer_divergence(first, logits, predicts.to(logits.device))
        self._noted["answers/kl"].append(float(divergence.detach()))
        return loss + self.args.answer_kl_weight * divergence

    def level_probabilities(self, model: Any, prompts: Sequence[str]) -> torch.Tensor:
        """Return (B, 11) differentiable probabilities of stating each level after each prompt."""
        rows, place = self._tokens(prompts)
        return place.probabilities(self._logits(model, rows, len(place.chain)))

    def _tokens(self, prompts: Sequence[str]) -> tuple[list[list[int]], LevelTokens]:
        """Return the tokens of each prompt with all but the last of the level 10, and where the levels are read."""
        reader = self._reader()
        split = [[reader.tokenize(prompt, f" {level}") for level in LEVELS] for prompt in prompts]
        places = {LevelTokens.of([tail for _, tail in own]) for own in split}
        if len(places) != 1:
            raise InputError("The levels' tokens depend on the answer with this tokenizer: use algorithm 'rloo'.")
        place = places.pop()
        return [[*own[-1][0], *place.chain[:-1]] for own in split], place

    def _first_logits(self, rows: Sequence[Sequence[int]], keep: int) -> torch.Tensor:
        """Return (B, keep, V) logits of the model without its adapter; they have no gradient."""
        model = self.accelerator.unwrap_model(self.model)
        with torch.no_grad(), model.disable_adapter():
            return self._logits(model, rows, keep)

    def _logits(self, model: Any, rows: Sequence[Sequence[int]], keep: int) -> torch.Tensor:
        return last_logits(model, rows, keep, share=not self.args.gradient_checkpointing)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of what was noted since the last time."""
        means = {name: sum(values) / len(values) for name, values in self._noted.items()}
        self._noted.clear()
        super().log({**logs, **means}, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the batch holds texts, whose length the estimate does not see."""
        return 0

    def _note(self, levels: torch.Tensor, reward: torch.Tensor, correct: torch.Tensor) -> None:
        said = levels.sum(dim=1)
        stated = (levels @ torch.linspace(0.0, 1.0, MALFORMED).to(levels)) / said.clamp(min=1e-9)
        self._noted["reward"].append(float(reward.mean()))
        self._noted["malformed"].append(float(1.0 - said.mean()))
        self._noted["stated"].append(float(stated.mean()))
        self._noted["answers/accuracy"].append(float(correct.float().mean()))


_KINDS: Mapping[str, tuple[Any, Any]] = {
    "rloo": (RewardingDoubtTrainer, RewardingDoubtConfig),
    "grpo": (RewardingDoubtGRPOTrainer, RewardingDoubtGRPOConfig),
    "exact": (ExactDoubtTrainer, ExactDoubtConfig),
}


def build(
    settings: RewardingDoubtSettings,
    model: Any,
    tokenizer: Any,
    arguments: Mapping[str, Any],
    held_out: Sequence[Question | FreeQuestion] | None = None,
) -> Trainer:
    """Return the trainer that `settings` ask for.

    With `held_out` questions, the model is evaluated on them whenever a checkpoint is written, and ends as the
    checkpoint of the largest expected reward.

    Raises:
        PromptTooLong: a question does not fit `settings.max_length`.
        QuestionError: a question has no right answer.
        InputError: questions with options for judge "aliases", or free questions for judge "options"; or a weight of
            the KL divergence where there is no first model to compare with.
    """
    if settings.kl_weight and (settings.algorithm == "exact" or settings.lora is None):
        raise InputError(
            "'kl_weight' needs algorithm 'rloo' or 'grpo', and 'lora', whose adapter can be switched off to give the "
            f"first model. Got {settings.algorithm!r} and lora={settings.lora!r}: set kl_weight to 0."
        )
    if settings.answer_kl_weight and (settings.algorithm != "exact" or settings.lora is None):
        raise InputError(
            "'answer_kl_weight' needs algorithm 'exact', and 'lora', whose adapter can be switched off to give the "
            f"first model. Got {settings.algorithm!r} and lora={settings.lora!r}: set answer_kl_weight to 0."
        )
    rows, held = (judged_rows(asked, settings.judge) for asked in (settings.train.load(), held_out or ()))
    reader = Transformers(model, tokenizer)
    check_lengths(reader, [*rows, *held], settings.answer_tokens, settings.max_length)
    trainer, config = _KINDS[settings.algorithm]
    return trainer(
        model=model,
        args=config(**_arguments(settings, arguments, bool(held))),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held) if held else None,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
    )


def _arguments(settings: RewardingDoubtSettings, given: Mapping[str, Any], evaluates: bool) -> dict[str, Any]:
    """Return keyword arguments of the trainer's configuration."""
    found: dict[str, Any] = dict(given)
    for name in ("reward", "preset", "answer_temperature", "answer_tokens"):
        found[name] = getattr(settings, name)
    if settings.algorithm == "exact":
        found |= {"entropy_weight": settings.entropy_weight, "answer_kl_weight": settings.answer_kl_weight}
    else:
        found |= {"num_generations": settings.draws, "beta": settings.kl_weight}
        found["per_device_train_batch_size"] = settings.batch_size * settings.draws
        found["per_device_eval_batch_size"] = settings.draws  # TRL checks it; nothing is drawn to evaluate
    if evaluates:
        found |= {"eval_strategy": "steps", "eval_steps": found.get("save_steps", settings.save_steps)}
        found |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_reward", "greater_is_better": True}
    return found
