"""Questions whose right answers are drawn from the toy model itself, so that its calibration is known exactly."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.questions import LETTER, LETTERS, Question, Template
from calibwrap.scores import Floats, log_softmax
from calibwrap.testing.toy import BOS, LETTER_IDS, TOKENS, ToyModel

ENDINGS = (" A", " B", " C", " sun", "é", "☃")
"""What a question may end with: each puts the toy model into another state."""
TEXTS = ("A", "B", "C", "sun", "Aé", "B☃", "C sun", "sun☃", "suné", "A B")
"""Options of the continuation readout, of one to three tokens each."""


def toy_questions(
    n: int, seed: int = 0, model: ToyModel | None = None, template: Template = LETTER, n_options: int = 3
) -> list[Question]:
    """Return `n` questions whose right answers are drawn from the model's own probabilities of their options.

    So `model` is calibrated on them (its ECE tends to 0 with n), and `model.sharpened(3.0)` is over-confident by the
    temperature 3. A template that shows options, such as `LETTER`, gives up to 3 lettered options of one token; one
    that does not, such as `CLOZE`, gives texts of several tokens.

    >>> [question.answer for question in toy_questions(4, seed=1)]
    [0, 1, 1, 2]
    """
    random = np.random.default_rng(seed)
    most = len(LETTER_IDS) if template.shows_options else len(TEXTS)
    if not 1 <= n_options <= most:
        raise InputError(f"'n_options' must be from 1 to {most} with template {template.name!r}. Got {n_options}.")
    bare = []
    for index in range(n):
        ending = ENDINGS[random.integers(len(ENDINGS))]
        picked = random.choice(len(TEXTS), size=n_options, replace=False)
        options = ("first", "second", "third")[:n_options] if template.shows_options else [TEXTS[i] for i in picked]
        bare.append(Question(f"What comes after{ending}", options, id=f"toy-{index}"))
    odds = np.exp(option_logprobs(model or ToyModel.random(), bare, template))
    return [
        Question(question.prompt, question.options, int(random.choice(n_options, p=row)), question.id)
        for question, row in zip(bare, odds, strict=True)
    ]


def option_logprobs(model: ToyModel, questions: Sequence[Question], template: Template = LETTER) -> Floats:
    """Return the exact log-probabilities (N, K) of the options, normalised over the options: the truth of a readout.

    Raises:
        InputError: a chat template; its rendering belongs to the adapter.

    >>> rows = option_logprobs(ToyModel.random(seed=0), toy_questions(2))
    >>> np.exp(rows).sum(axis=1).round(9).tolist()
    [1.0, 1.0]
    """
    known: dict[tuple[str, str], float] = {}  # many questions share their prompt and options
    rows = []
    for question in questions:
        prompt = template.prompt(question, LETTERS)
        if not isinstance(prompt, str):
            raise InputError(f"'template' must be plain. Got {template.name!r}, which is a chat template.")
        texts = LETTERS[: len(question.options)] if template.shows_options else question.options
        pairs = [(prompt, template.separator + text) for text in texts]
        known.update({pair: model.sequence_logprob(*pair) for pair in pairs if pair not in known})
        rows.append([known[pair] for pair in pairs])
    return log_softmax(rows)


def toy_pair(seed: int = 0, sharpness: float = 3.0, disagreement: float = 0.3) -> tuple[ToyModel, ToyModel]:
    """Return a calibrated base model and an over-confident post-trained one.

    The second is the first sharpened, and in a share of its states the two likeliest letters have changed places. Where
    both choose the same of three letters, temperature `sharpness` turns the second into the first exactly; elsewhere
    the second is wrong about itself, which is what naive alignment trips over and DACA leaves out.

    Source: Luo et al., Your Pre-trained LLM is Secretly an Unsupervised Confidence Calibrator, 2025.

    >>> base, post = toy_pair(seed=0)
    >>> bool(np.exp(post.logprobs).max() > np.exp(base.logprobs)[:7].max())
    True
    """
    base = ToyModel.random(seed)
    states = [BOS, *(TOKENS.index(ending.encode()) for ending in ENDINGS[:-1]), TOKENS.index(b"\x83")]
    changed = np.random.default_rng(seed).permutation(states)[: round(disagreement * len(states))]
    logprobs = np.array(base.logprobs)
    for state in changed:
        second, first = np.array(LETTER_IDS)[np.argsort(logprobs[state, LETTER_IDS])[-2:]]
        logprobs[state, [first, second]] = logprobs[state, [second, first]]
    return base, ToyModel(logprobs).sharpened(sharpness)


def exact_ece(reported: ArrayLike, true: ArrayLike, n_bins: int = 15) -> float:
    """Return the expected calibration error of `reported` when answers come from `true`, both log-probabilities (N, K).

    No answer is drawn: a choice is right with its true probability. Bins have equal width, [low, high), the last one
    closed.

    >>> sharp, flat = np.log([[0.9, 0.1]]), np.log([[0.6, 0.4]])
    >>> round(exact_ece(sharp, flat), 6), exact_ece(flat, flat)
    (0.3, 0.0)
    """
    confidence, truth = np.exp(np.asarray(reported, dtype=np.float64)), np.exp(np.asarray(true, dtype=np.float64))
    choice = confidence.argmax(axis=1)[:, None]
    confidence, truth = (np.take_along_axis(table, choice, axis=1)[:, 0] for table in (confidence, truth))  # (N,)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return float(np.abs(np.bincount(bins, weights=confidence - truth, minlength=n_bins)).sum() / len(bins))
