"""The public conformance kit: an exact toy model, and checks for adapters, calibrators, fits and decoders."""

from calibwrap.testing.adapter_checks import ADAPTER_CHECKS, adapter_checks
from calibwrap.testing.adapter_probe import AdapterProbe
from calibwrap.testing.calibrator_checks import CALIBRATOR_CHECKS, calibrator_checks
from calibwrap.testing.calibrator_probe import CalibratorProbe
from calibwrap.testing.checks import Check, CheckFailed, NotApplicable, run_checks
from calibwrap.testing.confidence_checks import (
    CONFIDENCE_CHECKS,
    CONFIDENCE_FIT_CHECKS,
    ConfidenceFitProbe,
    ConfidenceProbe,
    confidence_fit_checks,
)
from calibwrap.testing.decoder_checks import DECODER_CHECKS, decoder_checks
from calibwrap.testing.decoder_probe import DecoderProbe
from calibwrap.testing.fit_checks import FIT_CHECKS, FitProbe, fit_checks
from calibwrap.testing.toy import ToyAdapter, ToyModel
from calibwrap.testing.toy_questions import exact_ece, option_logprobs, toy_pair, toy_questions
from calibwrap.testing.toy_rows import toy_rows, toy_rows_of_two

__all__ = [
    "ADAPTER_CHECKS",
    "CALIBRATOR_CHECKS",
    "CONFIDENCE_CHECKS",
    "CONFIDENCE_FIT_CHECKS",
    "DECODER_CHECKS",
    "FIT_CHECKS",
    "AdapterProbe",
    "CalibratorProbe",
    "Check",
    "CheckFailed",
    "ConfidenceFitProbe",
    "ConfidenceProbe",
    "DecoderProbe",
    "FitProbe",
    "NotApplicable",
    "ToyAdapter",
    "ToyModel",
    "adapter_checks",
    "calibrator_checks",
    "confidence_fit_checks",
    "decoder_checks",
    "exact_ece",
    "fit_checks",
    "option_logprobs",
    "run_checks",
    "toy_pair",
    "toy_questions",
    "toy_rows",
    "toy_rows_of_two",
]
