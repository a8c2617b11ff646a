"""Decoders that ask for a confidence in words, with replies made by hand."""

import pytest

import calibwrap as cw
from calibwrap.decoders.rewording import Reworded, drawn_as
from calibwrap.decoders.trace import round_seed
from calibwrap.errors import InputError
from calibwrap.freetext import ONE_STEP, TWO_STEP, top_guesses

from .made import SCORES, finish


def reply(text):
    return cw.Completion(text, SCORES, "stop")


def stated(answer, level):
    return reply(f"Answer: {answer}, Confidence: {level}")


def test_one_reply_states_it_all():
    answer = finish(cw.Stated(), [stated("Paris", 7)])
    assert (answer.text, answer.confidence, answer.bounds) == ("Paris", 0.7, (0.7, 0.7))
    assert (answer.unparsed, answer.calibrated_by) == (0, "none")


def test_of_several_replies_the_mean_counts_and_malformed_ones_are_counted():
    """Paris 0.8 and 0.6, Rome 0.9, of three that count: Paris 1.4/3, Rome 0.3."""
    drawn = [stated("Paris", 8), stated("Rome", 9), reply("no idea"), stated("the PARIS", 6), stated("Oslo", 11)]
    answer = finish(cw.Stated(k=5, temperature=1.0), drawn)
    assert answer.confidence == pytest.approx(1.4 / 3)
    assert answer.text == "Paris"
    assert answer.unparsed == 2
    assert answer.candidates == tuple(drawn)


def test_malformed_is_no_answer():
    for text in ("Paris", "Answer: The ?!, Confidence: x", ""):
        answer = finish(cw.Stated(), [reply(text)])
        assert (answer.text, answer.confidence, answer.bounds, answer.unparsed) == ("", 0.0, (0.0, 0.0), 1)


def test_top_guesses_share_one_reply():
    drawn = [reply("G1: Paris\nP1: 0.6\nG2: Rome\nP2: 0.3"), reply("G1: Rome\nP1: 0.9\nG2: rome!\nP2: 0.4")]
    answer = finish(cw.Stated(elicitation=top_guesses(2), k=2, temperature=1.0), drawn)
    assert answer.text == "Rome"
    assert answer.confidence == pytest.approx((0.3 + 1.0) / 2)  # the same answer twice in one reply: at most 1


def test_two_steps_ask_after_each_answer():
    decoder = cw.Stated(elicitation=TWO_STEP, k=3, temperature=1.0, seed=5)
    flow = decoder.flow()
    first = next(flow)
    assert drawn_as(first) == cw.Sampling(n=3, max_tokens=64, temperature=1.0, seed=5)
    said = [reply(" Paris"), reply("..."), reply("Rome")]
    second = flow.send(said)
    assert (second.reply, second.say, second.n, second.seed) == (" Paris", TWO_STEP.after, 1, round_seed(5, 3))
    third = flow.send([reply("0.5")])
    assert (third.reply, third.seed) == ("Rome", round_seed(5, 4))
    with pytest.raises(StopIteration) as end:
        flow.send([reply("Probability: 80%")])
    answer = end.value.value
    assert (answer.text, answer.confidence, answer.unparsed) == ("Rome", 0.4, 1)
    assert [one.text for one in answer.candidates] == [" Paris", "...", "Rome", "0.5", "Probability: 80%"]


def test_a_malformed_second_step_is_counted():
    answer = finish(cw.Stated(elicitation=TWO_STEP), [reply("Paris")], [reply("quite sure")])
    assert (answer.text, answer.confidence, answer.unparsed) == ("", 0.0, 1)


def test_the_words_of_a_request_reach_the_model():
    chat = cw.Chat(
        (("system", "Be kind."), ("user", "Capital?"), ("assistant", "Of?"), ("user", "France")), prefix="It's"
    )
    told = Reworded(before="Be brief.").prompt_of(chat)
    assert told.messages[1] == ("user", "Be brief.\n\nCapital?")
    assert told.messages[0] == ("system", "Be kind.")
    assert told.prefix == "It's"
    asked = Reworded(reply=" Paris", say="Right?").prompt_of(chat)
    assert asked.messages[-2:] == (("assistant", "It's Paris"), ("user", "Right?"))
    assert asked.prefix == ""
    assert Reworded().prompt_of(chat) == chat
    assert (
        Reworded(before="Be brief.", reply=" Paris\n", say="Right?").prompt_of("Q:") == "Be brief.\n\nQ: Paris\nRight?"
    )
    assert next(cw.Stated(elicitation=ONE_STEP).flow()).before == ONE_STEP.before


@pytest.mark.parametrize("half", [{"reply": "Paris"}, {"say": "Right?"}])
def test_half_a_turn_is_refused(half):
    with pytest.raises(InputError, match="belong together"):
        Reworded(**half)
