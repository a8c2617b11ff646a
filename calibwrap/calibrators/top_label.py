"""Top-label calibration: any map of one confidence, on the first choice of a question with options.

Gupta, Ramdas, "Top-label calibration and multiclass-to-binary reductions", 2022.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._confidence import CLIP, ConfidenceCalibrator, log_odds, tied
from calibwrap.calibrators._confidence_fits import fit_part
from calibwrap.calibrators._inputs import FitRows, check_some, checked_answers, fit_rows
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Bools, Floats, Ints, OptionScores, checked_logits, log_softmax, logsumexp

_AHEAD = 1e-9
"""Nats by which a first choice that is kept stays ahead of the second."""


@dataclass(frozen=True)
class TopLabel(Calibrator):
    """Maps the first choice's probability by `part` and shares the rest among the others in proportion.

    What `part` says of the first choice may fall below another option. Then `keeps_choice` decides: with it the first
    choice keeps as much as the second has, which is more than `part` said; without it the second becomes the first, as
    the numbers say, and the accuracy changes. Mapped probabilities are kept within `CLIP` and 1 - `CLIP`, so that no
    option becomes impossible.

    Raises:
        InputError: `part` does not map one confidence.

    >>> from calibwrap.calibrators import Platt
    >>> half = TopLabel(Platt(slope=0.5, intercept=0.0))  # log-odds of 0.8 are log 4, half of them log 2
    >>> np.exp(half(np.log([[0.8, 0.15, 0.05]]))).round(4).tolist()
    [[0.6667, 0.25, 0.0833]]
    """

    kind: ClassVar[str] = "top-label"
    part: ConfidenceCalibrator
    """What maps the first choice's probability to the probability that it is right."""
    keeps_choice: bool = True
    """Whether the first choice always stays."""
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the part; whether the first choice stays is up to the record, not to the kind."""
        if not isinstance(self.part, ConfidenceCalibrator):
            raise InputError(f"'part' of TopLabel must map one confidence, as Platt does. Got {self.part!r}.")
        if not isinstance(self.keeps_choice, (bool, np.bool_)):
            raise InputError(f"'keeps_choice' of TopLabel must be True or False. Got {self.keeps_choice!r}.")
        object.__setattr__(self, "keeps_argmax", bool(self.keeps_choice))

    def logits(self, logprobs: Floats) -> Floats:
        """Return log-probabilities with the first choice's mapped and the others' in their old proportions."""
        top = logprobs.argmax(axis=-1)
        is_top = np.arange(logprobs.shape[-1]) == top[..., None]
        others = np.where(is_top, -np.inf, logprobs)
        rest = logsumexp(others)
        single = rest == -np.inf
        shares = others - np.where(single, 0.0, rest)[..., None]
        odds = self._odds(np.exp(logprobs.max(axis=-1)), shares.max(axis=-1))
        mapped = np.where(is_top, -np.logaddexp(0.0, -odds)[..., None], shares - np.logaddexp(0.0, odds)[..., None])
        return np.where(single[..., None], logprobs, mapped)

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return lower and upper bounds (N, K) of the calibrated probabilities of truncated `scores`.

        Where truncation leaves the first choice open, which option is mapped is open too: bounds 0 and 1.

        Raises:
            CapabilityError: the first choice may change, or `part` turns more confidence into more and into less: what
                is certain of the raw scores is then not certain of the mapped ones.

        >>> from calibwrap.calibrators import Platt
        >>> s = OptionScores(np.log([[0.8, 0.2]]), "label", missing=[[0, 1]], lower=[[0.6, 0]], upper=[[1, 0.4]])
        >>> [b.round(4).tolist() for b in TopLabel(Platt(0.5, 0.0)).bounds(s)]  # from odds of 3 : 2 to Platt's clip
        [[[0.5505, 0.0]], [[0.999, 0.4495]]]
        """
        if not self.keeps_choice or not self.part.is_one_way:
            return super().bounds(scores)
        rows, top = np.arange(len(scores)), scores.choice
        least, most = scores.lower[rows, top], scores.upper[rows, top]
        with np.errstate(divide="ignore", invalid="ignore"):
            low_shares = np.nan_to_num(scores.lower / (1.0 - least)[:, None], posinf=1.0)
            high_shares = np.fmin(scores.upper / (1.0 - most)[:, None], 1.0)
        low_shares[rows, top] = high_shares[rows, top] = 0.0
        high_shares[~scores.mask] = 0.0  # an option that is not there has no share
        odds = np.stack(
            [
                self._odds(np.clip(end, 0.0, 1.0), _log(shares.max(axis=1)))
                for end, shares in ((least, low_shares), (most, low_shares), (least, high_shares), (most, high_shares))
            ]
        )
        ends = 1.0 / (1.0 + np.exp(-np.stack([odds.min(axis=0), odds.max(axis=0)])))
        lower, upper = (1.0 - ends[1])[:, None] * low_shares, (1.0 - ends[0])[:, None] * high_shares
        lower[rows, top], upper[rows, top] = ends
        return _where_certain(scores, lower, upper)

    def _odds(self, confidence: Floats, second: Floats) -> Floats:
        """Return the first choice's mapped log-odds; `second` is the log share of the second among all others."""
        odds = log_odds(np.asarray(self.part(tied(confidence))), CLIP)
        return np.maximum(odds, second + _AHEAD) if self.keeps_choice else odds


def fit_top_label(
    logprobs: OptionScores | ArrayLike,
    answers: ArrayLike,
    *,
    method: str = "platt",
    keeps_choice: bool = True,
    **options: Any,
) -> TopLabel:
    """Return the map of the first choice's probability, fitted to whether it is the right answer.

    Args:
        logprobs: (N, K) log-probabilities or logits (both give the same), -inf where there is no option; or
            `OptionScores`, of which truncated rows are used when their first choice is certain.
        answers: (N,) index of each row's right option.
        method: "platt", "beta", "isotonic", "histogram" or "venn-abers".
        keeps_choice: see `TopLabel`.
        options: passed to the method, such as `n_bins=`.

    Without labels, a reference model's probability of each first choice can stand in for them:
    `TopLabel(fit_platt(scores.confidence, reference_probability))`.

    Raises:
        InputError: wrong shapes, NaN, an answer out of range, or an unknown method.
        FitError: truncation leaves no row to fit, or the method asks for more rows.

    >>> rows = np.log([[0.9, 0.06, 0.04]] * 4 + [[0.5, 0.3, 0.2]] * 4)
    >>> fitted = fit_top_label(rows, [0, 0, 0, 1, 0, 0, 1, 2], method="isotonic")
    >>> np.exp(fitted(rows[[0, 4]])).round(3).tolist()  # right 3 of 4 times, and 2 of 4
    [[0.75, 0.15, 0.1], [0.5, 0.3, 0.2]]
    """
    rows = fit_rows("logprobs", logprobs)
    normalised, right = checked_rows(rows, answers)
    check_some(rows.usable, rows.notes)
    normalised, right = normalised[rows.usable], right[rows.usable]
    confidence = tied(np.exp(normalised.max(axis=1)))
    correct = (normalised.argmax(axis=1) == right).astype(np.float64)
    part, told = fit_part(method, confidence, correct, **options)
    notes = (*rows.notes, *told.notes)
    name, n = f"top-label:{method}", len(rows.usable)
    return TopLabel(part, keeps_choice, report=replace(told, method=name, rows=n, notes=notes, readout=rows.readout))


def checked_rows(rows: FitRows, answers: ArrayLike) -> tuple[Floats, Ints]:
    """Return normalised log-probabilities (N, K) and the right options (N,).

    Raises:
        InputError: wrong shapes, NaN, or an answer that is no index of an existing option.
    """
    logits, exists = checked_logits("logprobs", rows.logits)
    right = checked_answers(answers, *logits.shape)
    is_option: Bools = (exists if rows.scores is None else rows.scores.mask)[np.arange(len(right)), right]
    if not is_option.all():
        row = int(np.argmin(is_option))
        raise InputError(f"'answers' must name options that exist. Row {row} names option {right[row]}, which is -inf.")
    return log_softmax(logits), right


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(values)


def _where_certain(scores: OptionScores, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Return the bounds, but 0 and 1 where the first choice is open, and 0 where there is no option."""
    certain = scores.argmax_certified[:, None]
    return np.where(certain, np.clip(lower, 0.0, 1.0), 0.0), np.where(certain, np.clip(upper, 0.0, 1.0), scores.mask)
