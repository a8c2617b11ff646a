"""The construction of one real model, studied: base, instruction tuning (LoRA and all weights), DPO, CATTO, RCFT.

The base is Gemma 3 270M, a pre-trained model, dequantised from its packaged file. Instruction tuning is the likelihood
of right options' texts after CommonsenseQA's training questions, the options named in the question; an epoch goes on
from the weights of the one before. Preferences (right options against random wrong ones) follow on one epoch of LoRA,
and RCFT on DPO. Every step is `calibwrap train` with the settings that are written beside its weights, and goes on
where it stopped; the study asks all of them about texts and questions that nothing was trained on.

    OMP_NUM_THREADS=1 python benchmarks/lifecycle_construction.py [--work FOLDER] [--seed 0] [--model gemma-3-270m]
"""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from _lifecycle import show

import calibwrap as cw
from calibwrap.data import load_questions
from calibwrap.files import replacing
from calibwrap.lifecycle import Study
from calibwrap.questions import Question
from calibwrap.training import train
from calibwrap.training.reading import METHODS

PAIRS = [
    *((f"lora epoch {epoch}", f"full epoch {epoch}") for epoch in (1, 2, 3)),
    ("DPO", "lora epoch 1"),
    ("CATTO", "lora epoch 1"),
    ("CATTO", "DPO"),
    ("RCFT after DPO", "DPO"),
]
"""Steps that are compared with each other, besides each with the base."""


@dataclass(frozen=True)
class Step:
    """One step of the construction: what it is called, how it is trained, and what it goes on from."""

    name: str
    stage: str
    method: str
    after: str
    options: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str | int] = field(default_factory=dict)


def steps() -> list[Step]:
    """Return the steps, each after what it goes on from."""
    found = []
    for tuning, options in (("lora", {}), ("full", {"lora": None, "learning_rate": 2e-5})):
        for epoch in (1, 2, 3):
            after = f"{tuning} epoch {epoch - 1}" if epoch > 1 else ""
            axes: dict[str, str | int] = {"tuning": tuning, "epoch": epoch}
            found.append(Step(f"{tuning} epoch {epoch}", "instruction tuning", "cft", after, options, axes))
    return [
        *found,
        Step("DPO", "preferences", "catto", "lora epoch 1", {"weight": 0.0}),
        Step("CATTO", "preferences", "catto", "lora epoch 1", {"weight": 0.1}),
        Step("RCFT after DPO", "calibration", "rcft", "DPO"),
    ]


def listed(question: Question) -> Question:
    """Return the question with its options named in it."""
    return replace(question, prompt=f"{question.prompt}\nChoices: {', '.join(question.options)}")


def questions_file(path: Path, questions: list[Question]) -> str:
    """Return the path of a file that holds the questions, with their options named."""
    if not path.exists():
        with replacing(path) as part:
            cw.save_questions([listed(one) for one in questions], part)
    return str(path)


def carried_out(step: Step, chosen: argparse.Namespace, folder: Path) -> Path:
    """Train one step, unless it is done, and return its weights."""
    source = str(folder / step.after / "weights") if step.after else chosen.model
    settings = METHODS[step.method].model_validate(
        {
            "model": source,
            "output": folder / step.name,
            "train": {"source": str(folder / "train.jsonl"), "seed": chosen.seed, "limit": chosen.steps * chosen.batch},
            "seed": chosen.seed,
            "max_steps": chosen.steps,
            "batch_size": chosen.batch,
            "max_length": 160,
            "bf16": True,
            "threads": chosen.threads,
            "save_steps": 30,
            **step.options,
        }
    )
    result = train(settings, resume=True)
    if not result.finished or result.weights is None:
        raise SystemExit(f"{step.name} stopped after step {result.step}; the same command goes on")
    print(f"{step.name}: {result.step} steps", flush=True)
    return Path(result.weights)


def show_difference(study: Study, one: str, other: str) -> None:
    """Print how two models differ, on the same events."""
    for probe in ("generation", "factuality", "understanding"):
        tallies = {found.stage.name: found.tally for found in study.of(probe)}
        change, low, high = tallies[one].difference(tallies[other], study.settings.seed)["ece"]
        print(f"{probe:<14}{one} less {other}: ECE {change:+.3f} ({low:+.3f} to {high:+.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("construction"), help="folder of weights and the study")
    parser.add_argument("--model", default="gemma-3-270m", help="a packaged model, or a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60, help="of each epoch, and of each later step")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--events", type=int, default=2000, help="of generation; a fifth of factuality")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    folder = chosen.work / f"seed-{chosen.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    questions_file(folder / "train.jsonl", load_questions("commonsense_qa", split="train"))
    asked = questions_file(
        folder / "asked.jsonl", load_questions("commonsense_qa", split="validation", limit=chosen.questions, seed=0)
    )
    models: list[dict[str, Any]] = [{"stage": "base", "name": "base", "spec": f"hf:{chosen.model}"}]
    for step in steps():
        weights = carried_out(step, chosen, folder)
        models.append({"stage": step.stage, "name": step.name, "spec": f"hf:{weights}", "axes": step.axes})
    study = cw.study(
        {
            "title": f"The construction of a model: {chosen.model}",
            "models": models,
            "base": "base",
            "seed": chosen.seed,
            "probes": {
                "generation": {"source": "boolq", "events": chosen.events},
                "factuality": {"source": "squad", "events": chosen.events // 5},
                "understanding": {"source": asked, "questions": chosen.questions},
            },
        },
        folder / "study",
        resume=True,
    )
    show(study, chosen.json)
    for one, other in PAIRS:
        show_difference(study, one, other)


if __name__ == "__main__":
    main()
