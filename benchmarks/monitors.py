"""What an update of the monitors costs, one answer at a time and in batches of 1 000.

Run it as: OMP_NUM_THREADS=1 python benchmarks/monitors.py [--seen 1000 10000 100000] [--repeats 200]
"""

import argparse
import statistics
import time

import numpy as np

import calibwrap as cw

BATCH = 1000


def calibration(seen):
    """Return a calibration monitor, which keeps nothing of what it has seen, and what shows it more answers."""
    return cw.CalibrationMonitor(), lambda monitor, batch: monitor.update(batch, batch > 0.5)


def drift(seen):
    """Return a drift monitor that has seen `seen` confidences, and what shows it more."""
    before = np.random.default_rng(0).beta(6, 2, seen)
    return cw.DriftMonitor.from_calibration(before), lambda monitor, batch: monitor.update(batch)


def seconds_each(monitor, shown, batches):
    """Return the median seconds an answer; each update goes on where the one before it ended."""
    spent = []
    for batch in batches:
        began = time.perf_counter()
        monitor = shown(monitor, batch)
        spent.append((time.perf_counter() - began) / len(batch))
    return statistics.median(spent)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seen", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options.add_argument("--repeats", type=int, default=200)
    asked = options.parse_args()
    random = np.random.default_rng(1)
    print("| monitor | seen before | one by one, microseconds an answer | batches of 1 000 |")
    print("|---|---|---|---|")
    for kind in (calibration, drift):
        for seen in asked.seen:
            single = seconds_each(*kind(seen), [random.beta(6, 2, 1) for _ in range(asked.repeats)])
            many = seconds_each(*kind(seen), [random.beta(6, 2, BATCH) for _ in range(5)])
            print(f"| {kind.__name__} | {seen} | {1e6 * single:.0f} | {1e6 * many:.0f} |", flush=True)


if __name__ == "__main__":
    main()
