"""Cost of CATTO's loss beside plain DPO: time and peak memory of a training step on the same batch, one thread.

    python benchmarks/catto_cost.py [--json FILE] [--journal FILE] [--models random-full random-lora smollm2-lora]
        [--seeds 0 1 2] [--repeats 9] [--small]

Plain DPO is the same trainer with weight 0, which is TRL's own; steps are interleaved and a ratio is taken within each
repeat, of CPU seconds (this machine has other users) and of wall time. Memory is the peak resident size of a child
process that trains a few steps, with and without CATTO in turn. What CATTO adds alone is timed for growing numbers of
response tokens. "random" is a Llama with random weights, 4 layers and SmolLM2's width and vocabulary, so that
the output head weighs far more than in most real models: a bad case. With `--journal`, nothing is done twice.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from calibwrap.training import CATTOConfig, CATTOTrainer
from calibwrap.training.catto_trainer import _WatchedCall
from calibwrap.training.head_tiles import BestOthers

MODELS = ("random-full", "random-lora", "smollm2-lora")
SHAPES = {"option": (4, 40, 4), "trace": (2, 40, 120)}
"""Pairs, tokens of the prompt, tokens of each answer."""
LENGTHS = (16, 32, 64, 128, 256)


def smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct as a plain folder, once: reading the GGUF file takes most of a minute."""
    if not (folder / "tokenizer_config.json").exists():
        from calibwrap.data import packaged_model
        from calibwrap.training.weights import load_trainable

        model, tokenizer = load_trainable(str(packaged_model("smollm2-135m-instruct")))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def built(name: str, weight: float, folder: Path) -> CATTOTrainer:
    """Return a trainer of one of `MODELS`; its data set is never read, batches are made here."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if name == "smollm2-lora":
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        shape = LlamaConfig.from_pretrained(folder, num_hidden_layers=4)
        model = LlamaForCausalLM(shape)
    lora = name.endswith("lora")
    return CATTOTrainer(
        model=model,
        ref_model=None if lora else LlamaForCausalLM(model.config),
        args=CATTOConfig(
            output_dir=str(folder / "out"),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            learning_rate=1e-4,
            catto_weight=weight,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        if lora
        else None,
    )


def batch_of(trainer: CATTOTrainer, pairs: int, prompt: int, response: int, seed: int) -> dict[str, Any]:
    """Return a batch of random tokens, as the trainer's own collator makes it."""
    rng = np.random.default_rng(seed)
    sizes = {"prompt_ids": prompt, "chosen_ids": response, "rejected_ids": response}
    rows = [{name: rng.integers(3, 40_000, size).tolist() for name, size in sizes.items()} for _ in range(pairs)]
    batch: dict[str, Any] = trainer.data_collator(rows)
    return batch


def stepper(trainer: CATTOTrainer, batch: dict[str, Any]) -> Callable[[float], None]:
    """Return a function that takes one optimiser step with a given weight."""
    optimizer = trainer.create_optimizer()
    trainer.model.train()

    def step(weight: float) -> None:
        trainer.args.catto_weight = weight
        trainer.compute_loss(trainer.model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def clocked(call: Callable[[], Any]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    wall, busy = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - busy, time.perf_counter() - wall


def times(name: str, shape: str, seed: int, repeats: int, folder: Path) -> dict[str, Any]:
    trainer = built(name, 0.1, folder)
    step = stepper(trainer, batch_of(trainer, *SHAPES[shape], seed))
    step(0.1)
    ratios: dict[str, list[float]] = {"cpu": [], "wall": []}
    plain = []
    for repeat in range(repeats):
        order = (0.0, 0.1) if repeat % 2 else (0.1, 0.0)  # neither side always comes second
        taken = {weight: clocked(lambda weight=weight: step(weight)) for weight in order}  # type: ignore[misc]
        plain.append(taken[0.0][0])
        for place, clock in enumerate(("cpu", "wall")):
            ratios[clock].append(taken[0.1][place] / taken[0.0][place])
    return {
        "dpo_step_cpu_seconds": statistics.median(plain),
        **{f"time_ratio_{clock}": statistics.median(values) for clock, values in ratios.items()},
        "time_ratio_cpu_quartiles": np.quantile(ratios["cpu"], [0.25, 0.75]).tolist(),
    }


def peak(name: str, shape: str, weight: float, seed: int, folder: Path) -> float:
    """Return the peak resident megabytes of this process after three steps.

    Not `ru_maxrss`, which a child takes over from the process that started it.
    """
    trainer = built(name, weight, folder)
    step = stepper(trainer, batch_of(trainer, *SHAPES[shape], seed))
    for _ in range(3):
        step(weight)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def peaks(name: str, shape: str, seed: int, repeats: int, folder: Path) -> dict[str, Any]:
    found: dict[float, list[float]] = {0.0: [], 0.1: []}
    for _ in range(repeats):
        for weight, values in found.items():
            asked = json.dumps([name, shape, weight, seed, str(folder)])
            done = subprocess.run(
                [sys.executable, __file__, "--child", asked], check=True, capture_output=True, text=True
            )
            values.append(float(done.stdout.splitlines()[-1]))
    plain, with_catto = (statistics.median(found[weight]) for weight in (0.0, 0.1))
    return {"dpo_peak_mb": plain, "catto_peak_mb": with_catto, "memory_ratio": with_catto / plain}


def growth(name: str, seed: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the seconds that CATTO's loss alone takes for 2 sequences of growing length, and how straight a line.

    That is a look at the tile of their logits, and the loss itself.
    """
    trainer = built(name, 0.1, folder)
    trainer.model.train()
    seconds = []
    for length in LENGTHS:
        batch = batch_of(trainer, 1, 8, length, seed)
        call = _WatchedCall(trainer.model, trainer._output_head, tiles=trainer._tiles)
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        call(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True)
        targets = batch["input_ids"][:, 1:].flatten()

        def added(call: Any = call, batch: Any = batch, targets: torch.Tensor = targets) -> float:
            tile = torch.zeros((len(targets), trainer.model.config.vocab_size))
            looking = clocked(lambda: BestOthers().see(tile, targets, 0))
            return looking[0] + clocked(lambda: trainer._calibration_loss(call, batch))[0]

        taken = [added() for _ in range(repeats + 1)]
        seconds.append(statistics.median(taken[1:]))
    tokens = 2 * np.array(LENGTHS)
    return {
        "response_tokens": tokens.tolist(),
        "seconds": seconds,
        "microseconds_a_token": (1e6 * np.array(seconds) / tokens).tolist(),
        "correlation_with_tokens": float(np.corrcoef(tokens, seconds)[0, 1]),
    }


def journalled(path: Path | None, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the journal holds under `key`, measured and written first if it is not there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    for line in lines:
        row: dict[str, Any] = json.loads(line)
        if row["key"] == key:
            return row
    row = {"key": key, **measure()}
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--journal", type=Path, help="keep what is done here, and go on from it")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="the random model alone, few repeats, a few minutes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        name, shape, weight, seed, folder = json.loads(asked.child)
        print(peak(name, shape, weight, seed, Path(folder)))
        return
    models, repeats = (["random-lora"], 3) if asked.small else (asked.models, asked.repeats)
    folder = Path(tempfile.gettempdir()) / "calibwrap-catto-cost"
    smollm2(folder)
    rows = []
    for name in models:
        for seed in asked.seeds:
            key = f"{name}, seed {seed}, {repeats} repeats"
            for shape in SHAPES:
                for kind, measure in (("time", times), ("memory", peaks)):
                    count = repeats if kind == "time" else max(1, repeats // 2)
                    rows.append(
                        journalled(
                            asked.journal,
                            f"{key}, {kind}, {shape}",
                            lambda m=measure, c=count, n=name, s=shape, d=seed: m(n, s, d, c, folder),  # type: ignore[misc]
                        )
                    )
            rows.append(
                journalled(asked.journal, f"{key}, growth", lambda n=name, d=seed: growth(n, d, repeats, folder))  # type: ignore[misc]
            )
    versions = {name: version(name) for name in ("calibwrap", "torch", "transformers", "trl", "peft")}
    figures = {"versions": versions, "python": platform.python_version(), "rows": rows}
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
