"""What a calibrator is checked with, and the checks that hold at every level: options, tokens or one confidence."""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibwrap.base import Calibrator
from calibwrap.capabilities import Needs
from calibwrap.scores import Floats, log_softmax
from calibwrap.testing.checks import CheckFailed, NotApplicable, expect, expect_close, expect_raises, expect_works


@dataclass(frozen=True)
class CalibratorProbe:
    """A calibrator under check and the size of what it maps.

    >>> from calibwrap.testing.adapter_probe import Sharpen
    >>> CalibratorProbe(Sharpen(2.0), n_options=3).rows().shape
    (12, 3)
    """

    calibrator: Calibrator
    """The part under check."""
    n_options: int = 4
    """K that the calibrator was fitted for; any number for one that takes all."""
    tolerance: float = 1e-9
    """Largest difference between two results that must agree, in nats."""

    def rows(self, count: int = 12, seed: int = 0) -> Floats:
        """Return random log-probabilities (count, K)."""
        return log_softmax(np.random.default_rng(seed).normal(0.0, 2.0, (count, self.n_options)))

    def ragged(self) -> Floats:
        """Return random log-probabilities of which some options do not exist, each in another row.

        Raises:
            NotApplicable: there is only one option.
        """
        if self.n_options < 2:
            raise NotApplicable("a single option cannot be masked")
        rows = self.rows()
        rows[np.arange(len(rows)), np.arange(len(rows)) % self.n_options] = -np.inf
        return log_softmax(rows)

    def close(self, got: object, wanted: object, message: str) -> None:
        """Return nothing when both agree within the tolerance.

        Raises:
            CheckFailed: they do not.
        """
        expect_close(np.asarray(got), np.asarray(wanted), self.tolerance, message)


def check_declarations(probe: CalibratorProbe) -> None:
    """Return nothing when kind, level and needs are what a saved file and a wiring error can name."""
    part = probe.calibrator
    expect(isinstance(part.kind, str) and part.kind, f"Expected 'kind', a name for saved files. Got {part.kind!r}.")
    levels = ("option", "token", "confidence")
    expect(part.level in levels, f"Expected a level out of {levels}. Got {part.level!r}.")
    expect(isinstance(part.needs, Needs), f"Expected 'needs' to be a Needs record. Got {type(part.needs).__name__}.")


def check_saving_is_exact(probe: CalibratorProbe) -> None:
    """Return nothing when a saved and loaded calibrator gives the same numbers to the last bit."""
    from calibwrap.saving import load, save

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibrator.json"
        expect_works(lambda: save(probe.calibrator, path), "save()")
        loaded = expect_works(lambda: load(path), "load() of what was saved")
    expect(
        type(loaded) is type(probe.calibrator),
        f"Expected {type(probe.calibrator).__name__} out of its file. Got {type(loaded).__name__}.",
    )
    same = np.array_equal(loaded(probe.rows()), probe.calibrator(probe.rows()))
    expect(
        same and loaded.level == probe.calibrator.level, "Expected equal numbers and level out of a file. Got others."
    )


def check_record_is_frozen(probe: CalibratorProbe) -> None:
    """Return nothing when neither a field nor an array in it can be changed."""
    part = probe.calibrator
    if not dataclasses.is_dataclass(part):
        raise CheckFailed(f"Expected a frozen dataclass. Got {type(part).__name__}: its fields are the fitted numbers.")
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        expect_raises(AttributeError, _assignment(part, field.name, value), f"an assignment to {field.name!r}")
        locked = not (isinstance(value, np.ndarray) and value.flags.writeable)
        expect(locked, f"Expected the array {field.name!r} to be locked: set flags.writeable = False on a copy.")


def _assignment(part: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(part, name, value)
