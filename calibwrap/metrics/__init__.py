"""Metrics of calibration, ranking and accuracy: pure functions of arrays, and a state for streams.

`confidence` is the probability of the answer given and `correct` whether it was right; `probabilities`, `logprobs` and
`answers` speak of all options. Bins are [lo, hi) with the last one closed. Only numpy is imported.
"""

from calibwrap.metrics.binned import classwise_ece, ece
from calibwrap.metrics.bootstrap import bootstrap_ci, bootstrap_difference
from calibwrap.metrics.cumulative import ks_error
from calibwrap.metrics.debiased import debiased_ece
from calibwrap.metrics.decomposition import BrierDecomposition, brier_decomposition
from calibwrap.metrics.option_state import OptionState
from calibwrap.metrics.ranking import RiskCoverageCurve, aurc, auroc, risk_coverage_curve
from calibwrap.metrics.reliability import ReliabilityCurve, reliability_curve
from calibwrap.metrics.scoring import accuracy, brier, nll, top_label_brier
from calibwrap.metrics.selective import coverage_at_risk, excess_aurc, risk_at_coverage
from calibwrap.metrics.significance import CalibrationTest, ks_test, spiegelhalter_test
from calibwrap.metrics.smooth import smooth_ece
from calibwrap.metrics.state import CalibrationState
from calibwrap.metrics.sweep import sweep_ece

__all__ = [
    "BrierDecomposition",
    "CalibrationState",
    "CalibrationTest",
    "OptionState",
    "ReliabilityCurve",
    "RiskCoverageCurve",
    "accuracy",
    "aurc",
    "auroc",
    "bootstrap_ci",
    "bootstrap_difference",
    "brier",
    "brier_decomposition",
    "classwise_ece",
    "coverage_at_risk",
    "debiased_ece",
    "ece",
    "excess_aurc",
    "ks_error",
    "ks_test",
    "nll",
    "reliability_curve",
    "risk_at_coverage",
    "risk_coverage_curve",
    "smooth_ece",
    "spiegelhalter_test",
    "sweep_ece",
    "top_label_brier",
]
