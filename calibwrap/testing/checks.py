"""How checks are run and reported; it knows nothing of adapters, calibrators or decoders.

A check is a plain function of one probe. It returns nothing when all is well, raises `CheckFailed` when the part is
wrong, and `NotApplicable` when the part does not claim the ability. No test framework is needed.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import CalibwrapError, InputError

Probe = TypeVar("Probe")
Result = TypeVar("Result")
_FAILED = "failed: "


class CheckFailed(AssertionError):
    """A part breaks its contract; the message says what was expected, what came and how to mend it."""


class NotApplicable(Exception):
    """A check has nothing to look at in this part; the message says why."""


class Check(NamedTuple):
    """What one check found; a list of them makes a dictionary."""

    name: str
    """Name of the check function."""
    outcome: str
    """"passed", "not applicable: REASON", or "exempt: REASON" for a failure that was announced."""


def run_checks(
    who: str, checks: Sequence[Callable[[Probe], None]], probe: Probe, exempt: Mapping[str, str] | None = None
) -> list[Check]:
    """Return what each check found, in order; all of them run before the failures are raised together.

    `exempt` names checks that are known to fail, each with its reason. It is strict: one that passes is a failure.

    Raises:
        CheckFailed: lists every failure.
        InputError: `exempt` names a check that does not exist.

    >>> def check_positive(number: float) -> None:
    ...     expect(number > 0, f"Expected a positive number. Got {number}.")
    >>> run_checks("two", [check_positive], 2.0)
    [Check(name='check_positive', outcome='passed')]
    """
    exempt = exempt or {}
    names = [check.__name__ for check in checks]
    for name in exempt:
        if name not in names:
            near = difflib.get_close_matches(name, names) or names
            raise InputError(f"'exempt' names the check {name!r}, which does not exist. Near: {', '.join(near)}.")
    found = [Check(check.__name__, _outcome(check, probe, exempt.get(check.__name__))) for check in checks]
    failed = [check for check in found if check.outcome.startswith(_FAILED)]
    if failed:
        lines = "\n".join(f"- {check.name}: {check.outcome.removeprefix(_FAILED)}" for check in failed)
        raise CheckFailed(f"{who} fails {len(failed)} of {len(found)} checks:\n{lines}")
    return found


def _outcome(check: Callable[[Probe], None], probe: Probe, exemption: str | None) -> str:
    try:
        check(probe)
    except NotApplicable as reason:
        return f"not applicable: {reason}"
    except CheckFailed as failure:
        message = str(failure)
    except Exception as error:  # a plug-in may break in any way; the report must go on to the other checks
        message = f"Expected an answer or a named error. Got {type(error).__name__}: {error}"
    else:
        if exemption is None:
            return "passed"
        return f"{_FAILED}It is exempt ({exemption}) and passes: take it out of 'exempt'."
    return f"{_FAILED}{message}" if exemption is None else f"exempt: {exemption}"


def expect(condition: object, message: str) -> None:
    """Return nothing when `condition` holds.

    Raises:
        CheckFailed: it does not hold; `message` is the text.
    """
    if not condition:
        raise CheckFailed(message)


def expect_close(got: ArrayLike, wanted: ArrayLike, tolerance: float, message: str) -> None:
    """Return nothing when both have one shape and agree within `tolerance`; equal infinities agree, NaN never does.

    Raises:
        CheckFailed: `message`, with the largest difference and where it is.

    >>> expect_close([0.5, -np.inf], [0.5, -np.inf], 1e-9, "Expected the same row.")
    """
    here, there = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    expect(here.shape == there.shape, f"{message} Expected shape {there.shape}, got {here.shape}.")
    with np.errstate(invalid="ignore"):
        apart = np.where(here == there, 0.0, np.abs(here - there))
    wrong = ~(apart <= tolerance)
    if wrong.any():
        where = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise CheckFailed(
            f"{message} Expected {there[where]:.6g} at {where}, got {here[where]:.6g} (tolerance {tolerance:g}; "
            f"{int(wrong.sum())} of {wrong.size} values differ)."
        )


def expect_works(call: Callable[[], Result], what: str) -> Result:
    """Return what `call` returns, where it must not refuse.

    Raises:
        CheckFailed: it raised one of calibwrap's own errors.

    >>> expect_works(lambda: 3, "a call")
    3
    """
    try:
        return call()
    except CalibwrapError as error:
        raise CheckFailed(f"Expected {what} to work. Got {type(error).__name__}: {error}") from error


def expect_raises(kinds: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object], what: str) -> None:
    """Return nothing when `call` raises one of `kinds` with a message.

    Raises:
        CheckFailed: it returned, raised something else, or said nothing.

    >>> expect_raises(ValueError, lambda: int("x"), "a text that is no number")
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        value = call()
    except kinds as error:
        expect(str(error), f"Expected {names} with a message for {what}. Got one without: say what to do next.")
        return
    except Exception as error:  # whatever else comes is the failure that is reported
        raise CheckFailed(f"Expected {names} for {what}. Got {type(error).__name__}: {error}") from error
    raise CheckFailed(f"Expected {names} for {what}. Got a result of type {type(value).__name__} instead.")
