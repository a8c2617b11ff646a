"""RCFT's E-step: once an epoch, the model as it is answers all training questions, and bins are measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback

from calibwrap.base import Adapter, Readout
from calibwrap.questions import Question
from calibwrap.scores import Floats
from calibwrap.training.rcft import BinAccuracies, bin_accuracies

_KEY = "calibwrap_rcft"
"""Name under which the trainer's state, and so each checkpoint, keeps what the last E-step found."""


def first_choices(
    questions: Sequence[Question], readout: Readout, adapter: Adapter, part: int = 0, parts: int = 1
) -> list[tuple[int, float, bool]]:
    """Return (index, confidence, whether it is right) of the model's first choice for every `parts`-th question."""
    indices = range(part, len(questions), parts)
    asked = [questions[index] for index in indices]
    if not asked:
        return []
    scores = readout.ask(adapter, asked)
    confidence = np.minimum(scores.confidence, 1.0)
    return [
        (index, float(confidence[row]), int(scores.choice[row]) == question.answer)
        for row, (index, question) in enumerate(zip(indices, asked, strict=True))
    ]


def measured_bins(choices: Sequence[tuple[int, float, bool]], n_bins: int, least_in_bin: int) -> dict[str, Any]:
    """Return the E-step's record, made of what JSON knows: edges, accuracy and rows of the bins, and all members.

    >>> record = measured_bins([(1, 0.9, True), (0, 0.2, False)], n_bins=2, least_in_bin=1)
    >>> record["accuracy"], record["members"]
    ([0.0, 1.0], [0, 1])
    """
    _, confidence, correct = zip(*sorted(choices), strict=True)
    bins = bin_accuracies(confidence, correct, n_bins, least_in_bin)
    return {
        "edges": bins.edges.tolist(),
        "accuracy": bins.accuracy.tolist(),
        "rows": bins.rows.tolist(),
        "members": bins.index(confidence).tolist(),
    }


def bins_of(record: Mapping[str, Any]) -> tuple[BinAccuracies, Floats]:
    """Return the bins of an E-step's record, and the bin of each question."""
    bins = BinAccuracies(*(np.array(record[name]) for name in ("edges", "accuracy", "rows")))
    return bins, np.array(record["members"])


class EStep(TrainerCallback):  # type: ignore[misc]
    """Runs the E-step when an epoch begins, and keeps its record in the trainer's state.

    A run that is resumed within an epoch finds the record in its checkpoint: the model that it was made with is gone.
    """

    def __init__(self, measure: Callable[[], dict[str, Any]], use: Callable[[Mapping[str, Any]], None]) -> None:
        """Take what measures, and who is told."""
        self._measure, self._use = measure, use

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, or find what was measured when this epoch began."""
        epoch = int((state.epoch or 0.0) + 1e-6)
        record = state.stateful_callbacks.get(_KEY)
        if record is None or record["epoch"] != epoch:
            record = {"epoch": epoch, **self._measure()}
            state.stateful_callbacks[_KEY] = record
        self._use(record)
