"""Whether an answer is right, by its references."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.errors import InputError, QuestionError
from calibwrap.freetext import exact, exact_match, f1_above_half, graded, number, token_f1

words = st.lists(st.sampled_from(["mars", "venus", "red", "planet", "of"]), min_size=1, max_size=6).map(" ".join)


def said(text):
    return cw.Answer(text, 0.5, (0.5, 0.5))


def test_any_alias_counts_and_nothing_is_wrong():
    assert exact_match("the Sunset Blvd", ["Sunset Boulevard", "Sunset Blvd."]) == 1.0
    assert exact_match("Sunset", ["Sunset Boulevard"]) == 0.0
    assert exact_match("!", ["?"]) == 0.0  # both say nothing
    assert exact_match("Mars", []) == 0.0


@pytest.mark.parametrize(
    ("text", "reference", "wanted"),
    [
        ("red planet", "the red planet mars", 2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3)),
        ("mars mars", "mars", 2 * (1 / 2) * 1.0 / 1.5),
        ("venus", "mars", 0.0),
        ("!", "mars", 0.0),
    ],
)
def test_token_f1_by_hand(text, reference, wanted):
    assert token_f1(text, reference) == pytest.approx(wanted)


@given(words, words)
def test_token_f1_is_symmetric_and_one_for_equal_bags(one, other):
    assert token_f1(one, other) == token_f1(other, one)
    assert (token_f1(one, other) == 1.0) == (sorted(one.split()) == sorted(other.split()))


def test_one_half_is_not_above_one_half():
    assert f1_above_half("in Paris, France", ["Paris"]) == 0.0
    assert f1_above_half("in Paris, France", ["Rome", "Paris France"]) == 1.0


def test_grading_takes_each_question_its_references():
    questions = [cw.FreeQuestion("?", ["4"]), cw.FreeQuestion("?", ["4"]), cw.FreeQuestion("?", ["x"])]
    answers = [said("It is 4.0"), said("5"), said("")]
    assert graded(answers, questions, partial(exact_match, normalise=number)).tolist() == [1.0, 0.0, 0.0]
    assert graded(answers, questions, lambda text, references: 0.5).tolist() == [0.5, 0.5, 0.0]
    assert graded(answers[:1], questions[:1], partial(exact_match, normalise=exact)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("answers", "questions", "judge", "error", "text"),
    [
        ([said("a")], [], exact_match, InputError, "1 answers and 0 questions"),
        ([said("a")], [cw.FreeQuestion("?", id="q7")], exact_match, QuestionError, r"1 of 1 questions .*first: q7"),
        ([said("a")], [cw.FreeQuestion("?", ["a"])], lambda *_: 2.0, InputError, r"from 0 to 1. Got \[2.0\]"),
    ],
)
def test_what_cannot_be_graded_is_named(answers, questions, judge, error, text):
    with pytest.raises(error, match=text):
        graded(answers, questions, judge)
