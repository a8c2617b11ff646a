"""Averages over cyclic orders: by hand, against asking each order, and with bounds out of short lists."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.capabilities import Provides
from calibwrap.errors import AmbiguousOptions, CalibrationWarning, CapabilityError, InputError
from calibwrap.questions import LETTER, LETTER_CHAT, Question
from calibwrap.readouts import Contextual, Continuation, Label, Permuted, find_readout, keeps_argmax
from calibwrap.readouts.contextual import corrected
from calibwrap.readouts.p_true import shares_of
from calibwrap.readouts.permuted import averaged, cyclic_orders, turned
from calibwrap.scores import OptionScores, join, log_softmax
from calibwrap.testing import ToyAdapter, ToyModel

pytestmark = pytest.mark.filterwarnings("ignore:The labels together carry")
QUESTIONS = [
    Question("Which?", ["one", "two", "three"], answer=2, id="a"),
    Question("Who?", ["he", "she"], id="b"),
    Question("Why?", ["because", "so", "no"], id="c"),
]


@pytest.fixture(scope="module")
def tiny():
    """A tiny random Transformers model, which sees the whole prompt, unlike the toy."""
    path = Path(__file__).resolve().parent.parent / "adapters" / "hf_models.py"
    spec = importlib.util.spec_from_file_location("permuted_hf_models", path)
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    return models.Transformers(models.FAMILIES["llama"](), models.byte_level(), batch_size=4)


LABEL = Label(cw.Template(body="{question}\n{options}:", separator="", shows_options=True, name="tiny"))


def test_a_liking_for_letters_alone_averages_out():
    """The toy model sees nothing but the end of the prompt: all options are equal in the mean over letters."""
    lm = cw.wrap(ToyAdapter(ToyModel.random(3)))
    assert np.ptp(lm.scores(QUESTIONS, "label").probabilities[0]) > 0.1
    scores = lm.scores(QUESTIONS, "permuted")
    np.testing.assert_allclose(scores.probabilities, [[1 / 3] * 3, [0.5, 0.5, 0.0], [1 / 3] * 3])
    assert scores.is_exact
    assert scores.readout == "permuted:label:letter"
    np.testing.assert_allclose(scores.label_mass, lm.scores(QUESTIONS, "label").label_mass)
    np.testing.assert_allclose(lm.scores(QUESTIONS, "contextual:label").probabilities, scores.probabilities)


def test_it_is_the_mean_of_asking_each_order(tiny):
    lm = cw.wrap(tiny)
    scores = lm.scores(QUESTIONS, Permuted(LABEL))
    for row, question in enumerate(QUESTIONS):
        k = len(question.options)
        wanted = dict.fromkeys(question.options, 0.0)
        for start in range(k):
            options = [*question.options[start:], *question.options[:start]]
            (answer,) = lm.scores([Question(question.prompt, options)], LABEL).probabilities
            for option, p in zip(options, answer, strict=True):
                wanted[option] += p / k
        np.testing.assert_allclose(scores.probabilities[row, :k], list(wanted.values()), atol=1e-6)


def test_turning_the_options_turns_the_answer(tiny):
    lm = cw.wrap(tiny)
    there = lm.scores(QUESTIONS[:1], Permuted(LABEL)).probabilities[0]
    back = lm.scores([turned(QUESTIONS[0], [1, 2, 0])], Permuted(LABEL)).probabilities[0]
    np.testing.assert_allclose(back, there[[1, 2, 0]], atol=1e-6)
    assert not np.allclose(lm.scores(QUESTIONS[:1], LABEL).probabilities[0], there, atol=1e-6)


def test_contextual_divides_by_what_is_said_when_nothing_is_asked(tiny):
    lm = cw.wrap(tiny)
    scores = lm.scores(QUESTIONS, Contextual(LABEL, ("N/A", "?")))
    for row, question in enumerate(QUESTIONS):
        k = len(question.options)
        asked, *empty = (lm.scores([Question(t, question.options)], LABEL).probabilities[0] for t in (
            question.prompt, "N/A", "?"))  # fmt: skip
        ratio = asked / np.mean(empty, axis=0)
        np.testing.assert_allclose(scores.probabilities[row, :k], ratio / ratio.sum(), atol=1e-6)


def test_contextual_texts_are_those_of_the_options():
    """Of continuations it is p(text | question) / p(text | nothing): a context is left out where nothing is asked."""
    lm = cw.wrap(ToyAdapter(ToyModel.random(4)))
    question = Question("Which? A", ["A", "B sun"], context="C")
    scores = lm.scores([question], "contextual:continuation:token:cloze")
    assert scores.readout == "contextual:continuation:token:cloze"
    texts = [replace(question, prompt=text, context="") for text in ("N/A", "[MASK]", "?")]
    own, *empty = lm.scores([question, *texts], "continuation:token:cloze").probabilities
    ratio = own / np.mean(empty, axis=0)
    np.testing.assert_allclose(scores.probabilities[0], ratio / ratio.sum())
    assert abs(ratio[0] - ratio[1]) > 0.1


def lists(random, n, k, top):
    """True probabilities (n, k) of labels among 12 tokens, and what a list of the `top` most probable shows of them."""
    p = np.exp(log_softmax(2.0 * random.normal(size=(n, 12))))
    cut = np.sort(p, axis=1)[:, -top]
    listed = p >= cut[:, None]
    tail = np.where(listed, 0.0, p).sum(axis=1)
    shown, unlisted = np.where(listed, p, 0.0)[:, :k], (~listed)[:, :k].astype(float)
    return p[:, :k] / p[:, :k].sum(axis=1, keepdims=True), OptionScores.from_lists(shown, unlisted, tail, cut, "label")


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 11), st.sampled_from([0.3, 1.0, 1.7, 8.0]))
def test_bounds_of_short_lists_hold_the_mean_and_its_temperature(seed, k, top, temperature):
    truth, seen = lists(np.random.default_rng(seed), 3 * k, k, top)
    scores = averaged(seen, [k] * 3, "permuted")
    mean = averaged(OptionScores(np.log(truth), "label"), [k] * 3, "permuted")
    for calibrator in (cw.Temperature(1.0), cw.Temperature(temperature)):
        held, true = calibrator(scores), calibrator(mean)
        assert (held.lower <= true.probabilities + 1e-9).all()
        assert (held.upper >= true.probabilities - 1e-9).all()
    assert (scores.choice == mean.choice)[scores.argmax_certified].all()
    assert (scores.lower <= scores.probabilities + 1e-12).all()


def test_a_row_that_is_exact_in_every_order_stays_exact():
    exact = OptionScores(np.log([[0.8, 0.2], [0.6, 0.4]]), "label")
    _, seen = lists(np.random.default_rng(0), 2, 2, 1)
    scores = averaged(join([exact, seen]), [2, 2], "permuted")
    assert scores.is_cut.tolist() == [False, True]
    assert scores.probabilities[0] == pytest.approx([0.6, 0.4])
    assert np.isnan(scores.label_mass[0])


def test_short_lists_of_a_backend():
    cut = cw.wrap(ToyAdapter(ToyModel.random(3), provides=Provides(top=2, token_bytes=True)))
    scores = cut.scores(QUESTIONS, "permuted")
    assert scores.is_cut.any()
    assert ((scores.lower <= [[1 / 3] * 3, [0.5, 0.5, 0.0], [1 / 3] * 3]) | scores.missing).all()
    with pytest.raises(CapabilityError, match=r"contextual:label:letter.*exact probability.*use 'permuted'"):
        cut.scores(QUESTIONS, "contextual:label")


def test_each_option_stands_in_each_place_once():
    for k in range(1, 7):
        orders = np.array(cyclic_orders(k))
        assert (np.sort(orders, axis=0) == np.arange(k)[:, None]).all()
        assert (np.sort(orders, axis=1) == np.arange(k)).all()


def test_one_call_for_all_orders_of_a_batch():
    adapter = ToyAdapter(provides=Provides(given_ids=None, tokenize=True, batch_size=8))
    cw.wrap(adapter).scores(QUESTIONS, "permuted")
    assert adapter.calls["next_token"] == 1


def test_names():
    for name in (
        "permuted:label:letter",
        "contextual:continuation:token:cloze-chat",
        "contextual:permuted:label:letter",
    ):
        assert find_readout(name).label == name
    assert find_readout("permuted", LETTER_CHAT).label == "permuted:label:letter-chat"
    assert find_readout("contextual:label", LETTER).label == "contextual:label:letter"
    assert Contextual(content_free=("nothing",)).label == "contextual(nothing):continuation:sum:cloze"
    with pytest.raises(InputError, match="Only the label readout can be permuted"):
        find_readout("permuted:continuation")
    with pytest.raises(InputError, match="Did you mean 'permuted'"):
        find_readout("permutd")
    with pytest.raises(InputError, match="at least one text"):
        Contextual(content_free=("",))


def test_what_the_label_readout_refuses_is_refused():
    lm = cw.wrap(ToyAdapter())
    with pytest.raises(AmbiguousOptions):
        lm.scores(QUESTIONS, Permuted(Label(labels=("sunA", "sunB", "sunC"))))
    with pytest.raises(InputError, match="names 2 at most"):
        lm.scores(QUESTIONS, Permuted(Label(labels=("A", "B"))))


def test_an_option_that_is_impossible_when_nothing_is_asked_is_named():
    rows = OptionScores(np.array([[0.0, 0.0], [0.0, -np.inf]]), "label", mask=np.ones((2, 2), dtype=bool))
    with pytest.raises(InputError, match="number 1 has probability 0 under every text"):
        corrected(rows, 1, "contextual")


def stated(rows):
    """Scores of stated probabilities, as the verbalized readout has them."""
    exists = np.ones(np.shape(rows), dtype=bool)
    return shares_of(np.array(rows), np.array(rows), np.array(rows), exists, "verbalized")


def test_a_stated_zero_is_no_probability_to_divide_by():
    """Mars .1 and Mercury .9; without a question Mars 0 and Mercury .5: a ratio with Mars would be endless."""
    with pytest.raises(InputError, match="number 1 has probability 0 under every text"):
        corrected(stated([[0.1, 0.9], [0.0, 0.5], [0.0, 0.5]]), 1, "contextual")
    once = corrected(stated([[0.1, 0.9], [0.0, 0.5], [0.2, 0.2]]), 1, "contextual")
    np.testing.assert_allclose(once.probabilities, [[0.25, 0.75]])  # 0.1 / 0.25 and 0.9 / 0.75
    both = corrected(stated([[0.0, 0.9], [0.0, 0.5]]), 1, "contextual")
    np.testing.assert_allclose(both.probabilities, [[0.0, 1.0]], atol=1e-200)


def test_long_texts_are_improbable_and_not_impossible():
    """Continuations of 600 nats and more below the other option: in logarithms the ratio is plain."""
    rows = OptionScores(log_softmax(np.array([[0.0, -600.0], [0.0, -601.0]])), "continuation")

    class Reads(Continuation):
        def ask(self, adapter, questions):
            return rows

    scores = Contextual(Reads(), ("N/A",)).ask(ToyAdapter(), QUESTIONS[1:2])
    np.testing.assert_allclose(scores.logprobs, [log_softmax(np.array([0.0, 1.0]))])


def test_a_saved_calibrator_is_read_as_it_was_fitted(tmp_path):
    lm = cw.wrap(ToyAdapter(ToyModel.random(3)))
    questions = [Question(f"What is {n}?", ["one", "two"], answer=n % 2, id=str(n)) for n in range(30)]
    fitted = lm.fit(questions, "temperature", readout="permuted")
    fitted.save(tmp_path / "t.json")
    assert lm.with_calibrator(cw.load(tmp_path / "t.json"), strict=True).readout == Permuted()


def test_contextual_hands_on_the_least_mass_and_refuses_what_a_server_rounds():
    assert Contextual(Label(min_mass=0.3)).min_mass == 0.3
    assert Contextual().min_mass == 0.0
    with pytest.warns(CalibrationWarning, match="carry only"):
        cw.wrap(ToyAdapter(ToyModel.random(3))).scores(QUESTIONS, Contextual(Label(min_mass=1.0), ("N/A",)))
    with pytest.raises(InputError, match="'decision' cannot be inside 'contextual'"):
        find_readout("contextual:decision")


@pytest.mark.parametrize(
    "readout", [Permuted(), Contextual(), Contextual(content_free=("nothing",)), Contextual(Label())]
)
def test_a_readout_around_another_says_that_the_first_choice_may_change(readout):
    assert not readout.keeps_argmax
    assert not keeps_argmax(readout.label)
    assert keeps_argmax(readout.inner.label)
