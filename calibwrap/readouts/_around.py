"""What readouts around another one share: they ask through it, and correct what it says."""

from typing import ClassVar

from calibwrap.base import Readout
from calibwrap.capabilities import Needs


class Around(Readout):
    """A readout that corrects the scores of the one inside; it wants of a backend what that one wants."""

    keeps_argmax: ClassVar[bool] = False
    """Whether the first choice, and so the accuracy, is always that of the readout inside."""
    inner: Readout
    """What reads."""

    @property
    def needs(self) -> Needs:  # type: ignore[override]  # a frozen record has no writable attributes
        """What the backend must be able to do."""
        return self.inner.needs

    @property
    def min_mass(self) -> float:  # type: ignore[override]  # that of the readout inside
        """Mean probability of all labels together below which a `CalibrationWarning` is given."""
        return self.inner.min_mass
