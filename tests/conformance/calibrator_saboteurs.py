"""Wrong calibrators and wrong fits; the key is the check that must catch each."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibwrap.base import Calibrator, Level
from calibwrap.calibrators import Temperature, fit_temperature
from calibwrap.errors import FitError
from calibwrap.scores import OptionScores, TokenScores


@dataclass(frozen=True)
class Honest(Calibrator):
    """Temperature 2 without bounds: right as it stands, and the start of every saboteur."""

    kind: ClassVar[str] = "honest"
    keeps_argmax: ClassVar[bool] = True
    level: Level = "option"

    def logits(self, logprobs):
        return logprobs / 2.0


class HasNoName(Honest):
    kind = ""


class HasAnUnknownLevel(Honest):
    level = "sentence"


class IsNotNormalised(Honest):
    def __call__(self, scores):
        return np.asarray(scores) / 2.0


class FalseIdentity(Honest):
    kind = "identity"


class MovesTheFirstChoice(Honest):
    def logits(self, logprobs):
        return logprobs + np.where(np.arange(logprobs.shape[1]) == 0, 2.0, 0.0)


class TakesConfidenceBack(Honest):
    """Keeps the first choice and gives the surest rows less confidence than the others."""

    def logits(self, logprobs):
        sure = logprobs.max(axis=1, keepdims=True) > np.log(0.9)
        return np.where(sure, logprobs / 4.0, logprobs)


class MixesRows(Honest):
    def logits(self, logprobs):
        return logprobs - np.where(np.isfinite(logprobs), logprobs, 0.0).mean(axis=0)


class DependsOnThePlace(Honest):
    def logits(self, logprobs):
        return logprobs / (1.0 + np.arange(len(logprobs))[:, None])


class TakesLogitsAsTheyAre(Honest):
    """Skips the normalisation that makes logits and log-probabilities one, and is not linear."""

    def __call__(self, scores):
        values = np.asarray(scores) - 0.05 * np.asarray(scores) ** 2
        return values - np.logaddexp.reduce(values, axis=1)[:, None]


class Overflows(Honest):
    def logits(self, logprobs):
        with np.errstate(all="ignore"):
            return np.log(np.exp(-logprobs / 2.0) ** -1.0 * np.exp(-logprobs) / np.exp(-logprobs))


class RevivesMaskedOptions(Honest):
    def logits(self, logprobs):
        return np.maximum(logprobs, -50.0)


class DropsTheMask(Honest):
    def _on_options(self, scores):
        mapped = super()._on_options(scores)
        return OptionScores(mapped.logprobs, mapped.readout)


class WritesToItsInput(Honest):
    def logits(self, logprobs):
        if not logprobs.flags.writeable:
            return logprobs / 2.0
        logprobs /= 2.0
        return logprobs


class AnswersScoresWithAnArray(Honest):
    def _on_options(self, scores):
        return np.asarray(super()._on_options(scores).logprobs)


class MapsScoresTwice(Honest):
    def _on_options(self, scores):
        return super()._on_options(super()._on_options(scores))


class KeepsTheOldBounds(Honest):
    def bounds(self, scores):
        return scores.lower, scores.upper


class ClaimsCertainty(Honest):
    """Tempers the point value and says that nothing was cut off."""

    def bounds(self, scores):
        point = np.exp(self(scores.logprobs))
        return point, point


@dataclass(frozen=True)
class ForgetsAField(Temperature):
    """What it adds to its parent is not in the file."""

    more: float = 1.5

    def logits(self, logprobs):
        return super().logits(logprobs) * self.more


@dataclass
class CanBeChanged(Calibrator):
    kind: ClassVar[str] = "changeable"
    value: float = 2.0

    def logits(self, logprobs):
        return logprobs / self.value


@dataclass(frozen=True, eq=False)
class HoldsAnOpenArray(Calibrator):
    kind: ClassVar[str] = "open"
    values: np.ndarray

    def logits(self, logprobs):
        return logprobs / self.values


class TakesNan(Honest):
    def __call__(self, scores):
        return np.asarray(scores) / 2.0


class LeavesTheChosenValue(Honest):
    def _on_tokens(self, scores):
        mapped = super()._on_tokens(scores)
        return TokenScores(mapped.logprobs, chosen=scores.chosen, chosen_logprob=scores.chosen_logprob)


class RenormalisesAList(Honest):
    def _on_tokens(self, scores):
        if scores.is_full:
            return super()._on_tokens(scores)
        return TokenScores(self(scores.logprobs), ids=scores.ids, chosen=scores.chosen)


class BreaksOnFewerOptions(Honest):
    def logits(self, logprobs):
        with np.errstate(invalid="ignore"):
            return logprobs - 0.0 * logprobs


CALIBRATOR_SABOTEURS = [
    ("check_declarations", HasNoName()),
    ("check_declarations", HasAnUnknownLevel(level="sentence")),
    ("check_stays_normalised", IsNotNormalised()),
    ("check_identity_changes_nothing", FalseIdentity()),
    ("check_first_choice_stays", MovesTheFirstChoice()),
    ("check_confidence_is_monotone", TakesConfidenceBack()),
    ("check_rows_are_independent", MixesRows()),
    ("check_rows_are_independent", DependsOnThePlace()),
    ("check_constants_do_not_matter", TakesLogitsAsTheyAre()),
    ("check_extremes_are_defined", Overflows()),
    ("check_masked_options_stay_masked", RevivesMaskedOptions()),
    ("check_masked_options_stay_masked", DropsTheMask()),
    ("check_masked_options_stay_masked", BreaksOnFewerOptions()),
    ("check_input_is_left_alone", WritesToItsInput()),
    ("check_array_equals_scores", AnswersScoresWithAnArray()),
    ("check_array_equals_scores", MapsScoresTwice()),
    ("check_truncated_scores", KeepsTheOldBounds()),
    ("check_truncated_scores", ClaimsCertainty()),
    ("check_saving_is_exact", ForgetsAField(2.0)),
    ("check_record_is_frozen", CanBeChanged()),
    ("check_record_is_frozen", HoldsAnOpenArray(np.array([1.0, 2.0, 3.0, 4.0]))),
    ("check_bad_input_is_named", TakesNan()),
    ("check_token_scores", LeavesTheChosenValue(level="token")),
    ("check_token_scores", RenormalisesAList(level="token")),
]
"""(name of the check, the wrong calibrator)."""


def fits_too_little(rows, second):
    """Stops half way."""
    return Temperature(fit_temperature(rows, second).value ** 0.5)


def fits_the_wrong_way(rows, second):
    return Temperature(1.0 / fit_temperature(rows, second).value)


def believes_in_two(rows, second):
    return Temperature(0.2)


@dataclass(frozen=True)
class Undefined(Honest):
    """Every number is NaN."""

    def __call__(self, scores):
        return np.full_like(scores, np.nan)


def divides_by_agreement(rows, second):
    return Undefined() if len(rows) == 1 else fit_temperature(rows, second)


def refuses_in_silence(rows, second):
    if len(rows) == 1:
        raise FitError
    return fit_temperature(rows, second)


def writes_to_its_rows(rows, second):
    fitted = fit_temperature(rows, second)
    rows -= rows.max()
    return fitted


def weighs_the_first_rows(rows, second):
    return fit_temperature(rows[: len(rows) // 4 + 1], second[: len(rows) // 4 + 1])


def reads_logits_as_they_are(rows, second):
    return Temperature(1.0 + float(np.abs(rows).mean()))


def takes_anything(rows, second):
    return Temperature(2.0)


FIT_SABOTEURS = [
    ("check_fit_recovers_the_temperature", fits_too_little),
    ("check_fit_recovers_the_temperature", takes_anything),
    ("check_fit_never_worsens", fits_the_wrong_way),
    ("check_fit_never_worsens", believes_in_two),
    ("check_fit_defines_poor_data", divides_by_agreement),
    ("check_fit_defines_poor_data", refuses_in_silence),
    ("check_fit_leaves_data_alone", writes_to_its_rows),
    ("check_fit_ignores_order_and_constants", weighs_the_first_rows),
    ("check_fit_ignores_order_and_constants", reads_logits_as_they_are),
    ("check_fit_names_bad_input", takes_anything),
]
"""(name of the check, the wrong fit with answers)."""
