"""A ladder of scale and training steps: three small Llamas trained from nothing on packaged real text, then studied.

The texts are BoolQ's passages (Wikipedia): those of its train split to train on, those of its validation split, which
no model has seen, for the study's `generation` probe, and SQuAD's and ARC-Easy's for the other two. One byte-level BPE
tokenizer of 4 096 tokens, trained on the train split, serves all. Each model is trained by Transformers' own trainer
with the same texts in the same order, batch and learning-rate schedule, and kept at six steps.

A training that was stopped goes on from its last checkpoint, and the study from its journal: start it again.

    OMP_NUM_THREADS=1 python benchmarks/lifecycle_ladder.py [--work FOLDER] [--seed 0] [--steps 2000]
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from _lifecycle import show
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint, set_seed

import calibwrap as cw
from calibwrap.data.passages import packaged_passages

SIZES = {"small": (64, 2), "medium": (128, 4), "large": (256, 6)}
"""Width and layers of each model."""
KEPT = (1, 10, 50, 200, 600, 2000)
"""Steps after which a model is kept, for 2 000 steps; others in proportion."""
VOCABULARY, WINDOW = 4096, 256


def tokenizer_of(folder: Path, texts: list[str]) -> PreTrainedTokenizerFast:
    """Return the tokenizer, trained once."""
    if not (folder / "tokenizer.json").exists():
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        bpe.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet)
        )
        made = PreTrainedTokenizerFast(
            tokenizer_object=bpe, eos_token="<end>", pad_token="<end>", model_max_length=4 * WINDOW
        )
        made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def windows(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Dataset:
    """Return the texts one after another, an end after each, in windows of equal length."""
    ids: list[int] = []
    for text in texts:
        ids += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    whole = len(ids) // WINDOW
    return Dataset.from_dict({"input_ids": [ids[at * WINDOW : (at + 1) * WINDOW] for at in range(whole)]})


class KeepAt(TrainerCallback):
    """Keeps the model at chosen steps."""

    def __init__(self, steps: set[int], folder: Path) -> None:
        """Take the steps, and where their models go."""
        self.steps, self.folder = steps, folder

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        """Write the model after one of the steps."""
        if state.global_step in self.steps:
            model.save_pretrained(self.folder / f"step-{state.global_step}")
            rest["processing_class"].save_pretrained(self.folder / f"step-{state.global_step}")


def kept_steps(steps: int) -> list[int]:
    """Return the steps after which a model is kept.

    >>> kept_steps(200)
    [1, 5, 20, 60, 200]
    """
    return sorted({max(1, step * steps // KEPT[-1]) for step in KEPT})


def trained(name: str, chosen: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, texts: Dataset) -> Path:
    """Train one size, unless it is done, and return the folder of its kept steps."""
    folder, work = chosen.work / f"seed-{chosen.seed}" / name, chosen.work / f"seed-{chosen.seed}" / f"{name}-run"
    kept = kept_steps(chosen.steps)
    if (folder / f"step-{kept[-1]}" / "config.json").exists():
        return folder
    width, layers = SIZES[name]
    set_seed(chosen.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 32, max_position_embeddings=4 * WINDOW,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    arguments = TrainingArguments(
        str(work), seed=chosen.seed, data_seed=chosen.seed, max_steps=chosen.steps, per_device_train_batch_size=8,
        learning_rate=2e-3, lr_scheduler_type="cosine", warmup_steps=max(1, chosen.steps // 40), weight_decay=0.1,
        save_steps=max(1, chosen.steps // 10), save_total_limit=1, logging_steps=max(1, chosen.steps // 40),
        report_to=[], use_cpu=True, bf16=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        LlamaForCausalLM(config), arguments, train_dataset=texts, processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[KeepAt(set(kept), folder)],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=get_last_checkpoint(work) if work.is_dir() else None)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("ladder"), help="folder of models and the study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--events", type=int, default=5000, help="of generation; a fifth of factuality")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.work.mkdir(parents=True, exist_ok=True)
    passages = [one.text for one in packaged_passages("boolq", "train")]
    tokenizer = tokenizer_of(chosen.work / "tokenizer", passages)
    texts = windows(tokenizer, passages)
    rungs = []
    for name in chosen.sizes:
        folder = trained(name, chosen, tokenizer, texts)
        first = LlamaForCausalLM.from_pretrained(folder / f"step-{kept_steps(chosen.steps)[0]}")
        axes = {"parameters": sum(one.numel() for one in first.parameters())}
        rungs.append({"stage": "pre-training", "name": name, "folder": str(folder), "axes": axes})
    study = cw.study(
        {
            "title": "A ladder of scale and training steps",
            "models": rungs,
            "seed": chosen.seed,
            "probes": {
                "generation": {"source": "boolq", "events": chosen.events},
                "factuality": {"source": "squad", "events": chosen.events // 5},
                "understanding": {"source": "arc_easy", "questions": chosen.questions},
            },
        },
        chosen.work / f"seed-{chosen.seed}" / "study",
        resume=True,
    )
    show(study, chosen.json)


if __name__ == "__main__":
    main()
