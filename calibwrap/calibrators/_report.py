"""A calibrator with another report: what it was fitted on is often known only to whoever called the fit."""

import datetime
from dataclasses import is_dataclass, replace
from typing import TypeVar

from calibwrap.base import Calibrator
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport, Provenance

C = TypeVar("C", bound=Calibrator)


def with_report(calibrator: C, report: FitReport) -> C:
    """Return the same fitted numbers with `report` in place of the calibrator's own.

    Raises:
        InputError: the calibrator is no dataclass, as every calibrator has to be.

    >>> from calibwrap.calibrators import Temperature
    >>> told = with_report(Temperature(2.0), FitReport("given", 0, 0, 0.0, 0.0))
    >>> told == Temperature(2.0), told.report.method
    (True, 'given')
    """
    if not is_dataclass(calibrator):
        raise InputError(f"'calibrator' must be a dataclass with a field 'report'. Got {type(calibrator).__name__}.")
    return replace(calibrator, report=report)


def with_origin(
    calibrator: C, readout: str, provenance: Provenance, reference_readout: str, reference: Provenance | None
) -> C:
    """Return the same fitted numbers whose report says on which models and readouts, and the day; none has nothing to.

    >>> from calibwrap.calibrators import Temperature
    >>> origin = Provenance(runtime="toy", model="toy")
    >>> fitted = Temperature(2.0, report=FitReport("given", 0, 0, 0.0, 0.0))
    >>> with_origin(fitted, "label", origin, "", None).report.readout
    'label'
    """
    if calibrator.report is None:
        return calibrator
    report = replace(
        calibrator.report,
        readout=readout,
        reference_readout=reference_readout,
        provenance=provenance,
        reference=reference,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return with_report(calibrator, report)
