"""Trained weights of catto_table.py's folder, ready for llama.cpp: what two commands share."""

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from catto_table import N_BINS, REGIMES, before, merged

from calibwrap import metrics
from calibwrap.training import export_gguf

VARIANTS = ("dpo", "catto")
RUNTIME = {"n_ctx": 1024, "type_k": 0, "type_v": 0, "flash_attn": False}
"""A cache of 32-bit numbers for every file, so that nothing but the weights differs."""


@dataclass(frozen=True)
class Tuned:
    """One trained model: a LoRA adapter that catto_table.py wrote, and the option scores that Transformers gave it."""

    variant: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.folder.parent.name}-{self.folder.name}"


def parsed(description: str | None, work: str) -> argparse.ArgumentParser:
    """Return the parser of the options that both commands take; `work` is where they write by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("catto-table"), help="folder of catto_table.py, only read")
    parser.add_argument("--out", type=Path, default=Path(work), help="folder of models and journals")
    parser.add_argument("--regime", default="in", choices=list(REGIMES), help="what was trained on")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), help="rows of catto_table.py")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    return parser


def tuned_models(chosen: argparse.Namespace) -> dict[str, list[Tuned]]:
    """Return the finished models of each variant by seed, and say which variants have none, or none finished."""
    found: dict[str, list[Tuned]] = {}
    for variant in chosen.variants:
        pattern = re.compile(re.escape(variant) + r"-(\d+)")
        runs = [(one, pattern.fullmatch(one.name)) for one in (chosen.work / chosen.regime).glob("*")]
        models = [Tuned(variant, int(match[1]), folder) for folder, match in runs if match]
        for model in models:
            if not (model.folder / "run.json").exists():
                say(f"{model.folder} is not finished: left out")
        done = sorted((one for one in models if (one.folder / "run.json").exists()), key=lambda one: one.seed)
        if done:
            found[variant] = done
        else:
            say(f"no finished run of {variant!r} in {chosen.work / chosen.regime}: left out")
    if not found:
        sys.exit(f"No trained weights in {chosen.work / chosen.regime}: run benchmarks/catto_table.py --work FOLDER.")
    return found


def float32_gguf(model: Tuned, out: Path) -> Path:
    """Return the model's merged weights as a GGUF file of 32-bit numbers, written once."""
    file = out / "models" / f"{model.name}-f32.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            work, regime = model.folder.parent.parent, model.folder.parent.name
            tokenizer, weights = merged(work, regime, model.seed, [*before(regime, model.variant), model.variant])
            weights.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            export_gguf(folder, file)
        say(f"{file} written")
    return file


def say(text: str) -> None:
    """Print what is going on, for people."""
    print(text, file=sys.stderr, flush=True)


def accuracy(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the share of right answers, all seeds together."""
    return float(correct.mean())


def mean_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the mean over the S columns of each one's ECE; arrays are (N, S)."""
    columns = range(confidence.shape[1])
    return float(np.mean([metrics.ece(confidence[:, s], correct[:, s], n_bins=N_BINS) for s in columns]))


MEASURES = {"accuracy": accuracy, "ece": mean_ece}
Pair = tuple[np.ndarray, np.ndarray]
"""Confidence and correctness, each (N, S): questions and seeds."""


def figures(pair: Pair, resamples: int) -> dict[str, Any]:
    """Return accuracy and ECE, each with its bootstrap interval over questions, and the mean confidence."""
    found: dict[str, Any] = {"confidence": float(pair[0].mean())}
    for name, measure in MEASURES.items():
        low, high = metrics.bootstrap_ci(measure, *pair, n_resamples=resamples, seed=0)
        found[name] = {"value": measure(*pair), "low": low, "high": high}
    return found


def difference(first: Pair, second: Pair, resamples: int) -> dict[str, Any]:
    """Return accuracy and ECE of the first less those of the second, with paired intervals over the same questions."""
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        low, high = metrics.bootstrap_difference(measure, first, second, n_resamples=resamples, seed=0)
        found[name] = {"value": measure(*first) - measure(*second), "low": low, "high": high}
    return found


def cell(of: dict[str, float], signed: bool = False) -> str:
    """Return one figure and its interval as text.

    >>> cell({"value": 0.25, "low": 0.2, "high": 0.3})
    '0.250 (0.200 to 0.300)'
    """
    sign = "+" if signed else ""
    return f"{of['value']:{sign}.3f} ({of['low']:{sign}.3f} to {of['high']:{sign}.3f})"
