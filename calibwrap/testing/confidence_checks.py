"""The conformance checks of a calibrator of one confidence, and of a fit of one."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from calibwrap.base import Calibrator
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError
from calibwrap.scores import Floats, OptionScores, TokenScores, log_softmax
from calibwrap.testing.calibrator_probe import (
    CalibratorProbe,
    check_declarations,
    check_record_is_frozen,
    check_saving_is_exact,
)
from calibwrap.testing.checks import Check, expect, expect_close, expect_raises, expect_works, run_checks

ConfidenceFit = Callable[[Floats, Floats], Calibrator]
"""fit(confidence (N,), correct (N,)), both in [0, 1]."""
EXTREMES = np.array([0.0, 1e-300, 1e-9, 0.5, 1.0 - 1e-9, 1.0])
"""Confidences at and near the ends."""


class ConfidenceProbe(CalibratorProbe):
    """A calibrator of level "confidence" under check; its rows are confidences.

    >>> from calibwrap.calibrators import Platt
    >>> ConfidenceProbe(Platt(1.0, 0.0)).rows().shape
    (12,)
    """

    def rows(self, count: int = 12, seed: int = 0) -> Floats:
        """Return random confidences (count,)."""
        return np.random.default_rng(seed).uniform(0.0, 1.0, count)


def check_confidences_stay_probabilities(probe: ConfidenceProbe) -> None:
    """Return nothing when confidences of any shape, 0 and 1 included, give as many numbers in [0, 1]."""
    for given in (probe.rows(), probe.rows().reshape(3, 4), EXTREMES, np.array(0.5)):
        mapped = np.asarray(probe.calibrator(given))
        expect(mapped.shape == given.shape, f"Expected shape {given.shape} for that shape. Got {mapped.shape}.")
        inside = (mapped >= 0.0) & (mapped <= 1.0)  # NaN is not
        expect(inside.all(), f"Expected probabilities in [0, 1]. Got {mapped[~inside].tolist()}.")


def check_confidences_are_mapped_one_by_one(probe: ConfidenceProbe) -> None:
    """Return nothing when what a confidence becomes depends on neither the others nor its place."""
    values = probe.rows()
    whole = probe.calibrator(values)
    order = np.random.default_rng(1).permutation(len(values))
    message = "Expected confidences to be mapped one by one, in any order."
    expect_close(probe.calibrator(values[order]), whole[order], probe.tolerance, message)
    expect_close(probe.calibrator(values[3:4]), whole[3:4], probe.tolerance, message)


def check_confidence_goes_one_way(probe: ConfidenceProbe) -> None:
    """Return nothing when the map never falls, or never rises: bounds of a confidence then map to bounds."""
    steps = np.diff(probe.calibrator(np.linspace(0.0, 1.0, 400)))
    one_way = (steps >= -probe.tolerance).all() or (steps <= probe.tolerance).all()
    expect(one_way, "Expected a map that never falls, or never rises. Got one that does both.")


def check_confidences_are_left_alone(probe: ConfidenceProbe) -> None:
    """Return nothing when the array that was handed in is as it was, and the result is no view of it."""
    values = probe.rows()
    before = values.copy()
    mapped = expect_works(lambda: probe.calibrator(values), "a writable array")
    expect((values == before).all(), "Expected the input array to stay as it was. Got changes: write to a copy.")
    expect(not np.shares_memory(mapped, values), "Expected an array of its own. Got a view of the input.")


def check_what_is_no_confidence_is_named(probe: ConfidenceProbe) -> None:
    """Return nothing when NaN, numbers outside [0, 1] and texts raise InputError."""
    for what, wrong in (
        ("NaN", [0.5, np.nan]),
        ("a number above 1", [1.01]),
        ("a negative one", [-0.1]),
        ("text", "x"),
    ):
        expect_raises(InputError, lambda wrong=wrong: probe.calibrator(wrong), what)  # type: ignore[misc]


def check_options_and_tokens_are_refused(probe: ConfidenceProbe) -> None:
    """Return nothing when scores of options or of tokens raise CapabilityError."""
    rows = log_softmax(np.random.default_rng(2).normal(0.0, 1.0, (3, 4)))
    for what, scores in (("OptionScores", OptionScores(rows, readout="check")), ("TokenScores", TokenScores(rows))):
        expect_raises(CapabilityError, lambda scores=scores: probe.calibrator(scores), what)  # type: ignore[misc]


CONFIDENCE_CHECKS = (
    check_declarations,
    check_saving_is_exact,
    check_record_is_frozen,
    check_confidences_stay_probabilities,
    check_confidences_are_mapped_one_by_one,
    check_confidence_goes_one_way,
    check_confidences_are_left_alone,
    check_what_is_no_confidence_is_named,
    check_options_and_tokens_are_refused,
)
"""Every check of a calibrator of one confidence; each is a function of a `ConfidenceProbe`."""


@dataclass(frozen=True)
class ConfidenceFitProbe:
    """A fit of one confidence under check, and data in which its right result is known.

    >>> ConfidenceFitProbe(lambda confidence, correct: None).data(5)[0].shape
    (5,)
    """

    fit: ConfidenceFit
    """The function under check."""

    def data(self, n: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
        """Return (n,) over-confident confidences, whether each answer was right, and how probable that was."""
        random = np.random.default_rng(seed)
        log_odds = random.normal(1.0, 2.0, n)
        truth = 1.0 / (1.0 + np.exp(-(0.5 * log_odds - 0.5)))
        return 1.0 / (1.0 + np.exp(-log_odds)), (random.uniform(size=n) < truth).astype(np.float64), truth

    def run(self, confidence: Floats, correct: Floats) -> Calibrator:
        """Return the fitted calibrator; its warnings are results here, not faults."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)
            return self.fit(confidence, correct)


def check_confidence_fit_recovers_the_truth(probe: ConfidenceFitProbe) -> None:
    """Return nothing when over-confident numbers come out as the probabilities that right answers were drawn from."""
    confidence, correct, truth = probe.data(6000)
    for what, right in (("drawn answers", correct), ("their probabilities as soft correctness", truth)):
        gap = float(np.abs(probe.run(confidence, right)(confidence) - truth).mean())
        expect(gap < 0.03, f"Expected the truth from {what} (mean difference below 0.03). Got {gap:.4f}.")


def check_confidence_fit_never_worsens(probe: ConfidenceFitProbe) -> None:
    """Return nothing when the likelihood of the rows that were fitted is no worse than before."""
    for seed in range(8):
        confidence, correct, _ = probe.data(40, seed)
        before = _mean_loss(confidence, correct)
        after = _mean_loss(probe.run(confidence, correct)(confidence), correct)
        expect(after <= before + 1e-9, f"Expected at most the {before:.6f} nats of no calibration. Got {after:.6f}.")


def _mean_loss(probability: Floats, correct: Floats) -> float:
    inside = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return float(-(correct * np.log(inside) + (1.0 - correct) * np.log1p(-inside)).mean())


def check_confidence_fit_defines_poor_data(probe: ConfidenceFitProbe) -> None:
    """Return nothing when one row, one class, equal, certain and separable rows give a calibrator or FitError."""
    confidence, correct, _ = probe.data(30)
    cases = {
        "one row": (confidence[:1], correct[:1]),
        "all right": (confidence, np.ones(30)),
        "all wrong": (confidence, np.zeros(30)),
        "equal confidences": (np.full(30, 0.7), correct),
        "certain confidences": (np.repeat([0.0, 1.0], 15), correct),
        "rows that a threshold parts": (confidence, (confidence > np.median(confidence)).astype(np.float64)),
        "rows in the wrong order": (confidence, (confidence < np.median(confidence)).astype(np.float64)),
    }
    for what, rows in cases.items():
        try:
            mapped = np.asarray(probe.run(*rows)(EXTREMES))
        except FitError as error:
            expect(str(error), f"Expected a message with the FitError for {what}. Got none.")
            continue
        inside = (mapped >= 0.0) & (mapped <= 1.0)
        expect(inside.all(), f"Expected probabilities or FitError for {what}. Got {mapped.tolist()}.")


def check_confidence_fit_ignores_order(probe: ConfidenceFitProbe) -> None:
    """Return nothing when the order of rows does not change the result, and the rows stay as they were."""
    confidence, correct, _ = probe.data(200)
    before = confidence.copy(), correct.copy()
    wanted = probe.run(confidence, correct)(confidence)
    order = np.random.default_rng(2).permutation(len(confidence))
    again = probe.run(confidence[order], correct[order])(confidence)
    expect_close(again, wanted, 1e-7, "Expected the same calibrator whatever the order of rows.")
    same = (confidence == before[0]).all() and (correct == before[1]).all()
    expect(same, "Expected the fit to leave its arrays as they were. Got changes: write to a copy.")


def check_confidence_fit_names_bad_input(probe: ConfidenceFitProbe) -> None:
    """Return nothing when NaN, no rows, numbers outside [0, 1] and unequal lengths raise InputError."""
    confidence, correct, _ = probe.data(20)
    wrong = {
        "NaN": (np.where(np.arange(20) == 3, np.nan, confidence), correct),
        "no rows": (confidence[:0], correct[:0]),
        "unequal lengths": (confidence, correct[:-1]),
        "a confidence above 1": (confidence + 1.0, correct),
        "correctness below 0": (confidence, correct - 1.0),
    }
    for what, rows in wrong.items():
        expect_raises(InputError, lambda rows=rows: probe.fit(*rows), what)  # type: ignore[misc]


CONFIDENCE_FIT_CHECKS = (
    check_confidence_fit_recovers_the_truth,
    check_confidence_fit_never_worsens,
    check_confidence_fit_defines_poor_data,
    check_confidence_fit_ignores_order,
    check_confidence_fit_names_bad_input,
)
"""Every check of a fit of one confidence; each is a function of a `ConfidenceFitProbe`."""


def confidence_fit_checks(fit: ConfidenceFit, *, exempt: Mapping[str, str] | None = None) -> list[Check]:
    """Return what each check of a fit of one confidence found.

    Args:
        fit: `fit(confidence, correct)`, both (N,) in [0, 1]; returns a calibrator of level "confidence".
        exempt: Names of checks known to fail, each with its reason; one that passes is a failure.

    Raises:
        CheckFailed: lists every check that failed: what was expected, what came, how to mend it.

    >>> from calibwrap.calibrators import fit_platt
    >>> {check.outcome for check in confidence_fit_checks(fit_platt)}
    {'passed'}
    """
    return run_checks("The fit", CONFIDENCE_FIT_CHECKS, ConfidenceFitProbe(fit), exempt)
