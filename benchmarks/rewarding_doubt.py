"""Does Rewarding Doubt work? Stated confidence before and after, on held-out questions and on another set.

SmolLM2-135M-Instruct answers with one of the options' texts, the one it holds likeliest, and states its confidence from
0 to 10. It is trained on ARC-Easy's train split and asked about test questions of ARC-Easy and about SciQ. All eleven
levels' probabilities are read, so that no number depends on a draw:

- ece, auroc: of a confidence drawn from them, 11 bins; "likeliest": of the one that greedy decoding states; "expected":
  of the mean level, which the readout "verbalized" gives;
- malformed: probability of stating no level; accuracy: of the answers, which nothing trains;
- change: after minus before, on the same questions. Last comes the AUROC of the probability that the untrained model
  gives its answer: what it knows without words, and what stated confidences can be held against.

The adapter is on the later layers alone, which spares the backward pass through the others, and the answers are held by
an anchor (`answer_kl_weight`). Matrices are multiplied in bfloat16, before and after alike; `--float32` is slower.

Each question's levels are journalled, and training goes on from its last checkpoint: stop it at any time, and run the
same command again. Intervals are 95 % bootstrap intervals over questions, each with all its seeds.

    OMP_NUM_THREADS=1 python benchmarks/rewarding_doubt.py [--seeds 3] [--steps 150] [--questions 150] [--json FILE]
"""

import argparse
import gc
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from calibwrap.adapters.hf import Transformers
from calibwrap.data import load_questions
from calibwrap.journal import Journal
from calibwrap.metrics import auroc, bootstrap_ci
from calibwrap.training import train
from calibwrap.training.doubt_answers import Row, question_rows
from calibwrap.training.doubt_measures import read_stated, stated_measures
from calibwrap.training.rewards import reward_table
from calibwrap.training.settings import RewardingDoubtSettings
from calibwrap.training.weights import load_trainable

SETS = ("arc_easy", "sciq")
"""Trained on the first one's train split; the second is never trained on."""
TARGETS = r".*layers\.(18|19|2\d)\..*_proj"
"""The last twelve of SmolLM2's thirty layers."""
AT_ONCE = 10
DRAWS = 500
HEADER = ("model", "targets", "steps", "batch", "learning_rate", "entropy", "anchor", "algorithm", "reward", "float32")
"""What a journal's figures are determined by."""
Record = Mapping[str, Any]
Ask = Callable[[Transformers, Sequence[Row]], list[Record]]
Levels = tuple[np.ndarray, np.ndarray]
"""Level probabilities (N, 11) and verdicts (N,)."""


def settings_of(arguments: argparse.Namespace, seed: int) -> RewardingDoubtSettings:
    return RewardingDoubtSettings(
        model=arguments.model,
        output=arguments.work / f"seed-{seed}",
        train={"source": SETS[0], "split": "train", "seed": seed},
        algorithm=arguments.algorithm,
        reward=arguments.reward,
        seed=seed,
        max_steps=arguments.steps,
        batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
        entropy_weight=arguments.entropy,
        answer_kl_weight=arguments.anchor if arguments.algorithm == "exact" else 0.0,
        bf16=not arguments.float32,
        save_steps=10,
        lora={"rank": 16, "alpha": 32, "targets": arguments.targets},
    )


def asked(
    source: str, stage: str, ask: Ask, journal: Journal, arguments: argparse.Namespace
) -> dict[str, list[Record]]:
    """Return what `ask` finds of a model's answers to each question set; what the journal holds is not asked again."""
    rows = {name: question_rows(load_questions(name, limit=arguments.questions, seed=0)) for name in SETS}
    keys = {name: [f"{stage}/{name}/{row['question']}" for row in own] for name, own in rows.items()}
    todo = [
        (key, row) for name in SETS for key, row in zip(keys[name], rows[name], strict=True) if key not in journal.done
    ]
    if todo:
        model, tokenizer = load_trainable(source)
        adapter = Transformers(model, tokenizer, batch_size=16)
        for start in range(0, len(todo), AT_ONCE):
            part = todo[start : start + AT_ONCE]
            with torch.autocast("cpu", torch.bfloat16, enabled=not arguments.float32):
                found = ask(adapter, [row for _, row in part])
            journal.append([{"id": key, **one} for (key, _), one in zip(part, found, strict=True)])
            print(f"  {stage}: {start + len(part)} of {len(todo)}", flush=True)
        del adapter, model
        gc.collect()
    return {name: [journal.done[key] for key in keys[name]] for name in SETS}


def stated(adapter: Transformers, rows: Sequence[Row]) -> list[Record]:
    """Return the level probabilities after each likeliest answer, and whether that is right."""
    levels, correct = read_stated(adapter, rows)
    return [{"levels": own.tolist(), "correct": bool(right)} for own, right in zip(levels, correct, strict=True)]


def known(adapter: Transformers, rows: Sequence[Row]) -> list[Record]:
    """Return what the model's own probabilities say of each likeliest answer, and whether that is right.

    "answer" is the answer's probability, "token" the same a token (geometric mean), "share" its share of the options'.
    """
    found: list[Record] = []
    texts = [[" " + option for option in row["options"]] for row in rows]
    for row, scored in zip(rows, adapter.score([row["prompt"] for row in rows], texts), strict=True):
        logprobs = [np.asarray(one.chosen_logprob) for one in scored]
        sums = np.array([own.sum() for own in logprobs])
        best = int(sums.argmax())
        found.append(
            {
                "answer": float(np.exp(sums[best])),
                "token": float(np.exp(logprobs[best].mean())),
                "share": float(1.0 / np.exp(sums - sums[best]).sum()),
                "correct": row["options"][best] in row["references"],
            }
        )
    return found


def levels_of(found: Mapping[str, Sequence[Record]]) -> dict[str, Levels]:
    return {
        name: (np.array([one["levels"] for one in own]), np.array([one["correct"] for one in own]))
        for name, own in found.items()
    }


def measured(parts: Sequence[Levels], reward: Literal["log", "brier"]) -> dict[str, float]:
    """Return the mean of the measures over seeds."""
    table = reward_table(reward)
    each = [stated_measures(levels, correct, table) for levels, correct in parts]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def resampled(parts: Sequence[Levels], reward: Literal["log", "brier"]) -> list[dict[str, float]]:
    """Return the measures, and after them those of resampled questions: the same ones for every stage."""
    random, n = np.random.default_rng(0), len(parts[0][1])
    picks = [np.arange(n), *(random.integers(n, size=n) for _ in range(DRAWS))]
    return [measured([(levels[picked], correct[picked]) for levels, correct in parts], reward) for picked in picks]


def compared(
    before: Sequence[dict[str, float]], after: Sequence[dict[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """Return for each stage, and for the change, each measure's value and the ends of its interval."""
    change = [{name: two[name] - one[name] for name in one} for one, two in zip(before, after, strict=True)]
    return {
        stage: {name: with_interval([one[name] for one in draws]) for name in draws[0]}
        for stage, draws in (("before", before), ("after", after), ("change", change))
    }


def with_interval(draws: Sequence[float]) -> list[float]:
    return [draws[0], *(float(end) for end in np.nanquantile(draws[1:], [0.025, 0.975]))]


def ceilings(found: Sequence[Record]) -> dict[str, list[float]]:
    """Return the AUROC of each of the model's own probabilities, with its interval."""
    right = np.array([one["correct"] for one in found])
    return {
        name: [auroc(own, right), *bootstrap_ci(auroc, own, right, n_resamples=DRAWS)]
        for name in ("answer", "token", "share")
        for own in [np.array([one[name] for one in found])]
    }


def show(results: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> None:
    for name, stages in results.items():
        print(f"\n{name}" + "".join(f"{stage:>26}" for stage in stages))
        for measure in next(iter(stages.values())):
            cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*stage[measure]) for stage in stages.values()]
            print(f"  {measure:<18}" + "".join(f"{cell:>26}" for cell in cells))


def show_ceilings(ceilings: Mapping[str, Mapping[str, list[float]]]) -> None:
    print("\nauroc of the answer's own probability, of its tokens' mean, and of its share of the options'")
    for name, own in ceilings.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*value) for value in own.values()]
        print(f"  {name:<18}" + "".join(f"{cell:>26}" for cell in cells))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("rewarding-doubt"))
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a packaged model, or a folder")
    parser.add_argument("--targets", default=TARGETS, help="the modules with an adapter, as a pattern of their names")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--entropy", type=float, default=0.02)
    parser.add_argument("--anchor", type=float, default=1.0)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--algorithm", default="exact", choices=("exact", "rloo", "grpo"))
    parser.add_argument("--reward", default="brier", choices=("log", "brier"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "TRL currently supports vLLM", UserWarning)
    arguments.work.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {name: getattr(arguments, name) for name in HEADER}
    with Journal.open(arguments.work / "levels.jsonl", header, resume=True) as journal:
        before = levels_of(asked(arguments.model, "before", stated, journal, arguments))
        after = []
        for seed in range(arguments.seeds):
            result = train(settings_of(arguments, seed), resume=True)
            if not result.finished:
                raise SystemExit(f"stopped after step {result.step} of seed {seed}; the same command goes on")
            after.append(levels_of(asked(str(result.weights), f"seed-{seed}", stated, journal, arguments)))
        knows = asked(arguments.model, "known", known, journal, arguments)
        own = {name: ceilings(found) for name, found in knows.items()}
    reward = arguments.reward
    results = {
        name: compared(resampled([before[name]], reward), resampled([found[name] for found in after], reward))
        for name in SETS
    }
    show(results)
    show_ceilings(own)
    if arguments.json:
        written = header | {"seeds": arguments.seeds, "results": results, "ceilings": own}
        arguments.json.write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
