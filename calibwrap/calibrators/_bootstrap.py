"""A percentile interval of a fitted temperature, at the cost of a few more sweeps over the rows.

Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979. The temperature of a resample is the root of its summed
slope, and each row's slope does not depend on the resample. So the slopes are worked out once, at a few values of beta
around the optimum, and all resamples are one matrix product: counts (B, G) times slopes (G, J); each root is then read
off between two values of beta.
"""

from collections.abc import Callable

import numpy as np

from calibwrap.calibrators._newton import mean_gap, sweep
from calibwrap.scores import Floats

_GROUPS = 1_024  # beyond that, random groups of rows are drawn instead of rows: same law, bounded cost
_BLOCK = 25  # resamples at a time: their draws and counts stay in the cache
_NODES = 9
_REACH = 4.0  # standard errors on either side; the bounds themselves are nodes too
_TAILS = (2.5, 97.5)


def temperature_interval(
    gaps: Floats, targets: Floats, beta: float, bounds: tuple[float, float], n_bootstrap: int, seed: int
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % points of the temperature over `n_bootstrap` resamples of the rows."""
    slopes = mean_gap(gaps, beta) - targets
    nodes = nodes_around(beta, slopes, beta * sweep(gaps, beta)[2], bounds)
    return interval_of_roots(lambda node: mean_gap(gaps, node) - targets, nodes, n_bootstrap, seed)


def interval_of_roots(
    slopes_at: Callable[[float], Floats], nodes: Floats, n_bootstrap: int, seed: int
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % points, over resamples of the rows, of the T = 1/beta where the summed slope is 0.

    Args:
        slopes_at: gives each row's slope (N,) at a beta; their mean rises with beta.
        nodes: (J,) rising values of beta, as of `nodes_around`.
        n_bootstrap: how many resamples.
        seed: same seed, same resamples.

    Between two neighbouring nodes, one standard error apart, a root is read off linearly in log beta, which is wrong by
    about an eighth of the squared relative standard error: far less than what the resamples scatter.
    """
    rng = np.random.default_rng(seed)
    slopes = _grouped_slopes(slopes_at, nodes, rng)
    resampled = np.concatenate(
        [_resample(slopes, min(_BLOCK, n_bootstrap - done), rng) for done in range(0, n_bootstrap, _BLOCK)]
    )
    high, low = np.percentile(np.exp(-_roots(resampled, np.log(nodes))), _TAILS[::-1])
    return float(low), float(high)


def _grouped_slopes(slopes_at: Callable[[float], Floats], nodes: Floats, rng: "np.random.Generator") -> Floats:
    """Return (G, J) the slope at each node, of each row or, beyond `_GROUPS` rows, of each random group of rows."""
    columns = (slopes_at(float(node)) for node in nodes)
    first = next(columns)
    if len(first) <= _GROUPS:
        return np.stack([first, *columns], axis=1)
    order = rng.permutation(len(first))
    starts = np.arange(_GROUPS) * len(first) // _GROUPS
    return np.stack([np.add.reduceat(one[order], starts) for one in (first, *columns)], axis=1)


def _resample(slopes: Floats, times: int, rng: "np.random.Generator") -> Floats:
    """Return (times, J) the summed slopes of `times` draws of G rows of `slopes` (G, J), with replacement."""
    groups = len(slopes)
    draws = rng.integers(0, groups, size=(times, groups))
    draws += groups * np.arange(times)[:, None]
    counts = np.bincount(draws.ravel(), minlength=times * groups).reshape(times, groups)
    return np.asarray(counts.astype(np.float64) @ slopes)  # integers would not be multiplied by BLAS


def nodes_around(beta: float, slopes: Floats, rise: float, bounds: tuple[float, float]) -> Floats:
    """Return (J,) rising values of beta: `_NODES` around the root, and both ends of the `bounds` of T = 1/beta.

    `slopes` (N,) are the rows' at the root, and `rise` is by how much their mean rises there with log beta.
    """
    limits = np.log([1.0 / bounds[1], 1.0 / bounds[0]])
    scale = rise * np.sqrt(len(slopes))
    widest = limits[1] - limits[0]
    with np.errstate(over="ignore", invalid="ignore"):  # of logits of 1e200 the squares are infinite: all is looked at
        error = widest if scale <= 0.0 else min(widest, float(np.sqrt(np.mean(slopes**2)) / scale))
    around = np.log(beta) + error * np.linspace(-_REACH, _REACH, _NODES)
    inside = around[(around > limits[0]) & (around < limits[1])]
    return np.unique(np.concatenate([[1.0 / bounds[1]], np.exp(inside), [1.0 / bounds[0]]]))


def _roots(slopes: Floats, positions: Floats) -> Floats:
    """Return (B,) where each increasing row of `slopes` (B, J) crosses 0, or the end of `positions` (J,) nearest it."""
    right = np.clip((slopes < 0.0).sum(axis=1), 1, len(positions) - 1)
    rows = np.arange(len(slopes))
    low, high = slopes[rows, right - 1], slopes[rows, right]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(-low / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(positions[right - 1] + np.clip(share, 0.0, 1.0) * (positions[right] - positions[right - 1]))
