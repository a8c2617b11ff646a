"""Bootstrap intervals: how far a metric would move on another sample of questions."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics._checks import checked_count, checked_level
from calibwrap.scores import Floats

Metric = Callable[..., float]


def bootstrap_ci(
    metric: Metric, *arrays: ArrayLike, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of `metric(*arrays)` over resampled rows.

    Rows are drawn with replacement, the same rows in every array. The ends are values that occurred (no interpolation,
    rounded outwards), so +inf stays +inf. Give a metric's options with `functools.partial(ece, n_bins=10)`. The plain
    ECE is biased upwards, and more so on resamples: its interval shows spread and is not corrected for that bias.

    Args:
        metric: a function of the arrays that returns one number.
        arrays: arrays of N rows each.
        n_resamples: number of resamples.
        level: probability that the interval aims to cover.
        seed: seed of the resampling; equal seeds give equal intervals.

    Raises:
        InputError: fewer than 2 rows, lengths that differ, or a resample on which the metric is not defined (AUROC
            when one class is rare): such resamples are not dropped in silence.

    References:
        Efron: Bootstrap methods: another look at the jackknife (1979).

    >>> from calibwrap.metrics import accuracy
    >>> bootstrap_ci(accuracy, [1, 0, 1, 1, 0, 1, 1, 1, 0, 1])
    (0.4, 1.0)
    """
    columns = _rows_of(arrays)
    level = checked_level(level)
    rng = np.random.default_rng(seed)
    rows = len(columns[0])
    values = np.empty(checked_count("n_resamples", n_resamples))
    for draw in range(len(values)):
        picked = rng.integers(0, rows, rows)
        values[draw] = _value(metric, [column[picked] for column in columns], draw)
    low = np.quantile(values, (1 - level) / 2, method="lower")
    high = np.quantile(values, (1 + level) / 2, method="higher")
    return float(low), float(high)


def bootstrap_difference(
    metric: Metric,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the paired bootstrap interval of `metric(*first) - metric(*second)` on the same rows.

    Both sides see the same resampled questions, so what makes a question hard for both cancels. An interval that
    excludes 0 speaks for a difference.

    Args:
        metric: a function of the arrays that returns one number.
        first: the metric's arrays for one model, N rows each.
        second: the same for the other model, on the same questions in the same order.
        n_resamples: number of resamples.
        level: probability that the interval aims to cover.
        seed: seed of the resampling.

    Raises:
        InputError: as for `bootstrap_ci`.

    >>> from calibwrap.metrics import top_label_brier
    >>> bootstrap_difference(top_label_brier, ([0.5, 0.5], [1, 0]), ([0.0, 1.0], [1, 0]))  # 0.25 - 1 on any rows
    (-0.75, -0.75)
    """
    split = len(first)

    def difference(*arrays: ArrayLike) -> float:
        return metric(*arrays[:split]) - metric(*arrays[split:])

    return bootstrap_ci(difference, *first, *second, n_resamples=n_resamples, level=level, seed=seed)


def _rows_of(arrays: Sequence[ArrayLike]) -> list[Floats]:
    try:
        columns = [np.asarray(array) for array in arrays]
    except ValueError as error:
        raise InputError(f"A bootstrap needs arrays, and one is none: {error}.") from error
    lengths = [len(column) if column.ndim else 0 for column in columns]
    if not columns or len(set(lengths)) != 1 or lengths[0] < 2:
        raise InputError(f"A bootstrap needs arrays of equally many rows, at least 2. Got lengths {lengths}.")
    return columns


def _value(metric: Metric, columns: Sequence[Floats], draw: int) -> float:
    try:
        value = metric(*columns)
    except InputError as error:
        raise InputError(
            f"The metric is not defined on resample {draw}, so it has no bootstrap interval on these rows: {error}"
        ) from error
    if np.isnan(value):
        raise InputError(f"The metric must return a number. Got NaN on resample {draw}; there is no interval for it.")
    return value
