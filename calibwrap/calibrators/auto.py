"""Choosing a method by cross-validated log loss, and never a winner inside the noise over the plain one.

Stone, "Cross-validatory choice and assessment of statistical predictions", 1974; Efron, "Bootstrap methods: another
look at the jackknife", 1979, for the paired interval.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._confidence import CLIP, checked_pairs
from calibwrap.calibrators._inputs import checked_answers, fit_rows, labelled_rows
from calibwrap.calibrators._labelled import ROWS_NEEDED
from calibwrap.calibrators._report import with_report
from calibwrap.calibrators.group_temperature import GroupTemperature, checked_groups
from calibwrap.calibrators.identity import Identity
from calibwrap.calibrators.platt import Platt
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError
from calibwrap.provenance import Candidate, FitReport
from calibwrap.scores import Floats, Ints, OptionScores, checked_logits

NOTHING = 1e-6
"""Nats by which a method must be better at the least: a bootstrap takes rounding errors for a difference."""
N_RESAMPLES = 2000
"""Bootstrap resamples of a paired interval."""

IDENTITY = "identity"
"""Name of the row that tells what no calibration would give; it is there to compare, and is never chosen."""

_REFUSALS = (CapabilityError, FitError, InputError)
"""What a method says to data that are not for it: the table repeats it."""


@dataclass(frozen=True)
class Entrant:
    """A method that may be chosen, and how many rows each of its fits on all folds but one must have.

    The least numbers are rules of thumb, not theorems: ten rows for each fitted number where a method fits a fixed
    count of them, five where it regularises them itself, and hundreds where the map has no fixed form.
    """

    name: str
    """Name in `FITS` or `CONFIDENCE_FITS`."""
    rows_needed: Callable[[int], int]
    """Least number of rows for K options."""


OPTION_ENTRANTS = (
    Entrant("temperature", lambda k: 1),
    *(Entrant(name, needed) for name, needed in ROWS_NEEDED.items()),
    Entrant("top-label:platt", lambda k: 20),
    Entrant("top-label:beta", lambda k: 30),
    Entrant("top-label:isotonic", lambda k: 500),
)
"""What `fit_auto` tries, the baseline first."""

GROUPED = Entrant("group-temperature", lambda k: 30)
"""What `fit_auto` tries as well when it is told the groups of rows."""

ON_REQUEST = (
    Entrant("class-wise:platt", lambda k: 10 * 2 * k),
    Entrant("class-wise:beta", lambda k: 10 * 3 * k),
    Entrant("class-wise:histogram", lambda k: 500),
    Entrant("class-wise:isotonic", lambda k: 500),
    Entrant("class-wise:venn-abers", lambda k: 500),
)
"""What `fit_auto` tries only when `methods` names it."""

CONFIDENCE_ENTRANTS = (
    Entrant("platt", lambda k: 1),
    Entrant("beta", lambda k: 30),
    Entrant("isotonic", lambda k: 500),
    Entrant("venn-abers", lambda k: 200),
)
"""What `fit_auto_confidence` tries, the baseline first."""

LEFT_OUT: Mapping[str, str] = {
    "auto": "it is the choice itself",
    "auto-confidence": "it is the choice itself",
    "histogram": "a coarser map than isotonic's",
    "top-label:histogram": "a coarser map than isotonic's",
    "top-label:venn-abers": "on options, isotonic stands for both",
    **{one.name: "labels may not mean the same in every question: 'methods' can name it" for one in ON_REQUEST},
}
"""Fits with labels, and fits of one confidence, that are not tried by themselves, and why."""


@dataclass(frozen=True)
class Trial:
    """What one method did on rows that its fits did not see."""

    losses: Floats | None
    """(N,) log loss of each row in nats, by the fit that did not see it; None where it failed or was not tried."""
    note: str = ""
    """Why not."""


def fit_auto(
    logprobs: OptionScores | ArrayLike,
    answers: ArrayLike,
    *,
    methods: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    n_folds: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> Calibrator:
    """Return the calibrator of the method that predicts held-out answers best, fitted on all rows.

    Every method with enough rows for that is fitted on all folds but one and judged on that one. A method replaces
    plain temperature only when the paired bootstrap interval of its log loss minus temperature's lies below 0 as a
    whole, at a `level` that is shared among all rivals (Bonferroni), so that trying many does not make one win by luck.
    Of those that do, the least log loss wins. `report.candidates` holds the table: what was tried, what not and why.

    Args:
        logprobs: (N, K) log-probabilities or logits, -inf where there is no option; or `OptionScores`.
        answers: (N,) index of each row's right option.
        methods: names of the methods that may win, all of `OPTION_ENTRANTS` by default; temperature is always there.
            "class-wise:platt" and its like are tried when they are named: for labels that mean the same in every row.
        groups: (N,) name of each row's group, such as its subject: "group-temperature" is then tried too.
        n_folds: number of folds; rows are questions, dealt at random.
        level: probability that no interval misses the truth, all of them together.
        seed: seed of the folds and of the bootstrap.

    Raises:
        InputError: wrong shapes, NaN, an answer that is no option, an unknown method, not one group a row, or `n_folds`
            below 2.
        FitError: truncation leaves no row to fit.

    >>> calibrator = fit_auto([[4.0, 0.0]] * 4, [0, 0, 0, 1])
    >>> calibrator.kind, [one.method for one in calibrator.report.candidates if one.chosen]
    ('temperature', ['temperature'])
    """
    from calibwrap.calibrators._fits import FITS  # inside, because the registry lists this fit too

    rows = fit_rows("logprobs", logprobs)
    logits, exists = checked_logits("logprobs", rows.logits)
    n, k = logits.shape
    right = checked_answers(answers, n, k)
    used = np.flatnonzero(labelled_rows(rows, right, exists[np.arange(n), right])[0])

    names = None if groups is None else np.asarray(checked_groups(groups, n))

    def grouped(part: Ints) -> list[str]:
        return [] if names is None else names[part].tolist()

    def loss(calibrator: Calibrator, part: Ints) -> Floats:
        asked = _rows_of(rows.scores, logits, part)
        mapped: Any = (
            calibrator(asked, grouped(part)) if isinstance(calibrator, GroupTemperature) else calibrator(asked)
        )
        values = mapped.logprobs if isinstance(mapped, OptionScores) else mapped
        return -np.asarray(values[np.arange(len(part)), right[part]])

    def fit(name: str, part: Ints) -> Calibrator:
        if name == IDENTITY:
            return Identity()
        options = {"groups": grouped(part)} if name == GROUPED.name else {}
        return FITS[name].fit(_rows_of(rows.scores, logits, part), right[part], **options)

    known = OPTION_ENTRANTS if names is None else (*OPTION_ENTRANTS, GROUPED)
    race = Race(fit, loss, used, k, checked_folds(n_folds), checked_level(level), seed)
    candidates = race.run(_picked(known, methods, ON_REQUEST))
    chosen = next(one.method for one in candidates if one.chosen)
    return _told(fit(chosen, np.arange(n)), candidates, n_folds)


def fit_auto_confidence(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    methods: Sequence[str] | None = None,
    n_folds: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> Calibrator:
    """Return the calibrator of one confidence that predicts held-out correctness best, fitted on all rows.

    As `fit_auto`, with Platt scaling as the plain method that others must beat. The log loss is that of probabilities
    clipped to [1e-6, 1 - 1e-6], since step functions give 0 and 1.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]: how right each answer was.
        methods: names of the methods that may win, all of `CONFIDENCE_ENTRANTS` by default; Platt is always there.
        n_folds: number of folds.
        level: as for `fit_auto`.
        seed: seed of the folds and of the bootstrap.

    Raises:
        InputError: wrong shapes, numbers outside [0, 1], an unknown method, or `n_folds` below 2.

    >>> calibrator = fit_auto_confidence([0.9] * 20 + [0.5] * 20, [1, 1, 1, 0] * 5 + [1, 0, 0, 0] * 5)
    >>> calibrator.kind, calibrator.report.candidates[3].note
    ('platt', 'needs 500 rows, and each fit has 32')
    """
    from calibwrap.calibrators._fits import CONFIDENCE_FITS  # inside, because the registry lists this fit too

    said, right = checked_pairs(confidence, correct)

    def loss(calibrator: Calibrator, part: Ints) -> Floats:
        inside = np.clip(calibrator(said[part]), CLIP, 1.0 - CLIP)
        return -np.asarray(right[part] * np.log(inside) + (1.0 - right[part]) * np.log1p(-inside))

    def fit(name: str, part: Ints) -> Calibrator:
        return Platt(1.0, 0.0) if name == IDENTITY else CONFIDENCE_FITS[name](said[part], right[part])

    entrants = _picked(CONFIDENCE_ENTRANTS, methods)
    race = Race(fit, loss, np.arange(len(said)), 2, checked_folds(n_folds), checked_level(level), seed)
    candidates = race.run(entrants)
    chosen = next(one.method for one in candidates if one.chosen)
    return _told(CONFIDENCE_FITS[chosen](confidence, correct), candidates, n_folds)


@dataclass(frozen=True)
class Race:
    """One comparison: how to fit and judge a method by its name, on which rows, and how to split them."""

    fit: Callable[[str, Ints], Calibrator]
    """The calibrator of a method's name, fitted on the rows of these indices."""
    loss: Callable[[Calibrator, Ints], Floats]
    """Log loss in nats of a calibrator on each of the given rows."""
    rows: Ints
    """(N,) which rows take part."""
    n_options: int
    n_folds: int
    level: float
    seed: int

    def run(self, entrants: Sequence[Entrant]) -> tuple[Candidate, ...]:
        """Return the table, in the order of `entrants`, whose first is the baseline; exactly one is chosen."""
        found = {IDENTITY: self._trial(IDENTITY)}
        for one in entrants:
            needed = one.rows_needed(self.n_options)
            if self._rows_in_fit < needed:
                found[one.name] = Trial(None, f"needs {needed} rows, and each fit has {self._rows_in_fit}")
            else:
                found[one.name] = self._trial(one.name)
        baseline = entrants[0].name
        intervals = self._intervals(found, baseline)
        winner = _winner(found, intervals, baseline)
        needs = {IDENTITY: 0, **{one.name: one.rows_needed(self.n_options) for one in entrants}}
        return tuple(
            Candidate(name, needs[name], _mean(trial), intervals.get(name), name == winner, trial.note)
            for name, trial in found.items()
        )

    @property
    def _rows_in_fit(self) -> int:
        """Rows of the smallest fit: all but the largest fold."""
        return len(self.rows) - math.ceil(len(self.rows) / self.n_folds)

    def _trial(self, name: str) -> Trial:
        """Return the loss of each row under the fit that did not see it."""
        if len(self.rows) < self.n_folds:
            return Trial(None, f"{self.n_folds} folds need as many rows, and {len(self.rows)} came")
        losses = np.empty(len(self.rows))
        order = np.random.default_rng(self.seed).permutation(len(self.rows))
        for held in np.array_split(order, self.n_folds):
            kept = np.delete(np.arange(len(self.rows)), held)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CalibrationWarning)  # of fits on parts, which nobody gets
                    losses[held] = self.loss(self.fit(name, self.rows[kept]), self.rows[held])
            except _REFUSALS as error:
                return Trial(None, str(error))
        infinite = int((losses == np.inf).sum())
        note = f"infinite log loss: {infinite} held-out answers got probability 0" if infinite else ""
        return Trial(losses, note)

    def _intervals(self, found: Mapping[str, Trial], baseline: str) -> dict[str, tuple[float, float]]:
        """Return the paired interval of each method's mean log loss minus the baseline's, where both are finite."""
        from calibwrap.metrics import bootstrap_ci

        plain = found[baseline].losses
        if plain is None or len(plain) < 2:
            return {}
        rivals = {name: trial.losses for name, trial in found.items() if name != baseline and _mean(trial) is not None}
        level = 1.0 - (1.0 - self.level) / max(1, len(rivals))
        return {
            name: bootstrap_ci(_average, losses - plain, n_resamples=N_RESAMPLES, level=level, seed=self.seed)
            for name, losses in rivals.items()
            if losses is not None
        }


def _winner(found: Mapping[str, Trial], intervals: Mapping[str, tuple[float, float]], baseline: str) -> str:
    """Return the method of least log loss among those that beat the baseline outside the noise, else the baseline."""
    better = [name for name, (_, high) in intervals.items() if high < -NOTHING and name != IDENTITY]
    return min(better, key=lambda name: _mean(found[name]) or 0.0, default=baseline)


def _mean(trial: Trial) -> float | None:
    """Return the mean log loss; None where there is none or it is infinite, which files cannot hold."""
    if trial.losses is None or not np.isfinite(trial.losses).all():
        return None
    return float(trial.losses.mean())


def _average(values: Floats) -> float:
    return float(values.mean())


def _rows_of(scores: OptionScores | None, logits: Floats, part: Ints) -> OptionScores | Floats:
    """Return the given rows as what came: scores with their bounds, or an array."""
    return logits[part] if scores is None else scores.take(part)


def _picked(
    entrants: Sequence[Entrant], methods: Sequence[str] | None, on_request: Sequence[Entrant] = ()
) -> tuple[Entrant, ...]:
    """Return the entrants that `methods` names, the baseline in any case and first; without it, none on request.

    Raises:
        InputError: a name that is none of them.
    """
    if methods is None:
        return tuple(entrants)
    both = (*entrants, *on_request)
    known = [one.name for one in both]
    unknown = sorted(set(methods) - set(known)) if not isinstance(methods, str) else [methods]
    if unknown:
        raise InputError(f"'methods' must be a list of names out of {', '.join(known)}. Got {', '.join(unknown)}.")
    return (both[0], *(one for one in both[1:] if one.name in methods))


def checked_folds(n_folds: int) -> int:
    """Return `n_folds`.

    Raises:
        InputError: not a whole number of at least 2.
    """
    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 2:
        raise InputError(f"'n_folds' must be a whole number of at least 2. Got {n_folds!r}.")
    return n_folds


def checked_level(level: float) -> float:
    """Return `level`.

    Raises:
        InputError: not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"'level' must lie between 0 and 1. Got {level!r}.")
    return level


def _told(calibrator: Calibrator, candidates: tuple[Candidate, ...], n_folds: int) -> Calibrator:
    """Return the calibrator with the table in its report and a sentence on the choice."""
    report = calibrator.report or FitReport("auto", 0, 0, 0.0, 0.0)
    chosen = next(one for one in candidates if one.chosen)
    tried = sum(one.log_loss is not None for one in candidates if one.method != IDENTITY)
    said = f"Chosen as {chosen.method!r} out of {tried} methods by log loss on {n_folds} held-out folds."
    if not tried:
        said = f"Too few rows to compare anything on {n_folds} held-out folds: {chosen.method!r} was fitted."
    told = replace(report, notes=(*report.notes, said), candidates=candidates)
    return with_report(calibrator, told)
