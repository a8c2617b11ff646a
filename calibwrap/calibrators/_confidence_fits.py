"""The fits of one confidence by name: on their own for free text, and inside the maps of options."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calibwrap.errors import InputError
from calibwrap.on_demand import OnDemand
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats

if TYPE_CHECKING:
    from calibwrap.calibrators._confidence import ConfidenceCalibrator

CONFIDENCE_MAPS: OnDemand[Callable[..., "ConfidenceCalibrator"]] = OnDemand(
    {
        "beta": "calibwrap.calibrators.beta:fit_beta",
        "histogram": "calibwrap.calibrators.histogram_binning:fit_histogram_binning",
        "isotonic": "calibwrap.calibrators.isotonic:fit_isotonic",
        "platt": "calibwrap.calibrators.platt:fit_platt",
        "venn-abers": "calibwrap.calibrators.venn_abers:fit_venn_abers",
    }
)
"""Each takes (N,) confidences and (N,) how right the answers were, both in [0, 1]."""


def fit_part(
    method: str, confidence: Floats, correct: Floats, **options: Any
) -> tuple["ConfidenceCalibrator", FitReport]:
    """Return the map of one confidence, without its report, and the report.

    Raises:
        InputError: an unknown method, or what the method says to its data.

    >>> part, report = fit_part("isotonic", [0.4, 0.9], [0.0, 1.0])
    >>> part.y.tolist(), report.rows
    ([0.0, 1.0], 2)
    """
    if method not in CONFIDENCE_MAPS:
        raise InputError(f"'method' must be one of {', '.join(CONFIDENCE_MAPS)}. Got {method!r}.")
    part: Any = CONFIDENCE_MAPS[method](confidence, correct, **options)
    report: FitReport = part.report
    return replace(part, report=None), report
