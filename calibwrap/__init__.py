"""calibwrap puts a calibrated probability on every answer of a language model, whichever runtime the model lives in.

>>> import calibwrap as cw
>>> cw.Temperature(value=2.0)([[2.0, 0.0]]).round(3).tolist()  # log-probabilities of softmax([1, 0])
[[-0.313, -1.313]]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from calibwrap import errors
from calibwrap.answer_stream import AnswerStream
from calibwrap.answers_without_labels import fit_answers_without_labels
from calibwrap.base import Adapter, Answer, Calibrator, Completion, Decoder, Readout, Sampling
from calibwrap.calibrators import (
    Beta,
    CattoHead,
    ClassWise,
    GroupTemperature,
    HistogramBinning,
    Identity,
    Isotonic,
    MatrixScaling,
    Platt,
    Probe,
    Temperature,
    TopLabel,
    VectorScaling,
    VennAbers,
    chain,
    fit_auto,
    fit_auto_confidence,
    fit_batch,
    fit_beta,
    fit_class_wise,
    fit_daca,
    fit_dirichlet,
    fit_group_temperature,
    fit_histogram_binning,
    fit_isotonic,
    fit_matched_mean,
    fit_matrix_scaling,
    fit_naive_kl,
    fit_platt,
    fit_probe,
    fit_temperature,
    fit_top_label,
    fit_vector_scaling,
    fit_venn_abers,
    fit_without_labels,
)
from calibwrap.capabilities import Needs, Provides
from calibwrap.decoders import (
    BestOfN,
    ConfidenceAtK,
    ConfidenceWeightedVote,
    FreeText,
    Greedy,
    MajorityVote,
    MeanPosterior,
    PTrue,
    SelfConsistency,
    SemanticEntropy,
    Stated,
)
from calibwrap.provenance import FitReport, Provenance
from calibwrap.questions import Chat, FreeQuestion, Question, Template
from calibwrap.readouts import Contextual, Continuation, Decision, Label, Permuted
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores, TokenScores
from calibwrap.streaming import StreamedToken
from calibwrap.traces import AnswerRule
from calibwrap.wrap import CalibratedLM, wrap

if TYPE_CHECKING:
    from calibwrap import metrics
    from calibwrap.data import load_questions, save_questions
    from calibwrap.decision_file import load_decision, save_decision
    from calibwrap.guarantees import (
        Abstention,
        AnswerSet,
        CalibrationMonitor,
        ConformalSets,
        DriftMonitor,
        Guard,
        fit_guard,
        fit_sets,
    )
    from calibwrap.guarded import GuardedLM, SetLM

__version__ = "0.1.0"

__all__ = [
    "Abstention",
    "Adapter",
    "Answer",
    "AnswerRule",
    "AnswerSet",
    "AnswerStream",
    "BestOfN",
    "Beta",
    "CalibratedLM",
    "CalibrationMonitor",
    "Calibrator",
    "CattoHead",
    "Chat",
    "ClassWise",
    "Completion",
    "ConfidenceAtK",
    "ConfidenceWeightedVote",
    "ConformalSets",
    "Contextual",
    "Continuation",
    "Decision",
    "Decoder",
    "DriftMonitor",
    "FitReport",
    "FreeQuestion",
    "FreeText",
    "Greedy",
    "GroupTemperature",
    "Guard",
    "GuardedLM",
    "HistogramBinning",
    "Identity",
    "Isotonic",
    "Label",
    "MajorityVote",
    "MatrixScaling",
    "MeanPosterior",
    "Needs",
    "OptionScores",
    "PTrue",
    "Permuted",
    "Platt",
    "Probe",
    "Provenance",
    "Provides",
    "Question",
    "Readout",
    "Sampling",
    "SelfConsistency",
    "SemanticEntropy",
    "SetLM",
    "Stated",
    "StreamedToken",
    "Temperature",
    "Template",
    "TokenScores",
    "TopLabel",
    "VectorScaling",
    "VennAbers",
    "chain",
    "errors",
    "fit_answers_without_labels",
    "fit_auto",
    "fit_auto_confidence",
    "fit_batch",
    "fit_beta",
    "fit_class_wise",
    "fit_daca",
    "fit_dirichlet",
    "fit_group_temperature",
    "fit_guard",
    "fit_histogram_binning",
    "fit_isotonic",
    "fit_matched_mean",
    "fit_matrix_scaling",
    "fit_naive_kl",
    "fit_platt",
    "fit_probe",
    "fit_sets",
    "fit_temperature",
    "fit_top_label",
    "fit_vector_scaling",
    "fit_venn_abers",
    "fit_without_labels",
    "load",
    "load_decision",
    "load_questions",
    "metrics",
    "save",
    "save_decision",
    "save_questions",
    "wrap",
]

_ON_DEMAND = {
    "Abstention": "calibwrap.guarantees",
    "AnswerSet": "calibwrap.guarantees",
    "CalibrationMonitor": "calibwrap.guarantees",
    "ConformalSets": "calibwrap.guarantees",
    "DriftMonitor": "calibwrap.guarantees",
    "Guard": "calibwrap.guarantees",
    "GuardedLM": "calibwrap.guarded",
    "SetLM": "calibwrap.guarded",
    "fit_guard": "calibwrap.guarantees",
    "fit_sets": "calibwrap.guarantees",
    "load_decision": "calibwrap.decision_file",
    "load_questions": "calibwrap.data",
    "save_decision": "calibwrap.decision_file",
    "save_questions": "calibwrap.data",
}
"""Names whose home is imported when they are first used: few programs need them."""


def __getattr__(name: str) -> Any:
    """Return a public name that is imported on demand."""
    if name == "metrics":
        return import_module("calibwrap.metrics")
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module 'calibwrap' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return all public names, those on demand included."""
    return sorted({*globals(), *__all__})
