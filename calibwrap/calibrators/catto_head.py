"""CATTO head: a temperature for each row, predicted from what the row itself looks like; the model stays as it is.

Made after Parikh, Sai, Shivaswamy, Panchal, Lan, "CATTO: Balancing Preferences and Confidence in Language Models",
2026, whose token loss trains it; a learned temperature a token is also in Xie, Chen, Lee, Mitchell, Finn, "Calibrating
Language Models with Adaptive Temperature Scaling", 2024. `calibwrap.training` makes heads; using one needs numpy only.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np

from calibwrap.base import Calibrator, Level
from calibwrap.calibrators._affine import checked_parameters
from calibwrap.calibrators._catto_features import NAMES, feature_bounds, score_features
from calibwrap.calibrators._token_tail import log_partition_bounds
from calibwrap.calibrators._truncated import hidden_in
from calibwrap.capabilities import Needs
from calibwrap.errors import CapabilityError, InputError
from calibwrap.provenance import FitReport
from calibwrap.scores import Floats, OptionScores, TokenScores, log_softmax

MOST = float(np.log(20.0))
"""Largest log-temperature that a head can give, up or down: temperatures lie between 1/20 and 20."""
_SLACK = 1e-9  # intervals are widened by so much, since their ends are worked out in another order than the point


@dataclass(frozen=True, eq=False)
class CattoHead(Calibrator):
    """Divides each row's log-probabilities by a temperature of its own; the first choice stays.

    With x the standardised features of a row, log T = MOST tanh(u / MOST), u = tanh(x W + b) v + d: one hidden layer.
    A head is good for the level that it was trained at: of level "option" it maps rows of options, of level "token"
    whole positions. A list of at least `top` tokens gives a position's temperature exactly (`temperatures`), but not
    what all unlisted tokens together become at it: a call is refused then, and `interval` says what is known.

    Raises:
        InputError: an array that is not finite or does not fit to the others, or an unknown level or feature set.

    >>> head = CattoHead(np.zeros(7), np.ones(7), np.zeros((7, 1)), [0.0], [0.0], last_bias=np.log(2.0), level="option")
    >>> np.exp(head(np.log([[0.8, 0.2]]))).round(2).tolist()  # log T = log 20 tanh(log 2 / log 20): about 1.97
    [[0.67, 0.33]]
    """

    kind: ClassVar[str] = "catto-head"
    keeps_argmax: ClassVar[bool] = True
    center: Floats
    """(F,) means of the features."""
    scale: Floats
    """(F,) their standard deviations."""
    first_weights: Floats
    """(F, H)"""
    first_biases: Floats
    """(H,)"""
    last_weights: Floats
    """(H,)"""
    last_bias: float
    """Log-temperature of a row whose hidden layer says nothing."""
    features: Literal["scores", "hidden"] = "scores"
    """"scores", or "hidden" for the same and the position's hidden state."""
    top: int = 20
    """Entries of a row that the features are computed from."""
    level: Level = "token"
    report: FitReport | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the arrays fit together, and lock them."""
        if self.level not in ("option", "token") or self.features not in ("scores", "hidden"):
            raise InputError(
                "A CattoHead has level 'option' or 'token' and features 'scores' or 'hidden'. Got "
                f"{self.level!r} and {self.features!r}."
            )
        if self.features == "hidden" and self.level != "token":
            raise InputError("A head on hidden states reads positions: level must be 'token'. Got 'option'.")
        if isinstance(self.top, bool) or self.top < 2:
            raise InputError(f"'top' of CattoHead must be at least 2. Got {self.top!r}.")
        center = self._checked("center", None)
        first = self._checked("first_biases", None)
        self._checked("scale", (len(center),))
        self._checked("first_weights", (len(center), len(first)))
        self._checked("last_weights", (len(first),))
        if not np.isfinite(self.last_bias) or not (self.scale > 0.0).all():
            raise InputError("'last_bias' of CattoHead must be finite, and every 'scale' above 0.")
        object.__setattr__(self, "last_bias", float(self.last_bias))
        if (len(center) <= len(NAMES)) if self.features == "hidden" else (len(center) != len(NAMES)):
            wanted = f"{len(NAMES)}" if self.features == "scores" else f"{len(NAMES)} and one a hidden unit"
            raise InputError(f"A CattoHead on {self.features!r} has {wanted} features. Got {len(center)}.")
        # What the base class declares for a whole kind depends on the features, so it is set on the record.
        object.__setattr__(self, "needs", Needs(hidden=self.features == "hidden"))

    def _checked(self, name: str, shape: tuple[int, ...] | None) -> Floats:
        array = checked_parameters("CattoHead", name, getattr(self, name), shape)
        object.__setattr__(self, name, array)
        return array

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are equal."""
        if not isinstance(other, CattoHead):
            return NotImplemented
        return all(np.array_equal(*(getattr(one, f.name) for one in (self, other))) for f in fields(self) if f.compare)

    def __hash__(self) -> int:
        return hash((self.level, self.features, self.last_bias, self.first_weights.tobytes()))

    def temperatures(self, scores: TokenScores | OptionScores) -> Floats:
        """Return (N,) the temperature of each row; of truncated options that of their point values.

        Raises:
            CapabilityError: scores of the other level, a list shorter than `top`, or no hidden states.

        >>> head = CattoHead(np.zeros(7), np.ones(7), np.zeros((7, 1)), [0.0], [0.0], last_bias=0.0, top=2)
        >>> head.temperatures(TokenScores(np.log([[0.5, 0.2]]), ids=[[7, 9]])).tolist()
        [1.0]
        """
        self._check_level(scores)
        found = score_features(scores.logprobs, self.top)
        if isinstance(scores, TokenScores):
            listed = scores.logprobs.shape[1]
            if not scores.is_full and listed < self.top:
                raise CapabilityError(
                    f"This head reads the {self.top} most probable tokens, and a list of {listed} came: ask for longer "
                    f"lists, or train one with top={listed}."
                )
            if self.features == "hidden":
                found = np.concatenate([found, self._states(scores)], axis=1)
        return np.exp(self.log_temperatures(found))

    def interval(self, scores: TokenScores, vocabulary: int | None = None) -> tuple[Floats, Floats]:
        """Return lower and upper bounds (T, L) of the calibrated log-probabilities of the listed tokens.

        The temperature is exact, and so is the ratio of any two listed tokens; what the unlisted ones have together
        depends on how they share their mass. Without the size of the `vocabulary` a temperature above 1 leaves no lower
        bound but probability 0.

        Raises:
            CapabilityError: as `temperatures`.

        >>> head = CattoHead(np.zeros(7), np.ones(7), np.zeros((7, 1)), [0.0], [0.0], last_bias=0.0, top=2)
        >>> listed = TokenScores(np.log([[0.5, 0.25]]), ids=[[7, 9]])
        >>> [np.exp(bound).round(3).tolist() for bound in head.interval(listed, vocabulary=100)]  # T = 1
        [[[0.5, 0.25]], [[0.5, 0.25]]]
        """
        powers = 1.0 / self.temperatures(scores)
        low, high = log_partition_bounds(scores, powers, vocabulary)
        tempered = powers[:, None] * scores.logprobs
        return tempered - high[:, None], tempered - low[:, None]

    def logits(self, logprobs: Floats) -> Floats:
        """Return `logprobs` divided by each row's own temperature, shifted so that each row's largest is 0.

        Raises:
            CapabilityError: a head on hidden states; it maps TokenScores that hold them.
        """
        if self.features == "hidden":
            raise CapabilityError(
                "This head reads hidden states, which an array does not hold: give it TokenScores with 'hidden'."
            )
        log_temperatures = self.log_temperatures(score_features(logprobs, self.top))
        return _divided(logprobs, log_temperatures)

    def bounds(self, scores: OptionScores) -> tuple[Floats, Floats]:
        """Return lower and upper bounds (N, K) of calibrated probabilities of truncated `scores`.

        The features of all full rows behind a truncated one lie in an interval, hence so does the temperature, and each
        option's odds against every other are taken at the worst and the best of both: sound, and not always tight.
        """
        low, high = self._log_temperature_bounds(*feature_bounds(scores, self.top))
        hidden = hidden_in(scores)
        most, least = hidden.shown + hidden.own, hidden.shown
        powers = np.exp(-high), np.exp(-low)
        with np.errstate(divide="ignore", over="ignore"):
            upper = 1.0 / (1.0 + _odds(np.log(least), np.log(most), powers, np.minimum))
            lower = 1.0 / (1.0 + _odds(np.log(most), np.log(least), powers, np.maximum))
        nothing = hidden.blind[:, None] | ~scores.mask
        lower = np.where(nothing | scores.missing, 0.0, np.maximum(0.0, lower - _SLACK))
        return lower, np.where(nothing, scores.mask, np.minimum(1.0, upper + _SLACK))

    def _on_options(self, scores: OptionScores) -> OptionScores:
        self._check_level(scores)
        return super()._on_options(scores)

    def _on_tokens(self, scores: TokenScores) -> TokenScores:
        self._check_level(scores)
        if not scores.is_full:
            raise CapabilityError(
                f"A list of {scores.logprobs.shape[1]} tokens does not tell what the others become at another "
                "temperature: ask for the whole vocabulary (top=None), or use interval(scores, vocabulary) and "
                "temperatures(scores), which a list is enough for."
            )
        logprobs = log_softmax(_divided(scores.logprobs, np.log(self.temperatures(scores))))
        chosen = None if scores.chosen is None else logprobs[np.arange(len(scores)), scores.chosen]
        return replace(scores, logprobs=logprobs, chosen_logprob=chosen, log_z=None)

    def _check_level(self, scores: TokenScores | OptionScores) -> None:
        """Return nothing when `scores` are of the level that this head was trained at.

        Raises:
            CapabilityError: they are not.
        """
        came = "token" if isinstance(scores, TokenScores) else "option"
        if came != self.level:
            raise CapabilityError(
                f"This head was trained at level '{self.level}', and scores of level '{came}' came: its temperatures "
                f"mean nothing there. Train one with level='{came}' (in its YAML file `level: {came}`)."
            )

    def _states(self, scores: TokenScores) -> Floats:
        width = len(self.center) - len(NAMES)
        if scores.hidden is None or scores.hidden.shape[1] != width:
            came = "none" if scores.hidden is None else f"{scores.hidden.shape[1]}"
            raise CapabilityError(
                f"This head reads hidden states of {width} numbers a position, and {came} came: open the model with "
                "hidden=True, or use a head on scores."
            )
        return scores.hidden

    def log_temperatures(self, found: Floats) -> Floats:
        """Return (N,) log-temperatures for (N, F) features, made as `_catto_features` makes them."""
        inner = np.tanh((found - self.center) / self.scale @ self.first_weights + self.first_biases)
        return np.asarray(MOST * np.tanh((inner @ self.last_weights + self.last_bias) / MOST))

    def _log_temperature_bounds(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Return both ends (N,) of the log-temperature for features between `low` and `high`, layer by layer."""
        low, high = ((end - self.center) / self.scale for end in (low, high))
        low, high = (np.tanh(end) for end in _through(low, high, self.first_weights, self.first_biases))
        ends = _through(low, high, self.last_weights[:, None], np.array([self.last_bias]))
        low, high = (MOST * np.tanh(end[:, 0] / MOST) for end in ends)
        return low - _SLACK, high + _SLACK


def _divided(logprobs: Floats, log_temperatures: Floats) -> Floats:
    shifted = logprobs - np.max(logprobs, axis=-1, keepdims=True)
    return np.asarray(shifted * np.exp(-log_temperatures)[:, None])


def _through(low: Floats, high: Floats, weights: Floats, biases: Floats) -> tuple[Floats, Floats]:
    """Return both ends of an affine map of numbers between `low` and `high`."""
    middle, radius = (low + high) / 2.0 @ weights + biases, (high - low) / 2.0 @ np.abs(weights)
    return middle - radius, middle + radius


def _odds(others: Floats, own: Floats, powers: tuple[Floats, Floats], extreme: Any) -> Floats:
    """Return (N, K) the sum over all options but i of (others_j / own_i) ** a, each at its extreme power a."""
    with np.errstate(invalid="ignore"):
        gaps = others[:, None, :] - own[:, :, None]  # (N, i, j)
    gaps = np.where(np.isnan(gaps), 0.0, gaps)  # -inf beside -inf: an option that neither shows nor hides anything
    each = extreme(*(np.exp(power[:, None, None] * gaps) for power in powers))
    return np.asarray(np.where(np.eye(own.shape[1], dtype=np.bool_), 0.0, each).sum(axis=2))
