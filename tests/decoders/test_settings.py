"""What is handed in wrongly is named: names for functions, classes for records, one text for a list of texts."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.decoders import BestOfN, find_decoder
from calibwrap.errors import InputError
from calibwrap.evaluate_free import evaluate_free
from calibwrap.evaluate_traces import evaluate_decoder
from calibwrap.freetext import exact_match, f1_above_half, graded
from calibwrap.testing import ToyAdapter, ToyModel

PROMPT = "In the morning the sun"
FREE = [cw.FreeQuestion("What comes after A?", ["B"])]
CHOICE = [cw.Question("What comes after A?", ["B", "C"], 0)]
DRAWERS = (cw.ConfidenceAtK, cw.MajorityVote, cw.SelfConsistency, cw.FreeText, cw.Stated, cw.PTrue)


@pytest.fixture(scope="module")
def lm():
    return cw.CalibratedLM(ToyAdapter(ToyModel.random(2)))


@pytest.mark.parametrize("kind", [*DRAWERS, cw.Greedy])
@pytest.mark.parametrize("stop", ["\n\n", None, [3], 5])
def test_a_stop_text_is_never_taken_letter_by_letter(kind, stop):
    with pytest.raises(InputError, match="'stop' must be a list of texts"):
        kind(stop=stop)
    assert kind(stop=["\n\n"]).stop == ("\n\n",)


def test_a_decoder_by_name_takes_a_list_of_stop_texts_too():
    with pytest.raises(InputError, match="write \\['\\\\n\\\\n'\\]"):
        find_decoder("confidence@2", stop="\n\n")


@pytest.mark.parametrize("kind", DRAWERS)
@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": "1"},
        {"temperature": float("nan")},
        {"temperature": -1},
        {"seed": 1.5},
        {"seed": -1},
        {"k": True},
        {"k": 0},
        {"k": 2.0},
        {"max_tokens": 2.5},
        {"max_tokens": np.float64(2)},
    ],
    ids=str,
)
def test_a_number_that_is_none_is_named(kind, setting):
    with pytest.raises(InputError, match=f"'{next(iter(setting))}' must be"):
        kind(**setting)


@pytest.mark.parametrize("kind", DRAWERS)
def test_numbers_of_numpy_are_numbers(kind):
    decoder = kind(k=np.int64(3), max_tokens=np.int32(4), seed=np.uint8(2), temperature=np.float32(0.5))
    assert decoder == kind(k=3, max_tokens=4, seed=2, temperature=0.5)
    assert [type(getattr(decoder, name)) for name in ("k", "max_tokens", "seed", "temperature")] == [int] * 3 + [float]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cw.ConfidenceAtK(adaptive="yes"), "'adaptive' must be True or False"),
        (lambda: cw.ConfidenceAtK(threshold="1"), "'threshold' must be"),
        (lambda: cw.ConfidenceAtK(selected="cal.json"), "cw.load"),
        (lambda: cw.ConfidenceAtK(selected=cw.Temperature), "call it"),
        (lambda: BestOfN(score="mean_logprob"), "'score' must be a function"),
        (lambda: cw.SelfConsistency(normalise="exact"), "'normalise' must be a function"),
        (lambda: cw.Stated(normalise="exact"), "'normalise' must be a function"),
        (lambda: cw.Stated(elicitation="1s"), "'elicitation' must be one"),
    ],
)
def test_what_is_no_such_part_is_named(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda lm: lm(PROMPT, "confidence@4"), "finds one by its name"),
        (lambda lm: lm(PROMPT, cw.ConfidenceAtK), "class ConfidenceAtK: call it"),
        (lambda lm: lm.stream(PROMPT, cw.Greedy), "class Greedy: call it"),
        (lambda lm: lm.batch(PROMPT, cw.Greedy()), "'prompts' must be a list"),
        (lambda lm: lm.with_calibrator("cal.json"), "cw.load"),
        (lambda lm: lm.with_calibrator(cw.Temperature), "call it with its numbers"),
        (lambda lm: lm.fit_answers(FREE, judge="exact-match"), "calibwrap.freetext.JUDGES"),
        (lambda lm: lm.fit_answers(CHOICE), "must be a FreeQuestion"),
        (lambda lm: lm.fit_answers(FREE, "self-consistency@2"), "'decoder' must be a decoder"),
        (lambda lm: evaluate_decoder(lm, CHOICE, cw.SelfConsistency(k=2)), "must be a TraceDecoder"),
        (lambda lm: evaluate_decoder(lm, CHOICE, cw.ConfidenceAtK(k=2), template="letter"), "must be a Template"),
        (lambda lm: evaluate_free(lm, FREE, cw.ConfidenceAtK(k=2)), "must be a FreeTextDecoder"),
        (lambda lm: evaluate_free(lm, FREE, template="short"), "'template' must be"),
    ],
)
def test_the_wrong_thing_at_the_door_is_named_before_any_model_call(lm, ask, says, monkeypatch):
    monkeypatch.setattr(ToyAdapter, "generate", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(InputError, match=says):
        ask(lm)


def test_one_reference_is_no_list_of_references():
    for judge in (exact_match, f1_above_half):
        assert judge("Paris", ["Paris"]) == 1.0
        for text in ("P", "Paris"):
            with pytest.raises(InputError, match="'references' must be a list"):
                judge(text, "Paris")
    with pytest.raises(InputError, match="'judge' must be a function"):
        graded([cw.Answer("B", 0.5, (0.5, 0.5))], FREE, "exact-match")
