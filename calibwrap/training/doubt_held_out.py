"""How good the confidence is that a model in training states, on questions that it does not learn from."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.answer_scores import OutcomeScores, of_one_outcome
from calibwrap.metrics import bootstrap_ci
from calibwrap.readouts.verbalized import confidence_of
from calibwrap.scores import Bools, Floats
from calibwrap.summary import Figure, figures
from calibwrap.training.doubt_answers import question_rows
from calibwrap.training.doubt_measures import GRID, read_stated
from calibwrap.training.held_out import Figures, HeldOutSet
from calibwrap.training.lora import without_peft

_PART = 16
"""Questions that are read between two looks at whether it is time to stop."""


@dataclass(frozen=True)
class StatedHeldOutSet(HeldOutSet):
    """Held-out questions on which the model answers, and states how confident it is."""

    answer_tokens: int = 32
    """Longest answer in free text."""

    def figures(self, model: Any, is_over: Callable[[], bool]) -> Figures | None:
        """Return `stated_figures` of the model's likeliest answers; None when `is_over` said so on the way."""
        from calibwrap.adapters.hf import Transformers

        reader = Transformers(without_peft(model), self.tokenizer, batch_size=_PART)
        rows = question_rows(self.questions)
        parts: list[tuple[Floats, Bools]] = []
        for start in range(0, len(rows), _PART):
            parts.append(read_stated(reader, rows[start : start + _PART], max_tokens=self.answer_tokens))
            if is_over():
                return None
        levels, correct = (np.concatenate(part) for part in zip(*parts, strict=True))
        return {name: asdict(figure) for name, figure in stated_figures(levels, correct).items()}


def stated_figures(levels: ArrayLike, correct: ArrayLike) -> dict[str, Figure]:
    """Return what stated confidences are worth, with 95 % intervals, for level probabilities (N, 11) and verdicts (N,).

    - "accuracy": share of right answers; "malformed": mean probability of stating no level. Both of all N questions.
    - "mean_confidence", "ece" (15 bins), "auroc", "brier" (mean squared difference of confidence and verdict, from 0
      to 1): of the stated confidence as the readout `verbalized` gives it, the expected level / 10.
    - "ece_drawn": of a confidence that is drawn, each level a bin, as in `stated_measures`.

    Questions in which no level has any probability are left out of all but the first two.

    >>> found = stated_figures(np.eye(11)[[9, 9, 1, 1]], [True, True, False, True])
    >>> {name: round(found[name].value, 3) for name in ("accuracy", "mean_confidence", "ece_drawn", "brier")}
    {'accuracy': 0.75, 'mean_confidence': 0.5, 'ece_drawn': 0.25, 'brier': 0.21}
    """
    levels, right = np.asarray(levels, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    said = levels.sum(axis=1)
    heard = said > 0.0
    found = {"accuracy": _resampled(_mean, right)} | _of_heard(levels[heard], right[heard])
    return found | {"malformed": _resampled(_mean, np.clip(1.0 - said, 0.0, 1.0))}


def _of_heard(levels: Floats, right: Bools) -> dict[str, Figure]:
    """Return the figures of questions in which a level has some probability."""
    if len(levels) < 2:
        none = Figure(None, None, None, "not defined: fewer than two confidences could be read")
        return dict.fromkeys(("mean_confidence", "ece", "ece_drawn", "auroc", "brier"), none)
    stated = np.clip(confidence_of(levels), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        outcomes = np.log(np.column_stack([stated, 1.0 - stated]))
    both = np.ones(outcomes.shape, dtype=np.bool_)  # at confidence 0 or 1, too, there are two outcomes
    first = np.zeros(len(stated), dtype=np.int64)
    scores = OutcomeScores(outcomes, "verbalized", both, picked=first, stated=stated)
    known = of_one_outcome(scores, figures(scores, np.where(right, 0, 1)))
    gaps = levels / levels.sum(axis=1, keepdims=True) * (GRID - right[:, None])
    found = {name: known[name] for name in ("mean_confidence", "ece")} | {"ece_drawn": _resampled(_drawn_ece, gaps)}
    return found | {name: known[name] for name in ("auroc", "brier")}


def _resampled(measure: Callable[..., float], values: ArrayLike) -> Figure:
    return Figure(measure(values), *bootstrap_ci(measure, values))


def _mean(values: ArrayLike) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def _drawn_ece(gaps: ArrayLike) -> float:
    """Return the sum over levels of how far confidence and verdict lie apart, each weighted by its probability."""
    return float(np.abs(np.asarray(gaps).mean(axis=0)).sum())
