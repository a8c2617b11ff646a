"""When two answers are the same."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap.freetext import NORMALISERS, exact, number, option_letter, trivia_qa

texts = st.text(max_size=20)


@given(texts, st.sampled_from(["exact", "trivia-qa", "number"]))
def test_a_normal_form_is_its_own_normal_form(text, name):
    normalise = NORMALISERS[name]
    assert normalise(normalise(text)) == normalise(text)


@given(texts)
def test_space_around_an_answer_never_matters(text):
    for normalise in NORMALISERS.values():
        assert normalise(f" {text}\n") == normalise(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles", "beatles"),
        ("a cat and an owl", "cat and owl"),
        ("Theodore an_old_man", "theodore old man"),
        ("U.S.A.", "u s"),  # the last letter is an article to these rules, as it is in the published ones
        ("Sunset   Blvd.", "sunset blvd"),
        ("rock ‘n’ roll", "rock n roll"),
        ("42", "42"),
        ("A", "a"),
        ("The The", "the the"),
        ("Ærøskøbing", "ærøskøbing"),
        ("!?", ""),
        ("", ""),
    ],
)
def test_trivia_qa_by_hand(text, normal):
    assert trivia_qa(text) == normal


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(C) Mars", "C"),
        ("D: Mars", "D"),
        ("**Answer:** A", "A"),
        ("Answer: A? No. Answer: B.", "B"),
        ("A, but then Answer: E", "E"),
        ("Apple", ""),
        ("b", ""),
        ("the answer is B", "B"),
        ("The answer is B. Answer: C", "C"),
        ("The answer is a tree", ""),
        ("I think", ""),
        ("A cat", ""),
        ("I think it is hard. Answer: A", "A"),
        ("A", "A"),
        ("I. Iron", "I"),
        ("B Mars", "B"),
        ("", ""),
    ],
)
def test_option_letters_by_hand(text, letter):
    assert option_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("about 1,234,567.50 people", "1234567.5"),
        ("-3.0", "-3"),
        ("−2", "-2"),
        ("10-12", "12"),
        ("3 apples and 4 pears", "4"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("-0.0", "0"),
        ("+7", "7"),
        ("$1,000.", "1000"),
        ("1.5e3", "1500"),
        ("2E-3", "0.002"),
        ("5km", "5"),
        ("B52", ""),
        ("one", ""),
        ("1 000", "1000"),
        ("-12\u202f345.5 m", "-12345.5"),
        ("in 2020 300 people", "300"),
        ("1 00", "0"),
        ("1/2", "0.5"),
        ("-3/4 of it", "-0.75"),
        ("2 1/2 cups", "2.5"),
        ("1/3", "1/3"),
        ("4/6.", "2/3"),
        ("3/4/2024", "2024"),
        ("1/0", "0"),
        ("1.250,50", "1250.5"),
        ("1.250.000", "1250000"),
        ("1.250", "1.25"),
        ("3,5", "3.5"),
        ("10,5 km", "10.5"),
        ("-0,125", "-0.125"),
        ("1,25", "1.25"),
        ("1,2500", "1.25"),
        ("1234,567", "1234.567"),
        ("2,5e3 m", "2500"),
        ("12 000,5", "12000.5"),
        ("it costs 2,50.", "2.5"),
        ("1,250", "1250"),
        ("1,2,3", "3"),
        ("3, 5", "5"),
        ("12,34,567", "34567"),
    ],
)
def test_numbers_by_hand(text, normal):
    assert number(text) == normal


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_every_plain_number_is_read_as_it_is(value):
    assert Decimal(number(f"It is {value:,f} in all.")) == value


def test_exact_keeps_case():
    assert exact(" Paris\n") == "Paris"
