"""calibwrap puts a calibrated probability on every answer of a language model, whichever runtime the model lives in.

>>> import calibwrap as cw
>>> cw.Temperature(value=2.0)([[2.0, 0.0]]).round(3).tolist()  # log-probabilities of softmax([1, 0])
[[-0.313, -1.313]]
"""

from calibwrap import errors, metrics
from calibwrap.base import Adapter, Answer, Calibrator, Completion, Decoder, Readout, Sampling
from calibwrap.calibrators import (
    Identity,
    MatrixScaling,
    Temperature,
    VectorScaling,
    chain,
    fit_daca,
    fit_matrix_scaling,
    fit_naive_kl,
    fit_temperature,
    fit_vector_scaling,
)
from calibwrap.capabilities import Needs, Provides
from calibwrap.data import load_questions, save_questions
from calibwrap.decoders import Greedy
from calibwrap.evaluate import Evaluation, evaluate
from calibwrap.provenance import FitReport, Provenance
from calibwrap.questions import Chat, Question, Template
from calibwrap.readouts import Continuation, Label
from calibwrap.saving import load, save
from calibwrap.scores import OptionScores, TokenScores
from calibwrap.wrap import CalibratedLM, wrap

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Answer",
    "CalibratedLM",
    "Calibrator",
    "Chat",
    "Completion",
    "Continuation",
    "Decoder",
    "Evaluation",
    "FitReport",
    "Greedy",
    "Identity",
    "Label",
    "MatrixScaling",
    "Needs",
    "OptionScores",
    "Provenance",
    "Provides",
    "Question",
    "Readout",
    "Sampling",
    "Temperature",
    "Template",
    "TokenScores",
    "VectorScaling",
    "chain",
    "errors",
    "evaluate",
    "fit_daca",
    "fit_matrix_scaling",
    "fit_naive_kl",
    "fit_temperature",
    "fit_vector_scaling",
    "load",
    "load_questions",
    "metrics",
    "save",
    "save_questions",
    "wrap",
]
