"""Tiny models, a tokenizer that knows the questions below, and trainers of them, for the tests of CFT and RCFT."""

import functools

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from calibwrap.questions import Question
from calibwrap.training import CFTConfig, CFTTrainer, RCFTConfig, RCFTTrainer
from tests.adapters.hf_models import llama

QUESTIONS = [
    Question("Red planet?", ["Mars", "Venus", "the Moon"], answer=0, id="planet"),
    Question("Is water wet?", ["yes", "no"], answer=0, id="water"),
    Question("Capital of Italy?", ["Paris", "New York", "Rome", "an umbrella"], answer=2, id="italy"),
    Question("Which is a fruit?", ["a stone", "an apple"], answer=1, id="fruit"),
    Question("What do bees make?", ["honey", "glass", "paper"], answer=0, id="bees"),
    Question("When is it dark?", ["at noon", "at night"], answer=1, id="dark"),
]


@functools.cache
def byte_level():
    """Byte-level BPE that knows the questions' words and the letters A to D, with and without a space before."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [f"Question: {q.prompt}\nAnswer: {' '.join(q.options)}" for q in QUESTIONS]
    tokenizer.train_from_iterator([*texts * 4, "Answer: A B C D" * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def tiny(tokenizer=None):
    return llama(tokenizer or byte_level(), max_position_embeddings=512)


def arguments(folder, **own):
    shared = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": 2, "learning_rate": 1e-2,
              "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True,
              "dataloader_pin_memory": False, "seed": 0}  # fmt: skip
    return {**shared, "output_dir": str(folder), **own}


def rcft(folder, model=None, questions=QUESTIONS, peft_config=None, **own):
    args = RCFTConfig(**arguments(folder, **{"least_in_bin": 2, "n_bins": 4, **own}))
    options = {"train_dataset": questions, "processing_class": byte_level(), "peft_config": peft_config}
    return RCFTTrainer(model=model or tiny(), args=args, **options)


def cft(folder, model=None, questions=QUESTIONS, **own):
    options = {"train_dataset": questions, "processing_class": byte_level()}
    model = model or tiny()
    return CFTTrainer(model=model, args=CFTConfig(**arguments(folder, **own)), **options)


def batch_of(trainer, rows=(0, 1, 2)):
    return trainer.data_collator([trainer.train_dataset[row] for row in rows])


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
