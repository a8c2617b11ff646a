"""Readouts against the exact toy model: every score is known in advance."""

import numpy as np
import pytest

from calibwrap.capabilities import Provides
from calibwrap.errors import AmbiguousOptions, CalibrationWarning, CapabilityError, InputError, PromptTooLong
from calibwrap.questions import CLOZE, CLOZE_CHAT, LETTER, LETTER_CHAT, Question, Template
from calibwrap.readouts import Continuation, Label, find_readout
from calibwrap.testing import ToyAdapter, ToyModel
from calibwrap.testing.toy_questions import option_logprobs, toy_questions
from calibwrap.wrap import CalibratedLM

MODEL = ToyModel.random(seed=3)


@pytest.fixture
def adapter() -> ToyAdapter:
    return ToyAdapter(MODEL)


def test_label_reads_the_exact_probabilities_in_one_call(adapter: ToyAdapter) -> None:
    questions = toy_questions(20, model=MODEL)
    scores = Label().ask(adapter, questions)
    np.testing.assert_allclose(scores.logprobs, option_logprobs(MODEL, questions), atol=1e-12)
    assert adapter.calls["next_token"] == 1


def test_label_mass_is_the_models_own_probability_of_any_label(adapter: ToyAdapter) -> None:
    [question] = toy_questions(1, model=MODEL)
    prompt = LETTER.prompt(question, "ABC")
    assert isinstance(prompt, str)
    own = np.exp([MODEL.sequence_logprob(prompt, " " + letter) for letter in "ABC"]).sum()
    assert Label().ask(adapter, [question]).label_mass[0] == pytest.approx(own)


def test_label_warns_when_the_labels_carry_little_mass() -> None:
    lm = CalibratedLM(ToyAdapter(MODEL), readout=Label(min_mass=1.0))
    with pytest.warns(CalibrationWarning, match="only") as given:
        lm.scores(toy_questions(40, model=MODEL))
    assert len(given) == 1, "once for the whole set, not once for each piece"


def test_label_sums_surface_forms_by_id() -> None:
    """A backend whose tokenizer has both " A" and "A" as tokens: the probabilities of both are added."""

    class TwoForms(ToyAdapter):
        def tokenize(self, prompt, continuation=""):  # type: ignore[no-untyped-def]
            before, after = super().tokenize(prompt, continuation)
            return (before, [5]) if continuation == "A" else (before, after)

    [question] = toy_questions(1, model=MODEL)
    row = MODEL.next_logprobs(MODEL.encode(LETTER.prompt(question, "ABC")))  # type: ignore[arg-type]
    mass = np.array([np.exp(row[2]) + np.exp(row[5]), np.exp(row[3]), np.exp(row[4])])
    scores = Label(min_mass=0.0).ask(TwoForms(MODEL), [question])
    np.testing.assert_allclose(scores.probabilities[0], mass / mass.sum(), rtol=1e-12)


def test_label_refuses_labels_of_several_tokens(adapter: ToyAdapter) -> None:
    with pytest.raises(AmbiguousOptions, match="not one token"):
        Label(labels=("yes", "no", "so")).ask(adapter, toy_questions(1))


def test_label_refuses_a_boundary_that_merges(adapter: ToyAdapter) -> None:
    """The prompt ends with a space, the label begins without: joined they are one token, which the prompt lacks."""
    template = Template(body="{question}\n{options}Answer: ", shows_options=True, separator="", name="space")
    with pytest.raises(AmbiguousOptions):
        Label(template).ask(adapter, toy_questions(1))


def test_label_refuses_two_labels_with_one_token() -> None:
    class Merged(ToyAdapter):
        def tokenize(self, prompt, continuation=""):  # type: ignore[no-untyped-def]
            before, after = super().tokenize(prompt, continuation)
            return before, [2] * len(after)

    with pytest.raises(AmbiguousOptions, match="share the tokens"):
        Label().ask(Merged(MODEL), toy_questions(1))


def test_label_refuses_more_options_than_labels(adapter: ToyAdapter) -> None:
    question = Question("Which?", [f"option {n}" for n in range(27)])
    with pytest.raises(InputError, match=r"'Which\?' has 27 options.*use readout 'continuation'"):
        Label().ask(adapter, [question])


def test_labels_must_differ_and_the_template_must_show_options() -> None:
    with pytest.raises(InputError, match="different"):
        Label(labels=("A", " A"))
    with pytest.raises(InputError, match="shows the options"):
        Label(CLOZE)


@pytest.mark.parametrize("readout", [Label(min_mass=0.0), Continuation()])
def test_different_numbers_of_options_in_one_set(adapter: ToyAdapter, readout: Label | Continuation) -> None:
    template = LETTER if isinstance(readout, Label) else CLOZE
    questions = [toy_questions(1, seed=k, template=template, n_options=k)[0] for k in (3, 1, 2)]
    together = readout.ask(adapter, questions)
    assert together.mask.sum(axis=1).tolist() == [3, 1, 2]
    for row, question in enumerate(questions):
        alone = readout.ask(adapter, [question])
        np.testing.assert_array_equal(together.logprobs[row, : len(question.options)], alone.logprobs[0])


def test_continuation_sums_every_token_of_every_option(adapter: ToyAdapter) -> None:
    questions = toy_questions(10, template=CLOZE, model=MODEL)
    scores = Continuation().ask(adapter, questions)
    np.testing.assert_allclose(scores.logprobs, option_logprobs(MODEL, questions, CLOZE), atol=1e-12)
    assert adapter.calls["score"] == 1


def test_continuation_per_token_and_per_byte_divide_the_sum(adapter: ToyAdapter) -> None:
    question = Question("What comes after sun", ["A B", "C sun"], id="q")
    prompt = CLOZE.prompt(question)
    assert isinstance(prompt, str)
    sums = np.array([MODEL.sequence_logprob(prompt, " " + option) for option in question.options])
    for name, lengths in (("token", [2, 2]), ("byte", [3, 5])):
        wanted = sums / lengths - np.log(np.exp(sums / lengths).sum())
        np.testing.assert_allclose(Continuation(name).ask(adapter, [question]).logprobs[0], wanted, atol=1e-12)  # type: ignore[arg-type]


def test_options_that_share_their_first_token_are_told_apart(adapter: ToyAdapter) -> None:
    scores = Continuation().ask(adapter, [Question("What comes after", ["A B", "A C"])])
    model = MODEL.next_logprobs([2])
    assert scores.logprobs[0, 0] - scores.logprobs[0, 1] == pytest.approx(model[3] - model[4])


def test_label_mass_of_continuations_is_defined_for_sums_only(adapter: ToyAdapter) -> None:
    questions = toy_questions(3, template=CLOZE)
    assert (Continuation().ask(adapter, questions).label_mass > 0).all()
    assert np.isnan(Continuation("token").ask(adapter, questions).label_mass).all()


def test_a_one_option_question_is_certain(adapter: ToyAdapter) -> None:
    assert Continuation().ask(adapter, [Question("What", ["A"])]).confidence.tolist() == [1.0]


def test_over_long_prompts_are_refused_before_any_answer(adapter: ToyAdapter) -> None:
    long = Question("What " * 600, ["A", "B"])
    for readout in (Label(), Continuation()):
        with pytest.raises(PromptTooLong, match="1024"):
            readout.ask(adapter, [*toy_questions(1), long])


def test_chat_templates_go_through_the_models_own_template(adapter: ToyAdapter) -> None:
    [question] = toy_questions(1, template=CLOZE, model=MODEL)
    rendered = f"<user>{question.prompt}<assistant>"
    wanted = np.array([MODEL.sequence_logprob(rendered, " " + option) for option in question.options])
    template = Template(body="{question}", style="chat", name="spaced-chat")
    scores = Continuation(template=template).ask(adapter, [question])
    np.testing.assert_allclose(scores.logprobs[0], wanted - np.log(np.exp(wanted).sum()), atol=1e-12)


def test_a_letter_without_a_token_of_its_own_is_refused_in_a_chat(adapter: ToyAdapter) -> None:
    """The toy has " A" and no "A": after its chat template no letter is one token."""
    with pytest.raises(AmbiguousOptions, match="separator"):
        Label(LETTER_CHAT).ask(adapter, toy_questions(1))


def test_needs_are_compared_before_any_model_call() -> None:
    weak = ToyAdapter(MODEL, Provides(given_ids=0, score=False, tokenize=True))
    lm = CalibratedLM(weak, readout=Continuation())
    for readout in ("label", "continuation", "continuation:cloze-chat"):
        with pytest.raises(CapabilityError, match="toy"):
            lm.scores(toy_questions(1), readout)
    assert weak.calls["score"] + weak.calls["next_token"] == 0


def test_readouts_are_found_by_the_name_that_they_give_themselves() -> None:
    for readout in (Label(), Label(LETTER_CHAT), Continuation("byte"), Continuation("token", CLOZE_CHAT)):
        assert find_readout(readout.label) == readout
    assert find_readout("continuation") == Continuation("sum")
    mine = Label(labels=("x", "y"))
    assert find_readout(mine) is mine


def test_unknown_readout_is_answered_with_a_near_name() -> None:
    with pytest.raises(InputError, match="Did you mean 'continuation"):
        find_readout("continuations")
    with pytest.raises(InputError, match="normalise"):
        Continuation("words")  # type: ignore[arg-type]


def test_a_template_of_ones_own_has_its_content_in_its_label() -> None:
    one, two = Template(body="Q {question}"), Template(body="R {question}")
    assert Continuation(template=one).label != Continuation(template=two).label
    assert Continuation(template=Template(name="cloze", body="x {question}")).label != Continuation().label
