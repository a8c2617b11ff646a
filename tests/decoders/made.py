"""Completions made by hand: a text that names a label, and the probabilities of all labels there."""

import numpy as np

from calibwrap.base import Completion
from calibwrap.scores import OptionScores, TokenScores

LABELS = ("A", "B", "C")
SCORES = TokenScores([[-1.0], [-2.0]], ids=[[0], [1]], chosen=[0, 1], chosen_logprob=[-1.0, -2.0])


def trace(label, probabilities, bounds=None, labels=LABELS, values=None):
    """A completion that names `label` with these probabilities; `bounds` are (lower, upper) rows."""
    text = f"so Answer: {label}" if label else "so"
    with np.errstate(divide="ignore"):
        row = np.log([probabilities])
    lower, upper = (None, None) if bounds is None else ([bounds[0]], [bounds[1]])
    scores = OptionScores(row, "trace", mask=np.ones(row.shape), lower=lower, upper=upper)
    own = SCORES if values is None else tokens(values)
    return Completion(text, own, "stop", labels=scores if label in labels else None)


def tokens(values):
    column = np.array(values, dtype=float)[:, None]
    ids = np.arange(len(values))
    return TokenScores(column, ids=ids[:, None], chosen=ids, chosen_logprob=column[:, 0])


def finish(decoder, *rounds):
    """The decoder's answer when it is sent these completions, one list a round."""
    flow = decoder.flow()
    next(flow)
    for completions in rounds:
        try:
            flow.send(completions)
        except StopIteration as end:
            return end.value
    raise AssertionError("the decoder asks for more")
