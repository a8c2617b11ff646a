"""The problems, and what other libraries make of them: each function returns what one of ours is compared with."""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import log_softmax, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

SEEDS = range(50)
CLIP = 1e-6
"""Confidences are drawn this far from 0 and 1 at least, where every library takes them as they are."""


@dataclass(frozen=True)
class Problem:
    """Answers drawn from known probabilities, and log-probabilities that are sharper or flatter than those."""

    logprobs: np.ndarray
    answers: np.ndarray
    new: np.ndarray
    """Log-probabilities of other rows, to which what was fitted is applied."""

    @cached_property
    def table(self) -> np.ndarray:
        return np.exp(self.logprobs)

    @cached_property
    def confidence(self) -> np.ndarray:
        return np.clip(self.table.max(axis=1), CLIP, 1 - CLIP)

    @cached_property
    def correct(self) -> np.ndarray:
        return (self.logprobs.argmax(axis=1) == self.answers).astype(np.int64)

    @cached_property
    def places(self) -> np.ndarray:
        """New confidences."""
        return np.clip(np.exp(self.new).max(axis=1), CLIP, 1 - CLIP)


def problem(seed: int) -> Problem:
    """Return 157 to 402 questions with 2 to 5 options; no row is a quantile of 7 bins, whose edges differ."""
    random = np.random.default_rng(seed)
    n, k = 7 * int(random.integers(22, 58)) + 3, int(random.integers(2, 6))
    truth = log_softmax(1.5 * random.normal(size=(n + 60, k)), axis=1)
    said = log_softmax(random.uniform(0.6, 2.0) * truth + 0.2 * random.normal(size=k), axis=1)
    answers = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)[:n]
    return Problem(said[:n], answers, said[n:])


PROBLEMS = [problem(seed) for seed in SEEDS]
Call = Callable[[Problem], Any]


def from_module(path: str, name: str) -> Any:
    """Return a name out of a module that is imported when it is needed."""
    return getattr(importlib.import_module(path), name)


def two_columns(confidence: np.ndarray) -> np.ndarray:
    return np.stack([1 - confidence, confidence], axis=1)


def netcal_metric(name: str) -> Call:
    """Return an error over 15 bins; of a table with two columns netcal would take that of the second option."""
    return lambda p: from_module("netcal.metrics", name)(15).measure(p.confidence, p.correct)


def netcal_map(method: Any, p: Problem) -> np.ndarray:
    """Return netcal's map of one confidence, at new places."""
    method.fit(p.confidence, p.correct)
    return np.ravel(method.transform(p.places))


def netcal_scaling(name: str) -> Call:
    return lambda p: netcal_map(from_module("netcal.scaling", name)(method="mle"), p)


def netcal_histogram(p: Problem) -> np.ndarray:
    return netcal_map(from_module("netcal.binning", "HistogramBinning")(bins=12), p)


def torch_binary(confidence: np.ndarray, correct: np.ndarray, norm: str) -> float:
    """Return torchmetrics' error over 15 bins, on float64 as given."""
    import torch

    error = from_module("torchmetrics.functional.classification", "binary_calibration_error")
    return float(error(torch.tensor(confidence), torch.tensor(correct), n_bins=15, norm=norm))


def torch_error(norm: str) -> Call:
    return lambda p: torch_binary(p.confidence, p.correct, norm)


def torch_classwise(p: Problem) -> float:
    """Return the mean over options of the error of "is it this one?"."""
    right = p.answers[:, None] == np.arange(p.table.shape[1])
    pairs = zip(p.table.T.copy(), right.T.astype(np.int64), strict=True)
    return float(np.mean([torch_binary(said, is_right, "l1") for said, is_right in pairs]))


def probmetrics_ks(p: Problem) -> float:
    """Return the Kolmogorov-Smirnov error of probmetrics, which works in float32."""
    import torch

    distributions = importlib.import_module("probmetrics.distributions")
    metric = from_module("probmetrics.metrics", "KolmogorovSmirnovCalibrationMetric")()
    right = distributions.CategoricalDirac(torch.tensor(p.correct), n_classes=2)
    return float(metric.compute(right, distributions.CategoricalProbs(torch.tensor(two_columns(p.confidence)))))


def probmetrics_map(name: str) -> Call:
    """Return probabilities of new rows by a calibrator of probmetrics that was fitted on the problem's."""

    def call(p: Problem) -> np.ndarray:
        method = from_module("probmetrics.calibrators", f"{name}Calibrator")()
        method.fit(p.table, p.answers)
        return np.asarray(method.predict_proba(np.exp(p.new)))

    return call


def sklearn_platt(p: Problem) -> np.ndarray:
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logit(p.confidence)[:, None], p.correct)
    return fitted.predict_proba(logit(p.places)[:, None])[:, 1]


def sklearn_matrix(p: Problem) -> np.ndarray:
    """Return multinomial logistic regression of the log-probabilities, which for two options is one of their gap."""
    fitted = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit(p.logprobs, p.answers)
    return fitted.predict_proba(p.new)


def sklearn_temperature(p: Problem) -> np.ndarray:
    fitted = from_module("sklearn.calibration", "_TemperatureScaling")().fit(p.logprobs, p.answers)
    return softmax(fitted.beta_ * p.new, axis=1)


def sklearn_isotonic(p: Problem) -> np.ndarray:
    return IsotonicRegression(out_of_bounds="clip").fit(p.confidence, p.correct).predict(p.places)


def sklearn_table(name: str, **settings: Any) -> Call:
    """Return a metric of probabilities of all options."""
    return lambda p: from_module("sklearn.metrics", name)(
        p.answers, p.table, labels=np.arange(p.table.shape[1]), **settings
    )


def sklearn_pair(name: str) -> Call:
    return lambda p: from_module("sklearn.metrics", name)(p.correct, p.confidence)


def sklearn_curve(strategy: str) -> Call:
    def call(p: Problem) -> np.ndarray:
        curve = from_module("sklearn.calibration", "calibration_curve")
        return np.stack(curve(p.correct, p.confidence, n_bins=7, strategy=strategy))

    return call


def sklearn_beta(p: Problem) -> np.ndarray:
    """Return logistic regression on both logarithms; without the one whose slope is negative, where there is one."""
    features, new = ends(p.confidence), ends(p.places)
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(features, p.correct)
    kept = fitted.coef_[0] >= 0
    fitted.fit(features[:, kept], p.correct)
    assert (fitted.coef_ >= 0).all()
    return fitted.predict_proba(new[:, kept])[:, 1]


def betacal(p: Problem) -> np.ndarray:
    """Return beta calibration of its authors."""
    fitted = from_module("betacal", "BetaCalibration")(parameters="abm").fit(p.confidence, p.correct)
    return fitted.predict(p.places)


def venn_abers(p: Problem) -> np.ndarray:
    """Return p0 and p1 of new places."""
    fitted = from_module("venn_abers", "VennAbers")()
    fitted.fit(two_columns(p.confidence), p.correct)
    return fitted.predict_proba(two_columns(p.places))[1]


OFF_DIAGONAL, INTERCEPT = 0.05, 0.02
"""Strengths of the penalties of Dirichlet calibration, given to both."""


def start_of(p: Problem) -> Problem:
    """Return the first 150 questions; dirichletcal compiles for each number of rows."""
    return Problem(p.logprobs[:150], p.answers[:150], p.new)


def dirichletcal(whole: Problem) -> np.ndarray:
    """Return Dirichlet calibration of its authors; they sum squares where we take their mean."""
    p = start_of(whole)
    k = p.table.shape[1]
    strengths = {"reg_lambda": OFF_DIAGONAL / (k * (k - 1)), "reg_mu": INTERCEPT / k}
    method = from_module("dirichletcal", "FullDirichletCalibrator")(**strengths, ref_row=False)
    return method.fit(p.table, p.answers).predict_proba(np.exp(p.new))


COVERAGE = 0.85


class Said(ClassifierMixin, BaseEstimator):
    """A classifier for MAPIE whose features are the probabilities."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.classes_ = np.arange(k)

    def fit(self, rows: np.ndarray, answers: np.ndarray) -> "Said":
        return self

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def predict(self, rows: np.ndarray) -> np.ndarray:
        return rows.argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def with_first(inside: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the sets with the first choice in each, which ours always hold."""
    found = np.array(inside, dtype=bool)
    found[np.arange(len(new)), new.argmax(axis=1)] = True
    return found


def summed(table: np.ndarray, penalty: float) -> np.ndarray:
    """Return APS scores by sorting: the sum down to an option; with a penalty RAPS, where two options go free."""
    order = np.argsort(-table, axis=1)
    ranks = np.argsort(order, axis=1)
    sums = np.take_along_axis(np.cumsum(np.take_along_axis(table, order, axis=1), axis=1), ranks, axis=1)
    return (sums + penalty * np.maximum(ranks + 1 - 2, 0)).round(12)  # all sums of all options are one and the same


def crepes_sets(score: Callable[[np.ndarray], np.ndarray]) -> Call:
    """Return sets by p-values that are not smoothed."""

    def call(p: Problem) -> np.ndarray:
        fitted = from_module("crepes", "ConformalClassifier")()
        fitted.fit(score(p.table)[np.arange(len(p.answers)), p.answers])
        return with_first(fitted.predict_set(score(np.exp(p.new)), confidence=COVERAGE, smoothing=False), p.new)

    return call


def mapie_sets(p: Problem) -> np.ndarray:
    made = from_module("mapie.classification", "SplitConformalClassifier")(
        Said(p.table.shape[1]), confidence_level=COVERAGE, conformity_score="lac", prefit=True
    )
    made.conformalize(p.table, p.answers)
    return with_first(made.predict_set(np.exp(p.new))[1][:, :, 0], p.new)


def mapie_metric(name: str, p: Problem, **settings: Any) -> float:
    return float(from_module("mapie.metrics.calibration", name)(p.correct, p.confidence, **settings))


def mapie_ece(p: Problem) -> float:
    return mapie_metric("expected_calibration_error", p, num_bins=16, split_strategy="uniform")


def mapie_test(name: str) -> Call:
    """Return a test's statistic and p-value."""
    return lambda p: [mapie_metric(f"{name}_statistic", p), mapie_metric(f"{name}_p_value", p)]


def mapie_spiegelhalter(p: Problem) -> list[float]:
    """Return the statistic and the two-sided p-value; MAPIE's own is one-sided."""
    statistic, one_sided = mapie_test("spiegelhalter")(p)
    return [statistic, 2 * min(one_sided, 1 - one_sided)]


def mapie_aurc(p: Problem) -> float:
    return 1 - from_module("mapie.metrics.uncertainty", "auarc")(p.correct, p.confidence)


def relplot(p: Problem) -> float:
    return from_module("relplot", "smECE")(p.confidence, p.correct)


def ends(confidence: np.ndarray) -> np.ndarray:
    return np.stack([np.log(confidence), -np.log1p(-confidence)], axis=1)


@contextlib.contextmanager
def their_habits_contained() -> Iterator[None]:
    """Keep what libraries do to the process, warnings and numpy's error settings, to one call."""
    with warnings.catch_warnings(), np.errstate():
        warnings.simplefilter("ignore")
        yield
