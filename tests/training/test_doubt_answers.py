"""Questions become answers and verdicts: what is drawn, how it is judged, and what prompt the confidence follows."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.errors import InputError, PromptTooLong, QuestionError
from calibwrap.questions import FreeQuestion
from calibwrap.readouts.verbalized import STATED, proposed
from calibwrap.training.doubt_answers import (
    Drawing,
    Nucleus,
    check_lengths,
    confidence_prompt,
    drawn_answers,
    judged,
    question_rows,
)
from calibwrap.training.doubt_measures import read_stated, stated_measures
from calibwrap.training.rewards import reward_table
from tests.adapters.hf_models import byte_level, llama, plain_score

CLOSED = [cw.Question("Is water wet?", ["yes", "no", "and rainy"], answer=0, id="wet", context="Rain.")]
FREE = [FreeQuestion("Which planet is red?", ["Mars", "the planet Mars"], id="red")]


@pytest.fixture(scope="module")
def tiny():
    return Transformers(llama(max_position_embeddings=512), byte_level())


def option_odds(adapter, row):
    before = byte_level()(row["prompt"])["input_ids"]
    tails = [byte_level()(" " + option)["input_ids"] for option in row["options"]]
    sums = np.array([plain_score(adapter.model, before, tail).sum() for tail in tails])
    return np.exp(sums - sums.max()) / np.exp(sums - sums.max()).sum()


def test_the_prompt_is_the_one_that_the_readout_writes():
    for question, answer in ((CLOSED[0], "and rainy"), (FREE[0], "Mars, the red one")):
        (row,) = question_rows([question])
        assert confidence_prompt(row, answer) == proposed(STATED, question, answer)
        assert row["prompt"].endswith("\nAnswer:")


def test_options_are_drawn_by_the_models_own_odds(tiny):
    (row,) = question_rows(CLOSED)
    odds = option_odds(tiny, row)
    points = iter(np.linspace(0.0, 1.0, 300, endpoint=False) + 1 / 600)
    drawn = drawn_answers(tiny, [row] * 300, Drawing(temperature=1.0, top_p=1.0), lambda: next(points))
    shares = [drawn.count(option) / 300 for option in row["options"]]
    np.testing.assert_allclose(shares, odds, atol=1 / 150)
    (best,) = drawn_answers(tiny, [row], Drawing(temperature=0.0), lambda: 0.0)
    assert best == row["options"][odds.argmax()]


def test_top_p_leaves_out_the_unlikely_and_temperature_comes_first():
    odds = Nucleus(temperature=0.5, top_p=0.9)(np.log([[0.6, 0.3, 0.1]]))
    np.testing.assert_allclose(np.exp(odds), [[0.8, 0.2, 0.0]], atol=1e-12)  # squares: 36 / 46 and 9 / 46 hold 0.98
    assert np.exp(Nucleus(top_p=0.5)(np.log([[0.2, 0.6, 0.2]]))).round(6).tolist() == [[0.0, 1.0, 0.0]]


def test_free_answers_are_texts_that_follow_from_the_callers_random_numbers(tiny):
    rows = question_rows(FREE * 3)
    drawing = Drawing(temperature=0.6, top_p=0.9, max_tokens=5)
    one, same, other = (drawn_answers(tiny, rows, drawing, lambda point=point: point) for point in (0.1, 0.1, 0.7))
    assert one == same != other
    greedy = drawn_answers(tiny, rows, Drawing(temperature=0.0, max_tokens=5), lambda: 0.5)
    assert len(set(greedy)) == 1
    assert all("\n" not in answer for answer in one + other)


def test_an_option_is_right_letter_by_letter_and_a_free_text_by_its_aliases():
    option = {"options": ["5", "-5"], "references": ["-5"]}
    free = {"options": [], "references": ["Mars", "the planet Mars"]}
    assert judged([option, option, free, free], ["-5", "5", "The Mars.", "Venus"]) == [True, False, True, False]
    assert judged([free], ["Venus"], judge=lambda text, references: 1.0) == [True]


def test_questions_that_cannot_be_rewarded_are_named():
    with pytest.raises(QuestionError, match="'odd' has no right answer"):
        question_rows([*CLOSED, cw.Question("Which?", ["a", "b"], id="odd")])
    with pytest.raises(QuestionError, match="'number 1'"):
        question_rows([FreeQuestion("Which?")])
    with pytest.raises(InputError, match="'top_p'"):
        Drawing(top_p=0.0)


def test_a_question_that_is_too_long_is_named_and_never_cut(tiny):
    rows = question_rows([*CLOSED, *FREE])
    check_lengths(tiny, rows, answer_tokens=8, max_length=512)
    with pytest.raises(PromptTooLong, match=r"'wet' needs .* nothing is cut"):
        check_lengths(tiny, rows, answer_tokens=8, max_length=100)
    length = len(byte_level()(confidence_prompt(rows[0], "and rainy") + " 10")["input_ids"]) + 1
    check_lengths(tiny, rows[:1], answer_tokens=8, max_length=length)
    with pytest.raises(PromptTooLong):
        check_lengths(tiny, rows[:1], answer_tokens=8, max_length=length - 1)


def test_the_longest_option_is_the_one_of_the_most_tokens(tiny):
    """A letter of the byte-level tokenizer's language is a token; one of another script is several."""
    rows = question_rows([cw.Question("Which town?", ["abcdefghijkl", "東京都東京"], answer=0, id="town")])
    counts = [len(byte_level()(confidence_prompt(rows[0], one) + " 10")["input_ids"]) for one in rows[0]["options"]]
    assert counts[0] < counts[1]
    check_lengths(tiny, rows, answer_tokens=8, max_length=counts[1] + 1)
    with pytest.raises(PromptTooLong, match=f"'town' needs {counts[1] + 1} tokens"):
        check_lengths(tiny, rows, answer_tokens=8, max_length=counts[1])


def test_measures_by_hand():
    """One says 8, one 2, for certain; one is torn between 0 and 10; one says nothing half the time."""
    levels = np.zeros((4, 11))
    levels[0, 8] = levels[1, 2] = 1.0
    levels[2, [0, 10]] = 0.5
    levels[3, 5] = 0.5
    found = stated_measures(levels, [True, False, True, False], reward_table("brier"))
    # gaps of the levels that are said: 8: -0.2, 2: +0.2, 0: -0.5, 10: 0, 5: +0.5
    assert found["ece"] == pytest.approx(1.4 / 4)
    # right says 8, 0 or 10 (1/2, 1/4, 1/4); wrong says 2 or 5: 8 and 10 beat both, 0 beats none
    assert found["auroc"] == pytest.approx(0.75)
    assert found["malformed"] == pytest.approx(0.125)
    wanted = [1 - 0.04, -0.04, (0.0 + 1.0) / 2, (-0.25 - 3.0) / 2]
    assert found["reward"] == pytest.approx(np.mean(wanted))
    assert found["ece_expected"] == pytest.approx((0.2 + 0.2 + 0.0) / 4)  # the two at 0.5 are right once
    assert found["ece_likeliest"] == pytest.approx((0.2 + 0.2 + 1.0 + 0.5) / 4)


def test_measures_of_silence_and_of_one_kind_of_answer():
    found = stated_measures(np.zeros((2, 11)), [True, False], reward_table())
    assert (found["malformed"], found["reward"], found["accuracy"]) == (1.0, -3.0, 0.5)
    assert np.isnan([found["ece"], found["auroc"], found["ece_likeliest"], found["auroc_expected"]]).all()
    assert np.isnan(stated_measures(np.eye(11)[[3, 4]], [True, True], reward_table())["auroc_expected"])


def test_the_likeliest_answer_is_measured(tiny):
    rows = question_rows(CLOSED * 2)
    levels, correct = read_stated(tiny, rows)
    assert levels.shape == (2, 11)
    np.testing.assert_allclose(levels[0], levels[1], rtol=1e-4)
    best = rows[0]["options"][option_odds(tiny, rows[0]).argmax()]
    assert correct.tolist() == [best == "yes"] * 2
