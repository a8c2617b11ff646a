"""The toy is exact: what it says is compared with enumeration and with hand-worked numbers."""

import itertools

import numpy as np
import pytest

from calibwrap.base import Sampling
from calibwrap.calibrators import fit_daca, fit_temperature
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, InputError, PromptTooLong
from calibwrap.questions import CLOZE, CLOZE_CHAT, LETTER
from calibwrap.readouts import Continuation, Label
from calibwrap.testing import ToyAdapter, ToyModel, exact_ece, option_logprobs, toy_pair, toy_questions
from calibwrap.testing.toy import BOS, END, OTHER, TOKENS

PROMPT = "In the morning the sun"


@pytest.fixture
def model():
    return ToyModel.random(seed=0)


def test_tokens_are_read_longest_first_and_unknown_bytes_as_two_others(model):
    assert model.encode(" A sun é☃") == [BOS, 2, 5, OTHER, OTHER, 6, 7, 8]
    assert model.encode("☄") == [BOS, 7, OTHER, OTHER]  # the first two bytes are the snowman's


@pytest.mark.parametrize("text", [" A B C sun", "é☃", "☃☃ sun"])
def test_known_text_survives_encoding_and_decoding(model, text):
    assert model.decode(model.encode(text)) == text


def test_unknown_text_is_looked_through(model):
    assert (model.next_logprobs(model.encode(" sun, of course:")) == model.logprobs[5]).all()
    assert (model.next_logprobs(model.encode("what?")) == model.logprobs[BOS]).all()


def test_sequence_odds_sum_to_one_over_all_texts_of_two_tokens(model):
    drawable = [token for token in range(1, OTHER) if token != 8]
    total = 0.0
    for first, second in itertools.product(drawable, [*drawable, 8]):
        if first == END:
            total += float(np.exp(model.logprobs[5, END])) if second == END else 0.0
        else:
            total += float(np.exp(model.logprobs[5, first] + model.logprobs[first, second]))
    assert total == pytest.approx(1.0)
    wanted = model.logprobs[5, 2] + model.logprobs[2, 7] + model.logprobs[7, 8]
    assert model.sequence_logprob("the sun", " A☃") == pytest.approx(float(wanted))


def test_a_matrix_that_is_no_distribution_is_refused():
    with pytest.raises(InputError, match="sum to 1"):
        ToyModel(np.zeros((len(TOKENS), len(TOKENS))))


def test_the_matrix_is_copied_and_locked(model):
    matrix = np.array(model.logprobs)
    own = ToyModel(matrix)
    matrix[:] = 0.0
    assert (own.logprobs == model.logprobs).all()
    with pytest.raises(ValueError, match="read-only"):
        own.logprobs[0, 0] = 1.0


@pytest.mark.parametrize(("readout", "template"), [(Label(), LETTER), (Continuation(), CLOZE)])
def test_readouts_give_the_exact_option_probabilities_in_one_call(model, readout, template):
    questions = toy_questions(60, seed=3, model=model, template=template)
    adapter = ToyAdapter(model)
    scores = readout.ask(adapter, questions)
    np.testing.assert_allclose(scores.logprobs, option_logprobs(model, questions, template), atol=1e-12)
    assert sum(adapter.calls.values()) == 1


@pytest.mark.parametrize("template", [LETTER, CLOZE])
def test_the_model_is_calibrated_on_its_own_questions(model, template):
    questions = toy_questions(6000, seed=1, model=model, template=template)
    odds = np.exp(option_logprobs(model, questions, template))
    assert exact_ece(np.log(odds), np.log(odds)) == 0.0
    correct = np.array([question.answer for question in questions]) == odds.argmax(axis=1)
    assert abs(correct.mean() - odds.max(axis=1).mean()) < 4 * 0.5 / np.sqrt(6000)  # four standard errors


def test_exact_ece_by_hand():
    reported, true = np.log([[0.9, 0.1], [0.92, 0.08], [0.3, 0.7]]), np.log([[0.7, 0.3], [0.96, 0.04], [0.5, 0.5]])
    # bins of width 1/5: rows 0 and 1 share the last one, (0.2 - 0.04) / 3; row 2 is alone, 0.2 / 3
    assert exact_ece(reported, true, n_bins=5) == pytest.approx((0.16 + 0.2) / 3)


def test_a_fit_recovers_the_planted_temperature(model):
    questions = toy_questions(2500, seed=2, model=model)
    sharp = Label().ask(ToyAdapter(model.sharpened(3.0)), questions)
    fitted = fit_temperature(sharp, [question.answer for question in questions])
    assert fitted.value == pytest.approx(3.0, rel=0.1)


def test_daca_recovers_the_temperature_that_disagreement_hides():
    base, post = toy_pair(seed=0, sharpness=2.5)
    questions = toy_questions(600, seed=2, model=base)
    there, back = option_logprobs(post, questions), option_logprobs(base, questions)
    agree = (there.argmax(axis=1) == back.argmax(axis=1)).mean()
    assert 0.3 < agree < 0.9
    assert fit_daca(there, back).value == pytest.approx(2.5, rel=1e-5)
    assert exact_ece(there, back) > 0.1


def test_questions_are_the_same_for_the_same_seed():
    assert toy_questions(5, seed=4) == toy_questions(5, seed=4)
    assert toy_questions(5, seed=4) != toy_questions(5, seed=5)


@pytest.mark.parametrize(("template", "n_options"), [(LETTER, 4), (CLOZE, 11), (CLOZE, 0)])
def test_more_options_than_there_are_is_refused(template, n_options):
    with pytest.raises(InputError, match="n_options"):
        toy_questions(1, template=template, n_options=n_options)


def test_a_chat_template_belongs_to_the_adapter(model):
    with pytest.raises(InputError, match="chat"):
        option_logprobs(model, toy_questions(1), CLOZE_CHAT)


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_read(model):
    adapter = ToyAdapter(model, Provides(full_vocabulary=True, top=None, context_length=20))
    model_calls = []
    object.__setattr__(model, "next_logprobs", lambda ids: model_calls.append(ids))
    with pytest.raises(PromptTooLong, match=r"2\d+ tokens.*20"):
        adapter.next_token(["sun", "x" * 100])
    assert model_calls == []


@pytest.mark.parametrize(
    "call",
    [
        lambda adapter: adapter.next_token([PROMPT]),
        lambda adapter: adapter.next_token([PROMPT], ids=[[1, 2]]),
        lambda adapter: adapter.next_token([PROMPT], top=4),
        lambda adapter: adapter.score([PROMPT], [[" A"]]),
        lambda adapter: adapter.tokenize(PROMPT),
        lambda adapter: adapter.generate([PROMPT], Sampling(top=None)),
    ],
)
def test_a_narrowed_toy_refuses_what_it_does_not_provide(model, call):
    with pytest.raises(CapabilityError, match="toy"):
        call(ToyAdapter(model, Provides(top=3, given_ids=1)))


def test_draws_do_not_depend_on_the_batch(model):
    adapter, sampling = ToyAdapter(model), Sampling(n=3, seed=5)
    together = adapter.generate(["sun", PROMPT], sampling)[1]
    alone = adapter.generate([PROMPT], sampling)[0]
    assert [one.text for one in together] == [one.text for one in alone]


def test_load_and_close():
    adapter = ToyAdapter.load("3", spread=0.5)
    adapter.close()
    assert (adapter.model.logprobs == ToyModel.random(3, spread=0.5).logprobs).all()
