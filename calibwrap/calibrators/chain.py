"""Several calibrators, one after the other, as one."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from calibwrap.base import Calibrator
from calibwrap.calibrators.identity import Identity
from calibwrap.capabilities import Needs
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, OptionScores, TokenScores, log_softmax

DEEPEST = 50
"""Chains inside chains that one may hold; more would be read and saved by as many calls inside each other."""


@dataclass(frozen=True)
class Chain(Calibrator):
    """Applies `parts` in order; made by `chain`, which flattens. Its level is theirs, its needs are all of theirs.

    >>> from calibwrap.calibrators import Temperature
    >>> halved_twice = Chain((Temperature(2.0), Temperature(2.0)))
    >>> bool((halved_twice([[4.0, 0.0]]) == Temperature(4.0)([[4.0, 0.0]])).all())
    True
    """

    kind: ClassVar[str] = "chain"
    parts: tuple[Calibrator, ...]
    """The calibrators, first applied first."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the parts fit together and take over what they have in common."""
        object.__setattr__(self, "parts", tuple(self.parts))
        wrong = [type(part).__name__ for part in self.parts if not isinstance(part, Calibrator)]
        if wrong or not self.parts:
            raise InputError(f"'parts' must be at least one Calibrator. Got {wrong or 'none'}.")
        if self.depth > DEEPEST:
            raise InputError(f"Chains inside chains may be {DEEPEST} deep. Got {self.depth}: 'chain' makes them flat.")
        levels = sorted({part.level for part in self.parts})
        if len(levels) > 1:
            raise InputError(
                f"Calibrators of one chain must be of one level. Got {', '.join(levels)}: make two calibrators, one "
                "for each level."
            )
        # What the base class declares for a whole kind depends on the parts here, so it is set on the record.
        object.__setattr__(self, "level", levels[0])
        object.__setattr__(self, "keeps_argmax", all(part.keeps_argmax for part in self.parts))
        object.__setattr__(self, "needs", _joint_needs(part.needs for part in self.parts))

    @property
    def depth(self) -> int:
        """How many chains stand inside each other here, this one included."""
        return 1 + max((part.depth for part in self.parts if isinstance(part, Chain)), default=0)

    def __call__(self, scores: Any) -> Any:
        """Return what the parts make of `scores` in order; parts that map one confidence hand it on as it is."""
        if self.level != "confidence":
            return super().__call__(scores)
        for part in self.parts:
            scores = part(scores)
        return scores

    def logits(self, logprobs: Floats) -> Floats:
        """Return the last part's logits; every part sees normalised log-probabilities, as it would alone."""
        for part in self.parts[:-1]:
            logprobs = log_softmax(part.logits(logprobs))
        return self.parts[-1].logits(logprobs)

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return the last part's bounds; every part sees the bounds that the one before it left."""
        for part in self.parts[:-1]:
            scores = part(scores)
        return self.parts[-1].bounds(scores)

    def _on_tokens(self, scores: TokenScores) -> TokenScores:
        """Hand the scores on from part to part, so that a part that reads more than log-probabilities still can."""
        for part in self.parts:
            scores = part(scores)
        return scores


def chain(*parts: Calibrator) -> Calibrator:
    """Return one calibrator that applies `parts` in order; a chain inside is flattened, and no parts are `Identity`.

    Raises:
        InputError: a part is no calibrator, or parts are of different levels.

    >>> from calibwrap.calibrators import Identity, Temperature
    >>> chain(Temperature(2.0), chain(Identity(), Temperature(3.0))).parts
    (Temperature(value=2.0, level='option'), Identity(level='option'), Temperature(value=3.0, level='option'))
    >>> chain()
    Identity(level='option')
    """
    flat: list[Calibrator] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Chain) else (part,))
    return Chain(tuple(flat)) if flat else Identity()


def _joint_needs(needs: Iterable[Needs]) -> Needs:
    """Return the least needs that cover all of `needs`."""
    several = list(needs)
    return Needs(**{field.name: max(getattr(one, field.name) for one in several) for field in fields(Needs)})
