"""What follows from calibrated probabilities: answers or abstentions, sets of options, and monitors, with promises."""

from calibwrap.guarantees.conformal import AnswerSet, ConformalSets, conformal_quantile, fit_sets
from calibwrap.guarantees.monitor import CalibrationMonitor, DriftMonitor
from calibwrap.guarantees.nonconformity import SetMethod, nonconformity
from calibwrap.guarantees.saved import SavedGuarantee, load_guarantee, load_monitor, save_guarantee, save_monitor
from calibwrap.guarantees.selective import Abstention, Guard, fit_guard, risk_bound

__all__ = [
    "Abstention",
    "AnswerSet",
    "CalibrationMonitor",
    "ConformalSets",
    "DriftMonitor",
    "Guard",
    "SavedGuarantee",
    "SetMethod",
    "conformal_quantile",
    "fit_guard",
    "fit_sets",
    "load_guarantee",
    "load_monitor",
    "nonconformity",
    "risk_bound",
    "save_guarantee",
    "save_monitor",
]
