"""What a training run will do and the memory it needs, worked out before any weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibwrap.errors import InputError, ModelError, need
from calibwrap.questions import Question, answers_of
from calibwrap.readouts import Label, find_readout
from calibwrap.training.checks import check_trackers
from calibwrap.training.lengths import check_examples
from calibwrap.training.lora import lora_config
from calibwrap.training.reading import WeightSettings
from calibwrap.training.resuming import beginning, beginning_of_head
from calibwrap.training.settings import AnySettings, HeadSettings, Lora, RewardingDoubtSettings
from calibwrap.training.weights import base_of_adapter, load_tokenizer, resolve

_FLOAT = 4
"""Bytes of a number: training is in float32."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    method: str
    """What is trained."""
    model: str
    """What it is trained on."""
    output: str
    """Where everything goes."""
    questions: int
    """Questions to train on."""
    held_out: int
    """Held-out questions; 0 without."""
    steps: int
    """Optimiser steps."""
    examples: int
    """Examples in all steps of one process, repeats counted."""
    parameters: int
    """Numbers in the model."""
    trainable: int
    """Numbers that training changes: LoRA's, or all."""
    memory: dict[str, int]
    """Bytes by what needs them; those that depend on the texts' lengths are for texts of `max_length` tokens."""
    begins: str
    """Where it begins, in words: at the first step, or with a checkpoint of an earlier run."""

    @property
    def total(self) -> int:
        """Bytes in all, at most: most texts are far shorter than `max_length`."""
        return sum(self.memory.values())


def plan(settings: AnySettings, *, resume: bool = False) -> Plan:
    """Return what `train(settings, resume=resume)` will do; the output folder is left as it is.

    Questions, the model's configuration and its tokenizer are read, its weights are not. A packaged model or set that
    is not on this machine yet is fetched.

    Raises:
        QuestionError: a question without an answer.
        PromptTooLong: an example that is longer than `max_length`, by the name of its question.
        InputError: questions or settings that cannot be used, or a tracker that is not installed.
        ModelError: no configuration of a model is there.
        JournalError: the output folder holds another run, or one that is not to be resumed.
        DownloadError: a packaged model or set could not be fetched.
        MissingExtra: a package of the extra `train` is not installed.
    """
    from calibwrap.training.held_out import check_held_out

    train = settings.train.load()
    if not isinstance(settings, RewardingDoubtSettings):
        answers_of(train)  # told here, not after the model is loaded
    held_out = [] if settings.held_out is None else settings.held_out.load()
    if held_out:
        check_held_out(held_out, train)
    shared = (settings.method, settings.model, str(settings.output), len(train), len(held_out))
    if isinstance(settings, HeadSettings):
        sizes: dict[str, Any] = {"parameters": 0, "trainable": 0, "memory": {}}
        begins = beginning_of_head(settings, resume)
        return Plan(*shared, steps=settings.max_epochs, examples=len(train), begins=begins, **sizes)
    check_trackers(settings.report_to)
    if settings.held_out is not None:
        find_readout(settings.held_out.readout)
    begins = beginning(settings, held_out, resume)
    config = configuration(settings.model)
    check_examples(settings, train, held_out, skeleton(config), load_tokenizer(settings.model))
    parameters, trainable = counted(config, settings.lora)
    return Plan(
        *shared,
        steps=settings.max_steps,
        examples=settings.max_steps * settings.batch_size * settings.gradient_accumulation,
        parameters=parameters,
        trainable=trainable,
        memory=memory(config.get_text_config(), parameters, trainable, rows(settings, train), settings),
        begins=begins,
    )


def configuration(source: str) -> Any:
    """Return the Transformers configuration of a source, as `load_trainable` takes them; an adapter has its base's.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    transformers = need("transformers", feature="planning a training run", extra="train")
    base = base_of_adapter(source)
    if base is not None:
        return configuration(base)
    path = Path(resolve(source))
    place, options = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (resolve(source), {})
    try:
        return transformers.AutoConfig.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"No model configuration could be read at '{source}': {str(error).splitlines()[0]}") from error


def skeleton(config: Any) -> Any:
    """Return a causal language model of this configuration without memory for its weights."""
    torch = need("torch", feature="planning a training run", extra="train")
    transformers = need("transformers", feature="planning a training run", extra="train")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.tie_weights()
    return model


def counted(config: Any, lora: Lora | None) -> tuple[int, int]:
    """Return how many numbers a model of this configuration has, and how many of them are trained.

    Raises:
        InputError: LoRA's targets name no layer of this model.
    """
    torch = need("torch", feature="planning a training run", extra="train")
    peft = need("peft", feature="planning a training run", extra="train")
    model = skeleton(config)
    parameters = sum(weight.numel() for weight in model.parameters())
    if lora is None:
        return parameters, parameters
    with torch.device("meta"):
        try:
            model = peft.get_peft_model(model, lora_config(lora))
        except ValueError as error:
            raise InputError(f"'lora.targets' do not fit the model: {str(error).splitlines()[0]}") from error
    return parameters, sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def rows(settings: WeightSettings, train: Sequence[Any]) -> int:
    """Return how many texts are in the model at once in a step of one process.

    Raises:
        InputError: there is no readout of that name.

    >>> from calibwrap.training.settings import CattoSettings
    >>> rows(CattoSettings(model="m", output="out", train={"source": "arc_easy"}, batch_size=6), [])
    12
    """
    if settings.method == "catto":
        return 2 * settings.batch_size
    if settings.method == "rcft" and settings.weight and not isinstance(find_readout(settings.readout), Label):
        options = (len(one.options) if isinstance(one, Question) else 1 for one in train)
        return settings.batch_size * max(options, default=1)
    if settings.method == "rewarding-doubt" and settings.algorithm != "exact":
        return settings.batch_size * settings.draws
    return settings.batch_size


def memory(config: Any, parameters: int, trainable: int, texts: int, settings: WeightSettings) -> dict[str, int]:
    """Return bytes of one process by what needs them.

    Activations are those that a Llama-like layer keeps for the backward pass without checkpointing: about 14 states and
    4 feed-forward rows a token. AdamW keeps two numbers for each that is trained.
    """
    tokens = texts * settings.max_length
    layer = 14 * config.hidden_size + 4 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    logits = tokens * config.vocab_size * _FLOAT  # (B, T, V)
    needed = {
        "weights": parameters * _FLOAT,
        "gradients": trainable * _FLOAT,
        "optimizer states": 2 * trainable * _FLOAT,
        "activations, about": tokens * config.num_hidden_layers * layer * _FLOAT,
        "logits": logits,
        "gradients of logits": logits,
    }
    if settings.method == "catto" and settings.lora is None:
        needed["reference model"] = parameters * _FLOAT
    return needed
