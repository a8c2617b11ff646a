"""Answers of decoders as scores: choice and confidence are the decoder's, whatever the most probable option is."""

import json

import numpy as np
import pytest

from calibwrap import Answer, Temperature
from calibwrap.answer_scores import AnswerScores, answer_scores
from calibwrap.errors import InputError
from calibwrap.score_records import row_record, row_scores
from calibwrap.scores import OptionScores
from calibwrap.summary import figures

AB = ("A", "B")
ABC = ("A", "B", "C")


def test_a_pick_that_is_not_the_most_probable_option_keeps_its_own_confidence():
    said = Answer("B", 0.3, (0.3, 0.3), {"A": 0.6, "B": 0.3, "C": 0.1})
    scores = answer_scores([said], [ABC], "confidence@1")
    assert (scores.choice[0], scores.confidence[0]) == (1, 0.3)
    np.testing.assert_allclose(scores.probabilities[0], [0.6, 0.3, 0.1])


def test_figures_count_an_empty_answer_as_wrong_with_confidence_0():
    said = [Answer("A", 0.8, (0.8, 0.8), {"A": 0.8, "B": 0.2}), Answer("", 0.0, (0.0, 0.0))]
    found = figures(answer_scores(said, [AB, AB], "confidence@4"), [0, 1])
    assert found["accuracy"].value == 0.5
    assert found["mean_confidence"].value == pytest.approx(0.4)
    assert found["ece"].value == pytest.approx(0.1)  # half of the answers: .8 said, 1 right; the others 0 and 0
    assert found["brier"].value == pytest.approx(((0.2**2 + 0.2**2) + 0.5) / 2)


def test_a_certain_answer_that_a_calibrator_lowered_leaves_the_rest_to_the_others_evenly():
    said = Answer("C", 0.7, (0.7, 0.7), {"A": 0.0, "B": 0.0, "C": 0.7})
    scores = answer_scores([said], [ABC], "majority@4")
    np.testing.assert_allclose(scores.probabilities[0], [0.15, 0.15, 0.7])


def test_numbers_of_options_may_differ_and_intervals_are_kept():
    said = [Answer("A", 0.5, (0.4, 0.7), {"A": 0.5, "B": 0.5}), Answer("C", 1.0, (1.0, 1.0), {"C": 1.0})]
    scores = answer_scores(said, [AB, ABC], "weighted@2")
    assert scores.mask.tolist() == [[True, True, False], [True, True, True]]
    assert scores.is_cut.tolist() == [True, False]
    np.testing.assert_allclose([scores.lower[0, 0], scores.upper[0, 0], scores.upper[0, 1]], [0.4, 0.7, 0.6])


def test_rows_are_taken_with_their_picks():
    said = [Answer("A", 0.9, (0.9, 0.9), {"A": 0.9, "B": 0.1}), Answer("B", 0.6, (0.6, 0.6), {"A": 0.4, "B": 0.6})]
    part = answer_scores(said, [AB, AB], "x").take([1])
    assert isinstance(part, AnswerScores)
    assert (part.choice.tolist(), part.confidence.tolist()) == ([1], [0.6])


@pytest.mark.parametrize(
    "parts",
    [{}, {"picked": [2], "stated": [0.5]}, {"picked": [-2], "stated": [0.5]}, {"picked": [0], "stated": [1.5]}],
)
def test_impossible_picks_are_refused(parts):
    with pytest.raises(InputError):
        AnswerScores(np.log([[0.5, 0.5]]), "x", **parts)


def test_a_text_that_is_no_label_is_refused():
    with pytest.raises(InputError, match="Got 'Z'"):
        answer_scores([Answer("Z", 0.5, (0.5, 0.5))], [AB], "x")


def test_rows_survive_json():
    random = np.random.default_rng(0)
    exact = OptionScores(np.log(random.dirichlet(np.ones(3), 4)), "x", label_mass=[0.1, np.nan, 0.5, 1.0])
    cut = OptionScores.from_lists([[0.5, 0.0, 0.2]] * 4, [[1, 3, 1]] * 4, [0.3] * 4, [0.05] * 4, "x", np.ones((4, 3)))
    for scores in (exact, cut):
        for row in range(len(scores)):
            back = row_scores(json.loads(json.dumps(row_record(scores, row, 3))), "x")
            for name in ("lower", "upper", "missing", "argmax_certified", "label_mass"):
                np.testing.assert_allclose(getattr(back, name)[0], getattr(scores, name)[row], rtol=1e-15, atol=1e-15)
            np.testing.assert_allclose(back.logprobs[0], scores.logprobs[row], rtol=1e-15, atol=1e-15)
            np.testing.assert_allclose(Temperature(2.0)(back).upper[0], Temperature(2.0)(scores).upper[row], rtol=1e-14)
