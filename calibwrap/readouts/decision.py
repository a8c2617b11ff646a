"""Decision readout: an endpoint that returns the probabilities of the options, and no tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter, Readout
from calibwrap.capabilities import Needs
from calibwrap.errors import InputError, SemanticsMismatch
from calibwrap.questions import Question
from calibwrap.scores import Bools, Decided, Floats, OptionScores

_EXACT = 1e-6  # half a unit of the last decimal, below which a printed value counts as exact
_SUM_SLACK = 1e-3  # single-precision softmax and a server's own rounding of sums


@dataclass(frozen=True)
class Decision(Readout):
    """One request a question, the prompt being the server's: p(option) is what the endpoint says.

    A probability that is printed as 0 is a rounded number, never -inf: the option counts as missing, with half a unit
    of the last decimal as its upper bound. Values of fewer than six decimals have bounds of the same kind
    (see `decided_scores`).

    >>> Decision().label
    'decision'
    """

    name: ClassVar[str] = "decision"
    instructions: str = "Which option is the right answer?"
    """What is asked of a question without context, whose prompt is then the text to judge."""
    decimals: int | None = None
    """Decimals that the server prints; None takes the longest number among the answers of one call, which is safe."""
    min_mass: float = 0.5
    """Mean probability of all options together below which a `CalibrationWarning` is given, where it is told."""

    def __post_init__(self) -> None:
        """Check both fields."""
        if not self.instructions.strip():
            raise InputError("'instructions' must be a text that is not empty.")
        if self.decimals is not None and self.decimals < 1:
            raise InputError(f"'decimals' must be at least 1, or None. Got {self.decimals!r}.")

    @property
    def needs(self) -> Needs:  # type: ignore[override]  # a frozen record has no writable attributes
        """What the backend must be able to do."""
        return Needs(decides=True)

    @property
    def label(self) -> str:
        """Name, and a hash of whatever is not as it comes."""
        if (self.instructions, self.decimals) == (Decision.instructions, None):
            return self.name
        import hashlib  # a shared library of its own, which few need

        own = f"{self.instructions}\n{self.decimals}"
        return f"{self.name}:custom-{hashlib.sha256(own.encode()).hexdigest()[:8]}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return scores of all options; `label_mass` where the server tells it.

        A question with a context is sent as it is, the context being what is judged and the prompt what is asked; one
        without is sent as a text to judge by `instructions`.

        Raises:
            ServerError: the model declined a question, or an option came back without a probability.
            SemanticsMismatch: what came are no probabilities of the options.
        """
        asked = [self._asked(question) for question in questions]
        return decided_scores(adapter.decide(asked), self.label, decimals=self.decimals)

    def _asked(self, question: Question) -> Question:
        if question.context:
            return question
        return replace(question, context=question.prompt, prompt=self.instructions)


def decided_scores(decided: Sequence[Decided], label: str, *, decimals: int | None = None) -> OptionScores:
    """Return the scores (N, K) of what a decision endpoint printed, with bounds for what rounding hides.

    Let h be half a unit of the last decimal: a printed p stands for something between p - h and p + h, and a printed
    0 for something between 0 and h. The first becomes an option that shows p - h, its point value before they are
    normalised, and hides 2 h; the second is missing and hides h. So every true value, tempered or not, lies inside
    its bounds. From six decimals on, values other than 0 are taken as exact: single-precision arithmetic on the
    server is no better.

    Args:
        decided: What was said of each question.
        label: Name of the readout.
        decimals: How many the server prints; None takes the most among `decided`, so that h is never too small.

    Raises:
        SemanticsMismatch: a value outside [0, 1], or a row that does not sum to 1 within its rounding.

    >>> s = decided_scores([Decided((0.98, 0.02, 0.0))], "decision")
    >>> s.probabilities.round(4).tolist(), s.lower.round(3).tolist(), s.upper.round(3).tolist(), s.n_missing.tolist()
    ([[0.9844, 0.0151, 0.0005]], [[0.975, 0.015, 0.0]], [[0.985, 0.025, 0.005]], [1])
    """
    printed = [probability for one in decided for probability in one.probabilities]
    half = 0.5 * 10.0 ** -(decimals or max(map(_decimals, printed), default=1))
    width = max((len(one.probabilities) for one in decided), default=0)
    rows = np.array([[*one.probabilities, *[0.0] * (width - len(one.probabilities))] for one in decided])
    exists = np.arange(width) < np.array([len(one.probabilities) for one in decided])[:, None]
    _check(rows, exists, half)
    scores = OptionScores.from_lists(*_as_lists(rows, exists, half), label, exists)
    return replace(scores, label_mass=np.array([one.label_mass for one in decided]))


def _as_lists(rows: Floats, exists: Bools, half: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Return what is certain of each option, how many halves it hides, and what all, and one half, can have."""
    zeros = exists & (rows == 0.0)
    most = np.full(len(rows), half)
    if half < _EXACT:
        return rows, zeros.astype(np.float64), zeros.sum(axis=1) * half, most
    shown = np.maximum(rows - half, 0.0)
    return shown, np.where(zeros, 1.0, 2.0), np.maximum(1.0 - shown.sum(axis=1), 0.0), most


def _check(rows: Floats, exists: Bools, half: float) -> None:
    """Return nothing when every row is a distribution over its options, as far as its decimals can tell."""
    right = (rows >= 0.0).all(axis=1) & (rows > 0.0).any(axis=1)  # both are False for NaN
    right &= np.abs(rows.sum(axis=1) - 1.0) <= exists.sum(axis=1) * half + _SUM_SLACK
    if not right.all():
        row = int(np.argmin(right))
        raise SemanticsMismatch(
            "A decision endpoint must give probabilities that sum to 1 over the options. Got "
            f"{rows[row][exists[row]].tolist()}: they are no probabilities, or of other options; use readout='label'."
        )


def _decimals(printed: float) -> int:
    """Return how many decimals it takes to print a number.

    >>> _decimals(0.97), _decimals(1.5e-07), _decimals(1.0)
    (2, 8, 1)
    """
    mantissa, _, exponent = repr(printed).partition("e")
    return max(1, len(mantissa.partition(".")[2]) - int(exponent or 0))
