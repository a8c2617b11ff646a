"""Do conformal sets and guards keep their promises on real scores? 1 000 resamplings of what an evaluation wrote.

Reads the raw probabilities in the `predictions.jsonl` of `calibwrap demo` or `calibwrap evaluate` folders. Sets: each
resampling is a random order of the questions; a quarter fits the temperature, a half the sets, and ONE of the others is
asked whether its set holds the right option, so that the 1 000 outcomes are independent coins. Guards: a quarter fits
the temperature once, the others are the population; each resampling draws as many from it with replacement, fits a
guard, and looks up the true risk at its threshold in the population.

    calibwrap demo --out DEMO
    python benchmarks/guarantees.py DEMO/arc_easy DEMO/sciq [--resamplings 1000] [--json FILE]
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

import calibwrap as cw
from calibwrap.errors import CalibrationWarning
from calibwrap.guarantees import fit_guard, fit_sets

COVERAGE, DELTA = 0.9, 0.1
RISKS = (0.2, 0.3, 0.4)


def stored(folder: Path) -> tuple[cw.OptionScores, np.ndarray]:
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    with np.errstate(divide="ignore"):
        logs = [np.log(row["probabilities"]["raw"]).tolist() for row in rows]
    return cw.OptionScores.from_rows(logs, "stored"), np.array([row["answer"] for row in rows])


def covered(scores: cw.OptionScores, answers: np.ndarray, method: str, resamplings: int) -> dict[str, Any]:
    n, hits, sizes = len(answers), 0, []
    for seed in range(resamplings):
        order = np.random.default_rng(seed).permutation(n)
        fit, calibrate, rest = np.split(order, [n // 4, n // 4 + n // 2])
        temperature = cw.fit_temperature(scores.take(fit), answers[fit])
        rule = fit_sets(temperature(scores.take(calibrate)), answers[calibrate], coverage=COVERAGE, method=method)
        inside = rule(temperature(scores.take(rest)))
        hits += bool(inside[0, answers[rest[0]]])
        sizes.append(inside.sum(axis=1).mean())
    least = int(binom.ppf(0.001, resamplings, COVERAGE))
    return {"covered": hits, "at_least": least, "kept": hits >= least, "mean_size": float(np.mean(sizes))}


def guarded(scores: cw.OptionScores, answers: np.ndarray, risk: float, resamplings: int) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(len(answers))
    fit, rest = np.split(order, [len(answers) // 4])
    calibrated = cw.fit_temperature(scores.take(fit), answers[fit])(scores.take(rest))
    confidence, correct = calibrated.confidence, calibrated.choice == answers[rest]
    broken, silent, share = 0, 0, []
    for seed in range(resamplings):
        drawn = np.random.default_rng((1, seed)).integers(len(rest), size=len(rest))
        guard = fit_guard(confidence[drawn], correct[drawn], risk=risk, delta=DELTA, seed=seed)
        answered = np.zeros(len(rest), bool) if guard.threshold is None else confidence >= guard.threshold
        silent += guard.threshold is None
        share.append(answered.mean())
        broken += bool(answered.any() and 1.0 - correct[answered].mean() > risk)
    most = int(binom.ppf(0.999, resamplings, DELTA))
    told = {"broken": broken, "at_most": most, "kept": broken <= most, "never_answers": silent}
    return {**told, "answered": float(np.mean(share)), "risk_of_all": float(1.0 - correct.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--resamplings", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore", CalibrationWarning)  # guards that never answer are counted
    found: dict[str, Any] = {}
    for folder in given.folders:
        scores, answers = stored(folder)
        print(f"\n{folder.name}: {len(answers)} questions")
        for method in ("lac", "aps", "raps"):
            one = covered(scores, answers, method, given.resamplings)
            found[f"{folder.name} {method}"] = one
            print(f"  {method:5} covered {one['covered']} (at least {one['at_least']}), size {one['mean_size']:.2f}")
        for risk in RISKS:
            one = guarded(scores, answers, risk, given.resamplings)
            found[f"{folder.name} guard {risk}"] = one
            print(
                f"  risk {risk}: broken {one['broken']} (at most {one['at_most']}), answers {one['answered']:.1%}, "
                f"never {one['never_answers']}, all wrong {one['risk_of_all']:.1%}"
            )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
