"""Hostile arrays and settings: a named error or an answer, never a crash, NaN or hang.

`CALIBWRAP_HOSTILE=10000 python -m pytest tests/hostile -s` takes so many inputs of each kind, at random, and prints
what came of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap import calibrators, metrics
from calibwrap.guarantees import conformal_quantile, nonconformity, risk_bound

from .inputs import SETTINGS, pairs, tables
from .judging import EXAMPLES, hostile, judge, sound, table_of_outcomes, unit


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    yield
    if EXAMPLES >= 1000:
        print("\n" + "\n".join(line for kind in ("pairs", "tables", "settings") for line in table_of_outcomes(kind)))


def state(confidence: Any, correct: Any) -> list[float]:
    seen = metrics.CalibrationState.empty(5).update(confidence, correct)
    return [seen.ece(), seen.debiased_ece()] if seen.n else []


UNIT = ["ece", "smooth_ece", "debiased_ece", "sweep_ece", "auroc", "aurc", "excess_aurc", "top_label_brier", "ks_error"]
ON_PAIRS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], None]]] = {
    **{name: (getattr(metrics, name), unit) for name in UNIT},
    "ece l2 quantile": (lambda a, b: metrics.ece(a, b, 4, strategy="quantile", norm="l2"), unit),
    "ece max": (lambda a, b: metrics.ece(a, b, norm="max"), unit),
    "ks_test": (metrics.ks_test, sound),
    "spiegelhalter_test": (metrics.spiegelhalter_test, sound),
    "brier_decomposition": (metrics.brier_decomposition, sound),
    "reliability_curve": (lambda a, b: metrics.reliability_curve(a, b).count, sound),
    "risk_coverage_curve": (metrics.risk_coverage_curve, sound),
    "coverage_at_risk": (lambda a, b: metrics.coverage_at_risk(a, b, 0.3), unit),
    "risk_at_coverage": (lambda a, b: metrics.risk_at_coverage(a, b, 0.5), unit),
    "accuracy": (lambda a, b: metrics.accuracy(b), unit),
    "bootstrap_ci": (lambda a, b: metrics.bootstrap_ci(metrics.ece, a, b, n_resamples=3), unit),
    "CalibrationState": (state, unit),
    "fit_platt": (cw.fit_platt, sound),
    "fit_beta": (cw.fit_beta, sound),
    "fit_isotonic": (cw.fit_isotonic, sound),
    "fit_histogram_binning": (cw.fit_histogram_binning, sound),
    "fit_venn_abers": (cw.fit_venn_abers, sound),
    "fit_guard": (lambda a, b: cw.fit_guard(a, b, risk=0.6, delta=0.5), sound),
    "CalibrationMonitor": (lambda a, b: cw.CalibrationMonitor().update(a, b).value, sound),
    "DriftMonitor": (lambda a, b: cw.DriftMonitor.from_calibration([0.5]).update(a).value, sound),
    "conformal_quantile": (lambda a, b: str(conformal_quantile(a, 0.5)), sound),
    "Platt": (lambda a, b: cw.Platt(1.0, 0.0)(a), unit),
}
"""Entry points on (confidence, correct), and what their answers must be."""


@hostile
@given(pairs())
def test_confidences(pair: tuple[Any, Any]) -> None:
    confidence, correct = pair
    for name, (call, check) in ON_PAIRS.items():
        judge("pairs", name, lambda call=call: call(confidence, correct), check)


def with_groups(rows: Any, answers: Any) -> Any:
    return cw.fit_group_temperature(rows, answers, groups=["a", "b"] * 5)


REFERENCE = np.log([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]] * 5)
ON_TABLES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], None]]] = {
    "OptionScores": (lambda a, b: cw.OptionScores(a, readout="r"), sound),
    "TokenScores": (lambda a, b: cw.TokenScores(a), lambda found: None),
    "fit_temperature": (cw.fit_temperature, sound),
    "fit_vector_scaling": (cw.fit_vector_scaling, sound),
    "fit_matrix_scaling": (cw.fit_matrix_scaling, sound),
    "fit_dirichlet": (lambda a, b: cw.fit_dirichlet(a, b, off_diagonal=0.1, intercept=0.1), sound),
    "fit_top_label": (cw.fit_top_label, sound),
    "fit_class_wise": (cw.fit_class_wise, sound),
    "fit_group_temperature": (with_groups, sound),
    "fit_batch": (lambda a, b: cw.fit_batch(a), sound),
    "fit_daca": (lambda a, b: cw.fit_daca(a, REFERENCE), sound),
    "fit_daca reference": (lambda a, b: cw.fit_daca(REFERENCE, a), sound),
    "fit_matched_mean": (lambda a, b: cw.fit_matched_mean(a, REFERENCE), sound),
    "fit_sets": (lambda a, b: cw.fit_sets(a, b, method="raps"), sound),
    "nonconformity": (lambda a, b: nonconformity(cw.OptionScores(a, readout="r"), "aps")[0].shape, sound),
    "Temperature": (lambda a, b: cw.Temperature(0.01)(a), sound),
    "MatrixScaling": (lambda a, b: calibrators.MatrixScaling(np.eye(3), np.zeros(3))(a), sound),
    "brier": (metrics.brier, sound),
    "classwise_ece": (metrics.classwise_ece, unit),
    "nll": (lambda a, b: min(metrics.nll(a, b), 1e300), sound),
}
"""Entry points on (logits, answers); a loss may be infinite, where a right option has probability 0."""


@hostile
@given(tables())
def test_options(table: tuple[Any, Any]) -> None:
    rows, answers = table
    for name, (call, check) in ON_TABLES.items():
        judge("tables", name, lambda call=call: call(rows, answers), check)


SAID, RIGHT = np.linspace(0.05, 0.95, 40), np.arange(40) % 3 > 0
ROWS, ANSWERS = np.log(np.random.default_rng(0).dirichlet(np.ones(3), 40)), np.arange(40) % 3
WITH: dict[str, Callable[[Any], Any]] = {
    "n_bins": lambda x: metrics.ece(SAID, RIGHT, x),
    "strategy": lambda x: metrics.ece(SAID, RIGHT, strategy=x),
    "norm": lambda x: metrics.ece(SAID, RIGHT, norm=x),
    "risk of coverage": lambda x: metrics.coverage_at_risk(SAID, RIGHT, x),
    "coverage of risk": lambda x: metrics.risk_at_coverage(SAID, RIGHT, x),
    "level": lambda x: metrics.bootstrap_ci(metrics.ece, SAID, RIGHT, n_resamples=3, level=x),
    "bins of a state": lambda x: metrics.CalibrationState.empty(x).n_bins,
    "guard's risk": lambda x: cw.fit_guard(SAID, RIGHT, risk=x, delta=0.5),
    "guard's delta": lambda x: cw.fit_guard(SAID, RIGHT, risk=0.5, delta=x),
    "guard's seed": lambda x: cw.fit_guard(SAID, RIGHT, risk=0.6, delta=0.5, seed=x),
    "risk_bound": lambda x: risk_bound(1, x, 0.1),
    "coverage": lambda x: cw.fit_sets(ROWS, ANSWERS, coverage=x),
    "sets' method": lambda x: cw.fit_sets(ROWS, ANSWERS, method=x),
    "penalty": lambda x: cw.fit_sets(ROWS, ANSWERS, method="raps", penalty=x),
    "free_ranks": lambda x: cw.fit_sets(ROWS, ANSWERS, method="raps", free_ranks=x),
    "tolerance": lambda x: cw.CalibrationMonitor(tolerance=x).update([0.5], [1]).value,
    "clip": lambda x: cw.fit_platt(SAID, RIGHT, clip=x),
    "bins of binning": lambda x: cw.fit_histogram_binning(SAID, RIGHT, n_bins=x),
    "ridge": lambda x: cw.fit_vector_scaling(ROWS, ANSWERS, ridge=x),
    "off_diagonal": lambda x: cw.fit_dirichlet(ROWS, ANSWERS, off_diagonal=x, intercept=0.1),
    "bounds": lambda x: cw.fit_temperature(ROWS, ANSWERS, bounds=x),
    "value": lambda x: cw.Temperature(value=x),
    "temperature's level": lambda x: cw.Temperature(2.0, level=x),
    "slope": lambda x: cw.Platt(x, 0.0),
    "weights": lambda x: calibrators.VectorScaling(x, [0.0]),
    "parts": lambda x: cw.chain(x),
    "prompt": lambda x: cw.Question(x, ["a", "b"]),
    "options": lambda x: cw.Question("?", x),
    "answer": lambda x: cw.Question("?", ["a", "b"], answer=x),
}
"""Entry points by the one setting that is hostile."""


@hostile
@given(st.data())
def test_settings(data: st.DataObject) -> None:
    value = data.draw(SETTINGS)
    for name, call in WITH.items():
        judge("settings", name, lambda call=call: call(value), sound)
