"""The conformance checks of a fit: a function from scores to a calibrator."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibwrap.base import Calibrator
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.scores import Floats, log_softmax, logsumexp
from calibwrap.testing.checks import Check, NotApplicable, expect, expect_close, expect_raises, run_checks

Fit = Callable[[Floats, NDArray[np.generic]], Calibrator]
"""fit(logprobs (N, K), answers (N,)) with labels, or fit(post (N, K), pre (N, K)) without."""


@dataclass(frozen=True)
class FitProbe:
    """A fit under check, and data in which its right result is known.

    >>> FitProbe(lambda rows, answers: None, "answers").data(5)[0].shape
    (5, 3)
    """

    fit: Fit
    """The function under check."""
    second: Literal["answers", "reference"]
    """What its second argument is: right answers, or the scores of a calibrated reference model."""
    n_options: int = 3
    """K of the data."""

    def data(self, n: int, sharpness: float = 3.0, seed: int = 0) -> tuple[Floats, NDArray[np.generic]]:
        """Return over-confident scores (n, K), and answers drawn from the truth or the truth itself as reference."""
        random = np.random.default_rng(seed)
        truth = log_softmax(random.normal(0.0, 1.0, (n, self.n_options)))
        return log_softmax(sharpness * truth), self.second_of(truth, random)

    def second_of(self, truth: Floats, random: np.random.Generator) -> NDArray[np.generic]:
        """Return what the fit takes as its second argument where `truth` is the true distribution."""
        if self.second == "reference":
            return truth
        noise = random.gumbel(size=truth.shape)  # argmax(log p + Gumbel noise) is a draw from p
        return np.asarray((truth + noise).argmax(axis=1))

    def run(self, rows: Floats, second: NDArray[np.generic]) -> Calibrator:
        """Return the fitted calibrator; its warnings are results here, not faults."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)
            return self.fit(rows, second)


def check_fit_recovers_the_temperature(probe: FitProbe) -> None:
    """Return nothing when scores that are too sharp, or too flat, come out as the truth they were made from."""
    for sharpness in (3.0, 0.5):
        rows, second = probe.data(4000, sharpness)
        truth, mapped = log_softmax(rows / sharpness), probe.run(rows, second)(rows)
        gap = float(np.abs(np.exp(mapped) - np.exp(truth)).mean())
        expect(
            gap < 0.02,
            f"Expected scores sharpened by {sharpness:g} to come out as the truth (mean difference below 0.02). "
            f"Got {gap:.4f}.",
        )


def check_fit_never_worsens(probe: FitProbe) -> None:
    """Return nothing when the likelihood of the rows that were fitted is no worse than before."""
    if probe.second != "answers":
        raise NotApplicable("a fit without answers does not maximise their likelihood")
    for seed in range(6):
        rows, answers = probe.data(8, sharpness=4.0, seed=seed)
        picked = np.arange(len(rows)), np.asarray(answers, dtype=np.int64)
        before, after = -rows[picked].mean(), -probe.run(rows, answers)(rows)[picked].mean()
        expect(after <= before + 1e-9, f"Expected at most the {before:.6f} nats of no calibration. Got {after:.6f}.")


def check_fit_defines_poor_data(probe: FitProbe) -> None:
    """Return nothing when one row, one class, constant rows and total disagreement give a calibrator or FitError."""
    rows, second = probe.data(30)
    flipped = -rows if probe.second == "reference" else np.asarray(rows.argmin(axis=1))
    one_class = np.tile(rows[:1], (30, 1))
    cases: dict[str, tuple[Floats, NDArray[np.generic]]] = {
        "one row": (rows[:1], second[:1]),
        "one class": (one_class, one_class if probe.second == "reference" else np.zeros(30, dtype=np.int64)),
        "constant rows": (np.zeros_like(rows), second),
        "no agreement": (rows, flipped),
    }
    for what, (first, other) in cases.items():
        try:
            mapped = probe.run(first, other)(rows)
        except FitError as error:
            expect(str(error), f"Expected a message with the FitError for {what}. Got none.")
            continue
        expect(not np.isnan(mapped).any(), f"Expected a defined calibrator or FitError for {what}. Got NaN.")
        expect_close(logsumexp(mapped), np.zeros(len(rows)), 1e-9, f"Expected rows that sum to 1 for {what}.")


def check_fit_leaves_data_alone(probe: FitProbe) -> None:
    """Return nothing when both arrays are as they were."""
    rows, second = probe.data(50)
    before = rows.copy(), second.copy()
    probe.run(rows, second)
    same = (rows == before[0]).all() and (second == before[1]).all()
    expect(same, "Expected the fit to leave its arrays as they were. Got changes: write to a copy.")


def check_fit_ignores_order_and_constants(probe: FitProbe) -> None:
    """Return nothing when neither the order of rows nor a constant added to one changes the result."""
    rows, second = probe.data(200)
    wanted = probe.run(rows, second)(rows)
    order = np.random.default_rng(2).permutation(len(rows))
    message = "Expected the same calibrator whatever the order of rows"
    expect_close(probe.run(rows[order], second[order])(rows), wanted, 1e-5, f"{message}.")
    shifted = rows + np.linspace(-9.0, 9.0, len(rows))[:, None]
    expect_close(probe.run(shifted, second)(rows), wanted, 1e-5, f"{message} and constants added to them.")


def check_fit_names_bad_input(probe: FitProbe) -> None:
    """Return nothing when NaN, no rows, and arrays that do not belong together raise InputError."""
    rows, second = probe.data(20)
    spoilt = rows.copy()
    spoilt[3, 0] = np.nan
    wrong = [("NaN", spoilt, second), ("no rows", rows[:0], second[:0]), ("unequal lengths", rows, second[:-1])]
    if probe.second == "answers":
        wrong += [
            ("an answer past the last option", rows, np.full(20, probe.n_options)),
            ("a negative answer", rows, np.full(20, -1)),
        ]
    for what, first, other in wrong:
        expect_raises(InputError, lambda pair=(first, other): probe.fit(*pair), what)  # type: ignore[misc]


FIT_CHECKS = (
    check_fit_recovers_the_temperature,
    check_fit_never_worsens,
    check_fit_defines_poor_data,
    check_fit_leaves_data_alone,
    check_fit_ignores_order_and_constants,
    check_fit_names_bad_input,
)
"""Every check of a fit; each is a function of a `FitProbe`."""


def fit_checks(
    fit: Fit,
    second: Literal["answers", "reference"] = "answers",
    n_options: int = 3,
    *,
    exempt: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return what each check of a fit found.

    Args:
        fit: `fit(logprobs, answers)`, or `fit(post, pre)` for one without labels; returns a `Calibrator`.
        second: Which of the two it is.
        n_options: K of the data that it is tried on.
        exempt: Names of checks known to fail, each with its reason; one that passes is a failure.

    Raises:
        CheckFailed: lists every check that failed: what was expected, what came, how to mend it.

    >>> from calibwrap.calibrators import fit_temperature
    >>> {check.outcome for check in fit_checks(fit_temperature)}
    {'passed'}
    """
    return run_checks("The fit", FIT_CHECKS, FitProbe(fit, second, n_options), exempt)
