"""How good stated confidences are, worked out from the probabilities of all levels: no confidence is drawn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibwrap import metrics
from calibwrap.base import Adapter
from calibwrap.freetext.judging import Judge
from calibwrap.readouts.verbalized import LEVELS, confidence_of, read_levels
from calibwrap.scores import Bools, Floats
from calibwrap.training.doubt_answers import Drawing, Row, confidence_prompt, drawn_answers, judged

GRID = np.linspace(0.0, 1.0, len(LEVELS))
"""The confidences that can be stated."""
_STATED = ("ece", "auroc", "ece_likeliest", "auroc_likeliest", "ece_expected", "auroc_expected")


def stated_measures(levels: ArrayLike, correct: ArrayLike, table: ArrayLike) -> dict[str, float]:
    """Return what stated confidences are worth, for level probabilities (N, 11), verdicts (N,) and rewards (12, 2).

    - "accuracy": share of right answers; "malformed": mean probability of stating no level; "reward": mean expected
      reward, malformed statements included.
    - "ece", "auroc": of a confidence that is drawn from the levels, each question weighing 1; every level is a bin.
      "ece" is Σ_k |Σ_n w_nk (k/10 - a_n)| / N, the limit of many draws a question.
    - "ece_likeliest", "auroc_likeliest": of the likeliest level, which greedy decoding states.
    - "ece_expected", "auroc_expected": of the expected level / 10, which the readout gives.

    Questions without any probability on a level are left out of all but the first three. A number that nothing
    determines is NaN: AUROC where all answers are right, or all wrong, and all of them where nothing is stated.

    >>> rewards = np.tile([0.0, 1.0], (12, 1))
    >>> found = stated_measures(np.eye(11)[[9, 9, 1, 1]], [True, True, False, True], rewards)
    >>> round(found["ece"], 3), round(found["auroc"], 3), found["accuracy"], found["reward"]
    (0.25, 0.833, 0.75, 0.75)
    """
    levels, right = np.asarray(levels, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    rewards = np.asarray(table, dtype=np.float64)[:, right.astype(int)].T  # (N, 12)
    said = levels.sum(axis=1)
    each = np.column_stack([levels, 1.0 - said])
    found = {
        "accuracy": float(right.mean()),
        "malformed": float(1.0 - said.mean()),
        "reward": float((each * rewards).sum(axis=1).mean()),
    }
    heard = said > 0.0
    weights = levels[heard] / said[heard, None]
    return found | (_of_statements(weights, right[heard]) if heard.any() else dict.fromkeys(_STATED, float("nan")))


def read_stated(
    adapter: Adapter, rows: Sequence[Row], judge: Judge | None = None, max_tokens: int = 32
) -> tuple[Floats, Bools]:
    """Return level probabilities (N, 11) of the model's likeliest answers, and (N,) whether these are right."""
    greedy = Drawing(temperature=0.0, max_tokens=max_tokens)
    answers = drawn_answers(adapter, rows, greedy, lambda: 0.0)
    prompts = [confidence_prompt(row, answer) for row, answer in zip(rows, answers, strict=True)]
    return read_levels(adapter, prompts), np.array(judged(rows, answers, judge))


def _of_statements(weights: Floats, right: Bools) -> dict[str, float]:
    """Return ECE and AUROC for the distributions (N, 11) of well-formed statements."""
    gaps = (weights * (GRID - right[:, None])).sum(axis=0)  # (11,)
    found = {"ece": float(np.abs(gaps).sum() / len(right)), "auroc": _auroc_of_draws(weights, right)}
    for name, confidence in (("likeliest", GRID[weights.argmax(axis=1)]), ("expected", confidence_of(weights))):
        found[f"ece_{name}"] = metrics.ece(np.clip(confidence, 0.0, 1.0), right, n_bins=len(LEVELS))
        found[f"auroc_{name}"] = metrics.auroc(confidence, right) if 0 < right.sum() < len(right) else float("nan")
    return found


def _auroc_of_draws(weights: Floats, right: Bools) -> float:
    """Return the probability that a right answer is stated with more confidence than a wrong one, ties counting half.

    >>> _auroc_of_draws(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([True, False]))
    0.75
    """
    if right.all() or not right.any():
        return float("nan")
    high, low = weights[right].mean(axis=0), weights[~right].mean(axis=0)  # (11,) each
    below = np.cumsum(low) - low
    return float(high @ (below + low / 2.0))
