"""What a CATTO head does for held-out questions, beside doing nothing and beside one temperature fitted with labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from calibwrap.metrics import bootstrap_ci
from calibwrap.scores import Bools, Floats, Ints, log_softmax
from calibwrap.summary import BINS, Figure
from calibwrap.training.head_loss import tempered
from calibwrap.training.head_positions import Positions
from calibwrap.training.held_out import Figures

_SPAN = 3.0
"""Largest log of a temperature that is looked for, either way."""
_SAID = {
    "ece_tokens": "ECE of tokens of right answers",
    "ece_answers": "ECE of answers",
    "accuracy_answers": "accuracy of answers",
}


@dataclass(frozen=True)
class HeadFigures:
    """Held-out figures, each with its value and the ends of its 95 % interval over questions.

    "ece_tokens" is that of the tokens of right answers, at level "token" only; "ece_answers" and "accuracy_answers"
    are those of the most probable option. At level "token" an option's score is the sum over its tokens.
    """

    before: Figures
    """As the model came."""
    temperature: Figures
    """With one temperature for all rows, of greatest likelihood on the rows that the head was trained on."""
    after: Figures
    """With the head."""
    value: float
    """That temperature."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence a figure, for the fit report, and what to think of them."""
        told = [
            f"Held-out {_SAID[name]}: {self.before[name]['value']:.3f} as the model came, "
            f"{self.temperature[name]['value']:.3f} at temperature {self.value:.3g}, "
            f"{self.after[name]['value']:.3f} with this head."
            for name in self.after
        ]
        return (*told, "The same questions chose the epoch, so the head's own figures are somewhat too good.")


def head_figures(train: Positions, held_out: Positions, powers: Floats) -> HeadFigures:
    """Return the figures of a head that gives the held-out rows 1 / temperature `powers` (N,).

    Args:
        train: rows that the head was trained on.
        held_out: rows of other questions; at level "token" of all their options.
        powers: of the head, for `held_out`.
    """
    value = labelled_temperature(train.take(train.is_right))
    return HeadFigures(
        before=_figures(held_out, np.ones(len(held_out))),
        temperature=_figures(held_out, np.full(len(held_out), 1.0 / value)),
        after=_figures(held_out, powers),
        value=value,
    )


def labelled_temperature(rows: Positions) -> float:
    """Return the temperature, from 1/20 to 20, at which the chosen entries of `rows` have the greatest likelihood.

    >>> one = np.zeros((4, 0))
    >>> right = np.array([True, True, True, False])  # softmax(4 / T) must be 3/4, so T = 4 / log 3
    >>> logs = np.tile(log_softmax(np.array([4.0, 0.0])), (4, 1))
    >>> chosen = np.where(right, logs[:, 0], logs[:, 1])
    >>> rows = Positions(logs, one, one[0], chosen, right, *[np.arange(4)] * 2, is_right=np.ones(4, dtype=bool))
    >>> round(labelled_temperature(rows), 2)
    3.64
    """
    from scipy.optimize import minimize_scalar

    possible = rows.take(rows.chosen_logprob > -np.inf)  # the others are as improbable at any temperature

    def loss(log_temperature: float) -> float:
        powers = np.full(len(possible), np.exp(-log_temperature))
        return float((tempered(possible, powers).log_partition - powers * possible.chosen_logprob).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-_SPAN, _SPAN), method="bounded").x))


def _figures(rows: Positions, powers: Floats) -> Figures:
    at = tempered(rows, powers)
    if rows.level == "option":
        return _of_answers(np.minimum(at.confidence, 1.0), rows.is_top, rows.question)
    right = rows.is_right
    tokens = {"ece_tokens": _ece(np.minimum(at.confidence, 1.0)[right], rows.is_top[right], rows.question[right])}
    scores, answers = _options(rows, powers * rows.chosen_logprob - at.log_partition)
    confidence = np.exp(log_softmax(scores).max(axis=1))
    correct = scores.argmax(axis=1) == answers
    return _told(tokens) | _of_answers(np.minimum(confidence, 1.0), correct, np.arange(len(answers)))


def _of_answers(confidence: Floats, correct: Bools, question: Ints) -> Figures:
    accuracy = Figure(float(correct.mean()), *bootstrap_ci(_mean, correct))
    return _told({"ece_answers": _ece(confidence, correct, question), "accuracy_answers": accuracy})


def _options(rows: Positions, logprobs: Floats) -> tuple[Floats, Ints]:
    """Return (Q, K) sums of the log-probabilities of options' tokens, -inf for no option, and (Q,) the right ones."""
    _, at = np.unique(rows.question, return_inverse=True)
    sums = np.zeros((at.max() + 1, rows.option.max() + 1))
    exists = np.zeros(sums.shape, dtype=np.bool_)
    np.add.at(sums, (at, rows.option), logprobs)
    exists[at, rows.option] = True
    answers = np.zeros(len(sums), dtype=np.int64)
    answers[at[rows.is_right]] = rows.option[rows.is_right]
    return np.where(exists, sums, -np.inf), answers


def _ece(confidence: Floats, correct: Bools, question: Ints) -> Figure:
    """Return the calibration error with its interval; whole questions are resampled, with all their rows."""
    _, at = np.unique(question, return_inverse=True)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.zeros((at.max() + 1, BINS))
    np.add.at(gaps, (at, bins), confidence - correct)
    counts = np.bincount(at).astype(np.float64)
    return Figure(_share(gaps, counts), *bootstrap_ci(_share, gaps, counts))


def _share(gaps: Floats, counts: Floats) -> float:
    return float(np.abs(gaps.sum(axis=0)).sum() / counts.sum())


def _mean(values: Floats) -> float:
    return float(np.mean(values))


def _told(found: Mapping[str, Figure]) -> Figures:
    return {name: asdict(figure) for name, figure in found.items()}
