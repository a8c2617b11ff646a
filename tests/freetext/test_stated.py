"""What a model states about its answer: the golden table of replies that count and replies that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.errors import InputError
from calibwrap.freetext import (
    ONE_STEP,
    REWARDING_DOUBT,
    TWO_STEP,
    Elicitation,
    parse_guess,
    parse_guesses,
    parse_lettered_scale,
    parse_probability,
    parse_scale,
    top_guesses,
)

SCALE = [
    ("Answer: Paris, Confidence: 7", [("Paris", 0.7)]),
    ("Answer: Paris, Confidence: 0", [("Paris", 0.0)]),
    ("Answer: Paris, Confidence: 10", [("Paris", 1.0)]),
    ("answer: paris, confidence: 10.", [("paris", 1.0)]),
    ("Answer: Paris, France, Confidence: 3", [("Paris, France", 0.3)]),
    ("**Answer:** Star Wars: A New Hope, **Confidence:** 9", [("Star Wars: A New Hope", 0.9)]),
    ("Let me think.\n\n  Answer: 1,000 , Confidence:8  \nThat is all.", [("1,000", 0.8)]),
    ("Answer: Paris, Confidence: 4\nAnswer: Rome, Confidence: 9", [("Paris", 0.4)]),
    ("Answer: Paris, Confidence: 11", []),
    ("Answer: Paris, Confidence: 100", []),
    ("Answer: Paris, Confidence: -1", []),
    ("Answer: Paris, Confidence: 7.5", []),
    ("Answer: Paris, Confidence: 7/10", []),
    ("Answer: Paris, Confidence: 70%", []),
    ("Answer: Paris, Confidence: high", []),
    ("Answer: Paris, Confidence: seven", []),
    ("Answer: Paris, Confidence:", []),
    ("Answer: Paris Confidence: 7", []),
    ("Answer: Paris. Confidence: 7", []),
    ("Answer: Paris\nConfidence: 7", []),
    ("Answer: , Confidence: 7", []),
    ("Paris, Confidence: 7", []),
    ("Answer: Paris, Confidence: 11\nAnswer: Paris, Confidence: 9", []),
    ("The Answer: Paris, Confidence: 7", []),
    ("Paris", []),
    ("", []),
]
LETTERED = [
    ("Answer: B: Mars, Confidence: 9", [("B", 0.9)]),
    ("Answer: B, Confidence: 9", [("B", 0.9)]),
    ("Answer: Mars, Confidence: 9", []),
    ("Answer: BC: Mars, Confidence: 9", []),
    ("Answer: B: Mars, Confidence: 12", []),
]
GUESS = [
    ("Guess: Paris\nProbability: 0.85", [("Paris", 0.85)]),
    ("guess: Paris\n\nprobability: .5", [("Paris", 0.5)]),
    ("Sure!\n**Guess:** Paris\n**Probability:** 85%", [("Paris", 0.85)]),
    ("Guess: Paris\nProbability: 1", [("Paris", 1.0)]),
    ("Guess: Paris\nProbability: 0", [("Paris", 0.0)]),
    ("Guess: Paris\nProbability: 85", []),
    ("Guess: Paris\nProbability: 150%", []),
    ("Guess: Paris\nProbability: -0.5", []),
    ("Guess: Paris\nProbability: 0.85 or so", []),
    ("Guess: Paris\nbecause\nProbability: 0.85", []),
    ("Guess:\nProbability: 0.85", []),
    ("Guess: Paris, Probability: 0.85", []),
    ("Probability: 0.85", []),
    ("Guess: Paris", []),
]
GUESSES = [
    ("G1: Paris\nP1: 0.6\nG2: Rome\nP2: 20%", [("Paris", 0.6), ("Rome", 0.2)]),
    ("G2: Rome\nP2: 0.2\nHm.\nG1: Paris\nP1: 0.6", [("Paris", 0.6), ("Rome", 0.2)]),
    ("g1: Paris\np1: 0.6", [("Paris", 0.6)]),
    ("G1: Paris\nP1: 0.6\nG2: Rome", []),
    ("G1: Paris\nP1: 0.6\nP2: 0.2", []),
    ("G1: Paris\nP1: 1.6", []),
    ("G1: Paris\nP1: high", []),
    ("G1: Paris\nP1: 0.6\nG1: Rome\nP1: 0.2", []),
    ("G1:\nP1: 0.6", []),
    ("Paris", []),
    ("", []),
]
PROBABILITY = [
    ("0.85", [("", 0.85)]),
    ("Probability: 85 %", [("", 0.85)]),
    ("**1.0**.", [("", 1.0)]),
    ("0.9\nI am sure.", [("", 0.9)]),
    ("85", []),
    ("I am sure: 0.9", []),
    ("", []),
]


@pytest.mark.parametrize(
    ("parse", "text", "stated"),
    [
        (parse, text, stated)
        for parse, table in (
            (parse_scale, SCALE),
            (parse_lettered_scale, LETTERED),
            (parse_guess, GUESS),
            (parse_guesses, GUESSES),
            (parse_probability, PROBABILITY),
        )
        for text, stated in table
    ],
)
def test_golden_table(parse, text, stated):
    assert [(one.answer, one.confidence) for one in parse(text)] == stated


@given(st.text(max_size=60))
def test_no_reply_breaks_a_parser_or_states_more_than_certainty(text):
    for parse in (parse_scale, parse_lettered_scale, parse_guess, parse_guesses, parse_probability):
        for marked in (text, f"Answer: {text}", f"Guess: x\nProbability: {text}", f"G1: x\nP1: {text}"):
            assert all(0.0 <= one.confidence <= 1.0 for one in parse(marked))


@given(st.integers(0, 10), st.from_regex(r"[A-Za-z]([A-Za-z ,:.]{0,20}[A-Za-z])?", fullmatch=True))
def test_what_keeps_the_form_is_read(level, answer):
    assert [one.confidence for one in parse_scale(f"Answer: {answer}, Confidence: {level}")] == [level / 10]


def test_an_elicitation_asks_for_the_form_that_it_reads():
    for elicitation in (REWARDING_DOUBT, ONE_STEP, top_guesses(3)):
        form = elicitation.before.split("\n", 1)[1]
        filled = form.replace("<your answer>", "x").replace("<a few words>", "x")
        stated = elicitation.parse(filled.replace("<number>", "1"))
        assert stated
        assert stated[0].answer == "x"
    assert TWO_STEP.after
    assert not TWO_STEP.before


def test_what_asks_for_nothing_is_refused():
    with pytest.raises(InputError, match="asks for nothing"):
        Elicitation("silent", parse_scale)
    with pytest.raises(InputError, match="'n' must be a whole number of at least 2"):
        top_guesses(1)
