"""The paper's table, small: SFT, DPO, DPO+BCE, RCFT after DPO, and CATTO, on a real small model and real questions.

SmolLM2-135M-Instruct, trained with LoRA: SFT on right options, then all others on right options against random wrong
ones, from SFT's weights on. In-distribution: trained on CommonsenseQA's train split, tested on its validation split.
Out of it: trained on ARC's train splits, tested on CommonsenseQA, OpenBookQA and SciQ. As in the paper the question
names its options, so that a model can put its weight on the words that answer; the answer is the option's text, since
letters are beyond a model of this size. The third regime, "unlisted", asks without naming them and trains from the
model as it came: there the confidence of a token and the confidence among options have little to do with each other.

Scores are read as summed log-probabilities, and the same divided by the number of tokens. What has a choice (lambda,
margin scale, target) is chosen on rows of the train split that nothing was trained on, and so is each temperature.

Every run writes its LoRA adapter and its option scores into a folder of its own, so the work can be ended at any time
and goes on where it stopped; the tables come from the stored scores. Two processes may share the folder.

    OMP_NUM_THREADS=1 python benchmarks/catto_table.py [--work FOLDER] [--seeds 3] [--only ROW ...] [--json FILE]
"""

import argparse
import contextlib
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import calibwrap as cw
from calibwrap import metrics
from calibwrap.data import load_questions
from calibwrap.files import replacing
from calibwrap.questions import Question

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the float32 form of the packaged model
from tests.servers import matched

N_BINS = 10
REGIMES = {"in": ("commonsense_qa",), "out": ("arc_easy", "arc_challenge"), "unlisted": ("commonsense_qa",)}
"""What each regime trains on."""
TESTS = {
    "in": ("commonsense_qa",),
    "out": ("commonsense_qa", "openbookqa", "sciq"),
    "unlisted": ("commonsense_qa",),
}
"""What each regime is tested on: validation splits, never trained on."""
FIRST = {"in": "sft", "out": "sft", "unlisted": ""}
"""What preferences are learned after; empty is the model as it came."""
READOUTS = ("summed", "per token")
ARRAYS = ("confidence", "correct")
HARD = {"target": "hard"}


@dataclass(frozen=True)
class Run:
    """One model: how it is trained, from what, and with which seed."""

    regime: str
    method: str
    """Which trainer: start, sft, dpo, rcft or catto; dpo is CATTO with weight 0."""
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    """Its name in the table."""

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return f"{self.regime}/{self.variant}-{self.seed}"


VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "start": ("start", {}, ""),
    "sft": ("cft", {}, ""),
    "dpo": ("catto", {"weight": 0.0}, "first"),
    "dpo+bce": ("catto", {"weight": 0.1, "loss": "bce"}, "first"),
    "rcft after dpo": ("rcft", {}, "dpo"),
    "catto": ("catto", {"weight": 0.1}, "first"),
}
"""The rows: trainer, its options, and what comes before: nothing, another row, or what the regime puts first."""

SWEEP: dict[str, tuple[str, dict[str, Any], str]] = {
    **{f"catto {weight:g}": ("catto", {"weight": weight}, "first") for weight in (0.03, 0.3, 1.0)},
    **{
        f"catto {weight:g} scale 4": ("catto", {"weight": weight, "margin_scale": 4.0}, "first")
        for weight in (0.1, 0.3)
    },
    **{f"catto hard {weight:g}": ("catto", {"weight": weight, **HARD}, "first") for weight in (0.03, 0.1, 0.3, 1.0)},
    "catto pair": ("catto", {"weight": 1.0, "over": "pair", "loss": "bce", **HARD}, "first"),
    "catto pair soft": ("catto", {"weight": 1.0, "over": "pair", "loss": "bce"}, "first"),
}
"""Other settings of CATTO, not out of distribution, seed 0 only, compared on held-out rows of the train split."""


def runs(regimes: Sequence[str], seeds: int, rows: Sequence[str]) -> Iterator[Run]:
    """Yield what is to be trained, in an order in which everything comes after what it needs."""
    for seed in range(seeds):
        for regime in regimes:
            for variant, (method, options, _) in (VARIANTS | SWEEP).items():
                if variant in rows and (variant in VARIANTS or (regime != "out" and seed == 0)):
                    yield Run(regime, method, seed, options, variant)


def before(regime: str, variant: str) -> list[str]:
    """Return the rows whose weights a row goes on from, first to last."""
    after = VARIANTS.get(variant, SWEEP.get(variant, ("", {}, "")))[2]
    after = FIRST[regime] if after == "first" else after
    return [*before(regime, after), after] if after else []


def listed(question: Question) -> Question:
    """Return the question with its options named in it."""
    return replace(question, prompt=f"{question.prompt}\nChoices: {', '.join(question.options)}")


def questions_of(chosen: argparse.Namespace, regime: str) -> dict[str, list[Question]]:
    """Return the questions to train on, to choose on, and to test on, by name; no question is in two of them."""
    rows: list[Question] = []
    for source in REGIMES[regime]:
        rows += load_questions(source, split="train", seed=0)
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = [rows[index] for index in order]
    tests = {name: load_questions(name, split="validation", limit=chosen.tests, seed=0) for name in TESTS[regime]}
    sets = {"train": mixed[chosen.choice :], "choice": mixed[: chosen.choice], **tests}
    return sets if regime == "unlisted" else {name: [listed(one) for one in asked] for name, asked in sets.items()}


def merged(work: Path, regime: str, seed: int, rows: Sequence[str]) -> Any:
    """Return the tokenizer and the model with the adapters of some rows merged into it, one after another."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = matched.smollm2().directory
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for row in rows:
        model = PeftModel.from_pretrained(model, work / regime / f"{row}-{seed}" / "adapter").merge_and_unload()
    return AutoTokenizer.from_pretrained(directory), model


def trained(chosen: argparse.Namespace, run: Run, questions: Sequence[Question], folder: Path) -> Any:
    """Return the tokenizer and the model after its training; adapters are merged, so that the next one starts whole."""
    from importlib import import_module

    import torch

    from calibwrap.training import settings as kinds

    torch.set_num_threads(chosen.threads)
    earlier = before(run.regime, run.variant)
    if (folder / "log.json").exists():
        return merged(chosen.work, run.regime, run.seed, [*earlier, run.variant])
    tokenizer, model = merged(chosen.work, run.regime, run.seed, earlier)
    if run.method == "start":
        return tokenizer, model
    homes = {"catto": "catto_trainer", "cft": "cft_trainer", "rcft": "cft_trainer"}
    kind = {"catto": kinds.CattoSettings, "cft": kinds.CftSettings, "rcft": kinds.RcftSettings}[run.method]
    with replacing(folder / "train.jsonl") as path:
        cw.save_questions(questions, path)
    asked = kind.model_validate(
        {
            "model": str(matched.smollm2().directory),
            "output": folder / "checkpoints",
            "train": {"source": str(folder / "train.jsonl"), "seed": run.seed, "limit": chosen.steps * chosen.batch},
            "seed": run.seed,
            "max_steps": chosen.steps,
            "batch_size": chosen.batch,
            **run.options,
        }
    )
    arguments = {
        "output_dir": str(folder / "checkpoints"), "seed": run.seed, "max_steps": chosen.steps,
        "per_device_train_batch_size": chosen.batch, "learning_rate": asked.learning_rate, "save_strategy": "no",
        "report_to": [], "use_cpu": True, "bf16": chosen.bf16, "logging_steps": 10, "disable_tqdm": True,
        "gradient_checkpointing": False,
    }  # fmt: skip
    trainer = import_module(f"calibwrap.training.{homes[run.method]}").build(asked, model, tokenizer, arguments)
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter")
    (folder / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
    return tokenizer, trainer.model.merge_and_unload()


def carry_out(chosen: argparse.Namespace, run: Run) -> None:
    """Train one model, unless its adapter is there, and store its option scores on every set."""
    folder = chosen.work / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    sets = questions_of(chosen, run.regime)
    began = time.perf_counter()
    tokenizer, model = trained(chosen, run, sets.pop("train"), folder)
    model.eval()
    with cw.wrap(model, tokenizer) as lm:
        stored = {f"{name} {key}": value for name, asked in sets.items() for key, value in read(lm, asked).items()}
    with replacing(folder / "scores.npz") as path, path.open("wb") as file:
        np.savez(file, **stored)
    told = {**asdict(run), "steps": chosen.steps, "bf16": chosen.bf16, "seconds": time.perf_counter() - began}
    with replacing(folder / "run.json") as path:
        path.write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(f"{run.folder}: {told['seconds']:.0f} s in all", file=sys.stderr, flush=True)


def read(lm: cw.CalibratedLM, asked: Sequence[Question]) -> dict[str, np.ndarray]:
    """Return the options' log-probabilities of both readouts, (N, K) each, and the answers, (N,).

    The sums are what the model gives; where the log-probabilities of a question are known up to one number, so are the
    sums, and dividing them by the number of tokens is the other readout.
    """
    readout = cw.Continuation()
    scores = lm.scores(asked, readout=readout)
    sums = scores.logprobs + np.log(scores.label_mass)[:, None]
    rows = []
    for each, row in zip(asked, sums, strict=True):
        prompt, separator = readout.template.prompt(each), readout.template.separator
        counts = [len(lm.adapter.tokenize(prompt, separator + option)[1]) for option in each.options]
        rows.append(list(row[: len(counts)] / counts))
    return {
        "summed": scores.logprobs,
        "per token": cw.OptionScores.from_rows(rows, "per token").logprobs,
        "answers": np.array([question.answer for question in asked]),
    }


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Give whether this process may work on the folder: it is not done, and nobody else is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "claimed"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(mark.read_text()), 0)
        yield False
        return
    if (folder / "run.json").exists():
        yield False
        return
    mark.write_text(str(os.getpid()))
    try:
        yield True
    finally:
        mark.unlink(missing_ok=True)


def attempt(chosen: argparse.Namespace, run: Run) -> bool:
    """Return whether this process carried the run out: what comes before is there, and nobody else is at it."""
    folders = [chosen.work / run.regime / f"{row}-{run.seed}" for row in before(run.regime, run.variant)]
    if not all((folder / "run.json").exists() for folder in folders):
        return False
    with claimed(chosen.work / run.folder) as mine:
        if mine:
            carry_out(chosen, run)
            gc.collect()  # trainers are cycles: some models later the memory would be full
    return mine


def measured(logprobs: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness of N questions."""
    probabilities = np.exp(logprobs)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == answers


def figures(folders: Sequence[Path], name: str, readout: str, temperature: bool, resamples: int) -> dict[str, Any]:
    """Return accuracy and ECE of one variant on one set, all seeds together; questions are resampled with their seeds.

    With `temperature` each seed's scores are divided by what its own held-out rows of the train split ask for.
    """
    confidence, correct, values = [], [], []
    for folder in folders:
        stored = np.load(folder / "scores.npz")
        calibrator: Any = cw.Identity() if not temperature else None
        if calibrator is None:
            calibrator = cw.fit_temperature(stored[f"choice {readout}"], stored["choice answers"])
            values.append(calibrator.value)
        said, right = measured(calibrator(stored[f"{name} {readout}"]), stored[f"{name} answers"])
        confidence.append(said)
        correct.append(right)
    said, right = np.array(confidence).T, np.array(correct).T
    seeds = [json.loads((folder / "run.json").read_text("utf-8"))["seed"] for folder in folders]
    found: dict[str, Any] = {"seeds": seeds, "questions": len(said), "temperatures": values}
    for title, measure in {"accuracy": accuracy, "ece": seeds_ece}.items():
        low, high = metrics.bootstrap_ci(measure, said, right, n_resamples=resamples, seed=0)
        found[title] = {"value": measure(said, right), "low": low, "high": high}
    found["confidence"] = said
    found["correct"] = right
    return found


def accuracy(said: np.ndarray, right: np.ndarray) -> float:
    """Return the mean accuracy of all seeds."""
    return float(right.mean())


def seeds_ece(said: np.ndarray, right: np.ndarray) -> float:
    """Return the mean over seeds of each seed's ECE."""
    columns = range(said.shape[1])
    return float(np.mean([metrics.ece(said[:, s], right[:, s], n_bins=N_BINS) for s in columns]))


def gain(base: dict[str, Any], other: dict[str, Any], resamples: int) -> dict[str, float]:
    """Return how much lower the ECE is than the base's on the seeds of both, with a paired interval over questions."""
    both = [seed for seed in base["seeds"] if seed in other["seeds"]]
    arrays = [of[key][:, [of["seeds"].index(seed) for seed in both]] for of in (base, other) for key in ARRAYS]

    def difference(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
        return seeds_ece(a, b) - seeds_ece(c, d)

    if not both:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    low, high = metrics.bootstrap_ci(difference, *arrays, n_resamples=resamples, seed=0)
    return {"value": difference(*arrays), "low": low, "high": high}


def tables(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return and print the tables of what is done so far."""
    results: dict[str, Any] = {}
    for regime in chosen.regimes:
        for name, readout in itertools.product(("choice", *TESTS[regime]), READOUTS):
            rows: dict[str, Any] = {}
            for variant in [*VARIANTS, *SWEEP]:
                folders = sorted(path.parent for path in (chosen.work / regime).glob(f"{variant}-[0-9]/run.json"))
                if folders:
                    rows[variant] = {
                        state: figures(folders, name, readout, state == "temperature", chosen.resamples)
                        for state in ("raw", "temperature")
                    }
            title = f"trained {'elsewhere, tested ' if regime == 'out' else ''}on {name}, {regime}, {readout}"
            results[f"{regime} {name} {readout}"] = show(title, rows, chosen.resamples)
    return results


def show(title: str, rows: dict[str, Any], resamples: int) -> dict[str, Any]:
    """Print one table and return its figures without the arrays."""
    print(f"\n{title} (ECE, {N_BINS} bins; how much lower than DPO's; 95 % intervals over questions)")
    print(f"{'':<22}{'seeds':>6}{'n':>6}{'accuracy':>22}{'ECE':>22}{'lower than DPO by':>24}{'ECE at T':>22}")
    plain: dict[str, Any] = {}
    for variant, states in rows.items():
        raw, warm = states["raw"], states["temperature"]
        lower = gain(rows["dpo"]["raw"], raw, resamples) if "dpo" in rows else None
        cells = [f"{c['value']:>9.3f} {c['low']:>5.3f}–{c['high']:<5.3f}" for c in (raw["accuracy"], raw["ece"])]
        cells.append(f"{lower['value']:>+10.3f} {lower['low']:>+5.3f}–{lower['high']:<+5.3f}" if lower else " " * 24)
        cells.append(f"{warm['ece']['value']:>9.3f} {warm['ece']['low']:>5.3f}–{warm['ece']['high']:<5.3f}")
        print(f"{variant:<22}{len(raw['seeds']):>6}{raw['questions']:>6}" + " ".join(cells))
        plain[variant] = {
            state: {key: value for key, value in found.items() if key not in ARRAYS} for state, found in states.items()
        } | {"ece_lower_than_dpo": lower}
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("catto-table"), help="folder of runs; an unfinished one goes on"
    )
    parser.add_argument("--regimes", nargs="+", default=list(REGIMES), choices=list(REGIMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=6, help="pairs, or questions, a step")
    parser.add_argument("--choice", type=int, default=300, help="rows of the train split to choose and fit on")
    parser.add_argument("--tests", type=int, default=300, help="questions of each test set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--bf16", action="store_true", help="train with bfloat16 where that is enough")
    everything = [*VARIANTS, *SWEEP]
    parser.add_argument("--only", nargs="+", default=everything, choices=everything, metavar="ROW", help="some rows")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    wanted = list(runs(chosen.regimes, chosen.seeds, chosen.only))
    while left := [run for run in wanted if not (chosen.work / run.folder / "run.json").exists()]:
        if not any([attempt(chosen, run) for run in left]):
            time.sleep(10)  # another process is at what is left, or at what comes before it
    results = tables(chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
