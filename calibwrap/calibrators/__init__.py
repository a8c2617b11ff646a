"""Calibrators: frozen records of fitted numbers, and the functions that fit them. One method, one file."""

from calibwrap.calibrators._fits import ENTRY_POINTS, FITS, KINDS, FitSpec, calibrator_class, fit_named
from calibwrap.calibrators.chain import Chain, chain
from calibwrap.calibrators.daca import fit_daca, fit_naive_kl
from calibwrap.calibrators.identity import Identity
from calibwrap.calibrators.matrix_scaling import MatrixScaling, fit_matrix_scaling
from calibwrap.calibrators.temperature import Temperature, fit_temperature
from calibwrap.calibrators.vector_scaling import VectorScaling, fit_vector_scaling

__all__ = [
    "ENTRY_POINTS",
    "FITS",
    "KINDS",
    "Chain",
    "FitSpec",
    "Identity",
    "MatrixScaling",
    "Temperature",
    "VectorScaling",
    "calibrator_class",
    "chain",
    "fit_daca",
    "fit_matrix_scaling",
    "fit_naive_kl",
    "fit_named",
    "fit_temperature",
    "fit_vector_scaling",
]
