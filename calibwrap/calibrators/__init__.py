"""Calibrators: frozen records of fitted numbers, and the functions that fit them. One method, one file."""

from typing import TYPE_CHECKING

from calibwrap.calibrators.chain import Chain, chain
from calibwrap.on_demand import door

if TYPE_CHECKING:
    from calibwrap.calibrators._confidence import ConfidenceCalibrator
    from calibwrap.calibrators._fits import (
        CONFIDENCE_FITS,
        ENTRY_POINTS,
        FITS,
        KINDS,
        PROBE,
        FitSpec,
        calibrator_class,
        check_options,
        confidence_fit,
        default_fit,
        fit_for,
        fit_named,
        groupless_fit,
        options_of,
    )
    from calibwrap.calibrators._report import with_origin, with_report
    from calibwrap.calibrators.auto import fit_auto, fit_auto_confidence
    from calibwrap.calibrators.batch import fit_batch
    from calibwrap.calibrators.beta import Beta, fit_beta
    from calibwrap.calibrators.catto_head import CattoHead
    from calibwrap.calibrators.class_wise import ClassWise, fit_class_wise
    from calibwrap.calibrators.daca import fit_daca, fit_naive_kl
    from calibwrap.calibrators.dirichlet import fit_dirichlet
    from calibwrap.calibrators.group_temperature import (
        GroupTemperature,
        fit_group_temperature,
        on_questions,
        with_groups,
    )
    from calibwrap.calibrators.histogram_binning import HistogramBinning, fit_histogram_binning
    from calibwrap.calibrators.identity import Identity
    from calibwrap.calibrators.isotonic import Isotonic, fit_isotonic
    from calibwrap.calibrators.matrix_scaling import MatrixScaling, fit_matrix_scaling
    from calibwrap.calibrators.platt import Platt, fit_platt
    from calibwrap.calibrators.probe import Probe, fit_probe
    from calibwrap.calibrators.soft_labels import fit_matched_mean
    from calibwrap.calibrators.temperature import Temperature, fit_temperature
    from calibwrap.calibrators.top_label import TopLabel, fit_top_label
    from calibwrap.calibrators.vector_scaling import VectorScaling, fit_vector_scaling
    from calibwrap.calibrators.venn_abers import VennAbers, fit_venn_abers
    from calibwrap.calibrators.without_labels import fit_without_labels

__all__ = [
    "CONFIDENCE_FITS",
    "ENTRY_POINTS",
    "FITS",
    "KINDS",
    "PROBE",
    "Beta",
    "CattoHead",
    "Chain",
    "ClassWise",
    "ConfidenceCalibrator",
    "FitSpec",
    "GroupTemperature",
    "HistogramBinning",
    "Identity",
    "Isotonic",
    "MatrixScaling",
    "Platt",
    "Probe",
    "Temperature",
    "TopLabel",
    "VectorScaling",
    "VennAbers",
    "calibrator_class",
    "chain",
    "check_options",
    "confidence_fit",
    "default_fit",
    "fit_auto",
    "fit_auto_confidence",
    "fit_batch",
    "fit_beta",
    "fit_class_wise",
    "fit_daca",
    "fit_dirichlet",
    "fit_for",
    "fit_group_temperature",
    "fit_histogram_binning",
    "fit_isotonic",
    "fit_matched_mean",
    "fit_matrix_scaling",
    "fit_naive_kl",
    "fit_named",
    "fit_platt",
    "fit_probe",
    "fit_temperature",
    "fit_top_label",
    "fit_vector_scaling",
    "fit_venn_abers",
    "fit_without_labels",
    "groupless_fit",
    "on_questions",
    "options_of",
    "with_groups",
    "with_origin",
    "with_report",
]

_HOMES = {
    "_confidence": ["ConfidenceCalibrator"],
    "_fits": [
        "CONFIDENCE_FITS",
        "ENTRY_POINTS",
        "FITS",
        "KINDS",
        "PROBE",
        "FitSpec",
        "calibrator_class",
        "check_options",
        "confidence_fit",
        "default_fit",
        "fit_for",
        "fit_named",
        "groupless_fit",
        "options_of",
    ],
    "_report": ["with_origin", "with_report"],
    "auto": ["fit_auto", "fit_auto_confidence"],
    "batch": ["fit_batch"],
    "beta": ["Beta", "fit_beta"],
    "catto_head": ["CattoHead"],
    "class_wise": ["ClassWise", "fit_class_wise"],
    "daca": ["fit_daca", "fit_naive_kl"],
    "dirichlet": ["fit_dirichlet"],
    "group_temperature": ["GroupTemperature", "fit_group_temperature", "on_questions", "with_groups"],
    "histogram_binning": ["HistogramBinning", "fit_histogram_binning"],
    "identity": ["Identity"],
    "isotonic": ["Isotonic", "fit_isotonic"],
    "matrix_scaling": ["MatrixScaling", "fit_matrix_scaling"],
    "platt": ["Platt", "fit_platt"],
    "probe": ["Probe", "fit_probe"],
    "soft_labels": ["fit_matched_mean"],
    "temperature": ["Temperature", "fit_temperature"],
    "top_label": ["TopLabel", "fit_top_label"],
    "vector_scaling": ["VectorScaling", "fit_vector_scaling"],
    "venn_abers": ["VennAbers", "fit_venn_abers"],
    "without_labels": ["fit_without_labels"],
}
"""Public names by the file that holds them, which is imported when one is first used."""

__getattr__, __dir__ = door(__name__, _HOMES)
