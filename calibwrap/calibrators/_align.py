"""The alignment of one model's scores with another's, with or without the rows where they disagree. See daca.py."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.calibrators._affine import check_full, checked_ridge, convergence_notes, fit_affine
from calibwrap.calibrators._bootstrap import temperature_interval
from calibwrap.calibrators._inputs import FitRows, check_uncut, checked_bounds, fit_rows, today
from calibwrap.calibrators._newton import ABSENT, gaps_of, solve, tied_tops
from calibwrap.calibrators._truncated import ends
from calibwrap.calibrators.matrix_scaling import MatrixScaling
from calibwrap.calibrators.temperature import Temperature, settle
from calibwrap.calibrators.vector_scaling import VectorScaling
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Bools, Floats, OptionScores, log_softmax

Aligned = Temperature | VectorScaling | MatrixScaling
Kind = Literal["temperature", "vector", "matrix"]
Mask = Literal["raw", "rescaled"]
Scores = OptionScores | ArrayLike
Interval = tuple[float, float]

_MOST_MASKS = 20  # fits until the rescaled mask must have settled


@dataclass(frozen=True)
class Settings:
    """The checked options of one alignment."""

    mask: str
    min_agree: int
    n_bootstrap: int
    seed: int
    bounds: Interval
    ridge: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", checked_bounds(self.bounds))
        object.__setattr__(self, "ridge", checked_ridge(self.ridge))
        if self.mask not in get_args(Mask):
            raise InputError(f"'mask' must be 'raw' or 'rescaled'. Got {self.mask!r}.")
        check_counts(min_agree=self.min_agree, n_bootstrap=self.n_bootstrap, seed=self.seed)


def check_counts(**counts: int) -> None:
    """Return nothing when each of `counts` is a whole number of at least 0.

    Raises:
        InputError: one is not; its name is in the message.

    >>> check_counts(n_bootstrap=200, seed=0)
    """
    from calibwrap.metrics._checks import checked_count  # metrics are loaded on demand

    for name, value in counts.items():
        checked_count(name, value, least=0)


@dataclass(frozen=True)
class Pair:
    """Both models' gaps (K, N), option by option, and which rows can be compared at all."""

    post: Floats
    pre: Floats
    usable: Bools
    notes: tuple[str, ...]
    sources: tuple[FitRows, FitRows]

    def agreement(self) -> Bools:
        """Return (N,) where both models choose the same option."""
        return tied_tops(self.post, self.pre)


def paired(post: Scores, pre: Scores) -> Pair:
    """Return both sides, checked against each other."""
    sources = fit_rows("post", post), fit_rows("pre", pre)
    gaps = gaps_of("post", sources[0].logits), gaps_of("pre", sources[1].logits)
    if gaps[0].shape != gaps[1].shape:
        (k, n), (other_k, other_n) = gaps[0].shape, gaps[1].shape
        raise InputError(
            f"'post' and 'pre' must score the same questions and options. Got {n} x {k} against {other_n} x {other_k}."
        )
    masks = [_exists(side, rows) for side, rows in zip(gaps, sources, strict=True)]
    if (masks[0] != masks[1]).any():
        row = int(np.argmax((masks[0] != masks[1]).any(axis=0)))
        raise InputError(
            f"'post' and 'pre' must have the same options in every row. In row {row} they exist as "
            f"{masks[0][:, row].tolist()} against {masks[1][:, row].tolist()}."
        )
    endless = (masks[0] & (gaps[0] == ABSENT) & (gaps[1] > ABSENT)).any(axis=0)
    notes = [f"{side}: {note}" for side, rows in zip(("post", "pre"), sources, strict=True) for note in rows.notes]
    if endless.any():
        notes.append(f"{int(endless.sum())} rows were left out because 'post' has probability 0 where 'pre' has not.")
    usable = sources[0].usable & sources[1].usable & ~endless
    return Pair(*gaps, usable, tuple(notes), sources)


def _exists(gaps: Floats, rows: FitRows) -> Bools:
    """Return (K, N) which options there are; only scores can tell an absent one from one of probability 0."""
    return np.asarray(gaps > ABSENT) if rows.scores is None else rows.scores.mask.T


def align(pair: Pair, used: Bools, method: str, calibrator: str, settings: Settings) -> Aligned:
    """Return the calibrator called `calibrator`, fitted on the rows `used`.

    Raises:
        CapabilityError: truncated scores, and a calibrator other than a temperature.
    """
    fits: dict[str, Callable[[Pair, Bools, FitReport, Settings], Aligned]] = {
        "temperature": _temperature,
        "vector": _vector,
        "matrix": _matrix,
    }
    if not isinstance(calibrator, str) or calibrator not in fits:
        raise InputError(f"'calibrator' must be 'temperature', 'vector' or 'matrix'. Got {calibrator!r}.")
    if calibrator != "temperature":  # the reference may be cut off: nobody calibrates it
        check_uncut(calibrator, pair.sources[0])
    report = FitReport(
        method=method,
        rows=len(used),
        rows_used=int(used.sum()),
        objective_before=math.nan,
        objective_after=math.nan,
        agreement_rate=float(pair.agreement()[pair.usable].mean()),
        notes=pair.notes,
        readout=pair.sources[0].readout,
        reference_readout=pair.sources[1].readout,
        date=today(),
    )
    fitted = fits[calibrator](pair, used, report, settings)
    return replace(fitted, report=_with_few_rows(fitted.report or report, settings.min_agree))


def _temperature(pair: Pair, used: Bools, report: FitReport, settings: Settings) -> Temperature:
    gaps, targets, entropy = _soft_targets(pair.post, pair.pre, used)
    solution = solve(gaps, targets, settings.bounds)
    value, notes = settle(solution, settings.bounds)
    interval = None
    if settings.n_bootstrap and not solution.flat:
        interval = temperature_interval(
            gaps, targets, solution.beta, settings.bounds, settings.n_bootstrap, settings.seed
        )
    report = replace(
        report,
        objective_before=max(solution.before - entropy, 0.0),
        objective_after=max(solution.after - entropy, 0.0),
        at_bound=solution.at_bound,
        interval=interval,
        converged=solution.converged,
        notes=(*report.notes, *notes, *_ends_note(pair, used, settings.bounds)),
    )
    return Temperature(value, report=report)


def _vector(pair: Pair, used: Bools, report: FitReport, settings: Settings) -> VectorScaling:
    return VectorScaling(**_affine(pair, used, report, settings, full=False))


def _matrix(pair: Pair, used: Bools, report: FitReport, settings: Settings) -> MatrixScaling:
    check_full((pair.post.T > ABSENT)[used])
    return MatrixScaling(**_affine(pair, used, report, settings, full=True))


def _affine(pair: Pair, used: Bools, report: FitReport, settings: Settings, *, full: bool) -> dict[str, Any]:
    """Return the fields of an affine calibrator; with the rescaled mask, fitted again until its rows stay."""
    logprobs = log_softmax(np.where(pair.post.T > ABSENT, pair.post.T, -np.inf))
    reference = log_softmax(np.where(pair.pre.T > ABSENT, pair.pre.T, -np.inf))
    notes = report.notes
    for _ in range(_MOST_MASKS):
        found = fit_affine(logprobs[used], np.exp(reference[used]), full=full, ridge=settings.ridge)
        if settings.mask == "raw":
            break
        agree = pair.usable & tied_tops(gaps_of("post", found.apply(logprobs)), pair.pre)
        if np.array_equal(agree, used) or not agree.any():
            break
        used = agree
    else:
        notes = (*notes, f"The rescaled mask did not settle in {_MOST_MASKS} fits; the last but one was used.")
    known = reference[used]
    entropy = -float((np.exp(known) * np.where(known > -np.inf, known, 0.0)).sum(axis=1).mean())
    report = replace(
        report,
        rows_used=int(used.sum()),
        objective_before=max(found.before - entropy, 0.0),
        objective_after=max(found.after - entropy, 0.0),
        converged=found.converged,
        notes=(*notes, *convergence_notes(found)),
    )
    return {"weights": found.weights, "biases": found.biases, "report": report}


def _soft_targets(post: Floats, pre: Floats, used: Bools) -> tuple[Floats, Floats, float]:
    """Return the gaps of `post`, each row's sum of p times them, and the mean entropy of p = softmax(pre)."""
    if not used.all():
        post, pre = (np.compress(used, side, axis=1) for side in (post, pre))  # several times as fast as [:, used]
    reference = np.exp(pre)
    total = reference.sum(axis=0)
    reference /= total
    entropy = float(np.log(total).mean() - np.vdot(reference, pre) / len(total))
    return post, np.asarray((reference * post).sum(axis=0)), entropy


def _ends_note(pair: Pair, used: Bools, bounds: Interval) -> list[str]:
    """Return how the temperature moves when all that lists hide sits at either end of its bounds, if anything is."""
    if not any(rows.scores is not None and rows.scores.is_cut[used].any() for rows in pair.sources):
        return []
    values = []
    for end in (0, 1):
        post, pre = (
            side if rows.scores is None else gaps_of("scores", ends(rows.scores)[end])
            for side, rows in zip((pair.post, pair.pre), pair.sources, strict=True)
        )
        gaps, targets, _ = _soft_targets(post, pre, used)
        values.append(1.0 / solve(gaps, targets, bounds).beta)
    return [
        f"With all that was cut off at the lower end of its bounds T is {values[0]:.4g}, at the upper {values[1]:.4g}."
    ]


def _with_few_rows(report: FitReport, min_agree: int) -> FitReport:
    """Return `report`, with a note and a warning when fewer rows than `min_agree` were used."""
    if report.rows_used >= min_agree:
        return report
    note = f"Only {report.rows_used} rows agree, fewer than {min_agree}."
    warnings.warn(f"{note} Add questions, or look at report.interval.", CalibrationWarning, stacklevel=4)
    return replace(report, notes=(*report.notes, note))
