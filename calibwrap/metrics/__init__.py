"""Metrics of calibration, ranking and accuracy: pure functions of arrays, and a state for streams.

`confidence` is the probability of the answer given and `correct` whether it was right; `probabilities`, `logprobs` and
`answers` speak of all options. Bins are [lo, hi) with the last one closed. Only numpy is imported.
"""

from calibwrap.metrics.binned import classwise_ece, ece
from calibwrap.metrics.bootstrap import bootstrap_ci, bootstrap_difference
from calibwrap.metrics.ranking import RiskCoverageCurve, aurc, auroc, risk_coverage_curve
from calibwrap.metrics.reliability import ReliabilityCurve, reliability_curve
from calibwrap.metrics.scoring import accuracy, brier, nll, top_label_brier
from calibwrap.metrics.smooth import smooth_ece
from calibwrap.metrics.state import CalibrationState

__all__ = [
    "CalibrationState",
    "ReliabilityCurve",
    "RiskCoverageCurve",
    "accuracy",
    "aurc",
    "auroc",
    "bootstrap_ci",
    "bootstrap_difference",
    "brier",
    "classwise_ece",
    "ece",
    "nll",
    "reliability_curve",
    "risk_coverage_curve",
    "smooth_ece",
    "top_label_brier",
]
