"""RCFT's ablation: likelihood alone, regulariser alone, both; and CFT before and after, on questions never trained on.

Every arm starts from the same weights, sees the same questions in the same order a seed, and is read by the same
readout. A finished arm is journalled with the scores of all its held-out questions, and an arm that was interrupted
goes on from its last checkpoint: start the same command again. Intervals are 95 % bootstrap intervals over questions; a
question is drawn with all its seeds. ECE has 10 bins, as in the paper. "temperature" is the start with a temperature
fitted on the answers to the other half of the held-out questions.

The model "synthetic" is a tiny one with random weights, on made-up questions whose answers are right 80 times in 100
at best: the shape of the ablation in a minute. Others are read by Transformers, such as a packaged model's name or a
folder (a DPO-trained one, say).

    OMP_NUM_THREADS=1 python benchmarks/rcft_ablation.py [--model synthetic] [--work FOLDER] [--json FILE]
"""

import argparse
import copy
import functools
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_utils import get_last_checkpoint, set_seed
from transformers.utils import logging

import calibwrap as cw
from calibwrap import metrics
from calibwrap.data import load_questions
from calibwrap.journal import Journal
from calibwrap.questions import Question
from calibwrap.scores import OptionScores
from calibwrap.training import CFTConfig, CFTTrainer, RCFTConfig, RCFTTrainer

ARMS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "CFT": (CFTTrainer, CFTConfig, {}),
    "likelihood alone": (RCFTTrainer, RCFTConfig, {"ece_weight": 0.0}),
    "regulariser alone": (RCFTTrainer, RCFTConfig, {"likelihood": False}),
    "RCFT": (RCFTTrainer, RCFTConfig, {}),
}
BINS = 10
MEASURES = {
    "accuracy": lambda confidence, correct: float(correct.mean()),
    "confidence": lambda confidence, correct: float(confidence.mean()),
    "ece": lambda confidence, correct: metrics.ece(confidence.ravel(), correct.ravel(), n_bins=BINS),
    "brier": lambda confidence, correct: metrics.top_label_brier(confidence.ravel(), correct.ravel()),
}
COLOURS = ("red", "green", "blue", "white", "black", "grey")


@dataclass(frozen=True)
class Plan:
    """What determines a run: the header of its journal."""

    model: str
    train: str
    tests: tuple[str, ...]
    train_questions: int
    test_questions: int
    steps: int
    batch: int
    learning_rate: float
    lora: int
    readout: str
    weight: float
    least_in_bin: int
    bf16: bool


def synthetic_questions(count: int, seed: int) -> list[Question]:
    """Return questions about things whose colour is known 80 times in 100; lots make each one different."""
    random = np.random.default_rng(seed)
    asked = []
    for number in range(count):
        thing = int(random.integers(12))
        colours = [COLOURS[place] for place in random.permutation(len(COLOURS))[:4]]
        usual = COLOURS[thing % len(COLOURS)]
        if usual not in colours:
            colours[0] = usual
        others = [colour for colour in colours if colour != usual]
        answer = usual if random.random() < 0.8 else others[int(random.integers(3))]
        lot = f"{random.integers(60)} {random.integers(60)}"
        prompt = f"colour of thing t{thing} of lot {lot} ?"
        asked.append(Question(prompt, colours, answer=colours.index(answer), id=f"{seed}-{number}"))
    return asked


def synthetic_model() -> tuple[Any, Any]:
    """Return a tiny random Llama and a tokenizer of the words that the synthetic questions use."""
    words = ["<pad>", "</s>", "<unk>", "Question", "Answer", "colour", "of", "thing", "lot", ":", "?", *COLOURS]
    words += [f"t{thing}" for thing in range(12)] + [str(number) for number in range(60)]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config), fast


@functools.cache
def opened(model: str) -> tuple[Any, Any]:
    """Return the start's weights, opened once; nobody trains these."""
    if model == "synthetic":
        return synthetic_model()
    from calibwrap.training.weights import load_trainable

    return load_trainable(model)


def loaded(plan: Plan) -> tuple[Any, Any]:
    """Return a copy of the start's weights, and the tokenizer."""
    model, tokenizer = opened(plan.model)
    return copy.deepcopy(model), tokenizer


def questions(plan: Plan, name: str, count: int, *, training: bool) -> list[Question]:
    """Return questions of the set NAME or NAME:SPLIT."""
    if plan.model == "synthetic":
        return synthetic_questions(count, seed=1 if training else 2)
    source, _, split = name.partition(":")
    return load_questions(source, split=split or ("train" if training else ""), limit=count, seed=0)


def scored(plan: Plan, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return for each held-out set the options' log-probabilities, rows of each question's own length."""
    lm = cw.wrap(model, tokenizer)
    found = {}
    for name in plan.tests:
        scores = lm.scores(questions(plan, name, plan.test_questions, training=False), readout=plan.readout)
        found[name] = [row[mask].tolist() for row, mask in zip(scores.logprobs, scores.mask, strict=True)]
    return found


def trained(plan: Plan, arm: str, seed: int, folder: Path) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Return the model of one arm, trained from where it was stopped, its tokenizer, and the trainer's log."""
    trainer_class, config_class, own = ARMS[arm]
    extra = dict(own)
    if config_class is RCFTConfig:
        extra = {"ece_weight": plan.weight, "least_in_bin": plan.least_in_bin, **own}
    model, tokenizer = loaded(plan)
    set_seed(seed)
    arguments = config_class(
        output_dir=str(folder), seed=seed, max_steps=plan.steps, per_device_train_batch_size=plan.batch,
        learning_rate=plan.learning_rate, lr_scheduler_type="cosine", warmup_steps=plan.steps // 10, use_cpu=True,
        bf16=plan.bf16, report_to=[], logging_steps=max(1, plan.steps // 20), save_steps=max(1, plan.steps // 4),
        save_total_limit=1, disable_tqdm=True, dataloader_pin_memory=False, readout=plan.readout, **extra,
    )  # fmt: skip
    lora = None
    if plan.lora:
        from peft import LoraConfig

        lora = LoraConfig(r=plan.lora, lora_alpha=2 * plan.lora, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=questions(plan, plan.train, plan.train_questions, training=True),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if folder.is_dir() else None)
    return trainer.adapter.model, tokenizer, trainer.state.log_history


def run(plan: Plan, arms: Sequence[str], seeds: int, work: Path) -> dict[str, Any]:
    """Return the journal's records by arm and seed; what is missing is trained and measured."""
    jobs = [("start", 0), *((arm, seed) for seed in range(seeds) for arm in arms)]
    with Journal.open(work / "arms.jsonl", asdict(plan), resume=True) as journal:
        for arm, seed in jobs:
            name, start = f"{arm} {seed}", time.perf_counter()
            if name in journal.done:
                continue
            folder, history = work / name.replace(" ", "-"), []
            if arm == "start":
                model, tokenizer = loaded(plan)
            else:
                model, tokenizer, history = trained(plan, arm, seed, folder)
            took = time.perf_counter() - start
            scores = scored(plan, model, tokenizer)
            journal.append([{"id": name, "scores": scores, "seconds": took, "history": history}])
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{name}: {took:.0f} s", file=sys.stderr, flush=True)
        return {f"{arm} {seed}": journal.done[f"{arm} {seed}"] for arm, seed in jobs}


def by_halves(scores: OptionScores, answers: np.ndarray) -> OptionScores:
    """Return each half of the questions at the temperature that the other one fitted."""
    halves = np.random.default_rng(0).permutation(len(answers)) % 2
    warm = [cw.fit_temperature(scores.take(halves != half), answers[halves != half]) for half in (0, 1)]
    both = np.stack([calibrator(scores).logprobs for calibrator in warm])
    return OptionScores(both[halves, np.arange(len(answers))], scores.readout, scores.mask)


def seed_mean(measure: Any, confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the mean over the seeds (N, S) of a measure."""
    return float(np.mean([measure(confidence[:, [s]], correct[:, [s]]) for s in range(confidence.shape[1])]))


def figures(many: Sequence[OptionScores], answers: np.ndarray, resamples: int) -> dict[str, Any]:
    """Return the figures of one arm on one set: the mean over seeds, each seed's own, and the interval."""
    confidence = np.minimum(np.stack([scores.confidence for scores in many], axis=1), 1.0)
    correct = np.stack([scores.choice == answers for scores in many], axis=1)
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        over_seeds = functools.partial(seed_mean, measure)
        low, high = metrics.bootstrap_ci(over_seeds, confidence, correct, n_resamples=resamples, seed=0)
        seeds = [measure(confidence[:, [s]], correct[:, [s]]) for s in range(len(many))]
        found[name] = {"value": over_seeds(confidence, correct), "low": low, "high": high, "seeds": seeds}
    return found


def measured(plan: Plan, records: dict[str, Any], resamples: int) -> dict[str, dict[str, Any]]:
    """Return the figures by held-out set and arm."""
    found: dict[str, dict[str, Any]] = {}
    for name in plan.tests:
        asked = questions(plan, name, plan.test_questions, training=False)
        answers = np.array([question.answer for question in asked])
        arms: dict[str, list[OptionScores]] = {}
        for key, record in records.items():
            scores = OptionScores.from_rows(record["scores"][name], plan.readout)
            arms.setdefault(key.rpartition(" ")[0], []).append(scores)
        arms["temperature"] = [by_halves(arms["start"][0], answers)]
        found[name] = {arm: figures(many, answers, resamples) for arm, many in arms.items()}
    return found


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print one table a held-out set."""
    for name, arms in found.items():
        print(f"\n{name}\n{'arm':<20}" + "".join(f"{measure:>24}" for measure in MEASURES))
        for arm, row in arms.items():
            cells = [row[measure] for measure in MEASURES]
            print(f"{arm:<20}" + "".join(f"{c['value']:>10.3f} ({c['low']:.3f}-{c['high']:.3f})" for c in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="synthetic, a packaged model, or a folder")
    parser.add_argument("--train", default="commonsense_qa:train")
    parser.add_argument("--tests", nargs="+", default=["commonsense_qa:validation", "openbookqa", "arc_challenge"])
    parser.add_argument("--train-questions", type=int, default=360)
    parser.add_argument("--test-questions", type=int, default=300, help="of each held-out set")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--lora", type=int, default=16, help="rank; 0 trains all weights")
    parser.add_argument("--readout", default="continuation", help="continuation, continuation:token or label")
    parser.add_argument("--weight", type=float, default=1.0, help="lambda of the regulariser")
    parser.add_argument("--least-in-bin", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="train with bfloat16 where that is enough")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--work", type=Path, default=Path("rcft-ablation"), help="folder of journal and checkpoints")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    logging.disable_progress_bar()
    if chosen.model == "synthetic":
        chosen.train, chosen.tests, chosen.lora = "synthetic", ["synthetic"], 0
    names = [name for name in Plan.__dataclass_fields__ if name != "tests"]
    plan = Plan(tests=tuple(chosen.tests), **{name: getattr(chosen, name) for name in names})
    records = run(plan, chosen.arms, chosen.seeds, chosen.work)
    found = measured(plan, records, chosen.resamples)
    show(found)
    if chosen.json:
        report = {"plan": asdict(plan), "seconds": {name: r["seconds"] for name, r in records.items()}, "sets": found}
        chosen.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
