"""A reference's probability of given answers: worked out on the toy model, token by token."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, InputError
from calibwrap.freetext.reevaluation import reevaluated
from calibwrap.questions import SHORT
from calibwrap.testing import ToyAdapter, ToyModel

QUESTIONS = [cw.FreeQuestion(f"What is {n}?") for n in range(12)]
TEXTS = ["A", "B C", "", " sun ", "é", "A sun B", "  ", "C", "B", "sun", "C A", "é é"]


def slow(model, prompt, text):
    """Mean probability of the tokens of `text` after `prompt`, one at a time."""
    known, left = model.encode(prompt), model.encode(prompt + " " + text)
    values = []
    for at in range(len(known), len(left)):
        values.append(np.exp(model.next_logprobs(left[:at])[left[at]]))
    return float(np.mean(values))


def test_it_is_the_mean_probability_of_the_tokens_and_nothing_has_none():
    model = ToyModel.random(5)
    found = reevaluated(ToyAdapter(model), QUESTIONS, TEXTS, SHORT)
    for question, text, value in zip(QUESTIONS, TEXTS, found, strict=True):
        wanted = slow(model, SHORT.prompt(question), text.strip()) if text.strip() else 0.0
        assert value == pytest.approx(wanted, abs=1e-12)


def test_batches_do_not_matter():
    model = ToyModel.random(5)
    few, many = (ToyAdapter(model, provides=Provides(score=True, tokenize=True, batch_size=n)) for n in (1, 64))
    np.testing.assert_array_equal(*(reevaluated(one, QUESTIONS, TEXTS) for one in (few, many)))
    assert (few.calls["score"], many.calls["score"]) == (10, 1)


def test_what_cannot_be_scored_is_refused_before_any_call():
    blind = ToyAdapter(provides=Provides(top=5, token_bytes=True))
    with pytest.raises(CapabilityError, match="reevaluated needs score"):
        reevaluated(blind, QUESTIONS, TEXTS)
    with pytest.raises(InputError, match="one text a question"):
        reevaluated(ToyAdapter(), QUESTIONS, TEXTS[1:])
