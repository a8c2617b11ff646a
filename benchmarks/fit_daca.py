"""Time of `fit_daca` against the paper's own optimiser, Adam, and the difference of their temperatures.

    python benchmarks/fit_daca.py [--json FILE] [--rows 5000] [--repeats 3]

The paper (Luo et al., 2025, appendix C) fits by Adam with learning rate 0.05, batches of 256 and 400 epochs. It is
written here in torch, twice: with a DataLoader, as is usual, and with batches cut out of one shuffled index, which is
about as fast as such a loop can be. The objective is the masked KL divergence of all rows, as in the paper. `fit_daca`
is timed with its bootstrap interval (the default) and without. One thread; each repeat runs all four in turn. Adam's
last value still wanders with the batches, so the mean over its last 100 epochs is compared too.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from calibwrap.calibrators import fit_daca

K = 4
EPOCHS, BATCH, RATE = 400, 256, 0.05
INNER = 50  # calls of fit_daca a repeat; their median counts


def models(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (rows, K) of a sharper model that now and then chooses otherwise, and of its reference."""
    rng = np.random.default_rng(seed)
    pre = 2.0 * rng.normal(size=(rows, K))
    return 2.5 * pre + rng.normal(size=pre.shape), pre


def adam(post: np.ndarray, pre: np.ndarray, loader: bool) -> tuple[float, float]:
    """Return the temperature that the paper's optimiser ends at, and its mean over the last 100 epochs."""
    torch.manual_seed(0)
    logits, reference = torch.tensor(post, dtype=torch.float32), torch.softmax(torch.tensor(pre), 1).float()
    agree = torch.tensor(post.argmax(1) == pre.argmax(1)).float()
    data = TensorDataset(logits, reference, agree)
    temperature = torch.nn.Parameter(torch.ones(1))
    optimiser = torch.optim.Adam([temperature], lr=RATE)
    batches: Iterable[Any] = DataLoader(data, batch_size=BATCH, shuffle=True)
    path = []
    for _ in range(EPOCHS):
        if not loader:
            batches = (data[rows] for rows in torch.randperm(len(logits)).split(BATCH))
        for one, target, mask in batches:
            optimiser.zero_grad()
            log_q = torch.log_softmax(one / temperature, 1)
            loss = (mask * torch.nn.functional.kl_div(log_q, target, reduction="none").sum(1)).mean()
            loss.backward()
            optimiser.step()
        path.append(temperature.item())
    return path[-1], statistics.mean(path[-100:])


def timed(call: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Return the median seconds of `times` calls, and the last result."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        result = call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), result


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def run(rows: int, repeats: int) -> dict[str, Any]:
    post, pre = models(rows)
    contenders: dict[str, Callable[[], tuple[float, Any]]] = {
        "fit_daca": lambda: timed(lambda: fit_daca(post, pre), INNER),
        "fit_daca(n_bootstrap=0)": lambda: timed(lambda: fit_daca(post, pre, n_bootstrap=0), INNER),
        "adam, DataLoader": lambda: timed(lambda: adam(post, pre, loader=True)),
        "adam, indexed": lambda: timed(lambda: adam(post, pre, loader=False)),
    }
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, contender in contenders.items():
            seconds, results[name] = contender()
            taken[name].append(seconds)
    ours = results["fit_daca"]
    return {
        "rows": rows,
        "milliseconds": {name: spread([1e3 * one for one in values]) for name, values in taken.items()},
        "times_faster": {
            f"{mine} than {theirs}": spread([b / a for a, b in zip(taken[mine], taken[theirs], strict=True)])
            for mine in ("fit_daca", "fit_daca(n_bootstrap=0)")
            for theirs in ("adam, DataLoader", "adam, indexed")
        },
        "temperature": ours.value,
        "interval": ours.report.interval,
        "agreement_rate": ours.report.agreement_rate,
        "adam_temperature": {name: result for name, result in results.items() if name.startswith("adam")},
        "difference_last": max(abs(ours.value - results[f"adam, {how}"][0]) for how in ("DataLoader", "indexed")),
        "difference_mean": max(abs(ours.value - results[f"adam, {how}"][1]) for how in ("DataLoader", "indexed")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        "versions": {name: version(name) for name in ("calibwrap", "numpy", "torch")},
        "python": platform.python_version(),
        **run(arguments.rows, arguments.repeats),
    }
    for name, one in figures["milliseconds"].items():
        print(f"{name:25} {one['median']:10.3f} ms ({one['min']:.3f} to {one['max']:.3f})")
    for name, one in figures["times_faster"].items():
        print(f"{name}: {one['median']:.0f} times faster ({one['min']:.0f} to {one['max']:.0f})")
    print(f"T = {figures['temperature']:.4f}, 95 % interval {figures['interval']}")
    print(f"differs from Adam's last value by {figures['difference_last']:.4f}, from its mean by ", end="")
    print(f"{figures['difference_mean']:.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
