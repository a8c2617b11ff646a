"""How often method "auto" leaves plain temperature when it should not, and when it should.

Scores of four options are sharpened by 2.5; answers are drawn from the truth, which leans to the first place and away
from the third by a planted bias (in nats). At bias 0 temperature is the right method and every other choice is a win by
luck; above it, vector scaling is right. "Cost" is the mean log loss, on 20 000 fresh rows, of what was chosen minus
that of temperature. Run it with one thread:

    OMP_NUM_THREADS=1 python benchmarks/choosing.py
"""

import argparse
import time
import warnings

import numpy as np

import calibwrap as cw
from calibwrap.errors import CalibrationWarning
from calibwrap.metrics import nll
from calibwrap.scores import log_softmax

LEAN = np.array([1.0, 0.0, -1.0, 0.0])


def drawn(rows, bias, seed):
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(0.0, 1.5, (rows, 4)))
    return 2.5 * truth, (truth + bias * LEAN + random.gumbel(size=truth.shape)).argmax(axis=1)


def measured(rows, bias, repeats, methods):
    """Return how often another method was chosen, the mean cost beyond temperature, and seconds a choice."""
    others, costs, spent = 0, [], 0.0
    for seed in range(repeats):
        logprobs, answers = drawn(rows, bias, (seed, rows))
        began = time.perf_counter()
        chosen = cw.fit_auto(logprobs, answers, methods=methods, seed=seed)
        spent += time.perf_counter() - began
        plain = cw.fit_temperature(logprobs, answers)
        fresh, right = drawn(20_000, bias, (seed, rows, 1))
        others += chosen.kind != "temperature"
        costs.append(nll(chosen(fresh), right) - nll(plain(fresh), right))
    return others, float(np.mean(costs)), spent / repeats


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=100)
    options.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1000])
    options.add_argument("--methods", nargs="+", default=["vector", "matrix"], help="the race, beside temperature")
    asked = options.parse_args()
    warnings.simplefilter("ignore", CalibrationWarning)
    print("| rows | bias | another method chosen | mean cost against temperature, nats | seconds |")
    print("|---|---|---|---|---|")
    for rows in asked.rows:
        for bias in (0.0, 0.25, 0.5, 1.0):
            others, cost, seconds = measured(rows, bias, asked.repeats, asked.methods)
            print(f"| {rows} | {bias:g} | {others} of {asked.repeats} | {cost:+.4f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
