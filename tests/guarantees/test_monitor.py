"""Monitors: capital by hand, mean 1 and few alarms without a change, growth with one, and saved files."""

import itertools
import math

import numpy as np
import pytest

from calibwrap.errors import InputError
from calibwrap.guarantees import CalibrationMonitor, DriftMonitor
from calibwrap.guarantees._betting import Stake
from calibwrap.guarantees.monitor import LAMBDAS, POWERS


def slow_value(factors: np.ndarray) -> float:
    """The mixture over bets and over starts, written out: factors (T, B)."""
    steps, bets = factors.shape
    total = 0.0
    for start in range(steps):
        weight = 1 / ((start + 1) * (start + 2))
        total += weight * sum(np.prod(factors[start:, bet]) for bet in range(bets)) / bets
    return total + 1 / (steps + 1)


def test_the_stake_is_the_mixture_over_bets_and_starts() -> None:
    factors = np.random.default_rng(0).uniform(0.5, 2.0, size=(12, 3))
    stake, values = Stake.on(3), []
    for row in factors:
        stake = stake.after(np.log(row))
        values.append(math.exp(stake.log_value))
    assert values == pytest.approx([slow_value(factors[: t + 1]) for t in range(12)], rel=1e-12)
    assert math.exp(stake.log_peak) == pytest.approx(max(1.0, *values))


def test_every_outcome_of_a_calibrated_stream_averages_to_one_exactly() -> None:
    """No simulation: all 2^6 outcomes with their chances; c = 0.7 given calibration."""
    confidence = [0.7, 0.9, 0.5, 0.7, 1.0, 0.2]
    mean = 0.0
    for outcome in itertools.product([0, 1], repeat=6):
        chance = math.prod(c if y else 1 - c for c, y in zip(confidence, outcome, strict=True))
        if chance:
            mean += chance * CalibrationMonitor(tolerance=0.0).update(confidence, outcome).value
    assert mean == pytest.approx(1.0, rel=1e-12)


def test_within_the_tolerance_the_mean_never_exceeds_one() -> None:
    for truth in (0.65, 0.7, 0.75):
        mean = 0.0
        for outcome in itertools.product([0, 1], repeat=6):
            chance = math.prod(truth if y else 1 - truth for y in outcome)
            mean += chance * CalibrationMonitor(tolerance=0.05).update([0.7] * 6, outcome).value
        assert mean <= 1.0 + 1e-12


def test_power_bets_average_to_one_over_uniform_p_values() -> None:
    from calibwrap.guarantees.monitor import _power_bets

    edges = np.linspace(0, 1, 4001) ** 8 / 4  # fine near 0, 1/2 and 1, where the bets are unbounded
    middle = (edges[1:] + edges[:-1]) / 2
    places = np.concatenate([middle, 0.5 - middle, 0.5 + middle, 1 - middle])
    weights = np.tile(np.diff(edges), 4)
    pays = np.array([np.exp(_power_bets(p)) for p in places])
    assert pays.shape[1] == 4 * len(POWERS)
    assert weights @ pays == pytest.approx(1.0, abs=0.002)
    assert np.isfinite(_power_bets(0.0)).all()


def null_runs(runs: int, steps: int) -> tuple[list[CalibrationMonitor], list[DriftMonitor]]:
    """Monitors of calibrated, exchangeable streams; ties happen."""
    random = np.random.default_rng(11)
    labelled, unlabelled = [], []
    for seed in range(runs):
        confidence = random.uniform(0.4, 1.0, steps).round(2)
        labelled.append(CalibrationMonitor(tolerance=0.0).update(confidence, random.random(steps) < confidence))
        before = random.uniform(0.4, 1.0, 30).round(2)
        unlabelled.append(DriftMonitor.from_calibration(before, seed).update(confidence))
    return labelled, unlabelled


def test_without_a_change_the_mean_capital_is_one() -> None:
    """Few steps, since the mean of long products rests on outcomes too rare to be drawn."""
    for monitors in null_runs(2000, 5):
        values = np.array([monitor.value for monitor in monitors])
        assert np.mean(values) == pytest.approx(1.0, abs=4 * values.std() / math.sqrt(len(values)))


def test_without_a_change_alarms_are_as_rare_as_promised() -> None:
    for monitors in null_runs(400, 60):
        for at in (2.0, 5.0, 20.0):
            alarms = np.mean([monitor.alarm(at) for monitor in monitors])
            assert alarms <= 1 / at + 3.1 * math.sqrt((1 / at) * (1 - 1 / at) / 400)


@pytest.mark.parametrize("quiet", [0, 300])
def test_a_planted_loss_of_accuracy_is_found(quiet: int) -> None:
    random = np.random.default_rng(12)
    confidence = random.uniform(0.6, 1.0, quiet + 300)
    chance = np.where(np.arange(quiet + 300) < quiet, confidence, confidence - 0.25)
    correct = random.random(quiet + 300) < chance
    monitor = CalibrationMonitor().update(confidence[:quiet], correct[:quiet])
    assert not monitor.alarm(at=100)
    assert monitor.update(confidence[quiet:], correct[quiet:]).alarm(at=100)


@pytest.mark.parametrize(
    "drifted",
    [lambda r: r.beta(4, 3, 300), lambda r: r.beta(12, 1, 300), lambda r: r.beta(40, 10, 300)],
    ids=["lower", "higher", "narrower"],
)
def test_a_planted_drift_of_confidences_is_found(drifted) -> None:
    random = np.random.default_rng(13)
    monitor = DriftMonitor.from_calibration(random.beta(4, 1, 300)).update(random.beta(4, 1, 200))
    assert not monitor.alarm(at=100)
    assert monitor.update(drifted(random)).alarm(at=100)


def test_batches_and_single_steps_give_the_same_capital() -> None:
    confidence, correct = [0.9, 0.7, 0.7, 0.2], [1, 0, 0.5, 1]
    one, many = CalibrationMonitor(), CalibrationMonitor().update(confidence, correct)
    drift, drifts = DriftMonitor((0.5,)), DriftMonitor((0.5,)).update(confidence)
    for chance, hit in zip(confidence, correct, strict=True):
        one, drift = one.update([chance], [float(hit)]), drift.update([chance])
    assert (one.value, one.n) == (many.value, 4)
    assert (drift.value, drift.seen) == (drifts.value, drifts.seen)
    assert many.update([], []).value == many.value


def test_an_update_does_not_check_again_what_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    drift = DriftMonitor((0.2, 0.5), seed=3)
    monkeypatch.setattr(DriftMonitor, "__post_init__", None)  # a call of it would be a TypeError
    later = drift.update([0.4, 0.1])
    assert later.seen == (0.1, 0.2, 0.4, 0.5)
    assert (drift.seen, drift.n, later.n, later.seed) == ((0.2, 0.5), 0, 2, 3)


def test_an_alarm_stays_though_the_capital_falls_again() -> None:
    monitor = CalibrationMonitor().update([0.9] * 40, [False] * 40).update([0.9] * 4000, ([True] * 9 + [False]) * 400)
    assert monitor.alarm(at=100)
    assert monitor.log_value < 40 * math.log(2)


def test_certainty_that_is_wrong_ruins_one_bet_and_no_more() -> None:
    monitor = CalibrationMonitor(tolerance=0.0).update([1.0], [False])
    down = [1 + size for size in LAMBDAS]
    up = [1 - size for size in LAMBDAS]
    assert monitor.value == pytest.approx(0.5 + 0.5 * (sum(down) + sum(up)) / 8)
    assert monitor.update([1.0] * 3000, [False] * 3000).value == math.inf
    assert math.isfinite(monitor.update([1.0] * 3000, [False] * 3000).log_value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: CalibrationMonitor(tolerance=1.0),
        lambda: CalibrationMonitor(tolerance="0"),
        lambda: CalibrationMonitor().alarm(at=1.0),
        lambda: CalibrationMonitor().alarm(at=math.nan),
        lambda: CalibrationMonitor().update([0.5, 0.5], [1]),
        lambda: CalibrationMonitor().update([math.nan], [1]),
        lambda: DriftMonitor(()),
        lambda: DriftMonitor((0.5, 0.4)),
        lambda: DriftMonitor((0.5,), seed=-1),
        lambda: DriftMonitor.from_calibration([]),
        lambda: DriftMonitor((0.5,)).update([1.5]),
    ],
)
def test_what_is_malformed_is_refused(wrong) -> None:
    with pytest.raises(InputError):
        wrong()
