"""Parity of two sets of scores: a case worked by hand, and laws that hold for any scores."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.errors import InputError
from calibwrap.parity import parity
from calibwrap.scores import OptionScores

ONE = OptionScores(
    np.log([[0.7, 0.2, 0.1], [0.4, 0.6, 1e-300], [0.3, 0.3, 0.4]]), readout="label", label_mass=[0.9, 0.8, 0.7]
)
TWO = OptionScores(
    np.log([[0.6, 0.3, 0.1], [0.9, 0.1, 1e-300], [0.3, 0.3, 0.4]]), readout="label", label_mass=[0.5, 0.5, 0.5]
)


def test_a_case_worked_by_hand():
    found = parity(ONE, TWO, [0, 1, None])
    # differences: 0.1 0.1 0 | 0.5 0.5 0 | 0 0 0
    assert (found.questions, found.options, found.furthest) == (3, 9, 1)
    assert found.largest == pytest.approx(0.5)
    assert found.mean == pytest.approx(1.2 / 9)
    assert found.percentile99 == pytest.approx(0.5)  # at 7.92 of the nine sorted differences, both neighbours are 0.5
    assert found.beyond_bounds == pytest.approx(0.5)
    assert found.same_choice == pytest.approx(2 / 3)
    assert (found.first.accuracy, found.second.accuracy) == (1.0, 0.5)
    assert found.first.ece == pytest.approx((0.3 + 0.4) / 2)  # each answer alone in its bin
    assert found.second.ece == pytest.approx((0.4 + 0.9) / 2)
    assert found.first.mean_confidence == pytest.approx((0.7 + 0.6 + 0.4) / 3)
    assert found.first.label_mass == pytest.approx(0.8)
    assert found.second.label_mass == pytest.approx(0.5)


def test_truncation_explains_what_lies_inside_its_bounds():
    missing = np.array([[False, False, True]])
    cut = OptionScores(np.log([[0.6, 0.2, 0.2]]), "label", missing=missing, lower=[[0.6, 0.2, 0.0]],
                       upper=[[0.75, 0.25, 0.4]], argmax_certified=[True])  # fmt: skip
    whole = OptionScores(np.log([[0.7, 0.26, 0.04]]), "label")
    found = parity(cut, whole)
    assert found.largest == pytest.approx(0.16)
    assert found.beyond_bounds == pytest.approx(0.01)  # 0.26 against at most 0.25
    assert (found.first.missing, found.second.missing, found.first.uncertain) == (1, 0, 0)
    unsure = replace(cut, argmax_certified=[False])
    assert parity(unsure, whole).first.uncertain == 1


def test_without_answers_there_is_no_accuracy():
    for answers in (None, [None, None, None]):
        side = parity(ONE, TWO, answers).first
        assert (side.accuracy, side.ece) == (None, None)
    one, two = (OptionScores(scores.logprobs, "continuation") for scores in (ONE, TWO))
    assert parity(one, two).first.label_mass is None


def test_options_that_do_not_exist_do_not_count():
    one = OptionScores.from_rows([np.log([0.5, 0.5]).tolist(), np.log([0.2, 0.3, 0.5]).tolist()], "label")
    two = OptionScores.from_rows([np.log([0.6, 0.4]).tolist(), np.log([0.2, 0.3, 0.5]).tolist()], "label")
    found = parity(one, two)
    assert found.options == 5
    assert found.mean == pytest.approx(0.2 / 5)
    with pytest.raises(InputError, match=r"answers\[0\]"):
        parity(one, two, [2, 0])


@pytest.mark.parametrize(
    ("other", "answers", "message"),
    [
        (TWO.take([0, 1]), None, "same questions"),
        (OptionScores.from_rows([[0.0, 0.0], [0.0, 0.0, 0.0], [0.0]], "label"), None, "other options existing"),
        (OptionScores(TWO.logprobs, "label:letter-chat"), None, "same readout"),
        (TWO, [0], "one entry"),
        (TWO, [0, 1, 3], r"answers\[2\]"),
        (TWO, [0, 1, -1], r"answers\[2\]"),
    ],
)
def test_what_does_not_compare_is_named(other, answers, message):
    with pytest.raises(InputError, match=message):
        parity(ONE, other, answers)


@st.composite
def pairs(draw):
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    values = st.lists(st.floats(-50, 0), min_size=n * k, max_size=n * k)
    one, two = (OptionScores(np.reshape(draw(values), (n, k)), "label") for _ in range(2))
    return one, two, draw(st.lists(st.none() | st.integers(0, k - 1), min_size=n, max_size=n))


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_neither_side_comes_first(pair):
    one, two, answers = pair
    there, back = parity(one, two, answers), parity(two, one, answers)
    assert replace(back, first=back.second, second=back.first) == there


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_scores_equal_themselves(pair):
    one, _, answers = pair
    found = parity(one, one, answers)
    assert (found.largest, found.mean, found.percentile99, found.beyond_bounds) == (0.0, 0.0, 0.0, 0.0)
    assert found.same_choice == 1.0
    assert found.first == found.second


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_the_order_of_the_figures_and_of_exact_bounds(pair):
    one, two, _ = pair
    found = parity(one, two)
    assert 0.0 <= found.mean <= found.largest + 1e-15
    assert found.percentile99 <= found.largest + 1e-15
    assert found.largest <= 1.0
    assert found.beyond_bounds == pytest.approx(found.largest)


def test_a_calibrator_moves_both_sides_alike():
    hot = cw.Temperature(4.0)
    assert parity(hot(ONE), hot(TWO)).largest < parity(ONE, TWO).largest
