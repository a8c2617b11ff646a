"""Is there room to calibrate a model without losing accuracy? Bounds of its ECE, and an estimate from a reference.

Two bounds hold on any sample, whatever the bins. Everything else takes a reference's probabilities for the truth, and
is as good as the reference: an estimate relative to it, never a theorem about the model.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.metrics import bootstrap_ci, ece
from calibwrap.metrics._checks import checked_answers
from calibwrap.scores import Bools, Floats, OptionScores
from calibwrap.summary import Figure

Regime = Literal["calibratable", "non-calibratable", "undecided", "no reference"]


@dataclass(frozen=True)
class AgainstReference:
    """What a reference P* says of a model; all of it relative to that reference."""

    target_error: float
    """Mean of |c - P*(choice)|: the target calibration error, TCE."""
    relative_ece: float
    """ECE of the model if P* were the truth; never above `target_error`, whatever the bins."""
    critical_accuracy: float
    """A*, the mean of max P*: if P* is the truth, nobody can expect to be right more often."""
    excess: Figure
    """Accuracy minus A*, with its paired 95 % bootstrap interval over questions."""
    accuracy: float
    """Accuracy of the reference's own first choices."""
    ece: float
    """The reference's own ECE on these questions: how far it may be taken for the truth."""


@dataclass(frozen=True)
class RegimeReport:
    """Accuracy, calibration and bounds of a model on one question set."""

    questions: int
    n_bins: int
    accuracy: float
    mean_confidence: float
    ece: float
    """Plug-in ECE of the first choices, l1, bins of equal width."""
    lower_bound: float
    """|mean confidence - accuracy|. Provable: on these questions no binning gives a smaller ECE."""
    upper_bound: float
    """Mean of |c - a|, a = 1 for a right answer. Provable: on these questions no binning gives a larger ECE."""
    reference: AgainstReference | None
    """Estimates relative to a reference; None without one."""

    @property
    def regime(self) -> Regime:
        """How accuracy stands to A*: an estimate relative to the reference.

        "calibratable" where accuracy is below A* and "non-calibratable" where it is above, each only when the 95 %
        interval of the difference leaves 0 out; "undecided" otherwise.
        """
        if self.reference is None or self.reference.excess.low is None or self.reference.excess.high is None:
            return "no reference"
        if self.reference.excess.low > 0.0:
            return "non-calibratable"
        return "calibratable" if self.reference.excess.high < 0.0 else "undecided"

    @property
    def text(self) -> str:
        """The report in words: what is proved on these questions, and what only holds relative to the reference."""
        lines = [
            f"{self.questions} questions: accuracy {self.accuracy:.3f}, mean confidence {self.mean_confidence:.3f}, "
            f"ECE {self.ece:.3f} ({self.n_bins} bins).",
            f"Provable on these questions, for any bins: {self.lower_bound:.3f} <= ECE <= {self.upper_bound:.3f}.",
        ]
        if self.reference is None:
            return "\n".join([*lines, "No reference: whether the model is calibratable cannot be estimated."])
        found = self.reference
        return "\n".join(
            [
                *lines,
                f"Relative to the reference (its own accuracy {found.accuracy:.3f} and ECE {found.ece:.3f} here): "
                f"target calibration error {found.target_error:.3f}, ECE {found.relative_ece:.3f}, critical accuracy "
                f"{found.critical_accuracy:.3f}.",
                f"Accuracy minus critical accuracy: {found.excess.value:+.3f} (95 % interval {found.excess.low:+.3f} "
                f"to {found.excess.high:+.3f}). Estimate relative to the reference: {_WORDS[self.regime]}",
            ]
        )


_WORDS = {
    "calibratable": "calibratable; confidences equal to the reference's would cost no accuracy.",
    "non-calibratable": "non-calibratable; the model is right more often than the reference allows, so confidences "
    "equal to the reference's would be too low.",
    "undecided": "undecided; more questions, or a better reference, would tell.",
}


def regime_report(
    scores: OptionScores, answers: ArrayLike, reference: OptionScores | None = None, *, n_bins: int = 10, seed: int = 0
) -> RegimeReport:
    """Return accuracy, ECE and its bounds, and what a reference says about the room for calibration.

    With c the confidence and a the correctness of each first choice, every binning has |mean c - mean a| <= ECE <=
    mean |c - a|: the triangle inequality, over the bins and inside them. The same holds for soft correctness
    P*(choice), which gives `relative_ece` <= `target_error`. If P* is the truth, the ECE on infinitely many such
    questions is at most `target_error`, and no predictor can expect to be right more often than A*, the mean of max P*.
    The constants of the paper's own critical accuracy were not found; A* stands in for it.

    Args:
        scores: N questions by the model.
        answers: (N,) indices of the right options.
        reference: the same questions by a model, an ensemble or people whose probabilities are taken for the truth.
        n_bins: bins of the ECE.
        seed: of the bootstrap.

    Raises:
        InputError: an answer that does not exist, or a reference with other questions or options.

    References:
        Xiao et al.: Restoring Calibration for Aligned Large Language Models (2025), section 4, for the two regimes.

    >>> model = OptionScores(np.log([[0.9, 0.1]] * 10), readout="label")
    >>> base = OptionScores(np.log([[0.7, 0.3]] * 10), readout="label")
    >>> found = regime_report(model, [0] * 6 + [1] * 4, base)
    >>> round(found.ece, 3), round(found.lower_bound, 3), round(found.reference.critical_accuracy, 3), found.regime
    (0.3, 0.3, 0.7, 'undecided')
    """
    right = checked_answers(answers, scores.mask.shape)
    if not scores.mask[np.arange(len(right)), right].all():
        raise InputError("Each of 'answers' must be the index of an option that exists in its question.")
    confidence = np.minimum(scores.confidence, 1.0)
    correct = scores.choice == right
    against = None if reference is None else _against(scores, correct, right, reference, n_bins, seed)
    return RegimeReport(
        questions=len(right),
        n_bins=n_bins,
        accuracy=float(correct.mean()),
        mean_confidence=float(confidence.mean()),
        ece=ece(confidence, correct, n_bins=n_bins),
        lower_bound=float(abs(confidence.mean() - correct.mean())),
        upper_bound=float(np.abs(confidence - correct).mean()),
        reference=against,
    )


def _against(
    scores: OptionScores, correct: Bools, right: ArrayLike, reference: OptionScores, n_bins: int, seed: int
) -> AgainstReference:
    """Return what `reference` says of `scores`."""
    if reference.mask.shape != scores.mask.shape or (reference.mask != scores.mask).any():
        raise InputError(
            "'reference' must be scores of the same questions and options. Got "
            f"{reference.mask.shape} beside {scores.mask.shape}, or options that differ."
        )
    confidence = np.minimum(scores.confidence, 1.0)
    likely = np.minimum(reference.probabilities[np.arange(len(scores)), scores.choice], 1.0)
    best = np.minimum(reference.confidence, 1.0)
    own = reference.choice == right
    excess = correct - best
    low, high = bootstrap_ci(_mean, excess, seed=seed) if len(excess) > 1 else (-1.0, 1.0)
    return AgainstReference(
        target_error=float(np.abs(confidence - likely).mean()),
        relative_ece=ece(confidence, likely, n_bins=n_bins),
        critical_accuracy=float(best.mean()),
        excess=Figure(_mean(excess), low, high),
        accuracy=float(own.mean()),
        ece=ece(best, own, n_bins=n_bins),
    )


def _mean(values: Floats) -> float:
    return float(np.mean(values))
