"""The calibrator that changes nothing: the model's own confidence."""

from dataclasses import dataclass, field
from typing import ClassVar

from calibwrap.base import Calibrator, Level
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, OptionScores


@dataclass(frozen=True)
class Identity(Calibrator):
    """Gives back the scores as they are: the baseline, and the neutral part of a chain.

    >>> Identity()([[0.0, 0.0]]).round(4).tolist()
    [[-0.6931, -0.6931]]
    """

    kind: ClassVar[str] = "identity"
    keeps_argmax: ClassVar[bool] = True
    level: Level = "option"
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def logits(self, logprobs: Floats) -> Floats:
        """Return `logprobs`."""
        return logprobs

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return the bounds that `scores` already have."""
        return scores.lower, scores.upper
