"""Every error that calibwrap raises on purpose.

::

    CalibwrapError
    ├── InputError (also ValueError)      a value handed in is not what was expected
    │   ├── QuestionError                 a question, or a line of a question file, is malformed
    │   ├── AmbiguousOptions              labels that the model cannot tell apart, or that are not one token
    │   └── PromptTooLong                 prompt and answer do not fit the model's context
    ├── CapabilityError                   a part needs what the backend cannot give
    │   ├── LogprobsUnavailable           a server answers without log-probabilities, or with empty ones
    │   └── SemanticsMismatch             log-probabilities are not those of the raw distribution
    ├── BudgetExceeded                    one more request would go over the budget that was set
    ├── FitError                          the data do not determine the calibrator that was asked for
    ├── ModelError                        a model or its file could not be opened or run
    │   └── ServerError                   a server refused, or gave no usable answer after all retries
    ├── SavedFileError                    a saved calibrator is broken, foreign or too new
    ├── ProvenanceMismatch                a calibrator meets a model or readout that it was not fitted on
    ├── JournalError                      the journal of a long run cannot be written or read
    ├── DownloadError                     a packaged model or data set could not be fetched or verified
    └── MissingExtra (also ImportError)   an optional dependency is not installed

Every message says what was expected, what came, and what to do next. Warnings are `CalibrationWarning` (a result that
deserves a second look) and `ProvenanceWarning` (a calibrator used away from where it was fitted).
"""

import importlib
import types


class CalibwrapError(Exception):
    """Base of all errors that calibwrap raises on purpose."""


class InputError(CalibwrapError, ValueError):
    """A value handed in is not what was expected."""


class QuestionError(InputError):
    """A question, or a line of a question file, is malformed."""


class AmbiguousOptions(InputError):
    """Option labels that the model cannot tell apart, or that are not one token in their context."""


class PromptTooLong(InputError):
    """Prompt and answer together do not fit the model's context."""


class CapabilityError(CalibwrapError):
    """A part needs what the backend cannot give."""


class LogprobsUnavailable(CapabilityError):
    """A server answers without log-probabilities, or with empty ones."""


class SemanticsMismatch(CapabilityError):
    """Log-probabilities are not those of the raw distribution, and so cannot be calibrated."""


class BudgetExceeded(CalibwrapError):
    """One more request would go over the budget of requests or tokens; it was not sent."""


class FitError(CalibwrapError):
    """The data do not determine the calibrator that was asked for."""


class ModelError(CalibwrapError):
    """A model or its file could not be opened or run."""


class ServerError(ModelError):
    """A server refused, or gave no usable answer after all retries."""


class SavedFileError(CalibwrapError):
    """A saved calibrator is broken, foreign, or written by a newer calibwrap."""


class ProvenanceMismatch(CalibwrapError):
    """A calibrator meets a model, readout or template that it was not fitted on, and strict use was asked for."""


class JournalError(CalibwrapError):
    """The journal of a long run cannot be written or read."""


class DownloadError(CalibwrapError):
    """A packaged model or data set could not be fetched, or its checksum is wrong."""


class MissingExtra(CalibwrapError, ImportError):
    """An optional dependency is not installed."""


class CalibrationWarning(UserWarning):
    """A result that is valid but deserves a second look: few rows, a bound hit, little mass on the options."""


class ProvenanceWarning(UserWarning):
    """A calibrator is used on a model, readout or template that it was not fitted on."""


def need(module: str, *, feature: str, extra: str) -> types.ModuleType:
    """Return the imported `module`, or say which extra brings it.

    Only the absence of `module` itself is reported as a missing extra; an installed package that fails to import
    raises its own error, so that a broken installation is never mistaken for an absent one.

    Raises:
        MissingExtra: `module` is not installed; the message names the feature and the pip command.

    >>> need("math", feature="square roots", extra="demo").sqrt(9.0)
    3.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtra(
            f"{feature} needs the package '{error.name}', which is not installed: pip install 'calibwrap[{extra}]'"
        ) from error
