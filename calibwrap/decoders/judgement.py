"""What a model says, True or False, of answers that another one gave, and DACA between two such judges.

Luo, Wang, Li, Wei, "Your Pre-trained LLM is Secretly an Unsupervised Confidence Calibrator", 2025, their form for open
questions: both models are asked whether the post-trained model's answer is right, and DACA aligns the two verdicts as a
question of two options. That both judge the same answer is our reading; the paper does not pin it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from calibwrap.base import Adapter, Answer
from calibwrap.calibrators import Identity, Platt, fit_daca
from calibwrap.capabilities import check_needs
from calibwrap.decoders.rewording import Reworded
from calibwrap.decoders.stated import PTrue
from calibwrap.decoders.verdicts import verdicts
from calibwrap.errors import InputError
from calibwrap.freetext.fitting import free_prompts, free_template
from calibwrap.questions import FreeQuestion, Template
from calibwrap.scores import OptionScores, join

CLIP = 1e-12
"""Verdicts are taken as at least this and at most 1 - this."""


def judgements(
    adapter: Adapter,
    questions: Sequence[FreeQuestion],
    texts: Sequence[str],
    decoder: PTrue | None = None,
    template: Template | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OptionScores:
    """Return the scores (N, 2) that a model gives to "right" and "wrong" when it is shown each text as the answer.

    The question is the one that `PTrue` asks after an answer of the model's own, word for word.

    Args:
        adapter: the judge.
        questions: N questions.
        texts: N answers, none empty.
        decoder: whose `ask` and `labels` are used; `PTrue()` by default.
        template: writes the prompts; by default `SHORT_CHAT` where the judge has a chat template, else `SHORT`.
        progress: called with (texts done, in all).

    Raises:
        CapabilityError: the backend cannot show labels.
        AmbiguousOptions: a label is not one token after a prompt.
        InputError: an empty text, or another number of texts than of questions.

    >>> from calibwrap.questions import SHORT
    >>> from calibwrap.testing import ToyAdapter
    >>> asked = [FreeQuestion("Which?")], ["sun"], PTrue(labels=("A", "B")), SHORT
    >>> judgements(ToyAdapter(), *asked).probabilities.shape
    (1, 2)
    """
    if len(questions) != len(texts) or not all(text.strip() for text in texts):
        raise InputError(
            f"'texts' must be {len(questions)} answers, one a question, none empty: leave out what says nothing. "
            f"Got {len(texts)}, {sum(not text.strip() for text in texts)} of them empty."
        )
    asks = decoder or PTrue()
    check_needs("judgements", asks.needs, adapter.name, adapter.provides)
    chosen = free_template(template, adapter.provides)
    prompts = free_prompts(questions, chosen, adapter.provides)
    asked = [
        Reworded(reply=chosen.separator + text.strip(), say=asks.ask).prompt_of(prompt)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    size, parts = adapter.provides.batch_size, list[OptionScores]()
    for start in range(0, len(asked), size):
        for (one,) in verdicts(adapter, asked[start : start + size], asks.labels, Identity()):
            parts += [one.labels] if one.labels is not None else []
        if progress is not None:
            progress(min(start + size, len(asked)), len(asked))
    return join(parts)


def own_judgements(answers: Sequence[Answer]) -> OptionScores:
    """Return the scores (N, 2) of "right" and "wrong" that answers of `PTrue` carry as their confidence.

    >>> own_judgements([Answer("sun", 0.8, (0.7, 0.9))]).lower.round(4).tolist()
    [[0.7, 0.1]]
    """
    right = np.array([answer.confidence for answer in answers])
    low, high = np.array([answer.bounds for answer in answers]).T
    with np.errstate(divide="ignore"):
        logprobs = np.log(np.stack([right, 1.0 - right], axis=1))
    is_cut = (low < high)[:, None]
    lower, upper = np.stack([low, 1.0 - high], axis=1), np.stack([high, 1.0 - low], axis=1)
    return OptionScores(
        logprobs,
        "verdict",
        np.ones(logprobs.shape, dtype=np.bool_),
        lower=np.where(is_cut, lower, np.exp(logprobs)),
        upper=np.where(is_cut, upper, np.exp(logprobs)),
    )


def fit_daca_judged(own: OptionScores, reference: OptionScores, *, min_agree: int = 20) -> Platt:
    """Return the map of P(True) that DACA gives where both judges say the same: a temperature on its log-odds.

    Args:
        own: (N, 2) verdicts of the model on its answers, as of `own_judgements`.
        reference: (N, 2) verdicts of the reference on the same answers, as of `judgements`.
        min_agree: Fewer agreeing rows give a `CalibrationWarning`.

    A temperature T on two options is a line of slope 1/T through the log-odds: `Platt` without an intercept, which maps
    what `PTrue` says. An answer never crosses one half: what the model calls wrong stays below it.

    Raises:
        InputError: other shapes than (N, 2) each.
        FitError: the judges agree nowhere.

    >>> reference = OptionScores(np.log([[0.75, 0.25]] * 30), "verdict")
    >>> fit_daca_judged(OptionScores(np.log([[0.9, 0.1]] * 30), "verdict"), reference)([0.9]).round(4).tolist()
    [0.75]
    """
    if own.logprobs.shape[1] != 2 or reference.logprobs.shape[1] != 2:
        raise InputError(
            f"Verdicts have two options, right and wrong. Got {own.logprobs.shape} and {reference.logprobs.shape}."
        )
    fitted = fit_daca(own, reference, min_agree=min_agree)
    return Platt(1.0 / fitted.value, 0.0, CLIP, report=fitted.report)
