"""Watch the calibration of a model in service: constant memory, several workers, and an alarm when it drifts.

    python examples/streaming_calibration_state.py

The stream is made up, so that the truth is known: two workers answer, and after a while the model becomes
over-confident. Each worker keeps one state a window; states of one window add up, and so do windows.
"""

from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from calibwrap.metrics import CalibrationState

WINDOWS, ROWS, WORKERS = 6, 2000, 2
DRIFT_FROM = 4
"""First window in which the model says more than it knows."""
ALARM = 0.05


def answers(random: np.random.Generator, window: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidences that a worker saw in a window, and which answers turned out right."""
    truth = random.uniform(0.5, 1.0, ROWS)
    confidence = truth if window < DRIFT_FROM else truth**0.5
    return confidence, random.random(ROWS) < truth


def main() -> None:
    randoms = [np.random.default_rng(worker) for worker in range(WORKERS)]
    windows = []
    for window in range(WINDOWS):
        states = [CalibrationState.empty(15).update(*answers(random, window)) for random in randoms]
        seen = reduce(add, states)
        windows.append(seen)
        alarm = "  over-confident" if seen.gap < -ALARM else ""
        print(f"window {window}: {seen.n} answers, ECE {seen.ece():.3f}, gap {seen.gap:+.3f}{alarm}")
    whole = reduce(add, windows)
    print(f"all: {whole.n} answers, ECE {whole.ece():.3f}, in {whole.n_bins} bins of three numbers each")


if __name__ == "__main__":
    main()
