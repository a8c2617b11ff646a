"""Calibrators: frozen records of fitted numbers, and the functions that fit them. One method, one file."""

from calibwrap.calibrators._confidence import ConfidenceCalibrator
from calibwrap.calibrators._fits import (
    CONFIDENCE_FITS,
    ENTRY_POINTS,
    FITS,
    KINDS,
    FitSpec,
    calibrator_class,
    confidence_fit,
    fit_named,
)
from calibwrap.calibrators.auto import fit_auto, fit_auto_confidence
from calibwrap.calibrators.batch import fit_batch
from calibwrap.calibrators.catto_head import CattoHead
from calibwrap.calibrators.chain import Chain, chain
from calibwrap.calibrators.daca import fit_daca, fit_naive_kl
from calibwrap.calibrators.identity import Identity
from calibwrap.calibrators.isotonic import Isotonic, fit_isotonic
from calibwrap.calibrators.matrix_scaling import MatrixScaling, fit_matrix_scaling
from calibwrap.calibrators.platt import Platt, fit_platt
from calibwrap.calibrators.soft_labels import fit_matched_mean
from calibwrap.calibrators.temperature import Temperature, fit_temperature
from calibwrap.calibrators.vector_scaling import VectorScaling, fit_vector_scaling

__all__ = [
    "CONFIDENCE_FITS",
    "ENTRY_POINTS",
    "FITS",
    "KINDS",
    "CattoHead",
    "Chain",
    "ConfidenceCalibrator",
    "FitSpec",
    "Identity",
    "Isotonic",
    "MatrixScaling",
    "Platt",
    "Temperature",
    "VectorScaling",
    "calibrator_class",
    "chain",
    "confidence_fit",
    "fit_auto",
    "fit_auto_confidence",
    "fit_batch",
    "fit_daca",
    "fit_isotonic",
    "fit_matched_mean",
    "fit_matrix_scaling",
    "fit_naive_kl",
    "fit_named",
    "fit_platt",
    "fit_temperature",
    "fit_vector_scaling",
]
