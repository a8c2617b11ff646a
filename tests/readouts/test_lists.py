"""The label readout on backends that list the most probable tokens only: what is exact, bounded, or unknown."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap.capabilities import Needs, Provides
from calibwrap.errors import AmbiguousOptions, CapabilityError
from calibwrap.evaluate import collect
from calibwrap.questions import LETTER, Question, Template
from calibwrap.readouts import Continuation, Label
from calibwrap.readouts._forms import surface_forms
from calibwrap.testing import ToyAdapter, ToyModel
from calibwrap.testing.toy import LETTER_IDS
from calibwrap.testing.toy_questions import toy_questions
from calibwrap.wrap import CalibratedLM

MODEL = ToyModel.random(seed=3)
BY_BYTES = {"tokenize": False, "token_bytes": True}
WAYS = {
    "ids": {"given_ids": 0, "tokenize": True},
    "bytes": {"given_ids": 0, **BY_BYTES},
}


def listing(top, model=MODEL, **provides):
    return ToyAdapter(model, Provides(top=top, **provides))


def truth(model, question):
    """Probability of each letter, among all tokens."""
    prompt = LETTER.prompt(question, "ABC")
    return np.exp(model.next_logprobs(model.encode(prompt))[LETTER_IDS])


@pytest.mark.parametrize("way", WAYS)
def test_a_list_that_shows_all_tokens_is_as_good_as_given_ids(way):
    questions = toy_questions(10, model=MODEL)
    exact = Label().ask(ToyAdapter(MODEL), questions)
    scores = Label().ask(listing(10, **WAYS[way]), questions)
    np.testing.assert_allclose(scores.logprobs, exact.logprobs, rtol=1e-12)
    np.testing.assert_allclose(scores.label_mass, exact.label_mass, rtol=1e-12)
    assert not scores.missing.any()
    np.testing.assert_allclose(scores.lower, scores.upper, atol=2e-5)  # bytes: other forms share the rounding's rest


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(sorted(WAYS)), st.floats(0.2, 3.0))
def test_the_models_own_probabilities_lie_inside(seed, top, way, spread):
    model = ToyModel.random(seed, spread=spread)
    questions = toy_questions(2, seed=seed, model=model)
    scores = Label(min_mass=0.0).ask(listing(top, model, **WAYS[way]), questions)
    for row, question in enumerate(questions):
        own = truth(model, question)
        assert scores.label_mass[row] <= own.sum() * (1 + 1e-12)
        own /= own.sum()
        assert (scores.lower[row] <= own + 1e-12).all()
        assert (own <= scores.upper[row] + 1e-12).all()
        if scores.argmax_certified[row]:
            assert scores.choice[row] == own.argmax()


def test_by_hand_a_missing_letter_may_have_what_the_last_of_the_list_has():
    """A .5, B .2, something else .1 are listed; the rest of .2 hides C, of at most .1."""
    logprobs = np.full((10, 10), -np.inf)
    logprobs[:, [2, 3, 5, 6, 4, 1]] = np.log([0.5, 0.2, 0.1, 0.09, 0.08, 0.03])
    model = ToyModel(logprobs)
    [question] = toy_questions(1, model=model)
    scores = Label().ask(listing(3, model, **WAYS["ids"]), [question])
    np.testing.assert_allclose(scores.upper, [[0.5 / 0.7, 0.2 / 0.7, 0.1 / 0.8]])
    np.testing.assert_allclose(scores.lower, [[0.5 / 0.8, 0.2 / 0.8, 0.0]])
    np.testing.assert_allclose(scores.probabilities, np.array([[0.5, 0.2, 0.01]]) / 0.71)
    np.testing.assert_allclose(scores.label_mass, [0.7])
    assert scores.missing.tolist() == [[False, False, True]]
    assert scores.argmax_certified.all()
    by_bytes = Label().ask(listing(3, model, **WAYS["bytes"]), [question])
    # three or four forms of each hide .1 each, and .2 in all
    np.testing.assert_allclose(by_bytes.upper[0], [0.7 / 0.9, 0.4 / 0.9, 0.2 / 0.9])
    np.testing.assert_allclose(by_bytes.lower[0], [0.5 / 0.9, 0.2 / 0.9, 0.0])
    assert by_bytes.argmax_certified.all(), ".5 is more than .2 + .2"


@pytest.mark.parametrize("way", WAYS)
def test_a_list_without_any_label_says_nothing(way):
    model = ToyModel.random(seed=3)
    logits = np.array(model.logprobs)
    logits[:, LETTER_IDS] -= 20.0
    model = ToyModel(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    questions = toy_questions(3, model=model)
    scores = Label(min_mass=0.0).ask(listing(2, model, **WAYS[way]), questions)
    assert scores.missing.all()
    assert (scores.lower == 0.0).all()
    assert (scores.upper == 1.0).all()
    assert (scores.label_mass == 0.0).all()
    assert not scores.argmax_certified.any()
    np.testing.assert_allclose(scores.probabilities, 1 / 3)


def test_the_three_ways_are_chosen_by_what_the_backend_provides():
    questions = toy_questions(2, model=MODEL)
    asked = {}
    for name, provides in (
        ("ids", Provides(given_ids=3, top=5, tokenize=True, token_bytes=True)),
        ("list", Provides(given_ids=2, top=5, tokenize=True)),
        ("bytes", Provides(given_ids=9, top=5, **BY_BYTES)),
    ):

        class Watched(ToyAdapter):
            def next_token(self, prompts, ids=None, top=None):
                asked[name] = (ids is not None, top)  # noqa: B023
                return super().next_token(prompts, ids, top)

        Label().ask(Watched(MODEL, provides), questions)
    assert asked == {"ids": (True, None), "list": (False, 5), "bytes": (False, 5)}


def test_each_token_of_a_batch_is_spelt_once():
    spelt = []

    class Watched(ToyAdapter):
        def token_bytes(self, ids):
            spelt.append(list(ids))
            return super().token_bytes(ids)

    Label().ask(Watched(MODEL, Provides(top=6, **BY_BYTES)), toy_questions(5, model=MODEL))
    [ids] = spelt
    assert len(ids) == len(set(ids))


def test_several_tokens_of_one_spelling_are_added():
    class TwoSpellings(ToyAdapter):
        def token_bytes(self, ids):
            return [b" A" if token == 5 else known for token, known in zip(ids, super().token_bytes(ids), strict=True)]

    [question] = toy_questions(1, model=MODEL)
    row = np.exp(MODEL.next_logprobs(MODEL.encode(LETTER.prompt(question, "ABC"))))
    mass = np.array([row[2] + row[5], row[3], row[4]])
    scores = Label(min_mass=0.0).ask(TwoSpellings(MODEL, Provides(top=10, **BY_BYTES)), [question])
    np.testing.assert_allclose(scores.probabilities[0], mass / mass.sum(), rtol=1e-12)


def test_surface_forms_have_no_other_case_and_no_longer_word():
    assert surface_forms("", "Yes") == ["Yes", " Yes", "Yes.", " Yes."]
    assert surface_forms("\n", "A") == ["\nA", "A", " A", "A.", " A."]


def test_labels_that_share_a_written_form_are_refused():
    template = Template(body="{question}\n{options}", shows_options=True, name="dots")
    with pytest.raises(AmbiguousOptions, match="share the texts"):
        Label(template, labels=("A", "A.")).ask(listing(5, **BY_BYTES), [Question("Which?", ["x", "y"])])


def test_ragged_questions_are_read_off_lists_as_each_alone():
    questions = [toy_questions(1, seed=k, n_options=k, model=MODEL)[0] for k in (3, 1, 2)]
    adapter = listing(3, **BY_BYTES)
    together = Label(min_mass=0.0).ask(adapter, questions)
    assert together.mask.sum(axis=1).tolist() == [3, 1, 2]
    for row, question in enumerate(questions):
        alone = Label(min_mass=0.0).ask(adapter, [question])
        k = len(question.options)
        for name in ("logprobs", "lower", "upper", "missing"):
            np.testing.assert_array_equal(getattr(together, name)[row, :k], getattr(alone, name)[0])
        assert together.upper[row, k:].sum() == 0.0


def test_needs_name_what_is_missing_before_any_call():
    assert Label().needs == Needs(labels=True, plain=True)
    assert Continuation().needs == Needs(score=True, plain=True)
    mute = ToyAdapter(MODEL, Provides(top=5))  # neither ids of a text nor bytes of a token
    with pytest.raises(CapabilityError, match="labels=True"):
        CalibratedLM(mute, readout=Label()).scores(toy_questions(1))
    chat_only = ToyAdapter(MODEL, Provides(top=5, plain=False, chat=True, **BY_BYTES))
    with pytest.raises(CapabilityError, match="letter-chat"):
        CalibratedLM(chat_only, readout=Label()).scores(toy_questions(1))
    assert mute.calls["next_token"] + chat_only.calls["next_token"] == 0


def test_a_chat_server_that_lists_bytes_is_read_end_to_end():
    """The toy's letters carry a space, which the bytes' forms allow for; given ids would refuse them."""
    adapter = ToyAdapter(MODEL, Provides(top=5, plain=False, chat=True, **BY_BYTES))
    lm = CalibratedLM(adapter)
    scores = lm.scores(toy_questions(4, model=MODEL))
    assert scores.readout == "label:letter-chat"
    assert (scores.label_mass > 0.5).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_journal_gives_every_field_back(tmp_path, way):
    """Two options shown beside a hidden form: the choice is open, and only the journal can say so."""
    questions = toy_questions(12, model=MODEL)
    lm = CalibratedLM(listing(2, **WAYS[way]), readout=Label(min_mass=0.0))
    whole = lm.scores(questions)
    assert not whole.is_exact
    assert 0 < whole.argmax_certified.sum() < 12 or way == "ids"
    journal = tmp_path / "journal.jsonl"
    collect(lm, questions, journal)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:6]))
    resumed = collect(lm, questions, journal, resume=True)
    for field in fields(whole):
        np.testing.assert_array_equal(getattr(resumed, field.name), getattr(whole, field.name))
