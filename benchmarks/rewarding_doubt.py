"""Does Rewarding Doubt work? Stated confidence before and after, on held-out questions and on another set.

SmolLM2-135M-Instruct answers with one of the options' texts, the one it holds likeliest, and states its confidence from
0 to 10. It is trained on ARC-Easy's train split and asked about the test questions of ARC-Easy and of SciQ. All eleven
levels' probabilities are read, so that no number depends on a draw:

- ece, auroc: of a confidence drawn from them, 11 bins; "likeliest": of the one that greedy decoding states; "expected":
  of the mean level, which the readout "verbalized" gives;
- malformed: probability of stating no level; accuracy: of the answers, which nothing trains.

Each question's levels are journalled, and training goes on from its last checkpoint: stop it at any time, and run the
same command again. Intervals are 95 % bootstrap intervals over questions, each with all its seeds.

    OMP_NUM_THREADS=1 python benchmarks/rewarding_doubt.py [--seeds 3] [--steps 80] [--questions 300] [--json FILE]
"""

import argparse
import gc
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibwrap.adapters.hf import Transformers
from calibwrap.data import load_questions
from calibwrap.journal import Journal
from calibwrap.training import train
from calibwrap.training.doubt_answers import Row, question_rows
from calibwrap.training.doubt_measures import read_stated, stated_measures
from calibwrap.training.rewards import reward_table
from calibwrap.training.settings import RewardingDoubtSettings
from calibwrap.training.weights import load_trainable

MODEL = "smollm2-135m-instruct"
SETS = ("arc_easy", "sciq")
"""Trained on the first one's train split; the second is never trained on."""
AT_ONCE = 10
DRAWS = 500
Levels = tuple[np.ndarray, np.ndarray]
"""Level probabilities (N, 11) and verdicts (N,)."""


def settings_of(arguments: argparse.Namespace, seed: int) -> RewardingDoubtSettings:
    return RewardingDoubtSettings(
        model=MODEL,
        output=arguments.work / f"seed-{seed}",
        train={"source": SETS[0], "split": "train", "seed": seed},
        algorithm=arguments.algorithm,
        reward=arguments.reward,
        seed=seed,
        max_steps=arguments.steps,
        batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
        save_steps=10,
        lora={"rank": 16, "alpha": 32},
    )


def stage_of(source: str, stage: str, journal: Journal, limit: int) -> dict[str, Levels]:
    """Return what a model states about each question set; what the journal holds is not asked again."""
    rows = {name: question_rows(load_questions(name, limit=limit, seed=0)) for name in SETS}
    keys = {name: [f"{stage}/{name}/{row['question']}" for row in own] for name, own in rows.items()}
    todo = [
        (key, row) for name in SETS for key, row in zip(keys[name], rows[name], strict=True) if key not in journal.done
    ]
    if todo:
        model, tokenizer = load_trainable(source)
        ask(Transformers(model, tokenizer, batch_size=16), todo, stage, journal)
        del model
        gc.collect()
    found = {}
    for name in SETS:
        done = [journal.done[key] for key in keys[name]]
        found[name] = np.array([one["levels"] for one in done]), np.array([one["correct"] for one in done])
    return found


def ask(adapter: Transformers, todo: Sequence[tuple[str, Row]], stage: str, journal: Journal) -> None:
    """Journal what the model states about each question."""
    for start in range(0, len(todo), AT_ONCE):
        part = todo[start : start + AT_ONCE]
        levels, correct = read_stated(adapter, [row for _, row in part])
        journal.append(
            [
                {"id": key, "levels": own.tolist(), "correct": bool(right)}
                for (key, _), own, right in zip(part, levels, correct, strict=True)
            ]
        )
        print(f"  {stage}: {start + len(part)} of {len(todo)}", flush=True)


def measured(parts: Sequence[Levels], reward: str) -> dict[str, float]:
    """Return the mean of the measures over seeds."""
    table = reward_table(reward)
    each = [stated_measures(levels, correct, table) for levels, correct in parts]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def with_intervals(parts: Sequence[Levels], reward: str) -> dict[str, list[float]]:
    """Return for each measure its value and the ends of its interval."""
    random, n = np.random.default_rng(0), len(parts[0][1])
    draws = []
    for _ in range(DRAWS):
        picked = random.integers(n, size=n)
        draws.append(measured([(levels[picked], correct[picked]) for levels, correct in parts], reward))
    found = {}
    for name, value in measured(parts, reward).items():
        low, high = np.nanquantile([draw[name] for draw in draws], [0.025, 0.975])
        found[name] = [value, float(low), float(high)]
    return found


def show(results: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> None:
    for name, stages in results.items():
        print(f"\n{name}" + "".join(f"{stage:>26}" for stage in stages))
        for measure in next(iter(stages.values())):
            cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*stage[measure]) for stage in stages.values()]
            print(f"  {measure:<18}" + "".join(f"{cell:>26}" for cell in cells))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("rewarding-doubt"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--algorithm", default="exact", choices=("exact", "rloo", "grpo"))
    parser.add_argument("--reward", default="log", choices=("log", "brier"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "TRL currently supports vLLM", UserWarning)
    arguments.work.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("steps", "batch", "learning_rate", "algorithm", "reward")
    }
    stages: dict[str, list[dict[str, Levels]]] = {"before": [], "after": []}
    with Journal.open(arguments.work / "levels.jsonl", header, resume=True) as journal:
        stages["before"].append(stage_of(MODEL, "before", journal, arguments.questions))
        for seed in range(arguments.seeds):
            result = train(settings_of(arguments, seed), resume=True)
            if not result.finished:
                raise SystemExit(f"stopped after step {result.step} of seed {seed}; the same command goes on")
            stages["after"].append(stage_of(str(result.weights), f"seed-{seed}", journal, arguments.questions))
    results = {
        name: {
            stage: with_intervals([found[name] for found in parts], arguments.reward) for stage, parts in stages.items()
        }
        for name in SETS
    }
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(header | {"results": results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
