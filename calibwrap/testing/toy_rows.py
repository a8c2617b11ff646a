"""Scores and right answers drawn from known laws, for examples and tests that need no model."""

import numpy as np

from calibwrap.scores import Floats, Ints, log_softmax


def toy_rows(n: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Return log-probabilities (n, 3), and right answers (n,), of a model that is sure of itself and half right in it.

    A first choice that is given the probability c is right with probability c squared: a confidence near 1 means what
    it says, and those below are far too high. No temperature bends both ends right. The options stand in any order.

    >>> logprobs, answers = toy_rows(10_000)
    >>> round(float(np.exp(logprobs.max(axis=1)).mean()), 2), round(float((logprobs.argmax(1) == answers).mean()), 2)
    (0.82, 0.72)
    """
    random = np.random.default_rng(seed)
    confidence = np.maximum(1.0 / (1.0 + np.exp(-random.normal(2.0, 1.5, n))), 0.4)
    is_right = random.uniform(size=n) < confidence**2
    share = random.uniform(0.5, 1.0, n)  # of the rest, which the second option has
    rows = np.stack([confidence, (1.0 - confidence) * share, (1.0 - confidence) * (1.0 - share)], axis=1)
    right = np.where(is_right, 0, np.where(random.uniform(size=n) < share, 1, 2))
    order = random.permuted(np.tile(np.arange(3), (n, 1)), axis=1)
    return np.log(np.take_along_axis(rows, order, axis=1)), (order == right[:, None]).argmax(axis=1)


def toy_rows_of_two(n: int, seed: int = 0) -> tuple[Floats, Floats, Ints]:
    """Return log-probabilities (n, 3) of a model, those of a calibrated reference, and right answers (n,).

    Answers are drawn from the reference, so that it is calibrated; the model is the reference sharpened three times,
    with some noise.

    >>> model, reference, answers = toy_rows_of_two(10_000)
    >>> [round(float(np.exp(one.max(axis=1)).mean()), 2) for one in (model, reference)]
    [0.87, 0.68]
    >>> round(float((model.argmax(1) == answers).mean()), 2)
    0.68
    """
    random = np.random.default_rng(seed)
    reference = log_softmax(1.5 * random.normal(size=(n, 3)))
    model = log_softmax(3.0 * reference + 0.5 * random.normal(size=(n, 3)))
    return model, reference, (reference + random.gumbel(size=reference.shape)).argmax(axis=1)
