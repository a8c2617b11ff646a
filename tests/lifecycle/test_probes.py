"""The three probes on toy worlds whose truth is known."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, InputError, PromptTooLong
from calibwrap.lifecycle.corpora import Document
from calibwrap.lifecycle.ledger import Sums
from calibwrap.lifecycle.probes import factuality, generation, understanding, with_shots
from calibwrap.lifecycle.tally import Tally
from calibwrap.questions import LETTER, Question
from calibwrap.testing import ToyAdapter, ToyModel, toy_questions
from tests.lifecycle.worlds import WORDS, texts, world

WORLD = world()
TEXTS = texts(WORLD, 60, seed=0)
CONTEXT = 16


def tally_of(seen):
    tally = Tally.empty()
    for one in seen:
        tally = tally.update(one.name, one.confidence, one.correct, one.logprob)
    return tally


def read_on(model, documents=TEXTS, positions=None):
    return tally_of(generation(ToyAdapter(model), documents, least_context=CONTEXT, positions=positions, seed=0))


@pytest.mark.parametrize("probe", ["generation", "factuality"])
def test_a_model_whose_probabilities_made_the_texts_is_calibrated_and_copies_are_off_as_they_should(probe):
    def figures(model):
        if probe == "generation":
            return read_on(model).figures()
        return tally_of(factuality(ToyAdapter(model), TEXTS, least_context=CONTEXT)).figures()

    own, sharp, flat = (figures(model) for model in (WORLD, WORLD.sharpened(3.0), WORLD.sharpened(0.4)))
    n = 60 * (100 if probe == "generation" else 20)
    assert own["ece"] < 4.0 / np.sqrt(n)
    assert abs(own["gap"]) < 2.0 / np.sqrt(n)
    assert sharp["gap"] > 0.1 > -0.05 > flat["gap"]
    assert own["nll"] < min(sharp["nll"], flat["nll"])
    assert own["accuracy"] == sharp["accuracy"] == flat["accuracy"]


def test_every_token_behind_the_context_is_an_event_and_no_other():
    """One document by hand: the begin token, the context, and padding beside longer texts do not count."""
    document, adapter = TEXTS[0], ToyAdapter(WORLD)
    (seen,) = generation(adapter, [document], least_context=CONTEXT, positions=None, seed=0)
    ids = WORLD.encode(document.text)
    assert CONTEXT < len(ids) - len(seen.confidence) <= CONTEXT + 40
    first = len(ids) - len(seen.confidence)
    rows = [WORLD.next_logprobs(ids[:at]) for at in range(first, len(ids))]
    np.testing.assert_allclose(seen.confidence, [np.exp(row.max()) for row in rows])
    np.testing.assert_array_equal(seen.correct, [row.argmax() == ids[at] for at, row in enumerate(rows, first)])
    np.testing.assert_allclose(seen.logprob, [row[ids[at]] for at, row in enumerate(rows, first)])
    among = next(generation(adapter, TEXTS[:9], least_context=CONTEXT, positions=None, seed=0))
    np.testing.assert_allclose(among.confidence, seen.confidence)


def test_places_are_the_same_for_every_model_and_any_batch():
    some = [list(generation(ToyAdapter(model), TEXTS, least_context=CONTEXT, positions=8, seed=3)) for model in
            (WORLD, WORLD.sharpened(2.0))]  # fmt: skip
    assert all(len(one.confidence) == 8 for one in some[0])
    for one, other in zip(*some, strict=True):
        np.testing.assert_array_equal(one.correct, other.correct)
    others = list(generation(ToyAdapter(WORLD), TEXTS, least_context=CONTEXT, positions=8, seed=4))
    assert any(not np.array_equal(one.confidence, other.confidence) for one, other in zip(some[0], others, strict=True))


def test_of_a_span_the_first_token_counts_alone():
    text = TEXTS[0].text[:120] + " sun A" + TEXTS[0].text[:40]
    at = len(TEXTS[0].text[:120]) + 1
    document = Document("d", text, ((at, at + 5),))  # "sun A": two tokens
    (seen,) = factuality(ToyAdapter(WORLD), [document], least_context=CONTEXT)
    row = WORLD.next_logprobs(WORLD.encode(text[: at - 1]))
    assert seen.confidence.tolist() == pytest.approx([np.exp(row.max())])
    assert seen.logprob.tolist() == pytest.approx([row[WORDS[3]]])


def test_spans_without_context_and_short_texts_have_no_events():
    short = Document("short", "A B", ((2, 3),))
    early = Document("early", TEXTS[0].text, ((1, 2),))
    assert list(factuality(ToyAdapter(WORLD), [short, early], least_context=CONTEXT)) == []
    assert list(generation(ToyAdapter(WORLD), [short], least_context=CONTEXT, positions=None, seed=0)) == []


def test_scripts_without_blanks_have_events_too():
    (seen,) = generation(ToyAdapter(WORLD), [Document("d", "é" * 300)], least_context=CONTEXT, positions=None, seed=0)
    assert len(seen.confidence) == 300 - 4 * CONTEXT


def test_a_runtime_that_scores_no_text_is_refused_by_name():
    blind = ToyAdapter(WORLD, Provides(top=20, tokenize=True))
    with pytest.raises(CapabilityError, match="probe 'generation'"):
        list(generation(blind, TEXTS, least_context=CONTEXT, positions=None, seed=0))
    with pytest.raises(CapabilityError, match="probe 'factuality'"):
        list(factuality(blind, TEXTS, least_context=CONTEXT))


def test_a_text_that_does_not_fit_is_told_what_to_change():
    long = [Document("long", "A B " * 900)]
    with pytest.raises(PromptTooLong, match="set fewer for this probe"):
        list(generation(ToyAdapter(world()), long, least_context=CONTEXT, positions=None, seed=0))


def test_a_question_of_which_a_server_hid_a_part_is_counted():
    asked = toy_questions(20, seed=1, model=ToyModel.random(0))
    lm = cw.CalibratedLM(
        ToyAdapter(ToyModel.random(0), Provides(top=5, token_bytes=True)), readout=cw.Label(min_mass=0.0)
    )
    cut = [one.is_cut for one in understanding(lm, asked)]
    assert cut == lm.scores(asked).is_cut.tolist()
    assert any(cut)
    assert Sums.of(understanding(lm, asked), 10).cut == sum(cut)


def test_questions_are_those_of_the_readout():
    asked = toy_questions(50, seed=1, model=ToyModel.random(0))
    lm = cw.CalibratedLM(ToyAdapter(ToyModel.random(0)), readout=cw.Label(min_mass=0.0))
    seen, scores = list(understanding(lm, asked)), lm.scores(asked)
    np.testing.assert_allclose([one.confidence[0] for one in seen], scores.confidence)
    right = [question.answer for question in asked]
    np.testing.assert_array_equal([one.correct[0] for one in seen], scores.choice == right)
    np.testing.assert_allclose([one.logprob[0] for one in seen], scores.logprobs[np.arange(50), right])


def test_examples_are_of_the_questions_own_group_and_written_as_it_is():
    examples = [Question(f"{group}{n}?", ["x", "y"], answer=n % 2, group=group) for group in "ab" for n in range(3)]
    asked = [Question("b?", ["x", "y"], answer=0, group="b")]
    (found,) = with_shots(asked, examples, cw.Label(), 2)
    first = LETTER.prompt(examples[3], ("A", "B"))
    assert found.context.startswith(f"{first} A\n\n")
    assert found.context.endswith("Answer: B")
    assert with_shots(asked, [], cw.Label(), 0) == asked
    assert with_shots(asked, [], cw.Label(), 0, "About {group}.")[0].context == "About b."
    with pytest.raises(InputError, match=r"the field \{group\} only"):
        with_shots(asked, [], cw.Label(), 0, "About {subject}.")
    with pytest.raises(InputError, match="Expected 4 examples of the group 'b'"):
        with_shots(asked, examples, cw.Label(), 4)
    itself = with_shots(examples[3:4], examples, cw.Label(), 2)[0].context
    assert "b0?" not in itself
    assert "b1?" in itself
    assert "b2?" in itself
    with pytest.raises(InputError, match="Got 2 and no context"):
        with_shots(examples, examples, cw.Label(), 3)
