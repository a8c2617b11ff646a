"""Time and exactness of `fit_temperature` against scikit-learn's temperature scaling and scipy's scalar searches.

    python benchmarks/fit_temperature.py [--json FILE] [--rows 5000 1000000] [--repeats 15]

One thread, the same arrays for both, repeats interleaved; a ratio is taken within each repeat, so that a slow moment of
the machine hits both sides. scikit-learn's class is private (sklearn.calibration._TemperatureScaling): it is what
`CalibratedClassifierCV(method="temperature")` runs. Exactness is measured against a bracketing root search on the
written-out derivative, which resolves all digits, and against a bounded search on values, which resolves about half.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import _TemperatureScaling

from calibwrap.calibrators import fit_temperature

K = 4
PLANTED = 2.5
ADVERSARIAL: dict[str, tuple[Any, list[int]]] = {
    "separable": ([[3.0, 0.0], [0.0, 3.0]], [0, 1]),
    "always wrong": ([[3.0, 0.0], [0.0, 3.0]], [1, 0]),
    "constant logits": ([[1.0, 1.0]] * 3, [0, 1, 1]),
    "one row": ([[2.0, 0.0, 0.0]], [0]),
    "one class": ([[1.0, 0.0], [2.0, 0.0]], [0, 0]),
    "ties": ([[1.0, 1.0, 0.0], [0.0, 3.0, 3.0], [2.0, 0.0, 1.0]], [0, 0, 0]),
    "logits of +-1e4": ([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]], [0, 1, 1]),
    "padding with -inf": ([[1.0, 0.0, -np.inf], [2.0, 0.0, 1.0], [0.0, 1.0, -np.inf]], [0, 0, 0]),
}


def planted(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (rows, K) that are too sharp by the factor `PLANTED`, and answers drawn from the right ones."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(rows, K))
    return PLANTED * logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def speed(rows: int, repeats: int) -> dict[str, Any]:
    logits, answers = planted(rows)
    fit_temperature(logits, answers)
    _TemperatureScaling().fit(logits, answers)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: fit_temperature(logits, answers)))
        theirs.append(seconds(lambda: _TemperatureScaling().fit(logits, answers)))
    return {
        "rows": rows,
        "ours_ms": spread([1e3 * one for one in ours]),
        "sklearn_ms": spread([1e3 * one for one in theirs]),
        "times_faster": spread([b / a for a, b in zip(ours, theirs, strict=True)]),
        **exactness(logits, answers),
    }


def exactness(logits: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Return relative differences of the temperature from other searches for the same optimum."""
    right = logits[np.arange(len(answers)), answers]

    def slope(beta: float) -> float:
        return float(((softmax(beta * logits, axis=1) * logits).sum(1) - right).mean())

    def mean_nll(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(answers)), answers].mean())

    ours = fit_temperature(logits, answers).value
    root = 1.0 / brentq(slope, 0.01, 100.0, xtol=1e-15, rtol=1e-14)
    bounded = minimize_scalar(mean_nll, bounds=(0.01, 100.0), method="bounded", options={"xatol": 1e-12})
    theirs = 1.0 / float(_TemperatureScaling().fit(logits, answers).beta_)
    return {
        "temperature": ours,
        "from_root_search": abs(ours / root - 1.0),
        "from_bounded_search": abs(ours / float(bounded.x) - 1.0),
        "from_sklearn": abs(ours / theirs - 1.0),
        "nll_above_bounded_search": mean_nll(ours) - float(bounded.fun),
    }


def adversarial() -> dict[str, dict[str, Any]]:
    """Return what both make of inputs that have no optimum inside, or that break a careless fit."""
    table: dict[str, dict[str, Any]] = {}
    for name, (logits, answers) in ADVERSARIAL.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = fit_temperature(logits, answers)
            try:
                theirs = f"{1.0 / float(_TemperatureScaling().fit(np.array(logits), np.array(answers)).beta_):.6g}"
            except Exception as error:
                theirs = type(error).__name__
        report = fitted.report
        assert report is not None
        ours = {"at_bound": report.at_bound, "nll": [report.objective_before, report.objective_after]}
        table[name] = {"temperature": fitted.value, **ours, "notes": report.notes, "sklearn": theirs}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    figures = {
        "versions": {name: version(name) for name in ("calibwrap", "numpy", "scipy", "scikit-learn")},
        "python": platform.python_version(),
        "speed": [speed(rows, arguments.repeats) for rows in arguments.rows],
        "adversarial": adversarial(),
    }
    for one in figures["speed"]:
        faster = one["times_faster"]
        print(
            f"({one['rows']}, {K}): {one['ours_ms']['median']:.3g} ms, "
            f"scikit-learn {one['sklearn_ms']['median']:.4g} ms"
        )
        print(f"  {faster['median']:.1f} times faster ({faster['min']:.1f} to {faster['max']:.1f})")
        print(f"  T = {one['temperature']:.10f}; relative difference from a root search {one['from_root_search']:.1e},")
        print(f"  a bounded search {one['from_bounded_search']:.1e}, scikit-learn {one['from_sklearn']:.1e}")
    for name, row in figures["adversarial"].items():
        print(f"{name:18} T = {row['temperature']:<9.6g} {row['at_bound']:6} scikit-learn: {row['sklearn']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
