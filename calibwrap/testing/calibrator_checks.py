"""The conformance checks of a calibrator: a frozen map from scores to scores."""

from collections.abc import Mapping

import numpy as np

from calibwrap.base import Calibrator
from calibwrap.errors import CapabilityError, InputError
from calibwrap.scores import ROUNDING, Floats, OptionScores, TokenScores, logsumexp
from calibwrap.testing.calibrator_probe import (
    CalibratorProbe,
    check_declarations,
    check_record_is_frozen,
    check_saving_is_exact,
)
from calibwrap.testing.checks import (
    Check,
    NotApplicable,
    expect,
    expect_close,
    expect_raises,
    expect_works,
    run_checks,
)
from calibwrap.testing.confidence_checks import CONFIDENCE_CHECKS, ConfidenceProbe


def check_stays_normalised(probe: CalibratorProbe) -> None:
    """Return nothing when each row of the result is log-probabilities that sum to 1."""
    rows = probe.rows()
    mapped = probe.calibrator(rows)
    expect(mapped.shape == rows.shape, f"Expected shape {rows.shape}. Got {mapped.shape}.")
    probe.close(logsumexp(mapped), np.zeros(len(rows)), "Expected each row to sum to 1 in probability.")


def check_identity_changes_nothing(probe: CalibratorProbe) -> None:
    """Return nothing when the kind "identity" gives back what it got."""
    if probe.calibrator.kind != "identity":
        raise NotApplicable("it is not the identity")
    probe.close(probe.calibrator(probe.rows()), probe.rows(), "Expected the identity to change nothing.")


def check_first_choice_stays(probe: CalibratorProbe) -> None:
    """Return nothing when a calibrator that declares `keeps_argmax` keeps every row's first choice."""
    if not probe.calibrator.keeps_argmax:
        raise NotApplicable("it does not declare keeps_argmax")
    rows = probe.rows(200)
    before, after = rows.argmax(axis=1), probe.calibrator(rows).argmax(axis=1)
    moved = int((before != after).sum())
    expect(moved == 0, f"Expected keeps_argmax to be true. Got another first choice in {moved} of {len(rows)} rows.")


def check_confidence_is_monotone(probe: CalibratorProbe) -> None:
    """Return nothing when a calibrator that keeps the first choice never turns more confidence into less."""
    if not probe.calibrator.keeps_argmax or probe.n_options < 2:
        raise NotApplicable("it does not declare keeps_argmax, or there is one option only")
    confidence = np.linspace(1.0 / probe.n_options + 1e-3, 1.0 - 1e-6, 60)
    rest = (1.0 - confidence) / (probe.n_options - 1)
    rows = np.log(np.column_stack([confidence, *[rest] * (probe.n_options - 1)]))
    after = probe.calibrator(rows)[:, 0]
    expect((np.diff(after) >= -probe.tolerance).all(), "Expected more confidence to stay more. Got a fall.")


def check_rows_are_independent(probe: CalibratorProbe) -> None:
    """Return nothing when a row's result depends neither on the other rows nor on its place."""
    rows = probe.rows()
    whole = probe.calibrator(rows)
    order = np.random.default_rng(1).permutation(len(rows))
    probe.close(probe.calibrator(rows[order]), whole[order], "Expected rows to be mapped one by one, in any order.")
    probe.close(probe.calibrator(rows[2:3]), whole[2:3], "Expected a single row to be mapped as among others.")


def check_constants_do_not_matter(probe: CalibratorProbe) -> None:
    """Return nothing when logits, which are log-probabilities plus a constant, give the same result."""
    rows = probe.rows()
    shifted = rows + np.linspace(-30.0, 30.0, len(rows))[:, None]
    expect_close(
        probe.calibrator(shifted),
        probe.calibrator(rows),
        max(probe.tolerance, 1e-9),
        "Expected logits and log-probabilities to give the same.",
    )


def check_extremes_are_defined(probe: CalibratorProbe) -> None:
    """Return nothing when logits of +-1e4 give neither NaN nor a row without mass."""
    rows = np.full((4, probe.n_options), -1e4)
    rows[0, 0], rows[1], rows[2, -1] = 1e4, 1e4, 0.0
    mapped = probe.calibrator(rows)
    expect(not np.isnan(mapped).any(), "Expected log-probabilities for logits of +-1e4. Got NaN.")
    probe.close(logsumexp(mapped), np.zeros(4), "Expected extreme rows to sum to 1 in probability.")


def check_masked_options_stay_masked(probe: CalibratorProbe) -> None:
    """Return nothing when an option that does not exist gets no probability, and every other one keeps some."""
    rows = np.vstack([probe.ragged(), np.full((1, probe.n_options), -np.inf)])
    rows[-1, 0] = 0.0  # a single option
    try:
        mapped = probe.calibrator(rows)
    except (InputError, CapabilityError) as error:
        raise NotApplicable(f"it refuses rows with fewer options: {error}") from error
    expect(not np.isnan(mapped).any(), "Expected log-probabilities for rows with -inf. Got NaN.")
    probe.close(logsumexp(mapped), np.zeros(len(rows)), "Expected rows with fewer options to sum to 1 in probability.")
    same = (np.isneginf(mapped) == np.isneginf(rows)).all()
    expect(same, "Expected -inf to stay -inf, and nothing else to become it. Got another pattern.")
    scores = OptionScores(rows, readout="check", label_mass=np.full(len(rows), 0.5))
    after = probe.calibrator(scores)
    expect((after.mask == scores.mask).all(), "Expected the mask of the options to stay as it was. Got another.")
    probe.close(after.label_mass, scores.label_mass, "Expected 'label_mass' to be carried through.")


def check_input_is_left_alone(probe: CalibratorProbe) -> None:
    """Return nothing when the array that was handed in is as it was, and the result is no view of it."""
    rows = probe.rows()
    before = rows.copy()
    expect_works(lambda: probe.calibrator(rows), "a writable array")
    inner = rows.copy()
    probe.calibrator.logits(inner)
    for array in (rows, inner):
        expect((array == before).all(), "Expected the input array to stay as it was. Got changes: write to a copy.")


def check_array_equals_scores(probe: CalibratorProbe) -> None:
    """Return nothing when an array gives an array, OptionScores give OptionScores, and the numbers are equal."""
    rows = probe.rows()
    array, scores = probe.calibrator(rows), probe.calibrator(OptionScores(rows, readout="check"))
    expect(isinstance(array, np.ndarray), f"Expected an array for an array. Got {type(array).__name__}.")
    expect(isinstance(scores, OptionScores), f"Expected OptionScores for OptionScores. Got {type(scores).__name__}.")
    expect(scores.readout == "check", f"Expected the readout's name to stay. Got {scores.readout!r}.")
    probe.close(scores.logprobs, array, "Expected the same numbers for an array and for OptionScores.")
    for bound in (scores.lower, scores.upper):
        probe.close(bound, np.exp(array), "Expected both bounds of exact scores to be the calibrated probability.")


def check_truncated_scores(probe: CalibratorProbe) -> None:
    """Return nothing when bounds hold for every list that truncation may hide, or CapabilityError says they cannot."""
    if probe.n_options < 2:
        raise NotApplicable("a single option cannot be missing")
    random = np.random.default_rng(4)
    for n_missing in {1, min(2, probe.n_options - 1)}:
        for _ in range(8):
            shown = random.uniform(0.05, 1.0, probe.n_options - n_missing)
            _check_bounds(probe, shown, n_missing, random)


def _check_bounds(probe: CalibratorProbe, shown: Floats, n_missing: int, random: np.random.Generator) -> None:
    """One truncated row: `shown` masses are known, each of `n_missing` others is at most `most`, all <= `total`."""
    most = float(shown.min()) * random.uniform(0.2, 1.0)
    total = n_missing * most * random.uniform(0.7, 1.0)
    upper = np.r_[shown / shown.sum(), np.full(n_missing, most / (shown.sum() + most))]
    lower = np.r_[shown / (shown.sum() + total), np.zeros(n_missing)]
    point = np.r_[shown / shown.sum(), upper[len(shown) :] / 2.0]
    missing = np.arange(probe.n_options) >= len(shown)
    scores = OptionScores(
        np.log(point)[None], readout="check", missing=missing[None], lower=lower[None], upper=upper[None]
    )
    try:
        mapped = probe.calibrator(scores)
    except CapabilityError as error:
        expect(str(error), "Expected a message with the CapabilityError for truncated scores. Got none.")
        return
    expect((mapped.missing == scores.missing).all(), "Expected 'missing' to be carried through. Got another.")
    hidden = random.uniform(0.0, 1.0, (40, n_missing)) * most
    hidden *= np.minimum(1.0, total / hidden.sum(axis=1, keepdims=True))
    hidden[0] = 1e-12
    possible = np.log(np.column_stack([np.tile(shown, (len(hidden), 1)), hidden]))
    exact = np.exp(np.vstack([probe.calibrator(possible), mapped.logprobs]))
    inside = (exact >= mapped.lower - 1e-9) & (exact <= mapped.upper + 1e-9)
    expect(
        inside.all(),
        "Expected bounds that hold for every full list behind a truncated one, and for the point value. Got "
        f"{int((~inside).sum())} of {inside.size} outside: carry the bounds through the map, or raise CapabilityError.",
    )


def check_bad_input_is_named(probe: CalibratorProbe) -> None:
    """Return nothing when NaN, +inf, no rows, rows without options and wrong shapes raise InputError."""
    rows = probe.rows()
    wrong = {
        "no rows": rows[:0],
        "one row that is not in a table": rows[0],
        "NaN": np.where(np.arange(rows.size).reshape(rows.shape) == 1, np.nan, rows),
        "+inf": np.where(np.arange(rows.size).reshape(rows.shape) == 1, np.inf, rows),
        "a row without options": np.where(np.arange(len(rows))[:, None] == 1, -np.inf, rows),
    }
    for what, array in wrong.items():
        expect_raises(InputError, lambda array=array: probe.calibrator(array), what)  # type: ignore[misc]


def check_token_scores(probe: CalibratorProbe) -> None:
    """Return nothing when a token-level calibrator maps whole rows, and refuses lists or keeps their mass below 1."""
    part = probe.calibrator
    if part.level != "token":
        raise NotApplicable(f"it maps scores of level {part.level}")
    rows = probe.rows()
    chosen = np.arange(len(rows)) % probe.n_options
    own = rows[np.arange(len(rows)), chosen]
    mapped = part(TokenScores(rows, chosen=chosen, chosen_logprob=own, log_z=np.zeros(len(rows))))
    expect(isinstance(mapped, TokenScores), f"Expected TokenScores for TokenScores. Got {type(mapped).__name__}.")
    probe.close(logsumexp(mapped.logprobs), np.zeros(len(rows)), "Expected each position to sum to 1 in probability.")
    expect(mapped.chosen is not None and (mapped.chosen == chosen).all(), "Expected 'chosen' to stay. Got others.")
    wanted = mapped.logprobs[np.arange(len(rows)), chosen]
    probe.close(mapped.chosen_logprob, wanted, "Expected 'chosen_logprob' to be the calibrated value of 'chosen'.")
    listed = TokenScores(rows[:, :-1] - 1.0, ids=np.tile(np.arange(probe.n_options - 1), (len(rows), 1)))
    try:
        kept = part(listed)
    except CapabilityError:
        return
    rest = np.exp(kept.log_tail)
    mass = np.exp(logsumexp(kept.logprobs)) + rest
    expect(
        (mass <= 1.0 + 2.0 * ROUNDING).all() and (rest > 2.0 * ROUNDING).all(),
        "Expected a list to keep an unlisted rest. Got one whose listed tokens have it all.",
    )


CALIBRATOR_CHECKS = (
    check_declarations,
    check_stays_normalised,
    check_identity_changes_nothing,
    check_first_choice_stays,
    check_confidence_is_monotone,
    check_rows_are_independent,
    check_constants_do_not_matter,
    check_extremes_are_defined,
    check_masked_options_stay_masked,
    check_input_is_left_alone,
    check_array_equals_scores,
    check_truncated_scores,
    check_saving_is_exact,
    check_record_is_frozen,
    check_bad_input_is_named,
    check_token_scores,
)
"""Every check of a calibrator; each is a function of a `CalibratorProbe`."""


def calibrator_checks(
    calibrator: Calibrator,
    n_options: int = 4,
    *,
    tolerance: float = 1e-9,
    exempt: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return what each check of the `Calibrator` contract found; one of level "confidence" has checks of its own.

    Args:
        calibrator: Any fitted calibrator.
        n_options: K that it was fitted for; any number for one that takes all.
        tolerance: Largest difference in nats between two results that must agree.
        exempt: Names of checks known to fail, each with its reason; one that passes is a failure.

    Raises:
        CheckFailed: lists every check that failed: what was expected, what came, how to mend it.

    >>> from calibwrap.testing.adapter_probe import Sharpen
    >>> own = {"check_saving_is_exact": "it is not one of the kinds that are saved"}
    >>> dict(calibrator_checks(Sharpen(2.0), exempt=own))["check_rows_are_independent"]
    'passed'
    """
    who = f"The calibrator '{calibrator.kind}'"
    if calibrator.level == "confidence":
        return run_checks(who, CONFIDENCE_CHECKS, ConfidenceProbe(calibrator, tolerance=tolerance), exempt)
    return run_checks(who, CALIBRATOR_CHECKS, CalibratorProbe(calibrator, n_options, tolerance), exempt)
