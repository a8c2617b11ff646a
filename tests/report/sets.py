"""Question sets for the tests of the report."""

import numpy as np

from calibwrap.questions import Question
from calibwrap.report import Section, Series
from calibwrap.scores import OptionScores

READOUT = "label:letter"


def scores(logits, **more):
    return OptionScores(logits, readout=READOUT, **more)


def planted(rows=200, options=4, sharpness=3.0, seed=0):
    """Return a section whose first series is over-confident and whose second one is calibrated."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, options)) * 1.5
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = (true.cumsum(axis=1) < random.random((rows, 1))).sum(axis=1).clip(max=options - 1)
    texts = [f"option {index}" for index in range(options)]
    questions = [Question(f"Question {row}?", texts, int(answer), f"q{row}") for row, answer in enumerate(answers)]
    series = Series("as it says", scores(logits * sharpness)), Series("temperature", scores(logits))
    return Section("Planted", questions, series)


def asked(answers, logits, title="Set"):
    """Return a section of one series; two options a question."""
    questions = [Question(f"Q{row}?", ["yes", "no"], answer) for row, answer in enumerate(answers)]
    return Section(title, questions, [Series("raw", scores(logits))])
