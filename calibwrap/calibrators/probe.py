"""A linear head on hidden states: it reads which option is right out of what the model knows and does not say.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016; pairs of options as in
Bradley and Terry, "Rank analysis of incomplete block designs", 1952.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._affine import checked_parameters, checked_strength
from calibwrap.calibrators._inputs import checked_answers, today
from calibwrap.calibrators.temperature import fit_temperature
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError, need
from calibwrap.provenance import Candidate, FitReport, Provenance
from calibwrap.scores import Bools, Floats, Ints, OptionScores, log_softmax

LEAST_ROWS = 20
"""Questions below which no probe is fitted: four in a fold, and still four folds to learn from."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse strengths of the ridge that are tried, scikit-learn's C; states are standardised before."""


@dataclass(frozen=True, eq=False)
class Probe(Calibrator):
    """Gives each option the inner product of its state with `weights`; softmax over the options is its probability.

    It reads hidden states, not scores: `readouts` that hold it ask for them. Called on the scores that it gave, it
    leaves them as they are; other scores are refused. All options share the weights, so any number of them will do, and
    their order does not matter. The first choice may differ from the model's own, and so may the accuracy.

    Raises:
        InputError: `weights` are not finite and (D,), or `layer` is no whole number of at least 0.

    >>> probe = Probe([1.0, 0.0], layer=12)
    >>> np.exp(log_softmax(probe.of_states([[[np.log(3.0), 5.0], [0.0, 9.0]]]))).round(2).tolist()
    [[0.75, 0.25]]
    """

    kind: ClassVar[str] = "probe"
    weights: Floats
    """(D,) nats for each number of a state."""
    layer: int
    """The layer whose states it reads; 0 is the embedding."""
    template: str = ""
    """Label of the template that the options were read in."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check and lock the numbers."""
        object.__setattr__(self, "weights", checked_parameters("Probe", "weights", self.weights, None))
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or self.layer < 0:
            raise InputError(f"'layer' of Probe must be a whole number of at least 0. Got {self.layer!r}.")

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers and the template are equal."""
        if not isinstance(other, Probe):
            return NotImplemented
        mine, theirs = (self.layer, self.template), (other.layer, other.template)
        return mine == theirs and np.array_equal(self.weights, other.weights)

    def __hash__(self) -> int:
        return hash((self.weights.tobytes(), self.layer, self.template))

    @property
    def readout(self) -> str:
        """Name of the scores that it gives: layer, template and a hash of the numbers."""
        import hashlib  # a shared library of its own, which few need

        return f"probe:{self.layer}:{self.template}:{hashlib.sha256(self.weights.tobytes()).hexdigest()[:8]}"

    def of_states(self, states: ArrayLike) -> Floats:
        """Return logits (N, K) of the options whose states (N, K, D) are given.

        Raises:
            InputError: states of another width, or not finite.
        """
        table = np.asarray(states, dtype=np.float64)
        if table.ndim != 3 or table.shape[2] != len(self.weights) or not np.isfinite(table).all():
            raise InputError(
                f"'states' must be finite and (N, K, {len(self.weights)}), as this probe was fitted. Got {table.shape}."
            )
        return np.asarray(table @ self.weights)

    def logits(self, logprobs: Floats) -> Floats:
        """Return nothing: log-probabilities are not states.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "A probe reads hidden states, and scores came: use it on a model, lm.with_calibrator(probe), or on states, "
            "probe.of_states(...)."
        )

    def _on_options(self, scores: OptionScores) -> OptionScores:
        return scores if scores.readout == self.readout else replace(scores, logprobs=self.logits(scores.logprobs))


def fit_probe(
    states: Mapping[int, ArrayLike],
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    template: str = "",
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_folds: int = 5,
    seed: int = 0,
    provenance: Provenance | None = None,
) -> Probe:
    """Return the probe whose layer and strength do best on held-out questions, fitted on all of them.

    The weights are those of a ridge-regularised logistic regression on the differences between the right option's
    state and each other one's; scikit-learn fits it. Layer and strength are those of least cross-validated log loss,
    and a temperature on the held-out logits sets the scale. All of this is repeated in an outer cross-validation, whose
    log loss and accuracy, on questions that no part of the choice saw, stand in `report.notes`.

    Args:
        states: (N, K, D) by layer: the state at the end of each option; anything where there is no option.
        answers: (N,) index of each row's right option.
        mask: (N, K) True where the option exists; all by default.
        template: label of the template that was read.
        strengths: inverse strengths of the ridge to try, each above 0.
        n_folds: folds of both cross-validations, at least 2.
        seed: seed of both.
        provenance: the model that the states come from.

    A question with a single option teaches nothing and is left out.

    Raises:
        InputError: shapes that do not fit, numbers that are not finite, an answer that is no option, or settings out of
            range.
        FitError: fewer than 20 questions with at least two options, or fewer than folds.
        MissingExtra: scikit-learn is not installed.

    >>> random = np.random.default_rng(0)
    >>> states, answers = random.normal(size=(60, 3, 4)), random.integers(0, 3, 60)
    >>> states[np.arange(60), answers, 0] += 3.0  # the first number knows
    >>> probe = fit_probe({12: states}, answers)
    >>> probe.layer, bool((probe.of_states(states).argmax(axis=1) == answers).mean() > 0.9)
    (12, True)
    """
    if not isinstance(states, Mapping):
        raise InputError(
            f"'states' must be a mapping from layer to an (N, K, D) array, such as {{12: states}}. Got "
            f"{type(states).__name__}."
        )
    strengths = _checked_settings(strengths, n_folds, seed)
    everything = _checked(states, answers, mask)
    data = _with_a_choice(everything, max(LEAST_ROWS, n_folds))
    left_out = len(everything.right) - len(data.right)
    rows = np.arange(len(data.right))
    losses, hits = np.empty(len(rows)), np.empty(len(rows))
    for kept, held in _folds(rows, n_folds, seed):
        inner = _chosen(data, kept, strengths, n_folds, seed)
        logits = _masked(data.states[inner.layer][held] @ inner.weights, data.mask[held])
        losses[held] = _losses(logits, data.right[held])
        hits[held] = logits.argmax(axis=1) == data.right[held]
    choice = _chosen(data, rows, strengths, n_folds, seed)
    fitted = _masked(data.states[choice.layer] @ choice.weights, data.mask)
    note = (
        f"On questions that no part of the fit saw: log loss {losses.mean():.4f} nats, accuracy {hits.mean():.3f} "
        f"({n_folds} outer folds)."
    )
    guessing = float(np.log(data.mask.sum(axis=1)).mean())
    report = FitReport(
        method="probe",
        rows=len(everything.right),
        rows_used=len(rows),
        objective_before=guessing,
        objective_after=float(_losses(fitted, data.right).mean()),
        notes=(note, *choice.notes, *([f"{left_out} rows were left out: they have one option."] if left_out else [])),
        provenance=provenance,
        candidates=choice.table,
        date=today(),
    )
    if losses.mean() >= guessing:
        warnings.warn(
            f"{note} Guessing has {guessing:.4f} nats: the probe's probabilities are worth no more. Fit it on more "
            "rows, or use a temperature.",
            CalibrationWarning,
            stacklevel=2,
        )
    probe = Probe(choice.weights, choice.layer, template)
    return replace(probe, report=replace(report, readout=probe.readout))


@dataclass(frozen=True)
class _Data:
    """Checked inputs of a fit."""

    states: Mapping[int, Floats]
    mask: Bools
    right: Ints


@dataclass(frozen=True)
class _Choice:
    """The outcome of one cross-validation."""

    layer: int
    weights: Floats
    table: tuple[Candidate, ...]
    notes: tuple[str, ...]


def _chosen(data: _Data, rows: Ints, strengths: Sequence[float], n_folds: int, seed: int) -> _Choice:
    """Return the head of least cross-validated log loss on `rows`, and what was compared."""
    found: dict[tuple[int, float], tuple[float, float, tuple[str, ...]]] = {}
    for layer, table in data.states.items():
        for strength in strengths:
            held_out = np.empty((len(rows), data.mask.shape[1]))
            for kept, held in _folds(np.arange(len(rows)), n_folds, seed):
                weights = _head(table[rows[kept]], data.mask[rows[kept]], data.right[rows[kept]], strength)
                held_out[held] = _masked(table[rows[held]] @ weights, data.mask[rows[held]])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CalibrationWarning)  # the note in the report says it
                scale = fit_temperature(held_out, data.right[rows])
            assert scale.report is not None
            found[layer, strength] = (scale.report.objective_after, scale.value, scale.report.notes)
    layer, strength = min(found, key=lambda at: found[at][0])
    weights = _head(data.states[layer][rows], data.mask[rows], data.right[rows], strength)
    candidates = tuple(
        Candidate(f"layer {at[0]}, C {at[1]:g}", LEAST_ROWS, one[0], chosen=at == (layer, strength))
        for at, one in found.items()
    )
    _, value, notes = found[layer, strength]
    return _Choice(layer, weights / value, candidates, notes)


def _head(states: Floats, mask: Bools, right: Ints, strength: float) -> Floats:
    """Return weights (D,) that part the right option's state from the others', fitted on all pairs."""
    linear: Any = need("sklearn.linear_model", feature="fitting a probe", extra="sklearn")
    differences = states[np.arange(len(right)), right][:, None] - states
    pairs = differences[mask & (np.arange(mask.shape[1]) != right[:, None])]
    scale = np.sqrt((pairs**2).mean(axis=0))
    scale[scale == 0.0] = 1.0
    wins = np.arange(len(pairs)) % 2 == 0  # a pair and its mirror image have the same loss: every other one is mirrored
    rows = np.where(wins[:, None], pairs, -pairs) / scale
    model = linear.LogisticRegression(C=strength, fit_intercept=False, max_iter=1000).fit(rows, wins)
    return np.asarray(model.coef_[0] / scale)


def _folds(rows: Ints, n_folds: int, seed: int) -> list[tuple[Ints, Ints]]:
    """Return for each fold the rows that are kept and those that are held out."""
    order = np.random.default_rng(seed).permutation(rows)
    return [(np.setdiff1d(rows, held), held) for held in np.array_split(order, n_folds)]


def _masked(logits: Floats, mask: Bools) -> Floats:
    return np.where(mask, logits, -np.inf)


def _losses(logits: Floats, right: Ints) -> Floats:
    return np.asarray(-log_softmax(logits)[np.arange(len(right)), right])


def _checked_settings(strengths: Sequence[float], n_folds: int, seed: int) -> tuple[float, ...]:
    """Return the strengths, all three settings being sound."""
    from calibwrap.metrics._checks import checked_count  # metrics are loaded on demand

    checked_count("n_folds", n_folds, least=2)
    checked_count("seed", seed, least=0)
    several = tuple(checked_strength("strengths", one) for one in strengths)
    if not several or min(several) == 0.0:
        raise InputError(f"'strengths' must be at least one number, each above 0. Got {strengths!r}.")
    return several


def _with_a_choice(data: _Data, least: int) -> _Data:
    """Return the rows with two options or more: in the others there is nothing to tell apart."""
    used = data.mask.sum(axis=1) > 1
    if used.sum() < least:
        raise FitError(
            f"A probe needs at least {least} questions with answers and two options or more. Got {int(used.sum())} "
            f"among {len(used)}."
        )
    if used.all():
        return data
    return _Data({layer: table[used] for layer, table in data.states.items()}, data.mask[used], data.right[used])


def _checked(states: Mapping[int, ArrayLike], answers: ArrayLike, mask: ArrayLike | None) -> _Data:
    """Return the inputs as arrays whose shapes fit together, zero where there is no option."""
    tables = {layer: np.asarray(table, dtype=np.float64) for layer, table in states.items()}
    shapes = {table.shape[:2] for table in tables.values()}
    if len(shapes) != 1 or any(table.ndim != 3 or 0 in table.shape for table in tables.values()):
        raise InputError(
            "'states' must map layers to arrays (N, K, D) of the same questions. Got "
            f"{ {layer: table.shape for layer, table in tables.items()} }."
        )
    (shape,) = shapes
    exists = np.ones(shape, dtype=np.bool_) if mask is None else np.asarray(mask, dtype=np.bool_)
    if exists.shape != shape:
        raise InputError(f"'mask' must have shape {shape}. Got {exists.shape}.")
    right = checked_answers(answers, *shape)
    if not exists[np.arange(len(right)), right].all():
        raise InputError("'answers' must name options that exist.")
    tables = {layer: np.where(exists[..., None], table, 0.0) for layer, table in tables.items()}
    if not all(np.isfinite(table).all() for table in tables.values()):
        raise InputError("'states' must be finite wherever there is an option.")
    return _Data(tables, exists, right)
