"""Every plug-in of calibwrap, by name: a new one is one line here, and every check that applies to it is run.

An entry is a factory, so that nothing is loaded before its test; `options` go to the checks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibwrap.calibrators import (
    Identity,
    MatrixScaling,
    Temperature,
    VectorScaling,
    chain,
    fit_daca,
    fit_matrix_scaling,
    fit_temperature,
    fit_vector_scaling,
)
from calibwrap.capabilities import Provides
from calibwrap.decoders import Greedy
from calibwrap.testing import ToyAdapter, ToyModel


@dataclass(frozen=True)
class Entry:
    """One plug-in under test."""

    name: str
    make: Callable[[], Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to adapter_checks, calibrator_checks, fit_checks or decoder_checks."""


ADAPTERS = [
    Entry("toy", ToyAdapter),
    Entry("toy-sharp", lambda: ToyAdapter(ToyModel.random(3).sharpened(2.0))),
    Entry("toy-top-5", lambda: ToyAdapter(provides=Provides(top=5))),
    Entry("toy-scores-only", lambda: ToyAdapter(provides=Provides(score=True, tokenize=True, context_length=400))),
    Entry("toy-three-ids", lambda: ToyAdapter(provides=Provides(given_ids=3, top=3, steers=True, context_length=300))),
]

WEIGHTS = np.array([1.5, 0.7, 1.0, 0.4])
BIAS = np.array([0.1, -0.3, 0.2, 0.0])

CALIBRATORS = [
    Entry("identity", Identity),
    Entry("identity-token", lambda: Identity(level="token")),
    Entry("temperature-2", lambda: Temperature(2.0)),
    Entry("temperature-0.3", lambda: Temperature(0.3)),
    Entry("temperature-token", lambda: Temperature(1.7, level="token")),
    Entry("vector-scaling", lambda: VectorScaling(WEIGHTS, BIAS)),
    Entry("matrix-scaling", lambda: MatrixScaling(np.diag(WEIGHTS) + 0.1, BIAS)),
    Entry("chain", lambda: chain(Temperature(2.0), Temperature(0.8))),
    Entry("chain-vector", lambda: chain(Temperature(2.0), VectorScaling(WEIGHTS, BIAS))),
]

FITS = [
    Entry("temperature", lambda: fit_temperature),
    Entry("vector-scaling", lambda: fit_vector_scaling),
    Entry("matrix-scaling", lambda: fit_matrix_scaling),
    Entry("daca-temperature", lambda: fit_daca, {"second": "reference"}),
]

DECODERS = [
    Entry("greedy", Greedy),
    Entry("greedy-short", lambda: Greedy(max_tokens=1, stop=(" A",))),
]
