"""Whether a calibrator fits its use: inside the drawing, and on labels that traces end in or on options alone."""

import warnings

from calibwrap.base import Adapter, Calibrator
from calibwrap.calibrators import Chain
from calibwrap.capabilities import Needs, check_needs
from calibwrap.errors import CapabilityError, ProvenanceMismatch, ProvenanceWarning

_TRACES = "trace:"
"""Beginning of the name of label scores that were read at the end of a trace."""


def fitted_readouts(calibrator: Calibrator) -> tuple[str, ...]:
    """Return the readouts that a calibrator, or each part of a chain, says it was fitted on.

    >>> from calibwrap.calibrators import Temperature
    >>> from calibwrap.provenance import FitReport
    >>> fitted_readouts(Temperature(2.0)), fitted_readouts(
    ...     Temperature(2.0, report=FitReport("temperature", 1, 1, 0.0, 0.0, readout="trace:Answer::A/B")))
    ((), ('trace:Answer::A/B',))
    """
    parts = calibrator.parts if isinstance(calibrator, Chain) else (calibrator,)
    return tuple(part.report.readout for part in parts if part.report is not None and part.report.readout)


def fitted_on_traces(calibrator: Calibrator) -> bool:
    """Return whether a calibrator of options, or a part of a chain of such, was fitted on labels that end traces."""
    return any(readout.startswith(_TRACES) for readout in fitted_readouts(calibrator))


def warn_of_other_use(calibrator: Calibrator, is_on_traces: bool, *, strict: bool = False) -> None:
    """Return nothing; warn where a calibrator of options was fitted with traces and is used without, or the reverse.

    A model that has talked itself into an answer is sure of it in another way than one that is asked at once. Which
    prompts the traces came from is not compared here: a text does not say of which template it was made.

    Raises:
        ProvenanceMismatch: `strict`, in place of the warning.
    """
    if calibrator.level != "option":
        return
    for readout in fitted_readouts(calibrator):
        if readout.startswith(_TRACES) != is_on_traces:
            without, within = "options that are asked for at once", "the labels that traces end in"
            fitted, here = (without, within) if is_on_traces else (within, without)
            message = (
                f"This {calibrator.kind} calibrator was fitted on {fitted} ({readout!r}), and is used on {here}, so "
                "that its probabilities may be wrong here: fit it on what it is used on."
            )
            if strict:
                raise ProvenanceMismatch(message)
            warnings.warn(message, ProvenanceWarning, stacklevel=4)


def check_steering(adapter: Adapter, calibrator: Calibrator) -> Calibrator:
    """Return the calibrator, when it can act inside this backend's drawing.

    Raises:
        CapabilityError: the backend draws by itself, or the calibrator maps no tokens; raised before any model call.

    >>> from calibwrap.calibrators import Temperature
    >>> from calibwrap.testing import ToyAdapter
    >>> check_steering(ToyAdapter(), Temperature(1.7, level="token")).level
    'token'
    """
    if calibrator.level != "token":
        raise CapabilityError(
            f"steer=True needs a calibrator of level 'token', which maps the next token's distribution. Got "
            f"'{calibrator.kind}' of level '{calibrator.level}': give the model one, such as lm.with_calibrator("
            "cw.Temperature(1.7, level='token')), or leave 'steer' out."
        )
    check_needs("steer=True", Needs(steers=True), adapter.name, adapter.provides)
    return calibrator
