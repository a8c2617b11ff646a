"""CATTO heads: training them on recorded rows of a frozen model. No torch: a head has some hundred numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from calibwrap.calibrators import CattoHead, with_report
from calibwrap.calibrators._catto_features import score_features
from calibwrap.calibrators._inputs import today
from calibwrap.calibrators.catto_head import MOST
from calibwrap.errors import FitError, InputError
from calibwrap.metrics import ece
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats
from calibwrap.training.catto import Loss, Target
from calibwrap.training.head_figures import HeadFigures, head_figures
from calibwrap.training.head_loss import head_loss, tempered
from calibwrap.training.head_positions import Positions, Progress, record_positions
from calibwrap.training.held_out import check_held_out
from calibwrap.training.settings import HeadSettings

__all__ = ["Positions", "record_positions", "train_catto_head", "train_head"]

N_BINS = 15
"""Bins of the held-out ECE."""
Parameters = dict[str, Floats]
"""The trained fields of a head by name."""


def train_catto_head(
    positions: Positions,
    held_out: Positions,
    *,
    target: Target = "hard",
    margin_scale: float = 1.0,
    loss: Loss = "bce",
    features: Literal["scores", "hidden"] = "scores",
    top: int = 20,
    width: int = 16,
    ridge: float = 1e-3,
    learning_rate: float = 0.02,
    max_epochs: int = 200,
    patience: int = 20,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> CattoHead:
    """Return the head of the epoch with the least held-out ECE; epoch 0 is temperature 1 everywhere.

    Full-batch Adam on CATTO's token loss over all rows of `positions`, those of wrong answers' texts included where
    they were recorded. Held-out ECE is measured on the rows of right answers: whether the most probable entry is the
    right one. Training stops when `patience` epochs in a row were no better.

    Args:
        positions: rows to train on.
        held_out: rows of other questions, of the same level and model.
        target: "hard", whether the chosen entry is the most probable one; "surrogate", sigmoid(margin_scale * margin).
        margin_scale: slope kappa of the surrogate; 1 is the paper's.
        loss: "l1" |c - s|, "l2" (c - s)^2, "bce".
        features: "scores", or "hidden" where hidden states were recorded.
        top: entries of a row that features are computed from.
        width: units of the hidden layer.
        ridge: weight of half the squared weights.
        learning_rate: Adam's.
        max_epochs: most epochs.
        patience: epochs without a better held-out ECE before training stops.
        seed: draws the first layer.
        progress: called with (epoch, held-out ECE).

    Raises:
        InputError: rows of two levels, readouts or models, none of a right answer, or without what `features` and
            `top` need.
        FitError: the loss or a step is not finite.
    """
    _check_rows(positions, held_out, features, top)
    task = _Task(positions, _inputs(positions, features, top), target, margin_scale, loss, ridge)
    judged = held_out.take(held_out.is_right)
    others = _inputs(judged, features, top)
    head = kept = _fresh(task.inputs, width, features, top, positions.level, seed)
    descent = _Adam(learning_rate)
    found = [_held_out_ece(head, judged, others)]
    for epoch in range(1, max_epochs + 1):
        value, gradient = task.objective(head)
        with np.errstate(invalid="ignore", over="ignore"):
            stepped = descent.step(_parameters(head), gradient)
        if not np.isfinite(value) or not all(np.isfinite(numbers).all() for numbers in stepped.values()):
            raise FitError(
                f"Epoch {epoch} at loss {value:g} led to numbers that are not finite: lower 'learning_rate'."
            )
        head = replace(head, **stepped)  # type: ignore[arg-type]
        found.append(_held_out_ece(head, judged, others))
        kept = head if found[-1] < min(found[:-1]) else kept
        if progress is not None:
            progress(epoch, found[-1])
        if epoch - int(np.argmin(found)) >= patience:
            break
    return replace(kept, report=_report(task, kept, found, len(judged)))


def train_head(
    settings: HeadSettings, progress: Progress | None = None, *, replace_old: bool = False
) -> tuple[CattoHead, HeadFigures]:
    """Return the head that `settings` ask for, saved at `settings.output`, and its held-out figures.

    A recording that was stopped goes on. Of held-out questions all options are read, so that answers can be measured.

    Args:
        settings: of the head.
        progress: called with (questions read, questions in all).
        replace_old: whether a file that is there already is replaced.

    Raises:
        JournalError: there is a file at `settings.output`, and it is not to be replaced.
        InputError: held-out questions that are trained on, without options or fewer than 2, or hidden states asked
            for at level "option".
        QuestionError: a question without an answer.
        CapabilityError: the backend does not give what is asked for.
    """
    from calibwrap.saving import save
    from calibwrap.training.resuming import beginning_of_head
    from calibwrap.wrap import wrap

    beginning_of_head(settings, replace_old)
    train, held_out = settings.train.load(), settings.held_out.load()
    check_held_out(held_out, train)
    folder = settings.output.with_suffix(".positions")
    wants_states = settings.features == "hidden"
    options: dict[str, Any] = {"hidden": True} if wants_states and settings.model.startswith("hf:") else {}
    with wrap(settings.model, **options) as lm:
        recorded, others = [
            record_positions(
                lm, questions, level=settings.level, wrong=wrong, top=settings.top,
                hidden=wants_states, readout=settings.readout, folder=folder / name,
                seed=settings.seed, progress=progress,
            )
            for name, questions, wrong in (("train", train, settings.wrong), ("held-out", held_out, "all"))
        ]  # fmt: skip
    head = train_catto_head(
        recorded, others, target=settings.target, margin_scale=settings.margin_scale, loss=settings.loss,
        features=settings.features, top=settings.top, width=settings.width, max_epochs=settings.max_epochs,
        patience=settings.patience, seed=settings.seed,
    )  # fmt: skip
    found = head_figures(recorded, others, head_powers(head, others))
    if head.report is not None:
        head = with_report(head, replace(head.report, notes=(*head.report.notes, *found.notes)))
    save(head, settings.output)
    return head, found


@dataclass(frozen=True)
class _Task:
    """What is minimised."""

    positions: Positions
    inputs: Floats
    """(N, F) features."""
    target: Target
    margin_scale: float
    loss: Loss
    ridge: float

    def at(self, powers: Floats) -> tuple[float, Floats]:
        """Return the mean loss and its derivative by each row's power."""
        settings: Mapping[str, Any] = {"target": self.target, "margin_scale": self.margin_scale, "loss": self.loss}
        return head_loss(self.positions, powers, **settings)

    def objective(self, head: CattoHead) -> tuple[float, Parameters]:
        """Return the loss with its ridge, and the gradient by each parameter."""
        scaled = (self.inputs - head.center) / head.scale
        inner = np.tanh(scaled @ head.first_weights + head.first_biases)
        bent = np.tanh((inner @ head.last_weights + head.last_bias) / MOST)
        powers = np.exp(-MOST * bent)
        value, slope = self.at(powers)
        outer = -slope * powers * (1.0 - bent**2)
        back = outer[:, None] * head.last_weights * (1.0 - inner**2)
        value += 0.5 * self.ridge * float((head.first_weights**2).sum() + (head.last_weights**2).sum())
        return value, {
            "first_weights": scaled.T @ back + self.ridge * head.first_weights,
            "first_biases": back.sum(axis=0),
            "last_weights": inner.T @ outer + self.ridge * head.last_weights,
            "last_bias": outer.sum(),
        }


class _Adam:
    """Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015, with its constants."""

    def __init__(self, rate: float) -> None:
        self._rate, self._steps = rate, 0
        self._mean: Parameters = {}
        self._square: Parameters = {}

    def step(self, parameters: Parameters, gradient: Parameters) -> Parameters:
        """Return the parameters after one step."""
        self._steps += 1
        after = {}
        for name, slope in gradient.items():
            self._mean[name] = 0.9 * self._mean.get(name, 0.0 * slope) + 0.1 * slope
            self._square[name] = 0.999 * self._square.get(name, 0.0 * slope) + 0.001 * slope**2
            mean = self._mean[name] / (1.0 - 0.9**self._steps)
            spread = np.sqrt(self._square[name] / (1.0 - 0.999**self._steps))
            after[name] = parameters[name] - self._rate * mean / (spread + 1e-8)
        return after


def _inputs(positions: Positions, features: str, top: int) -> Floats:
    found = score_features(positions.logprobs, top)
    return found if features == "scores" else np.concatenate([found, np.asarray(positions.hidden, float)], axis=1)


def _fresh(inputs: Floats, width: int, features: Any, top: int, level: Any, seed: int) -> CattoHead:
    """Return a head that gives temperature 1 to every row, its first layer drawn at random."""
    spread = inputs.std(axis=0)
    first = np.random.default_rng(seed).normal(0.0, inputs.shape[1] ** -0.5, (inputs.shape[1], width))
    return CattoHead(
        center=inputs.mean(axis=0), scale=np.where(spread > 1e-6, spread, 1.0), first_weights=first,
        first_biases=np.zeros(width), last_weights=np.zeros(width), last_bias=0.0, features=features, top=top,
        level=level,
    )  # fmt: skip


def _parameters(head: CattoHead) -> Parameters:
    return {
        "first_weights": head.first_weights,
        "first_biases": head.first_biases,
        "last_weights": head.last_weights,
        "last_bias": np.asarray(head.last_bias),
    }


def head_powers(head: CattoHead, positions: Positions) -> Floats:
    """Return (N,) one over the temperature that `head` gives to each recorded row."""
    return np.exp(-head.log_temperatures(_inputs(positions, head.features, head.top)))


def _held_out_ece(head: CattoHead, judged: Positions, inputs: Floats) -> float:
    confidence = tempered(judged, np.exp(-head.log_temperatures(inputs))).confidence
    return ece(np.minimum(confidence, 1.0), judged.is_top, n_bins=N_BINS)


def _check_rows(positions: Positions, held_out: Positions, features: str, top: int) -> None:
    names = ("level", "readout", "provenance")
    different = [name for name in names if getattr(positions, name) != getattr(held_out, name)]
    if different:
        told = "; ".join(f"{name} {getattr(positions, name)!r} and {getattr(held_out, name)!r}" for name in different)
        raise InputError(
            f"Both recordings must be of one level, one readout and one model. Got {told}: record the held-out rows "
            "the same way."
        )
    if not held_out.is_right.any():
        raise InputError("The held-out recording has no rows of right answers, on which ECE is measured.")
    for name, side in (("training", positions), ("held-out", held_out)):
        width = side.logprobs.shape[1]
        if side.level == "token" and width < min(top, side.listed):
            raise InputError(f"'top' is {top}, and {width} entries of the {name} rows were recorded: record more.")
    if features == "hidden" and (positions.hidden is None or held_out.hidden is None):
        raise InputError("features='hidden' needs hidden states: record_positions(..., hidden=True), on hf.")


def _report(task: _Task, head: CattoHead, found: list[float], judged: int) -> FitReport:
    best, epochs, rows = int(np.argmin(found)), len(found) - 1, len(task.positions)
    slope = f" of slope {task.margin_scale:g}" if task.target == "surrogate" else ""
    notes = [
        f"Loss {task.loss} on the {task.target} target{slope}; {head.features} features.",
        f"Held-out ECE ({N_BINS} bins, {judged} rows): {found[0]:.4f} at temperature 1, {found[best]:.4f} after epoch "
        f"{best} of {epochs}.",
    ]
    if best == 0:
        notes.append("No epoch lowered the held-out ECE: this head is the identity.")
    powers = np.exp(-head.log_temperatures(task.inputs))
    return FitReport(
        method="catto-head", rows=rows, rows_used=rows, objective_before=task.at(np.ones(rows))[0],
        objective_after=task.at(powers)[0], converged=best < epochs or epochs == 0, notes=tuple(notes),
        readout=task.positions.readout, provenance=task.positions.provenance, date=today(),
    )  # fmt: skip
