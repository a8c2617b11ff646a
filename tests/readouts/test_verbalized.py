"""The verbalized readout: levels read exactly, replies where nothing can be scored, and silence told as silence."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.base import Completion
from calibwrap.capabilities import Provides
from calibwrap.data import packaged_model
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError
from calibwrap.questions import CLOZE, Template
from calibwrap.readouts import Verbalized, find_readout
from calibwrap.readouts.verbalized import STATED, confidence_of, proposed, read_levels, said_level
from calibwrap.testing import ToyAdapter, ToyModel
from tests.adapters.hf_models import byte_level, llama, plain_logprobs

QUESTIONS = [
    cw.Question("Which planet is red?", ["Mars", "Venus", "Rome"], answer=0, id="a"),
    cw.Question("Is water wet?", ["yes", "no"], answer=0, id="b"),
]
READOUT = Verbalized(
    Template(body="{question} {options}, Confidence:", option="{option}", shows_options=True, name="s")
)


@pytest.fixture(scope="module")
def tiny():
    return Transformers(llama(max_position_embeddings=512), byte_level(), batch_size=4)


def exact_levels(adapter, prompt):
    """Return the probabilities of all levels from plain forward passes, one for each token."""

    def next_probabilities(ids):
        return np.exp(plain_logprobs(adapter.model, ids)[-1])

    ids = byte_level()(prompt)["input_ids"]
    space, *digits = (byte_level()(text)["input_ids"] for text in (" ", *"0123456789"))
    assert all(len(one) == 1 for one in (space, *digits)), "the oracle is for digits and space alone"
    space, digits = space[0], [one[0] for one in digits]
    levels = next_probabilities(ids)[space] * next_probabilities([*ids, space])[digits]
    ten = next_probabilities([*ids, space, digits[1]])[digits[0]]
    return np.append(levels, levels[1] * ten) - np.eye(11)[1] * levels[1] * ten


def test_all_levels_are_read_exactly_and_one_is_not_ten(tiny):
    prompts = [proposed(READOUT.template, question, option) for question in QUESTIONS for option in question.options]
    found = read_levels(tiny, prompts)
    np.testing.assert_allclose(found, [exact_levels(tiny, prompt) for prompt in prompts], rtol=2e-3)
    assert (found.sum(axis=1) < 1.0).all()


def test_scores_are_shares_of_the_expected_levels(tiny):
    scores = READOUT.ask(tiny, QUESTIONS)
    levels, mask = READOUT.stated(tiny, QUESTIONS)
    stated = np.where(mask, (levels @ np.arange(11)) / np.where(mask, levels.sum(axis=2), 1.0) / 10, 0.0)
    np.testing.assert_allclose(scores.probabilities, stated / stated.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(scores.label_mass[1], levels[1, :2].sum() / 2)
    assert scores.mask.tolist() == mask.tolist() == [[True, True, True], [True, True, False]]
    assert scores.is_exact
    assert not scores.missing.any()


class Replying(ToyAdapter):
    """A server without scores, whose replies are given; the toy itself cannot write digits."""

    def __init__(self, replies):
        super().__init__(ToyModel.random(3), provides=Provides(chat=True))
        self.replies = iter(replies)
        self.asked = []

    def generate(self, prompts, sampling, steer=None):
        self.asked += prompts
        drawn = super().generate(prompts, replace(sampling, max_tokens=1), steer)
        return [[Completion(next(self.replies), one[0].scores, "stop")] for one in drawn]


def test_replies_count_where_nothing_can_be_scored():
    scores = cw.wrap(Replying([" 10", " 4.", " 6\nAnswer:", " 0", " 5"])).scores(QUESTIONS, "verbalized")
    np.testing.assert_allclose(scores.probabilities, [[0.5, 0.2, 0.3], [0.0, 1.0, 0.0]], atol=1e-12)
    assert scores.label_mass.tolist() == [1.0, 1.0]
    assert scores.is_exact


def test_a_malformed_reply_is_missing_and_its_confidence_could_be_anything():
    scores = cw.wrap(Replying([" 8", " very", " 4", " 11", " 7.5"])).scores(QUESTIONS, Verbalized(min_mass=0.0))
    assert scores.missing.tolist() == [[False, True, False], [True, True, False]]
    assert scores.label_mass.tolist() == [pytest.approx(2 / 3), 0.0]
    np.testing.assert_allclose(scores.lower[0], [0.8 / 2.2, 0.0, 0.4 / 2.2])
    np.testing.assert_allclose(scores.upper[0], [0.8 / 1.2, 1.0 / 2.2, 0.4 / 1.2])
    np.testing.assert_allclose(scores.probabilities[1], [0.5, 0.5, 0.0])
    assert scores.argmax_certified.tolist() == [False, False]


def test_all_zeros_are_equally_probable():
    scores = cw.wrap(Replying([" 0"] * 5)).scores(QUESTIONS, "verbalized")
    np.testing.assert_allclose(scores.probabilities, [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])


def test_a_model_that_states_nothing_is_warned_about():
    with pytest.warns(CalibrationWarning, match=r"only 0\.00"):
        scores = cw.wrap(ToyAdapter(ToyModel.random(3))).scores(QUESTIONS, "verbalized")
    assert scores.n_missing.tolist() == [3, 2]
    assert scores.lower[0].tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("reply", "level"),
    [(" 7", 7), ("10", 10), (" 0.", 0), (" 3\nNext", 3), (" **9**", 9), (" 07", 7), (" 11", None), (" 7.5", None),
     (" -1", None), ("", None), (" ten", None), (" 7/10", None), ("\n7", None), (" 7 of 10", None)],
)  # fmt: skip
def test_what_a_reply_states(reply, level):
    assert said_level(reply) == level


def test_expected_confidence():
    assert confidence_of(np.eye(11)).tolist() == pytest.approx(np.arange(11) / 10)


def test_names_templates_and_needs():
    assert find_readout("verbalized").label == "verbalized:stated"
    for name in ("verbalized:stated", "verbalized:stated-chat"):
        assert find_readout(name).label == name
    assert find_readout("verbalized", READOUT.template) == READOUT
    assert READOUT.label.startswith("verbalized:s-")
    with pytest.raises(InputError, match="needs a template with the option"):
        Verbalized(CLOZE)
    chatless = ToyAdapter(ToyModel.random(3), provides=Provides(score=True, tokenize=True))
    with pytest.raises(CapabilityError, match="chat"):
        cw.wrap(chatless).scores(QUESTIONS, "verbalized:stated-chat")
    server = Replying([" 5"] * 5)
    cw.wrap(server).scores(QUESTIONS, "verbalized:stated-chat")
    assert "Proposed answer: Mars" in server.asked[0].messages[0][1]


def test_it_fits_like_any_readout(tiny):
    lm = cw.wrap(tiny).fit(QUESTIONS * 6, readout=replace(READOUT, min_mass=0.0))
    assert lm.choose_batch(QUESTIONS)[0].calibrated_by == "temperature"


@pytest.mark.model
def test_a_real_model_on_llama_cpp_states_levels():
    """The scored levels agree with what the same model writes when it is asked to go on."""
    pytest.importorskip("llama_cpp")
    path = packaged_model("smollm2-135m-instruct")
    with cw.wrap(f"llama-cpp:{path}", n_ctx=512, n_threads=1) as lm:
        prompts = [proposed(STATED, question, question.options[0]) for question in QUESTIONS]
        levels = read_levels(lm.adapter, prompts)
        assert ((levels.sum(axis=1) > 0.05) & (levels.sum(axis=1) < 1.0)).all()
        rows = lm.adapter.next_token([prompt + " " for prompt in prompts], top=1)
        digits = [lm.adapter.token_bytes([int(row.ids[0, 0])])[0] for row in rows]
    likeliest = np.where(levels.argmax(axis=1) == 10, 1, levels.argmax(axis=1))
    assert [digit.decode() for digit in digits] == [str(level) for level in likeliest]
