"""Fits over random halves, on the exact toy model: planted answers are found, and a useless fit is not flattered."""

import numpy as np
import pytest

from calibwrap.errors import InputError
from calibwrap.halves import over_halves
from calibwrap.metrics import ece
from calibwrap.questions import answers_of
from calibwrap.scores import OptionScores, log_softmax
from calibwrap.testing import ToyModel, toy_questions
from calibwrap.testing.toy_questions import option_logprobs

MODEL = ToyModel.random(seed=4)
QUESTIONS = toy_questions(800, seed=4, model=MODEL)
TRUE = option_logprobs(MODEL, QUESTIONS)
SHARP = OptionScores(log_softmax(3 * TRUE), readout="label:letter")
REFERENCE = OptionScores(TRUE, readout="label:letter")
ANSWERS = np.array(answers_of(QUESTIONS))


def test_methods_that_undo_a_planted_temperature_come_near_the_truth() -> None:
    found = over_halves(SHARP, ANSWERS, ["temperature", "daca"], REFERENCE, halves=20)
    values = {name: figure.value for name, figure in found.items()}
    assert values["raw"] == pytest.approx(ece(SHARP.confidence, SHARP.choice == ANSWERS), abs=0.02)
    assert values["temperature"] < 0.4 * values["raw"]  # type: ignore[operator]
    assert values["daca"] == pytest.approx(values["temperature"], abs=0.02)


def test_each_half_is_measured_on_what_it_has_not_seen() -> None:
    """With two questions of opposite outcome, whatever fits one is wrong on the other: seen ones would look perfect."""
    scores = OptionScores(np.log([[0.6, 0.4], [0.6, 0.4]]), readout="label")
    found = over_halves(scores, [0, 1], ["temperature"], halves=10)
    assert found["temperature"].value > 0.4  # type: ignore[operator]


def test_the_range_holds_the_mean_and_the_seed_fixes_it() -> None:
    once, again = (over_halves(SHARP, ANSWERS, ["temperature"], halves=8, seed=seed) for seed in (1, 1))
    assert once == again
    assert once["raw"].low <= once["raw"].value <= once["raw"].high  # type: ignore[operator]
    assert over_halves(SHARP, ANSWERS, [], halves=8, seed=2)["raw"] != once["raw"]


def test_a_fit_that_is_not_determined_says_so_and_leaves_the_others() -> None:
    disagreeing = OptionScores(np.where(np.arange(3) == 1, 0.0, -5.0) * np.ones((40, 1)), readout="label")
    other = OptionScores(np.where(np.arange(3) == 2, 0.0, -5.0) * np.ones((40, 1)), readout="label")
    found = over_halves(disagreeing, [0] * 40, ["temperature", "daca"], other, halves=3)
    assert found["daca"].value is None
    assert found["daca"].reason
    assert found["temperature"].value is not None


def test_fits_of_groups_are_told_the_groups_of_both_halves() -> None:
    """One group is sharpened and the other flattened: only who knows the groups can undo both."""
    group = np.arange(len(ANSWERS)) % 2
    mixed = OptionScores(log_softmax(TRUE * np.where(group, 4.0, 0.25)[:, None]), readout="label:letter")
    names = ["sharp" if one else "flat" for one in group]
    found = over_halves(mixed, ANSWERS, ["temperature", "group-temperature"], groups=names, halves=8)
    assert found["group-temperature"].value < 0.5 * found["temperature"].value  # type: ignore[operator]
    with pytest.raises(InputError, match="groups"):
        over_halves(mixed, ANSWERS, ["group-temperature"], halves=2)
