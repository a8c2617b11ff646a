"""A calibrator of one's own: a temperature, and a bias on the first choice alone.

A temperature treats all options alike. A model may also trust its first choice too much or too little beyond that; the
bias says by how much. To fit it on planted data and see what the conformance checks say:

    python examples/top_bias.py
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from calibwrap import Calibrator, FitReport, OptionScores
from calibwrap.errors import FitError, InputError
from calibwrap.metrics import nll
from calibwrap.scores import Floats, checked_logits, log_softmax


@dataclass(frozen=True)
class TopBias(Calibrator):
    """Multiplies log-probabilities by `sharpness` and adds `bias` to the first choice's."""

    kind: ClassVar[str] = "top-bias"
    sharpness: float
    """1 / temperature, finite and above 0."""
    bias: float
    """In nats; below 0 takes confidence away from the first choice."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers: a saved file goes through here too."""
        if not 0.0 < self.sharpness < np.inf or not np.isfinite(self.bias):
            raise InputError(f"'sharpness' must be finite and above 0, 'bias' finite. Got {self}.")

    def logits(self, logprobs: Floats) -> Floats:
        """Return unnormalised log-probabilities; the first among equals is the first choice."""
        return self.sharpness * logprobs + self.bias * _is_top(logprobs)


def fit_top_bias(scores: OptionScores | ArrayLike, answers: ArrayLike) -> TopBias:
    """Return the map of greatest likelihood of the right answers; the problem is convex.

    Raises:
        InputError: malformed scores or answers.
        FitError: truncated scores, or a right answer of probability 0.
    """
    if isinstance(scores, OptionScores) and not scores.is_exact:
        raise FitError("This fit needs exact scores, and some were cut off: ask the backend for the options' tokens.")
    given = scores.logprobs if isinstance(scores, OptionScores) else checked_logits("scores", scores)[0]
    rows = log_softmax(given)
    before = nll(rows, answers)
    if before == np.inf:
        raise FitError("A right answer has probability 0, which no map of this kind can mend: leave its row out.")
    right = np.arange(len(rows)), np.asarray(answers)
    features = np.stack([np.where(rows > -np.inf, rows, 0.0), _is_top(rows)])  # (2, N, K)

    def objective(numbers: Floats) -> tuple[float, Floats]:
        mapped = TopBias(*numbers)(rows)
        wanted = (np.exp(mapped) * features).sum(axis=2) - features[:, *right]
        return float(-mapped[right].mean()), wanted.mean(axis=1)

    found = minimize(objective, [1.0, 0.0], jac=True, bounds=[(0.01, 100.0), (-20.0, 20.0)], options={"ftol": 1e-15})
    report = FitReport(
        method="top-bias",
        rows=len(rows),
        rows_used=len(rows),
        objective_before=before,
        objective_after=float(found.fun),
        converged=bool(found.success),
        readout=scores.readout if isinstance(scores, OptionScores) else "",
    )
    return TopBias(float(found.x[0]), float(found.x[1]), report=report)


def _is_top(logprobs: Floats) -> Floats:
    """Return (N, K) with 1 at each row's first choice and 0 elsewhere."""
    return np.asarray(np.arange(logprobs.shape[-1]) == logprobs.argmax(axis=-1)[..., None], dtype=np.float64)


if __name__ == "__main__":
    from calibwrap.testing import calibrator_checks, fit_checks

    random = np.random.default_rng(0)
    planted = TopBias(0.5, -0.7)
    logprobs = log_softmax(random.normal(0.0, 2.0, (4000, 4)))
    answers = (planted(logprobs) + random.gumbel(size=(4000, 4))).argmax(axis=1)
    print(fit_top_bias(logprobs, answers))

    not_installed = {"check_saving_is_exact": "no installed package lists the kind as an entry point"}
    for check in [*calibrator_checks(planted, exempt=not_installed), *fit_checks(fit_top_bias)]:
        print(f"{check.name}: {check.outcome}")
