"""Accuracy and calibration of a model in training, on questions that it does not learn from."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from calibwrap.errors import InputError
from calibwrap.questions import Question, answers_of
from calibwrap.readouts import find_readout
from calibwrap.scores import OptionScores, join
from calibwrap.summary import figures
from calibwrap.training.lora import without_peft
from calibwrap.training.settings import RewardingDoubtSettings, TrainSettings
from calibwrap.wrap import CalibratedLM

SHOWN = ("accuracy", "mean_confidence", "ece", "brier", "nll", "auroc")
"""Figures that are measured while training goes on."""

Figures = dict[str, dict[str, Any]]
"""Each figure's value and the ends of its 95 % interval."""


@dataclass(frozen=True)
class HeldOutSet:
    """Held-out questions with their answers, and how the model is read on them."""

    questions: tuple[Question, ...]
    """With options and answers."""
    readout: str
    """As `find_readout` takes it."""
    tokenizer: Any
    """Of the model in training."""

    def figures(self, model: Any, is_over: Callable[[], bool]) -> Figures | None:
        """Return the figures of `model` as it is now, left as it was found; None when `is_over` said so on the way."""
        scores = self.scores(model, is_over)
        if scores is None:
            return None
        found = figures(scores, answers_of(self.questions))
        return {name: asdict(found[name]) for name in SHOWN}

    def scores(self, model: Any, is_over: Callable[[], bool]) -> OptionScores | None:
        """Return the scores of all questions; LoRA layers act, no gradient is kept, no random number is drawn."""
        from calibwrap.adapters.hf import Transformers

        lm = CalibratedLM(Transformers(without_peft(model), self.tokenizer), readout=find_readout(self.readout))
        parts: list[OptionScores] = []
        for part in lm.scores_by_part(self.questions):
            parts.append(part)
            if is_over():
                return None
        return join(parts)


def held_out_set(settings: TrainSettings, questions: Sequence[Question], tokenizer: Any) -> HeldOutSet | None:
    """Return the held-out questions and how `settings` want them read; None where they hold out none.

    What Rewarding Doubt trains is the confidence that the model states, so that is what is measured.
    """
    if settings.held_out is None:
        return None
    readout = settings.held_out.readout
    if isinstance(settings, RewardingDoubtSettings):
        from calibwrap.training.doubt_held_out import StatedHeldOutSet

        return StatedHeldOutSet(tuple(questions), readout, tokenizer, settings.answer_tokens)
    return HeldOutSet(tuple(questions), readout, tokenizer)


def check_held_out(held_out: Sequence[Any], train: Sequence[Any]) -> tuple[Question, ...]:
    """Return the held-out questions, which have options and answers and of which none is trained on.

    Raises:
        InputError: free-text questions, a question in both sets, or too few to measure anything.
        QuestionError: a question without an answer.

    >>> asked = Question("Red planet?", ["Mars", "Venus"], answer=0, id="1")
    >>> len(check_held_out([asked, Question("Blue planet?", ["Mars", "Earth"], answer=1, id="2")], []))
    2
    """
    if not all(isinstance(question, Question) for question in held_out):
        raise InputError("Held-out questions must have options. Got questions in free text: choose another set.")
    if len(held_out) < 2:
        raise InputError(f"'held_out' needs at least 2 questions to measure anything. Got {len(held_out)}.")
    answers_of(held_out)
    shared = {question.prompt for question in train} & {question.prompt for question in held_out}
    if shared:
        raise InputError(
            f"{len(shared)} questions are trained on and held out, such as {min(shared)!r}: hold out another split."
        )
    return tuple(held_out)
