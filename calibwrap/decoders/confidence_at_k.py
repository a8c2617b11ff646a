"""Decoders that pick one trace of k: by the probability of its label, or by any score of it."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibwrap.base import Answer, Calibrator
from calibwrap.decoders.settings import check_calibrator_type, function
from calibwrap.decoders.trace import Trace, TraceDecoder, checked_answer, traces_of
from calibwrap.errors import CapabilityError, InputError
from calibwrap.scores import Floats, OptionScores, join


def label_confidence(trace: Trace) -> float:
    """Return the probability of the label that the trace names, among all labels."""
    return trace.confidence


def total_logprob(trace: Trace) -> float:
    """Return the log-probability of the whole trace, the sum over its tokens; it favours short ones."""
    return float(_drawn(trace).sum())


def mean_logprob(trace: Trace) -> float:
    """Return the mean log-probability of the trace's tokens."""
    return float(_drawn(trace).mean())


def least_logprob(trace: Trace) -> float:
    """Return the log-probability of the trace's most surprising token."""
    return float(_drawn(trace).min())


def _drawn(trace: Trace) -> Floats:
    values = trace.completion.scores.chosen_logprob
    if values is None or not len(values) or np.isnan(values).any():
        raise CapabilityError(
            "This score needs the log-probability of each drawn token, and the completion lacks some: use "
            "label_confidence, or a backend that reports log-probabilities."
        )
    return values


@dataclass(frozen=True)
class PickingDecoder(TraceDecoder):
    """Picks one of its traces and answers with its label, at the probability of that label.

    The largest of k noisy numbers is too large, so the confidence of what was picked is biased upwards however well
    single traces are calibrated. `selected` takes that back: a calibrator of options, fitted on picked traces (see
    `selected_scores`). It changes the stated confidence only, never the pick.
    """

    selected: Calibrator | None = None
    """Calibrator of option level for the label probabilities of the trace that was picked."""

    def __post_init__(self) -> None:
        """Check the settings once, here, before any model is asked."""
        super().__post_init__()
        if self.selected is None:
            return
        check_calibrator_type("selected", self.selected)
        if self.selected.level != "option":
            raise InputError(f"'selected' must be a calibrator of level 'option'. Got level {self.selected.level!r}.")

    @abstractmethod
    def pick(self, traces: Sequence[Trace]) -> Trace:
        """Return the best of at least one trace; the first among equals."""

    def settle(self, traces: Sequence[Trace]) -> Answer:
        """Return the label of the trace that is picked, and the probabilities of all labels after that trace."""
        best = self.pick(traces)
        if self.selected is not None:
            best = Trace(replace(best.completion, labels=self.selected(best.scores)), best.label)
        probabilities = dict(zip(self.labels, best.probabilities.tolist(), strict=True))
        answer = checked_answer(self.labels[best.label], best.confidence, best.bounds, probabilities)
        return answer if self.selected is None else replace(answer, calibrated_by=self.selected.kind)


@dataclass(frozen=True)
class ConfidenceAtK(PickingDecoder):
    """Draws k traces and answers with the one whose own label is most probable given prompt and trace.

    Trace r_i names label y_i; its score is c_i = p(y_i | x, r_i) among the labels, calibrated when the model has a
    calibrator; the largest wins, the first among equals. If each c_i is the probability that y_i is right, no other
    choice among the traces is right more often.

    The bounds are those of the picked trace's probability. Out of lists that were cut off, another trace may have had
    a larger one.

    References:
        Parikh, Sai, Shivaswamy, Panchal, Lan: CATTO (2026), section 3.3.

    >>> next(ConfidenceAtK(k=4, labels=("yes", "no"), seed=1).flow()).n
    4
    """

    def pick(self, traces: Sequence[Trace]) -> Trace:
        """Return the trace whose own label is most probable; the first among equals."""
        return max(traces, key=label_confidence)


@dataclass(frozen=True)
class BestOfN(PickingDecoder):
    """Draws k traces and answers with the one of the highest score.

    `score` maps a `Trace` to a number, higher is better: `total_logprob`, `mean_logprob`, `least_logprob`,
    `label_confidence` (which makes it Confidence@k), or your own, such as a reward of `trace.completion.text`.
    The confidence is the probability of the picked trace's label, whatever the score.

    >>> BestOfN(k=4, score=lambda trace: -len(trace.completion.text)).k  # the shortest trace
    4
    """

    score: Callable[[Trace], float] = total_logprob
    """Maps a trace to a number; higher is better."""

    def __post_init__(self) -> None:
        """Check the score too."""
        super().__post_init__()
        function("score", self.score, "calibwrap.decoders.mean_logprob")

    def pick(self, traces: Sequence[Trace]) -> Trace:
        """Return the trace of the highest score; the first among equals.

        Raises:
            InputError: a score is NaN.
        """
        scores = [float(self.score(trace)) for trace in traces]
        if any(score != score for score in scores):
            raise InputError(f"'score' must give a number for each trace. Got {scores}.")
        return traces[scores.index(max(scores))]


def selected_scores(decoder: PickingDecoder, answers: Sequence[Answer]) -> OptionScores:
    """Return the label scores (N, K) of the picked trace of each of N answers: what to fit `selected` on.

    Their largest entries are biased upwards by the choice, which a calibrator fitted on them, with the right label of
    each prompt, takes back:

        answers = lm.batch(prompts, decoder)
        fitted = cw.fit_temperature(selected_scores(decoder, answers), right_labels)
        honest = dataclasses.replace(decoder, selected=fitted)

    The scores are those before any `selected` of the decoder itself.

    Raises:
        InputError: no answers, or one without any trace that names a label: leave it out.
    """
    rows = []
    for index, answer in enumerate(answers):
        traces = traces_of(decoder.rule, answer.candidates)
        if not traces:
            raise InputError(
                f"'answers[{index}]' has no trace that names one of {decoder.labels}: leave out answers whose text is "
                "empty, and their right labels."
            )
        rows.append(decoder.pick(traces).scores)
    return join(rows)
