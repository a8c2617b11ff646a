"""One table of (what, whose, ours, theirs, tolerance), each row on 50 random problems drawn with fixed seeds.

All libraries come with `[dev]` but dirichletcal, which asks for Python 3.12 and jax, and compiles for minutes: its row
runs where `pip install --no-deps dirichletcal jax jaxlib ml_dtypes opt_einsum` (with `--ignore-requires-python` before
3.12) has brought it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import calibwrap as cw
from calibwrap import metrics
from calibwrap.guarantees import fit_sets

from .libraries import (
    CLIP,
    COVERAGE,
    INTERCEPT,
    OFF_DIAGONAL,
    PROBLEMS,
    Call,
    Problem,
    betacal,
    crepes_sets,
    dirichletcal,
    mapie_aurc,
    mapie_ece,
    mapie_sets,
    mapie_spiegelhalter,
    mapie_test,
    netcal_histogram,
    netcal_metric,
    netcal_scaling,
    probmetrics_ks,
    probmetrics_map,
    relplot,
    sklearn_beta,
    sklearn_curve,
    sklearn_isotonic,
    sklearn_matrix,
    sklearn_pair,
    sklearn_platt,
    sklearn_table,
    sklearn_temperature,
    start_of,
    summed,
    their_habits_contained,
    torch_classwise,
    torch_error,
    venn_abers,
)


@dataclass(frozen=True)
class Row:
    """A number or an array of ours, the same of another library, and how far apart they may be, absolutely."""

    name: str
    needs: str
    """Module that must be importable."""
    ours: Call
    theirs: Call
    tolerance: float
    why: str = ""
    """Why the tolerance is wider than rounding, or what is left out."""
    likelihood: str = ""
    """Whose likelihood both maximise, that of "options" or of "confidence"; on its own rows ours is never below."""
    beyond: int = 0
    """Problems on which the other one stops so early that it is further away than that."""


def our_curve(strategy: str) -> Call:
    def call(p: Problem) -> np.ndarray:
        curve = metrics.reliability_curve(p.confidence, p.correct, n_bins=7, strategy=strategy)
        filled = curve.count > 0
        return np.stack([curve.accuracy[filled], curve.confidence[filled]])

    return call


def our_dirichlet(whole: Problem) -> np.ndarray:
    p = start_of(whole)
    return np.exp(cw.fit_dirichlet(p.logprobs, p.answers, off_diagonal=OFF_DIAGONAL, intercept=INTERCEPT)(p.new))


def our_sets(method: Any) -> Call:
    def call(p: Problem) -> np.ndarray:
        rule = fit_sets(p.logprobs, p.answers, coverage=COVERAGE, method=method)
        return rule(cw.OptionScores(p.new, readout=""))

    return call


def our_interval(p: Problem) -> np.ndarray:
    return np.stack(cw.fit_venn_abers(p.confidence, p.correct).interval(p.places), axis=1)


def our_test(test: Callable[..., Any]) -> Call:
    """Return a test of ours as MAPIE's comes."""
    return lambda p: [test(p.confidence, p.correct).statistic, test(p.confidence, p.correct).p_value]


def on_table(metric: Callable[..., Any]) -> Call:
    """Return a metric of ours on (probabilities, answers)."""
    return lambda p: metric(p.table, p.answers)


def on_pair(metric: Callable[..., Any], **settings: Any) -> Call:
    """Return a metric of ours on (confidence, correct)."""
    return lambda p: metric(p.confidence, p.correct, **settings)


def on_places(fit: Callable[..., Any], **settings: Any) -> Call:
    """Return a map of one confidence of ours, at new places."""
    return lambda p: fit(p.confidence, p.correct, **settings)(p.places)


def on_options(fit: Callable[..., Any]) -> Call:
    """Return probabilities of new rows by a fit of options of ours."""
    return lambda p: np.exp(fit(p.logprobs, p.answers)(p.new))


WIDE = {"n_bins": 12, "strategy": "uniform", "monotone": False}
EARLY = "its search stops early"
TABLE = [
    Row("ece", "netcal", on_pair(metrics.ece), netcal_metric("ECE"), 1e-12),
    Row("mce", "netcal", on_pair(metrics.ece, norm="max"), netcal_metric("MCE"), 1e-12),
    Row("ece", "torchmetrics", on_pair(metrics.ece), torch_error("l1"), 1e-12),
    Row("rmsce", "torchmetrics", on_pair(metrics.ece, norm="l2"), torch_error("l2"), 1e-12),
    Row("ece", "mapie", on_pair(metrics.ece), mapie_ece, 1e-12, "n_bins=16 makes its 15 bins"),
    Row("classwise ece", "torchmetrics", on_table(metrics.classwise_ece), torch_classwise, 1e-12),
    Row("uniform curve", "sklearn", our_curve("uniform"), sklearn_curve("uniform"), 1e-12),
    Row("quantile curve", "sklearn", our_curve("quantile"), sklearn_curve("quantile"), 1e-12),
    Row("smooth ece", "relplot", on_pair(metrics.smooth_ece), relplot, 3e-3, "its grid and width are coarse"),
    Row("brier", "sklearn", on_table(metrics.brier), sklearn_table("brier_score_loss", scale_by_half=False), 1e-12),
    Row("top-label brier", "sklearn", on_pair(metrics.top_label_brier), sklearn_pair("brier_score_loss"), 1e-12),
    Row("nll", "sklearn", lambda p: metrics.nll(p.logprobs, p.answers), sklearn_table("log_loss"), 1e-12),
    Row("auroc", "sklearn", on_pair(metrics.auroc), sklearn_pair("roc_auc_score"), 1e-12),
    Row("aurc", "mapie", on_pair(metrics.aurc), mapie_aurc, 1e-12, "one less its area of accuracy; no ties here"),
    Row("ks error", "probmetrics", on_pair(metrics.ks_error), probmetrics_ks, 1e-5, "float32"),
    Row("ks test", "mapie", our_test(metrics.ks_test), mapie_test("kolmogorov_smirnov"), 1e-6, "it adds 1e-8 of noise"),
    Row("spiegelhalter", "mapie", our_test(metrics.spiegelhalter_test), mapie_spiegelhalter, 1e-9),
    Row("temperature", "sklearn", on_options(cw.fit_temperature), sklearn_temperature, 1e-6, EARLY, "options"),
    Row(
        "temperature",
        "probmetrics",
        on_options(cw.fit_temperature),
        probmetrics_map("TemperatureScaling"),
        1e-6,
        EARLY,
        "options",
    ),
    Row(
        "vector",
        "probmetrics",
        on_options(cw.fit_vector_scaling),
        probmetrics_map("VectorScaling"),
        3e-3,
        EARLY,
        "options",
    ),
    Row(
        "matrix",
        "probmetrics",
        on_options(cw.fit_matrix_scaling),
        probmetrics_map("MatrixScaling"),
        5e-3,
        EARLY,
        "options",
    ),
    Row("matrix", "sklearn", on_options(cw.fit_matrix_scaling), sklearn_matrix, 5e-4, "our ridge is 1e-6", "options"),
    Row("dirichlet", "dirichletcal", our_dirichlet, dirichletcal, 2e-5, EARLY),
    Row("platt", "sklearn", on_places(cw.fit_platt), sklearn_platt, 1e-6, EARLY, "confidence"),
    Row("platt", "netcal", on_places(cw.fit_platt), netcal_scaling("LogisticCalibration"), 1e-4, EARLY, "confidence"),
    Row("beta", "sklearn", on_places(cw.fit_beta), sklearn_beta, 1e-6, EARLY, "confidence"),
    Row(
        "beta", "netcal", on_places(cw.fit_beta), netcal_scaling("BetaCalibration"), 1e-3, EARLY, "confidence", beyond=1
    ),
    Row("beta", "betacal", on_places(cw.fit_beta), betacal, 1e-2, EARLY, "confidence"),
    Row("isotonic", "sklearn", on_places(cw.fit_isotonic), sklearn_isotonic, 1e-12, "", "confidence"),
    Row("histogram", "netcal", on_places(cw.fit_histogram_binning, **WIDE), netcal_histogram, 1e-12, "", "confidence"),
    Row("venn-abers", "venn_abers", our_interval, venn_abers, 1e-12),
    Row("lac sets", "crepes", our_sets("lac"), crepes_sets(lambda table: 1 - table), 0),
    Row("lac sets", "mapie", our_sets("lac"), mapie_sets, 0, "its APS and RAPS draw at random"),
    Row("aps sets", "crepes", our_sets("aps"), crepes_sets(lambda table: summed(table, 0.0)), 0),
    Row("raps sets", "crepes", our_sets("raps"), crepes_sets(lambda table: summed(table, 0.01)), 0),
]
"""Of the debiased and the sweep error, the Brier decomposition, top-label and class-wise maps (isotonic and binning
beneath), DACA, group temperatures, guards and monitors none of these libraries has the like: their own tests evaluate
the definitions slowly."""


def both(row: Row, p: Problem) -> tuple[np.ndarray, np.ndarray]:
    with their_habits_contained():
        theirs = np.asarray(row.theirs(p), dtype=np.float64)
    return np.asarray(row.ours(p), dtype=np.float64), theirs


def name_of(row: Row) -> str:
    return f"{row.name} | {row.needs}"


def need(row: Row) -> None:
    if row.needs == "dirichletcal":
        with their_habits_contained():
            pytest.importorskip(row.needs, reason="dirichletcal asks for Python 3.12 and jax, and is not part of [dev]")


few_rows_will_do = pytest.mark.filterwarnings("ignore:Method .* needs:calibwrap.errors.CalibrationWarning")
"""Some problems have fewer rows than a matrix should have; the optimum is compared all the same."""


@few_rows_will_do
@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_another_library_finds_the_same(row: Row) -> None:
    need(row)
    apart = []
    for one in PROBLEMS:
        ours, theirs = both(row, one)
        assert ours.shape == theirs.shape
        apart.append(np.abs(ours - theirs).max())
    assert sum(difference > row.tolerance for difference in apart) <= row.beyond, sorted(apart)[-3:]


def log_loss(probability: np.ndarray, p: Problem, likelihood: str) -> float:
    if likelihood == "options":
        return float(-np.log(probability[np.arange(len(p.answers)), p.answers]).mean())
    return float(-np.log(np.clip(np.where(p.correct == 1, probability, 1 - probability), CLIP, 1)).mean())


@few_rows_will_do
@pytest.mark.parametrize("row", [row for row in TABLE if row.likelihood], ids=name_of)
def test_no_library_finds_a_likelier_fit(row: Row) -> None:
    """Where two fits of one likelihood differ, on the rows of the fit it is ours that is at its maximum."""
    need(row)
    for one in PROBLEMS:
        ours, theirs = (log_loss(found, one, row.likelihood) for found in both(row, replace(one, new=one.logprobs)))
        assert ours <= theirs + 1e-5  # our ridge of vector and matrix scaling costs a little less
