"""Speed of `metrics.ece` against torchmetrics, netcal and plain numpy, and of a stream of up to 1e8 rows.

    python benchmarks/metrics_speed.py [--json FILE] [--rows 1000000] [--repeats 9] [--stream 1000000 100000000]

One thread, the same arrays for all, repeats interleaved; a ratio is taken within each repeat, so that a slow moment of
the machine hits both sides. Streams run in a fresh process each, before anything heavy is imported here, since a child
inherits its parent's peak memory.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from calibwrap import metrics

N_BINS = 15
BATCH = 1_000_000
Contender = Callable[[], float]


def sample(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences and correctness of an over-confident model; no confidence is 1.0."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 2, rows)
    return confidence, rng.random(rows) < confidence**1.5


def plain_numpy(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return ECE as one would write it at first: a search and two weighted counts."""
    index = np.searchsorted(np.linspace(0, 1, N_BINS + 1)[1:-1], confidence, side="right")
    gap = np.bincount(index, weights=correct, minlength=N_BINS) - np.bincount(index, weights=confidence)
    return float(np.abs(gap).sum() / len(confidence))


def contenders(confidence: np.ndarray, correct: np.ndarray) -> dict[str, Contender]:
    """Return every way to the same number, each already holding the data in the form it likes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports of both warn about other packages' future
        import netcal.metrics
        import torch
        from torchmetrics.functional.classification import binary_calibration_error
    torch.set_num_threads(1)
    single = confidence.astype(np.float32)
    integers = correct.astype(np.int64)
    target = torch.from_numpy(integers)
    rival = netcal.metrics.ECE(N_BINS)

    def torchmetrics(values: np.ndarray, validate: bool) -> Contender:
        tensor = torch.from_numpy(values)
        return lambda: float(binary_calibration_error(tensor, target, n_bins=N_BINS, validate_args=validate))

    return {
        "calibwrap": lambda: metrics.ece(confidence, correct, n_bins=N_BINS),
        "calibwrap, integer labels": lambda: metrics.ece(confidence, integers, n_bins=N_BINS),
        "calibwrap, float32": lambda: metrics.ece(single, correct, n_bins=N_BINS),
        "torchmetrics": torchmetrics(confidence, True),
        "torchmetrics, unvalidated": torchmetrics(confidence, False),
        "torchmetrics, float32": torchmetrics(single, True),
        "torchmetrics, float32, unvalidated": torchmetrics(single, False),
        "netcal": lambda: float(rival.measure(confidence, integers)),
        "plain numpy": lambda: plain_numpy(confidence, correct),
    }


def compare(rows: int, repeats: int) -> dict[str, Any]:
    """Return milliseconds, ratios to calibwrap and differences in value of all contenders."""
    entries = contenders(*sample(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # netcal calls numpy by names that are going away
        values = {name: entry() for name, entry in entries.items()}
        seconds: dict[str, list[float]] = {name: [] for name in entries}
        for _ in range(repeats):
            for name, entry in entries.items():
                start = time.perf_counter()
                entry()
                seconds[name].append(time.perf_counter() - start)
    table = {}
    for name, taken in seconds.items():
        ours = seconds["calibwrap, float32" if "float32" in name else "calibwrap"]
        ratios = [theirs / mine for theirs, mine in zip(taken, ours, strict=True)]
        table[name] = {
            "ms": spread([1e3 * second for second in taken]),
            "times_calibwrap": spread(ratios),
            "difference": values[name] - values["calibwrap"],
        }
    return {"rows": rows, "repeats": repeats, "n_bins": N_BINS, "ece": values["calibwrap"], "table": table}


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and greatest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def stream(rows: int) -> dict[str, float]:
    """Return time and peak memory of a CalibrationState fed in batches; making the data is timed apart."""
    rng = np.random.default_rng(0)
    state = metrics.CalibrationState.empty(N_BINS)
    busy = 0.0
    begun = time.perf_counter()
    for start in range(0, rows, BATCH):
        confidence = rng.random(min(BATCH, rows - start))
        correct = rng.random(len(confidence)) < confidence
        before = time.perf_counter()
        state = state.update(confidence, correct)
        busy += time.perf_counter() - before
    return {
        "rows": state.n,
        "update_seconds": busy,
        "total_seconds": time.perf_counter() - begun,
        "ns_per_row": 1e9 * busy / rows,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "ece": state.ece(),
    }


def stream_apart(rows: int) -> dict[str, float]:
    """Return `stream(rows)` from a process of its own."""
    command = [sys.executable, __file__, "--only-stream", str(rows)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def show(result: dict[str, Any]) -> None:
    for row in result["stream"]:
        print(
            f"stream of {row['rows']:.0e} rows: {row['update_seconds']:8.3f} s updating, "
            f"{row['ns_per_row']:.2f} ns a row, peak {row['peak_rss_mb']:.0f} MB, ECE {row['ece']:.6f}"
        )
    comparison = result["comparison"]
    print(f"ece of {comparison['rows']} rows, {comparison['repeats']} interleaved repeats, one thread")
    for name, row in comparison["table"].items():
        ms, ratio = row["ms"], row["times_calibwrap"]
        print(
            f"{name:36} {ms['median']:8.2f} ms ({ms['min']:.2f}-{ms['max']:.2f})   "
            f"{ratio['median']:6.2f} x ({ratio['min']:.2f}-{ratio['max']:.2f})   difference {row['difference']:+.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--stream", type=int, nargs="*", default=[10**6, 10**7, 10**8])
    parser.add_argument("--only-stream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_stream:
        print(json.dumps(stream(options.only_stream)))
        return
    result = {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "torch", "torchmetrics", "netcal")},
        "stream": [stream_apart(rows) for rows in options.stream],
        "comparison": compare(options.rows, options.repeats),
    }
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
