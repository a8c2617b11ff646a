"""Fit times of the calibrators with labels beside those of other libraries, same data, one thread.

    python benchmarks/shelf_fit_time.py [--json FILE] [--rows 1000 1000000] [--options 2 100] [--repeats 5]

Without options only the smallest size is run. Repeats are interleaved, and the ratio (theirs / ours, above 1: ours is
faster) is taken within each repeat; its median, least and greatest are shown, so that a slow moment of the machine hits
both. A problem that took either of them longer than 20 s is not repeated. Beside each time stands the log loss on the
fitted rows: a fast fit that stopped early is seen there. What no installed library fits is timed alone. Problems of
more than 3e7 numbers are left out, and the matrix fits beyond 3e8 products a pass.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from betacal import BetaCalibration as Betacal
from netcal.binning import HistogramBinning as NetcalBinning
from netcal.scaling import BetaCalibration, LogisticCalibration
from probmetrics.calibrators import (
    MatrixScalingCalibrator,
    TemperatureScalingCalibrator,
    VectorScalingCalibrator,
)
from scipy.special import expit, log_softmax, softmax
from sklearn.calibration import _TemperatureScaling
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from venn_abers import VennAbers

import calibwrap as cw

MOST_NUMBERS, MOST_PRODUCTS = 3e7, 3e8
LONG = 20.0
"""Seconds of a fit after which its problem is not repeated."""
GROUPS = 57
"""Groups of the rows for the group temperature: MMLU's subjects."""
Call = Callable[[], Any]
"""Fits and returns a function from the fitted rows to probabilities of being right, (N,) or (N, K)."""


def planted(rows: int, options: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities that are too sharp, and answers drawn from the right ones."""
    rng = np.random.default_rng(0)
    truth = log_softmax(1.5 * rng.normal(size=(rows, options)), axis=1)
    return log_softmax(2.5 * truth, axis=1), (truth + rng.gumbel(size=truth.shape)).argmax(1)


def log_loss(probability: np.ndarray, target: np.ndarray) -> float:
    """Return the mean log loss of (N,) probabilities of `target`, or of (N, K) ones of its index."""
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    if inside.ndim == 2:
        return float(-np.log(inside[np.arange(len(target)), target]).mean())
    return float(-(target * np.log(inside) + (1 - target) * np.log1p(-inside)).mean())


def on_confidence(said: np.ndarray, right: np.ndarray) -> dict[str, tuple[Call, Call | None]]:
    """Return for each map of a confidence our fit and theirs; each returns the mapped rows."""
    inside = np.clip(said, 1e-6, 1 - 1e-6)
    odds = np.log(inside / (1 - inside))[:, None]
    ends = np.stack([np.log(inside), -np.log1p(-inside)], axis=1)

    def logistic(features: np.ndarray) -> np.ndarray:
        fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(features, right)
        return expit(fitted.decision_function(features))

    def betacal() -> np.ndarray:
        return Betacal(parameters="abm").fit(said, right).predict(said)

    def venn_abers() -> np.ndarray:
        fitted, pair = VennAbers(), np.stack([1.0 - said, said], axis=1)
        fitted.fit(pair, right)
        return np.asarray(fitted.predict_proba(pair)[0])[:, 1]

    def netcal(method: Any) -> np.ndarray:
        method.fit(said, right)
        return np.ravel(method.transform(said))

    wide = {"n_bins": 15, "strategy": "uniform", "monotone": False}
    return {
        "platt | scikit-learn": (lambda: cw.fit_platt(said, right)(said), lambda: logistic(odds)),
        "platt | netcal": (
            lambda: cw.fit_platt(said, right)(said),
            lambda: netcal(LogisticCalibration(method="mle")),
        ),
        "beta | scikit-learn": (lambda: cw.fit_beta(said, right)(said), lambda: logistic(ends)),
        "beta | netcal": (lambda: cw.fit_beta(said, right)(said), lambda: netcal(BetaCalibration(method="mle"))),
        "beta | betacal": (lambda: cw.fit_beta(said, right)(said), betacal),
        "isotonic | scikit-learn": (
            lambda: cw.fit_isotonic(said, right)(said),
            lambda: IsotonicRegression(out_of_bounds="clip").fit(said, right).predict(said),
        ),
        "histogram | netcal": (
            lambda: cw.fit_histogram_binning(said, right, **wide)(said),
            lambda: netcal(NetcalBinning(bins=15)),
        ),
        "venn-abers | venn-abers": (lambda: cw.fit_venn_abers(said, right)(said), venn_abers),
    }


def on_options(logprobs: np.ndarray, answers: np.ndarray) -> dict[str, tuple[Call, Call | None]]:
    """Return for each map of options our fit and theirs; each returns the mapped rows."""
    (rows, options), chances = logprobs.shape, np.exp(logprobs)

    def temperature() -> np.ndarray:
        fitted = _TemperatureScaling().fit(logprobs, answers)
        return softmax(fitted.beta_ * logprobs, axis=1)

    def matrix() -> np.ndarray:
        return LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(logprobs, answers).predict_proba(logprobs)

    def probmetrics(method: Any) -> np.ndarray:
        method.fit(chances, answers)
        return np.asarray(method.predict_proba(chances))

    def class_wise() -> np.ndarray:
        mapped = np.stack(
            [
                IsotonicRegression(out_of_bounds="clip").fit(said, answers == one).predict(said)
                for one, said in enumerate(chances.T)
            ],
            axis=1,
        )
        return mapped / np.maximum(mapped.sum(axis=1, keepdims=True), 1e-12)

    def grouped() -> np.ndarray:
        groups = [f"group {row % GROUPS}" for row in range(rows)]
        return np.exp(cw.fit_group_temperature(logprobs, answers, groups=groups)(logprobs, groups=groups))

    def ours(fit: Callable[..., cw.Calibrator], **settings: Any) -> Call:
        return lambda: np.exp(fit(logprobs, answers, **settings)(logprobs))

    found: dict[str, tuple[Call, Call | None]] = {
        "temperature | scikit-learn": (ours(cw.fit_temperature), temperature),
        "temperature | probmetrics": (
            ours(cw.fit_temperature),
            lambda: probmetrics(TemperatureScalingCalibrator()),
        ),
        "vector | probmetrics": (ours(cw.fit_vector_scaling), lambda: probmetrics(VectorScalingCalibrator())),
        "top-label:beta |": (ours(cw.fit_top_label, method="beta"), None),
        "class-wise:beta |": (ours(cw.fit_class_wise, method="beta"), None),
        "class-wise:isotonic | scikit-learn": (ours(cw.fit_class_wise, method="isotonic"), class_wise),
        "group-temperature |": (grouped, None),
    }
    if rows * options**2 <= MOST_PRODUCTS:
        if options > 2:  # of two options scikit-learn fits another, smaller problem
            found["matrix | scikit-learn"] = (ours(cw.fit_matrix_scaling), matrix)
        found["matrix | probmetrics"] = (
            ours(cw.fit_matrix_scaling),
            lambda: probmetrics(MatrixScalingCalibrator()),
        )
        found["dirichlet |"] = (ours(cw.fit_dirichlet), None)
    return found


def timed(call: Call) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    mapped = call()
    return time.perf_counter() - start, mapped


def measured(name: str, ours: Call, theirs: Call | None, target: np.ndarray, repeats: int) -> dict[str, Any]:
    """Return median seconds, the ratios of the repeats and both log losses."""
    mine, other, mapped = [], [], {}
    while len(mine) < repeats and max([0.0, *mine, *other]) < LONG:
        seconds, mapped["ours"] = timed(ours)
        mine.append(seconds)
        if theirs is not None:
            seconds, mapped["theirs"] = timed(theirs)
            other.append(seconds)
    return {
        "fit": name,
        "seconds": statistics.median(mine),
        "ratios": [b / a for a, b in zip(mine, other, strict=True)] if other else None,
        "loss": {who: log_loss(values, target) for who, values in mapped.items()},
    }


def shown(ratios: list[float] | None) -> str:
    """Return the median of some ratios, the least and the greatest."""
    if ratios is None:
        return "alone"
    return f"{statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000])
    parser.add_argument("--options", type=int, nargs="+", default=[2])
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # probmetrics is built on it
    warnings.simplefilter("ignore")  # of the libraries; our reports are not the subject here
    found = []
    for rows in chosen.rows:
        for options in chosen.options:
            if rows * options > MOST_NUMBERS:
                print(f"{rows} x {options}: left out, too large")
                continue
            logprobs, answers = planted(rows, options)
            right = (logprobs.argmax(axis=1) == answers).astype(float)
            problems = [(pair, answers) for pair in on_options(logprobs, answers).items()]
            if options == chosen.options[0]:  # one confidence has no options: once for each number of rows
                said = np.exp(logprobs.max(axis=1))
                problems += [(pair, right) for pair in on_confidence(said, right).items()]
            for (name, (ours, theirs)), target in problems:
                one = {"rows": rows, "options": options, **measured(name, ours, theirs, target, chosen.repeats)}
                losses = ", ".join(f"{who} {loss:.6f}" for who, loss in one["loss"].items())
                taken = f"{1e3 * one['seconds']:9.2f} ms  {shown(one['ratios']):38s}"
                print(f"{rows} x {options}  {name:34s} {taken} {losses}", flush=True)
                found.append(one)
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"machine": platform.processor(), "python": platform.python_version(), "fits": found}, indent=1)
        )


if __name__ == "__main__":
    main()
