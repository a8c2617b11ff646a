"""How often method "auto" leaves the plain method when it should not, and when it should.

Options: scores of four options are sharpened by 2.5; answers are drawn from the truth, which leans to the first place
and away from the third by a planted bias (in nats). At bias 0 temperature is the right method and every other choice is
a win by luck; above it, vector scaling is right.

Confidence: one number an answer, its log-odds 2.5 times what they should be. Platt scaling is the right method, and
every other choice is a win by luck: the row with bias 0.

"Cost" is the mean log loss, on 20 000 fresh rows, of what was chosen minus that of the plain method. Run it with one
thread:

    OMP_NUM_THREADS=1 python benchmarks/choosing.py
    OMP_NUM_THREADS=1 python benchmarks/choosing.py --race default --biases 0 --rows 30 60 100 --repeats 100
    OMP_NUM_THREADS=1 python benchmarks/choosing.py --on confidence --rows 32 100 300 --repeats 300
"""

import argparse
import time
import warnings

import numpy as np
from scipy.special import expit

import calibwrap as cw
from calibwrap.errors import CalibrationWarning
from calibwrap.metrics import nll
from calibwrap.scores import log_softmax

LEAN = np.array([1.0, 0.0, -1.0, 0.0])
SHARPENED = 2.5
FRESH = 20_000


def options_drawn(rows, bias, seed):
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(0.0, 1.5, (rows, 4)))
    return SHARPENED * truth, (truth + bias * LEAN + random.gumbel(size=truth.shape)).argmax(axis=1)


def confidences_drawn(rows, bias, seed):
    """Draw confidences and verdicts; there is no bias to plant."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(0.5, 1.5, rows)
    return expit(SHARPENED * log_odds), (random.uniform(size=rows) < expit(log_odds)).astype(float)


def confidence_loss(probability, correct):
    inside = np.clip(probability, 1e-6, 1.0 - 1e-6)
    return float(-(correct * np.log(inside) + (1.0 - correct) * np.log1p(-inside)).mean())


SUBJECTS = {
    "options": (options_drawn, cw.fit_auto, cw.fit_temperature, nll),
    "confidence": (confidences_drawn, cw.fit_auto_confidence, cw.fit_platt, confidence_loss),
}
"""By what is calibrated: what draws a problem, what chooses, the plain method, and the loss."""


def measured(subject, rows, bias, repeats, methods):
    """Return how often another method was chosen, the mean cost beyond the plain one, and seconds a choice."""
    drawn, fit_chosen, fit_plain, loss = SUBJECTS[subject]
    others, costs, spent = 0, [], 0.0
    for seed in range(repeats):
        scores, answers = drawn(rows, bias, (seed, rows))
        began = time.perf_counter()
        chosen = fit_chosen(scores, answers, methods=methods, seed=seed)
        spent += time.perf_counter() - began
        plain = fit_plain(scores, answers)
        fresh, right = drawn(FRESH, bias, (seed, rows, 1))
        others += chosen.kind != plain.kind
        costs.append(loss(chosen(fresh), right) - loss(plain(fresh), right))
    return others, float(np.mean(costs)), spent / repeats


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--on", choices=list(SUBJECTS), default="options")
    options.add_argument("--repeats", type=int, default=100)
    options.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1000])
    options.add_argument("--biases", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0], help="of options, in nats")
    options.add_argument("--methods", nargs="+", default=["vector", "matrix"], help="the race, beside temperature")
    options.add_argument(
        "--race", choices=["methods", "default"], default="methods", help="default: all that auto tries"
    )
    asked = options.parse_args()
    on_confidence = asked.on == "confidence"
    methods = None if on_confidence or asked.race == "default" else asked.methods
    warnings.simplefilter("ignore", CalibrationWarning)
    print("| rows | bias | another method chosen | mean cost against the plain one, nats | seconds |")
    print("|---|---|---|---|---|")
    for rows in asked.rows:
        for bias in [0.0] if on_confidence else asked.biases:
            others, cost, seconds = measured(asked.on, rows, bias, asked.repeats, methods)
            print(f"| {rows} | {bias:g} | {others} of {asked.repeats} | {cost:+.4f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
