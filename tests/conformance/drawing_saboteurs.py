"""Wrong ways to draw and to report a draw; the key is the check that must catch each."""

from dataclasses import replace

import numpy as np

from calibwrap.base import Completion
from calibwrap.scores import TokenScores, log_softmax
from calibwrap.testing import ToyAdapter
from calibwrap.testing.toy import END

from .adapter_saboteurs import ShiftsByOne, changed


def each_completion(groups, change):
    return [[change(completion) for completion in group] for group in groups]


class ReportsTheLikeliest(ToyAdapter):
    """inspect_ai's defect: the value of the drawn token is filled in from the most probable one."""

    def generate(self, prompts, sampling, steer=None):
        groups = super().generate(prompts, replace(sampling, top=None), steer)
        best = lambda one: one.scores.logprobs.max(axis=1)  # noqa: E731
        return each_completion(groups, lambda one: replace(one, scores=changed(one.scores, chosen_logprob=best(one))))


class ScoresAfterTemperature(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        groups = super().generate(prompts, replace(sampling, top=None), steer)

        def processed(one):
            rows = log_softmax(one.scores.logprobs / (sampling.temperature or 1.0))
            own = rows[np.arange(len(rows)), one.scores.chosen]
            return replace(one, scores=changed(one.scores, logprobs=rows, chosen_logprob=own))

        return each_completion(groups, processed)


class ScoresAfterSteering(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        groups = super().generate(prompts, replace(sampling, top=None), steer)
        if steer is None:
            return groups
        return each_completion(groups, lambda one: replace(one, scores=steer(one.scores)))


class IgnoresSteering(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return super().generate(prompts, sampling)


class SteersAndForgetsTemperature(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return super().generate(prompts, replace(sampling, temperature=1.0) if steer else sampling, steer)


class LeavesTopKOn(ToyAdapter):
    def _pick(self, row, temperature, steer, random):
        return super()._pick(np.where(row >= np.sort(row)[-5], row, -np.inf), temperature, steer, random)


class DrawsAtAnotherTemperature(ToyAdapter):
    """A default of the model's own repository stays in force."""

    def _pick(self, row, temperature, steer, random):
        return super()._pick(row, 0.6 * temperature, steer, random)


class ShiftsDrawnValues(ToyAdapter):
    """The first value is right, every further one is its predecessor's."""

    def generate(self, prompts, sampling, steer=None):
        def shifted(one):
            late = np.concatenate([one.scores.chosen_logprob[:1], one.scores.chosen_logprob[:-1]])
            return replace(one, scores=changed(one.scores, chosen_logprob=late))

        return each_completion(super().generate(prompts, sampling, steer), shifted)


class IgnoresTheSeed(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return super().generate(prompts, replace(sampling, seed=None), steer)


class OneSeedForAll(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return super().generate(prompts, replace(sampling, seed=0), steer)


class RepeatsTheFirst(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        groups = super().generate(prompts, sampling, steer)
        return [group[:1] * sampling.n for group in groups]


class DrawsOnlyOne(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return super().generate(prompts, replace(sampling, n=1), steer)


class GreedyIsNotGreedy(ToyAdapter):
    def _pick(self, row, temperature, steer, random):
        return super()._pick(row, temperature or 1.0, steer, random)


class OneTokenMore(ToyAdapter):
    def _room(self, start, sampling):
        return sampling.max_tokens + 1


class AlwaysSaysLength(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return each_completion(super().generate(prompts, sampling, steer), lambda one: replace(one, finish="length"))


class AlwaysSaysStop(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return each_completion(super().generate(prompts, sampling, steer), lambda one: replace(one, finish="stop"))


class WritesTheEndToken(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        def written(one):
            return replace(one, text=one.text + "</s>") if one.scores.chosen[-1] == END else one

        return each_completion(super().generate(prompts, sampling, steer), written)


class DropsTheEndToken(ToyAdapter):
    """Leaves the end token out of the scores."""

    def generate(self, prompts, sampling, steer=None):
        def without(one: Completion) -> Completion:
            scores = one.scores
            if scores.chosen[-1] != END or len(scores) < 2:
                return one
            cut = TokenScores(scores.logprobs[:-1], scores.ids[:-1], scores.chosen[:-1], scores.chosen_logprob[:-1])
            return replace(one, scores=cut)

        return each_completion(super().generate(prompts, replace(sampling, top=0), steer), without)


class KeepsTheStopText(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        def kept(one):
            return replace(one, text=self.model.decode(one.scores.chosen))

        return each_completion(super().generate(prompts, sampling, steer), kept)


class HearsTheFirstStopOnly(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return super().generate(prompts, replace(sampling, stop=sampling.stop[:1]), steer)


class DecodesOneByOne(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        def alone(one):
            return replace(one, text="".join(self.model.decode([token]) for token in one.scores.chosen))

        return each_completion(super().generate(prompts, sampling, steer), alone)


class RecordsNothing(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        return each_completion(super().generate(prompts, sampling, steer), lambda one: replace(one, settings={}))


class RecordsNoCalibrator(ToyAdapter):
    def _settings(self, sampling, steer):
        return super()._settings(sampling, None)


DRAWING_SABOTEURS = [
    ("check_drawn_value_is_that_tokens", ReportsTheLikeliest),
    ("check_temperature_leaves_scores_raw", ScoresAfterTemperature),
    ("check_steering_leaves_scores_raw", ScoresAfterSteering),
    ("check_steering_shapes_the_draw", IgnoresSteering),
    ("check_steering_shapes_the_draw", SteersAndForgetsTemperature),
    ("check_frequencies_follow_the_model", LeavesTopKOn),
    ("check_frequencies_follow_the_model", DrawsAtAnotherTemperature),
    ("check_score_reproduces_generate", ShiftsByOne),
    ("check_score_reproduces_generate", ShiftsDrawnValues),
    ("check_seed_repeats_the_draw", IgnoresTheSeed),
    ("check_seeds_differ", OneSeedForAll),
    ("check_n_completions", RepeatsTheFirst),
    ("check_n_completions", DrawsOnlyOne),
    ("check_greedy_is_argmax", GreedyIsNotGreedy),
    ("check_max_tokens", OneTokenMore),
    ("check_finish_tells_the_truth", AlwaysSaysLength),
    ("check_finish_tells_the_truth", AlwaysSaysStop),
    ("check_end_token_has_no_text", WritesTheEndToken),
    ("check_end_token_has_no_text", DropsTheEndToken),
    ("check_stop_texts", KeepsTheStopText),
    ("check_stop_texts", HearsTheFirstStopOnly),
    ("check_split_characters_survive", DecodesOneByOne),
    ("check_settings_are_recorded", RecordsNothing),
    ("check_settings_are_recorded", RecordsNoCalibrator),
]
"""(name of the check, class of the wrong adapter)."""
