"""The reliability curve and the interval of each bin's accuracy."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from calibwrap import metrics
from calibwrap.errors import InputError


def test_curve_by_hand_with_an_empty_bin():
    curve = metrics.reliability_curve([0.1, 0.2, 0.9, 1.0], [0, 1, 1, 0.5], n_bins=3)
    assert curve.edges.tolist() == [0, 1 / 3, 2 / 3, 1]
    assert curve.count.tolist() == [2, 0, 2]
    assert curve.confidence == pytest.approx([0.15, np.nan, 0.95], nan_ok=True)
    assert curve.accuracy == pytest.approx([0.5, np.nan, 0.75], nan_ok=True)
    assert curve.gap == pytest.approx([0.35, np.nan, -0.2], nan_ok=True)


def test_curve_and_error_are_one_computation():
    rng = np.random.default_rng(0)
    data = rng.random(5000), rng.random(5000) < 0.4
    for strategy in ("uniform", "quantile"):
        curve = metrics.reliability_curve(*data, n_bins=12, strategy=strategy)
        by_hand = np.nansum(np.abs(curve.gap) * curve.count) / 5000
        assert metrics.ece(*data, n_bins=12, strategy=strategy) == pytest.approx(by_hand, abs=1e-14)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("right", "count"), [(0, 3), (7, 10), (50, 50), (1, 400)])
def test_interval_inverts_the_score_test(right, count, level):
    # Wilson's ends are the rates p at which |right / count - p| is exactly z standard errors under p.
    z = norm.ppf((1 + level) / 2)
    rate = right / count

    def excess(p):
        return (rate - p) ** 2 - z**2 * p * (1 - p) / count

    low = 0.0 if right == 0 else brentq(excess, 1e-12, rate - 1e-6, xtol=1e-14)
    high = 1.0 if right == count else brentq(excess, rate + 1e-6, 1 - 1e-12, xtol=1e-14)
    curve = metrics.reliability_curve([0.9] * count, [1] * right + [0] * (count - right), n_bins=1)
    assert [end.item() for end in curve.accuracy_interval(level)] == pytest.approx([low, high], abs=1e-9)


def test_interval_of_an_empty_bin_is_not_a_number():
    low, high = metrics.reliability_curve([0.9], [1], n_bins=2).accuracy_interval()
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False]


def test_interval_level_is_checked():
    with pytest.raises(InputError, match="'level'"):
        metrics.reliability_curve([0.9], [1]).accuracy_interval(95)


def test_curves_are_frozen():
    curve = metrics.reliability_curve([0.9], [1])
    with pytest.raises(ValueError, match="read-only"):
        curve.accuracy[0] = 1.0
