"""The public conformance kit: an exact toy model, and checks for adapters, calibrators, fits and decoders."""

from calibwrap.testing.adapter_checks import ADAPTER_CHECKS, adapter_checks
from calibwrap.testing.adapter_probe import AdapterProbe
from calibwrap.testing.checks import Check, CheckFailed, NotApplicable, run_checks
from calibwrap.testing.toy import ToyAdapter, ToyModel
from calibwrap.testing.toy_questions import exact_ece, option_logprobs, toy_pair, toy_questions

__all__ = [
    "ADAPTER_CHECKS",
    "AdapterProbe",
    "Check",
    "CheckFailed",
    "NotApplicable",
    "ToyAdapter",
    "ToyModel",
    "adapter_checks",
    "exact_ece",
    "option_logprobs",
    "run_checks",
    "toy_pair",
    "toy_questions",
]
