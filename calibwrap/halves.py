"""Random splits into a part that fits and one that is held out, and what fits do on average over many of them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.calibrators import GroupTemperature, Identity, fit_named
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.metrics import ece
from calibwrap.scores import Bools, Ints, OptionScores
from calibwrap.summary import BINS, Figure

HALVES = 50
"""Random halves that a figure is averaged over."""


def held_out_rows(n: int, fits: Sequence[str], share: float, seed: int) -> Bools:
    """Return (n,) True for the held-out rows: all without fits, else both parts have at least one.

    Raises:
        InputError: with fits, a share outside (0, 1) or fewer than two rows.

    >>> [int(held_out_rows(n, fits, 0.5, seed=0).sum()) for n, fits in ((4, ["platt"]), (1, []))]
    [2, 1]
    """
    if not fits:
        return np.ones(n, dtype=np.bool_)
    if not 0.0 < share < 1.0 or n < 2:
        raise InputError(f"A fit needs at least 2 questions and a share between 0 and 1. Got {n} and {share}.")
    fitting = min(max(1, round(n * share)), n - 1)
    held_out = np.ones(n, dtype=np.bool_)
    held_out[np.random.default_rng(seed).permutation(n)[:fitting]] = False
    return held_out


def over_halves(
    scores: OptionScores,
    answers: ArrayLike,
    methods: Sequence[str],
    reference: OptionScores | None = None,
    groups: Sequence[str] | None = None,
    *,
    halves: int = HALVES,
    seed: int = 0,
) -> dict[str, Figure]:
    """Return the held-out ECE of "raw" and of each method: mean and 95 % range over random halves of the questions.

    In each of them one half fits and the other is measured. The halves share questions, so the range tells how much a
    single split moves the figure; it is no confidence interval of the mean.

    Args:
        scores: N questions by the model.
        answers: (N,) indices of the right options; fits without labels are not handed any.
        methods: names of fits.
        reference: N questions by the reference model, for fits without labels.
        groups: (N,) name of each question's group, for fits that take groups; None, or some empty: not known.
        halves: how often.
        seed: same seed, same halves.

    Raises:
        InputError: an unknown fit, or one of groups without `groups`.

    >>> scores = OptionScores(np.log([[0.9, 0.1]] * 40), readout="label")
    >>> found = over_halves(scores, [0, 0, 0, 1] * 10, ["temperature"])
    >>> found["raw"].value > found["temperature"].value
    True
    """
    right = np.asarray(answers, dtype=np.int64)
    named = np.array(list(groups), dtype=object) if groups is not None and all(groups) else None
    rows = _Rows(scores, right, reference, named)
    found: dict[str, list[float] | str] = {name: [] for name in ("raw", *methods)}
    for half in range(halves):
        order = np.random.default_rng((seed, half)).permutation(len(right))
        fit, held = order[: len(order) // 2], order[len(order) // 2 :]
        for name, errors in found.items():
            if isinstance(errors, list):
                try:
                    errors.append(_held_out(name, rows.take(fit), rows.take(held)))
                except FitError as error:
                    found[name] = f"one half of the questions does not determine it: {error}"
    return {name: _figure(errors) for name, errors in found.items()}


@dataclass(frozen=True)
class _Rows:
    """What is known of some questions."""

    scores: OptionScores
    answers: Ints
    reference: OptionScores | None
    groups: NDArray[np.object_] | None

    def take(self, rows: Ints) -> "_Rows":
        """Return some of them."""
        reference = None if self.reference is None else self.reference.take(rows)
        groups = None if self.groups is None else self.groups[rows]
        return _Rows(self.scores.take(rows), self.answers[rows], reference, groups)


def _held_out(name: str, fit: _Rows, held: _Rows) -> float:
    mapped: Callable[[Any], Any] = Identity()
    if name != "raw":
        spec = fit_named(name)
        options: dict[str, Any] = {"n_bootstrap": 0} if spec.resamples else {}
        options |= {"groups": fit.groups} if fit.groups is not None and "groups" in spec.options else {}
        labels = fit.answers if spec.needs_answers else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)  # the fit that is kept has given it already
            mapped = spec(fit.scores, answers=labels, reference=fit.reference, **options)
        if isinstance(mapped, GroupTemperature) and held.groups is not None:
            mapped = partial(mapped, groups=held.groups.tolist())
    kept = mapped(held.scores)
    return ece(kept.confidence, kept.choice == held.answers, n_bins=BINS)


def _figure(errors: list[float] | str) -> Figure:
    if isinstance(errors, str):
        return Figure(None, None, None, errors)
    low, high = np.quantile(errors, [0.025, 0.975])
    return Figure(float(np.mean(errors)), float(low), float(high))
