"""P(True) of options: each judged by itself, on the toy model and out of short lists."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.capabilities import Provides
from calibwrap.errors import InputError
from calibwrap.questions import CLOZE, Template
from calibwrap.readouts import OptionPTrue, find_readout
from calibwrap.testing import ToyAdapter, ToyModel

TEMPLATE = Template(body="{question} {options}", option="{option}", shows_options=True, name="toy")
READOUT = OptionPTrue(TEMPLATE, ("A", "B"))
QUESTIONS = [cw.Question("Which?", [" sun", " C", "é"]), cw.Question("Who?", [" C", " A"])]


def called_true(model, question, option):
    row = model.next_logprobs(model.encode(f"{question.prompt} {option}"))
    return 1.0 / (1.0 + np.exp(row[3] - row[2]))


def test_scores_are_the_shares_of_what_each_option_gets():
    model = ToyModel.random(3)
    scores = cw.wrap(ToyAdapter(model)).scores(QUESTIONS, readout=READOUT)
    for row, question in enumerate(QUESTIONS):
        true = np.array([called_true(model, question, option) for option in question.options])
        np.testing.assert_allclose(scores.probabilities[row, : len(true)], true / true.sum())
    assert scores.mask.tolist() == [[True, True, True], [True, True, False]]
    assert scores.is_exact
    assert scores.readout.endswith(":A/B")


@pytest.mark.parametrize("top", [1, 2, 3])
def test_bounds_of_short_lists_hold_what_is_exact(top):
    for seed in range(6):
        model = ToyModel.random(seed)
        exact = cw.wrap(ToyAdapter(model)).scores(QUESTIONS, readout=READOUT)
        cut = ToyAdapter(model, provides=Provides(top=top, token_bytes=True))
        scores = cw.wrap(cut).scores(QUESTIONS, readout=READOUT)
        assert (scores.lower <= exact.probabilities + 1e-9).all()
        assert (scores.upper >= exact.probabilities - 1e-9).all()
        assert (scores.choice == exact.choice)[scores.argmax_certified].all()


def test_it_has_a_name_and_takes_a_template():
    assert find_readout("p_true").label == "p_true:proposed"
    assert find_readout("p_true", TEMPLATE).template == TEMPLATE
    with pytest.raises(InputError, match="needs a template that shows the option"):
        OptionPTrue(CLOZE)
    with pytest.raises(InputError, match="two different words"):
        OptionPTrue(labels=("True", "True"))


def test_it_fits_and_answers_like_any_readout():
    questions = [cw.Question(q.prompt, q.options, answer=0) for q in QUESTIONS]
    lm = cw.wrap(ToyAdapter(ToyModel.random(3))).fit(questions * 10, readout=READOUT)
    assert lm.readout == READOUT
    assert lm.choose_batch(questions)[0].calibrated_by == "temperature"
