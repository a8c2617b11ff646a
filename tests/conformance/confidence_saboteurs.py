"""Wrong calibrators and fits of one confidence, wrong decoders of free text, and the check that must catch each."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from calibwrap.calibrators import ConfidenceCalibrator, Isotonic, Platt, fit_isotonic, fit_platt
from calibwrap.decoders import SelfConsistency
from calibwrap.errors import FitError


@dataclass(frozen=True)
class Honest(ConfidenceCalibrator):
    """Takes a fifth away: right as it stands, and the start of every saboteur."""

    kind: ClassVar[str] = "honest-confidence"

    def mapped(self, confidence):
        return 0.8 * confidence


class LeavesTheRange(Honest):
    def __call__(self, scores):
        return 1.2 * np.asarray(scores)


class HasNoOddsAtOne(Honest):
    def __call__(self, scores):
        with np.errstate(all="ignore"):
            odds = np.asarray(scores) / (1.0 - np.asarray(scores))
            return odds / (1.0 + odds)


class FlattensItsInput(Honest):
    def mapped(self, confidence):
        return confidence.ravel()


class RanksThem(Honest):
    def mapped(self, confidence):
        return np.argsort(np.argsort(confidence.ravel())).reshape(confidence.shape) / confidence.size


class GoesByThePlace(Honest):
    def mapped(self, confidence):
        return confidence / (1.0 + np.arange(confidence.size).reshape(confidence.shape))


class RisesAndFalls(Honest):
    def mapped(self, confidence):
        return 4.0 * confidence * (1.0 - confidence)


class WritesToItsInput(Honest):
    def __call__(self, scores):
        scores *= 0.8
        return scores.copy()


class GivesItBack(Honest):
    def __call__(self, scores):
        return super().__call__(scores) if np.ndim(scores) == 0 else np.asarray(scores)


class ClipsWhateverComes(Honest):
    def __call__(self, scores):
        return np.clip(np.nan_to_num(np.asarray(scores, dtype=np.float64)), 0.0, 1.0)


class MapsTheTopOption(Honest):
    def _refuse(self, what):
        return None

    def __call__(self, scores):
        return np.asarray(scores.confidence if hasattr(scores, "confidence") else super().__call__(scores))


CONFIDENCE_SABOTEURS = [
    ("check_confidences_stay_probabilities", LeavesTheRange()),
    ("check_confidences_stay_probabilities", HasNoOddsAtOne()),
    ("check_confidences_stay_probabilities", FlattensItsInput()),
    ("check_confidences_are_mapped_one_by_one", RanksThem()),
    ("check_confidences_are_mapped_one_by_one", GoesByThePlace()),
    ("check_confidence_goes_one_way", RisesAndFalls()),
    ("check_confidences_are_left_alone", WritesToItsInput()),
    ("check_confidences_are_left_alone", GivesItBack()),
    ("check_what_is_no_confidence_is_named", ClipsWhateverComes()),
    ("check_options_and_tokens_are_refused", MapsTheTopOption()),
]
"""(name of the check, the wrong calibrator)."""


def changes_nothing(confidence, correct):
    return Platt(1.0, 0.0)


def takes_half_away(confidence, correct):
    fitted = fit_platt(confidence, correct)
    return Platt(fitted.slope, 4.0 * fitted.intercept - 1.0)


def rounds_the_truth(confidence, correct):
    return fit_isotonic(confidence, np.round(correct * 0.4))


@dataclass(frozen=True)
class Undefined(Honest):
    """Every number is NaN."""

    def __call__(self, scores):
        return np.full(np.shape(scores), np.nan)


def divides_by_the_spread(confidence, correct):
    return Undefined() if np.std(confidence) == 0.0 else fit_platt(confidence, correct)


def refuses_in_silence(confidence, correct):
    if len(confidence) == 1:
        raise FitError
    return fit_platt(confidence, correct)


def weighs_the_first_rows(confidence, correct):
    return fit_platt(confidence[:60], correct[:60])


def writes_to_its_rows(confidence, correct):
    confidence.sort()
    return Isotonic([0.5], [0.5])


def takes_anything(confidence, correct):
    return Platt(0.5, -0.5)


CONFIDENCE_FIT_SABOTEURS = [
    ("check_confidence_fit_recovers_the_truth", changes_nothing),
    ("check_confidence_fit_recovers_the_truth", rounds_the_truth),
    ("check_confidence_fit_never_worsens", takes_half_away),
    ("check_confidence_fit_defines_poor_data", divides_by_the_spread),
    ("check_confidence_fit_defines_poor_data", refuses_in_silence),
    ("check_confidence_fit_ignores_order", weighs_the_first_rows),
    ("check_confidence_fit_ignores_order", writes_to_its_rows),
    ("check_confidence_fit_names_bad_input", takes_anything),
]
"""(name of the check, the wrong fit)."""


@dataclass(frozen=True)
class Shares(SelfConsistency):
    """The settings under which the toy repeats itself; right as it stands."""

    max_tokens: int = 2


def finished(decoder, change):
    """The flow of an honest decoder, with `change` done to the answer."""
    answer = yield from SelfConsistency.flow(decoder)
    return change(answer)


class LetsSilenceSpeakAgainst(Shares):
    def flow(self):
        def change(answer):
            share = answer.confidence * (1.0 - answer.unparsed / max(1, len(answer.candidates)))
            return replace(answer, confidence=share, bounds=(share, share))

        return finished(self, change)


class CountsNoSilence(Shares):
    def flow(self):
        return finished(self, lambda answer: replace(answer, unparsed=0))


class DropsTheSilent(Shares):
    def flow(self):
        return finished(
            self, lambda answer: replace(answer, candidates=tuple(one for one in answer.candidates if one.text))
        )


class GuessesWhenNothingIsSaid(Shares):
    def flow(self):
        guess = {"text": "sun", "confidence": 0.5, "bounds": (0.0, 1.0)}
        return finished(self, lambda answer: answer if answer.text else replace(answer, **guess))


FREE_TEXT_SABOTEURS = [
    ("check_silent_texts_have_no_vote", LetsSilenceSpeakAgainst),
    ("check_silent_texts_have_no_vote", CountsNoSilence),
    ("check_silent_texts_have_no_vote", DropsTheSilent),
    ("check_nothing_said_is_no_answer", GuessesWhenNothingIsSaid),
]
"""(name of the check, class of the wrong decoder)."""
