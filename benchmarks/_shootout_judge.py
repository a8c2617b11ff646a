"""How the shoot-out judges: each method of the shelf is fitted and measured in five seeded splits of one set."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _shootout_methods import Method, mapped
from _shootout_scores import Stored

import calibwrap as cw
from calibwrap import metrics
from calibwrap.errors import CalibrationWarning, CalibwrapError

MEASURES = ("accuracy", "ece", "smooth_ece", "brier", "nll")
N_BINS = 10
SPLITS = 5
GRID = 512
"""Places on [0, 1] at which a resample's smoothed residual is worked out."""


@dataclass(frozen=True)
class Held:
    """What a calibrator said of one split's held-out questions."""

    rows: np.ndarray
    """(H,) which questions."""
    scores: cw.OptionScores
    answers: np.ndarray


@dataclass(frozen=True)
class Result:
    """One method on one set: figures, or why there are none."""

    uses: str
    failed: str = ""
    figures: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """By measure: mean over splits, and both ends of its interval."""
    keeps_choice: bool = False
    fit_seconds: float = float("nan")
    """Median over splits."""
    temperature: float = float("nan")
    """Mean over splits, where the calibrator is one temperature."""
    ece_draws: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    """(D,) mean over splits for each resample."""

    def __getitem__(self, measure: str) -> float:
        return self.figures[measure][0] if self.figures else float("nan")


Results = dict[str, Result]
Key = tuple[str, str, str]
"""Model, readout and set."""


def judge(method: Method, read: Stored, reference: cw.OptionScores, counts: np.ndarray) -> Result:
    """Return the figures of one method on one set; `counts` (D, N) says how often each question is in a resample.

    `read` is the reading that the method maps, `reference` holds the reference's scores of the same questions.
    """
    held: list[Held] = []
    fitted: list[Any] = []
    seconds: list[float] = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(read.answers))
        fit, rest = np.split(order, [len(order) // 2])
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CalibrationWarning)  # what comes of it is in the table
                fitted.append(method.fit(read.take(fit), reference.take(fit)))
            seconds.append(time.perf_counter() - start)
            held.append(Held(rest, mapped(fitted[-1], read.take(rest)), read.answers[rest]))
        except CalibwrapError as error:
            return Result(method.uses, failed=f"split {seed}: {error}")
    values = {name: mean_of(name, held) for name in MEASURES}
    draws = {
        name: centred(np.mean([DRAWS[name](one, counts) for one in held], axis=0), values[name]) for name in MEASURES
    }
    return Result(
        method.uses,
        figures={name: (value, *ends(draws[name])) for name, value in values.items()},
        keeps_choice=not method.reads and all(one.keeps_argmax for one in fitted),
        fit_seconds=float(np.median(seconds)),
        temperature=float(np.mean([getattr(one, "value", np.nan) for one in fitted])),
        ece_draws=draws["ece"],
    )


def centred(draws: np.ndarray, value: float) -> np.ndarray:
    """Return the resampled figures moved so that `value` is their mean; an ECE leans upwards on resamples."""
    return draws - draws.mean() + value if np.isfinite(draws).all() else draws


def mean_of(measure: str, held: Sequence[Held]) -> float:
    """Return the mean of one figure over splits."""
    return float(np.mean([measured(measure, one.scores, one.answers) for one in held]))


def measured(measure: str, scores: cw.OptionScores, answers: np.ndarray) -> float:
    """Return one figure of N questions."""
    correct = scores.choice == answers
    if measure == "ece":
        return metrics.ece(scores.confidence, correct, n_bins=N_BINS)
    if measure == "smooth_ece":
        return metrics.smooth_ece(scores.confidence, correct)
    if measure == "brier":
        return metrics.brier(scores.probabilities, answers)
    return metrics.nll(scores.logprobs, answers) if measure == "nll" else metrics.accuracy(correct)


def ends(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval: values that occurred, so that an infinite one stays infinite."""
    return float(np.quantile(draws, 0.025, method="lower")), float(np.quantile(draws, 0.975, method="higher"))


def averaged(losses: Callable[[Held], np.ndarray]) -> Callable[[Held, np.ndarray], np.ndarray]:
    """Return the function that gives the mean loss of each resample."""

    def draws(held: Held, counts: np.ndarray) -> np.ndarray:
        each, often = losses(held), counts[:, held.rows]
        endless = ~np.isfinite(each)
        means = often @ np.where(endless, 0.0, each) / often.sum(axis=1)
        return np.where(often[:, endless].any(axis=1), np.inf, means)

    return draws


def brier_losses(held: Held) -> np.ndarray:
    """Return (H,) squared distances to the right answer."""
    return ((held.scores.probabilities - np.eye(held.scores.probabilities.shape[1])[held.answers]) ** 2).sum(axis=1)


def ece_draws(held: Held, counts: np.ndarray) -> np.ndarray:
    """Return (D,) the ECE of each resample."""
    often, bins = counts[:, held.rows], np.minimum((held.scores.confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.eye(N_BINS)[bins] * residuals(held)[:, None]
    return np.abs(often @ gaps).sum(axis=1) / often.sum(axis=1)


def smooth_draws(held: Held, counts: np.ndarray) -> np.ndarray:
    """Return (D,) the smooth ECE of each resample, at the kernel's width on all held-out questions."""
    width = max(measured("smooth_ece", held.scores, held.answers), 1.0 / GRID)
    places, at = (np.arange(GRID) + 0.5) / GRID, held.scores.confidence[:, None]
    images = [at + shift for shift in (-2.0, 0.0, 2.0)] + [shift - at for shift in (0.0, 2.0)]
    kernel = sum(np.exp(-0.5 * ((places - image) / width) ** 2) for image in images)
    often = counts[:, held.rows]
    smoothed = often @ (residuals(held)[:, None] * kernel / (width * np.sqrt(2.0 * np.pi)))
    return np.abs(smoothed).mean(axis=1) / often.sum(axis=1)


def residuals(held: Held) -> np.ndarray:
    """Return (H,) correctness less confidence."""
    return (held.scores.choice == held.answers) - held.scores.confidence


DRAWS: Mapping[str, Callable[[Held, np.ndarray], np.ndarray]] = {
    "accuracy": averaged(lambda held: (held.scores.choice == held.answers).astype(float)),
    "ece": ece_draws,
    "smooth_ece": smooth_draws,
    "brier": averaged(brier_losses),
    "nll": averaged(lambda held: -held.scores.logprobs[np.arange(len(held.answers)), held.answers]),
}
