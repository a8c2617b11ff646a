"""What a reference model makes of answers that another model gave: its probability of their tokens.

"BaseCal: Unsupervised Confidence Calibration via Base Model Signals" (arXiv 2601.03042, 2026), its re-evaluation: a
pre-trained model is close to calibrated on its own tokens, so the mean probability that it gives to the tokens of the
post-trained model's answer says how far to trust the answer.
"""

from collections.abc import Callable, Sequence

import numpy as np

from calibwrap.base import Adapter
from calibwrap.capabilities import Needs, check_needs
from calibwrap.errors import CapabilityError, InputError
from calibwrap.freetext.fitting import free_prompts, free_template
from calibwrap.questions import FreeQuestion, Template
from calibwrap.scores import Floats, TokenScores

NEEDS = Needs(score=True)
"""What the reference must give."""


def reevaluated(
    adapter: Adapter,
    questions: Sequence[FreeQuestion],
    texts: Sequence[str],
    template: Template | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Return (N,) the mean probability, in [0, 1], that a model gives to the tokens of each text as an answer.

    It is a confidence in its own right, or stands in for labels in a fit of another one: see `fit_on_answers`. A text
    that says nothing has 0. The mean is that of probabilities, not of their logarithms, so that one token the
    reference would have spelt otherwise does not decide; the end token is not asked for.

    Args:
        adapter: the reference model.
        questions: N questions.
        texts: N answers that another model gave.
        template: writes the reference's prompts; by default `SHORT_CHAT` where it has a chat template, else `SHORT`.
        progress: called with (texts done, in all).

    Raises:
        CapabilityError: the backend cannot score a given text.
        InputError: another number of texts than of questions.

    >>> from calibwrap.testing import ToyAdapter
    >>> values = reevaluated(ToyAdapter(), [FreeQuestion("Which? A"), FreeQuestion("Who?")], ["B C", ""])
    >>> bool(0.0 < values[0] < 1.0), float(values[1])
    (True, 0.0)
    """
    if len(questions) != len(texts):
        raise InputError(f"Expected one text a question. Got {len(texts)} texts and {len(questions)} questions.")
    check_needs("reevaluated", NEEDS, adapter.name, adapter.provides)
    chosen = free_template(template, adapter.provides)
    prompts = free_prompts(questions, chosen, adapter.provides)
    found = np.zeros(len(texts))
    spoken = [index for index, text in enumerate(texts) if text.strip()]
    for start in range(0, len(spoken), adapter.provides.batch_size):
        part = spoken[start : start + adapter.provides.batch_size]
        continuations = [[chosen.separator + texts[index].strip()] for index in part]
        for index, (scores,) in zip(part, adapter.score([prompts[i] for i in part], continuations), strict=True):
            found[index] = _mean_probability(scores)
        if progress is not None:
            progress(start + len(part), len(spoken))
    return found


def _mean_probability(scores: TokenScores) -> float:
    """Return the arithmetic mean of the probabilities of the scored tokens, at most 1.

    >>> scores = TokenScores(np.log([[0.5], [0.25]]), ids=[[3], [4]], chosen=[3, 4], chosen_logprob=np.log([0.5, 0.25]))
    >>> _mean_probability(scores)
    0.375
    """
    if scores.chosen_logprob is None:
        raise CapabilityError("The backend scored a text without its tokens' log-probabilities: use hf or llama-cpp.")
    return min(1.0, float(np.exp(scores.chosen_logprob).mean()))
