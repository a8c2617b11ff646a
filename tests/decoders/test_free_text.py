"""Decoders of free text: worked by hand, and on the toy model, whose every text can be enumerated."""

import math
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.decoders import decoder_label
from calibwrap.decoders.functions import shown
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError, ProvenanceMismatch, ProvenanceWarning
from calibwrap.freetext import ONE_STEP, Elicitation, exact, trivia_qa
from calibwrap.freetext.stated import parse_guess, parse_scale
from calibwrap.scores import TokenScores
from calibwrap.testing import ToyAdapter, ToyModel
from calibwrap.testing.toy import END, TOKENS

from .made import finish, tokens

PROMPT = "In the morning the sun"


def text(said, values=(-0.5, -0.5)):
    return cw.Completion(said, tokens(values), "stop")


def test_the_three_confidences_of_one_text_by_hand():
    """Tokens of probability 1/2, 1/4 and 1/2: product 1/16, geometric mean its cube root, least 1/4."""
    drawn = [text(" Mars ", np.log([0.5, 0.25, 0.5]))]
    wanted = {"sum": 1 / 16, "mean": (1 / 16) ** (1 / 3), "least": 1 / 4}
    for confidence, value in wanted.items():
        answer = finish(cw.FreeText(confidence=confidence), drawn)
        assert (answer.text, answer.confidence) == ("Mars", pytest.approx(value))
        assert answer.bounds == (answer.confidence, answer.confidence)
        assert answer.candidates == tuple(drawn)


def test_of_several_texts_the_most_probable_answers():
    drawn = [text("Rome", [-2.0]), text("...", [-0.01]), text("Paris", [-1.0]), text("paris", [-3.0])]
    answer = finish(cw.FreeText(k=4, temperature=1.0), drawn)
    assert (answer.text, answer.unparsed) == ("Paris", 1)
    assert answer.confidence == pytest.approx(math.exp(-1.0))


def test_a_share_is_of_those_that_say_something():
    drawn = [text(said) for said in ("Paris", "the paris!", "Rome", "", "PARIS", "Paris")]
    answer = finish(cw.SelfConsistency(k=6), drawn)
    assert (answer.text, answer.confidence, answer.unparsed) == ("Paris", 0.8, 1)
    assert answer.calibrated_by == "none"


def test_entropy_by_hand():
    """Weights 3 and 1 of 4; or probabilities 0.5 + 0.25 (two spellings, one drawn twice) against 0.25."""
    drawn = [text("Paris", [math.log(0.5)]), text("paris", [math.log(0.25)]), text("Rome", [math.log(0.25)])]
    drawn.insert(1, drawn[0])
    three_to_one = math.exp(-(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))
    for weights in ("count", "probability"):
        answer = finish(cw.SemanticEntropy(k=4, weights=weights), drawn)
        assert (answer.text, answer.confidence) == ("Paris", pytest.approx(three_to_one))
    assert answer.calibrated_by == "identity"  # probabilities are the model's


def test_underflow_does_not_hide_the_likeliest():
    drawn = [text("Paris", [-800.0]), text("Rome", [-801.0])]
    answer = finish(cw.SemanticEntropy(k=2, weights="probability"), drawn)
    assert answer.text == "Paris"
    assert 0.5 < answer.confidence < 1.0


@given(st.permutations(["Paris", "paris", "Rome", "rome!", "Oslo", ""]))
def test_the_order_of_draws_never_matters(said):
    drawn = [text(one, [-0.1 * len(one) - 0.1]) for one in said]
    for decoder in (cw.SelfConsistency(k=6), cw.SemanticEntropy(k=6), cw.FreeText(k=6, temperature=1.0)):
        answer = finish(decoder, drawn)
        assert answer.text == ("Oslo" if isinstance(decoder, cw.FreeText) else "Paris")


def test_a_text_without_tokens_or_values_is_named():
    none = cw.Completion("Paris", TokenScores([[-1.0]], ids=[[0]]), "stop")
    with pytest.raises(CapabilityError, match="SelfConsistency or Stated"):
        finish(cw.FreeText(), [none])
    assert finish(cw.SelfConsistency(k=2), [none, none]).confidence == 1.0
    empty = cw.Completion("Pa", TokenScores(np.empty((0, 1)), chosen_logprob=np.empty(0)), "stop")
    assert finish(cw.FreeText(), [empty]).unparsed == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cw.FreeText(k=2), "2 completions at temperature 0 are all the same"),
        (lambda: cw.FreeText(k=0), "'k' must be a whole number"),
        (lambda: cw.FreeText(confidence="median"), "one of sum, mean, least. Got 'median'"),
        (lambda: cw.SemanticEntropy(weights="rank"), "'count' or 'probability'. Got 'rank'"),
        (lambda: cw.SelfConsistency(max_tokens=0), "'max_tokens'"),
        (lambda: cw.PTrue(ask=" "), "'ask' must be a text"),
        (lambda: cw.PTrue(labels=("True", "True")), "two different words"),
    ],
)
def test_settings_out_of_range_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def enumerated(model, length):
    """Every text of at most `length` tokens with its probability: ended, or cut off."""
    found = {}
    usable = [token for token in range(len(TOKENS)) if np.isfinite(model.logprobs[:, token]).any()]
    for drawn in product(usable, repeat=length):
        end = drawn.index(END) + 1 if END in drawn else length
        if any(token != END for token in drawn[end:]):
            continue  # one path for each ended text
        logprob, ids = 0.0, model.encode(PROMPT)
        for token in drawn[:end]:
            logprob += model.next_logprobs(ids)[token]
            ids = [*ids, token]
        text = model.decode(drawn[:end])
        found[text] = np.logaddexp(found.get(text, -np.inf), logprob)
    return found


def test_on_the_toy_everything_tends_to_what_is_enumerated():
    model = ToyModel.random(4).sharpened(1.5)
    truth = enumerated(model, 2)
    total = np.logaddexp.reduce(list(truth.values()))
    assert total == pytest.approx(0.0, abs=1e-9)
    answers = {}
    for said, logprob in truth.items():
        key = trivia_qa(said)
        answers[key] = answers.get(key, 0.0) + math.exp(logprob)
    silent = answers.pop("", 0.0)
    shares = np.array([p for p in answers.values() if p]) / (1.0 - silent)
    lm = cw.wrap(ToyAdapter(model))
    settings = {"k": 2000, "max_tokens": 2}
    share = lm(PROMPT, cw.SelfConsistency(**settings))
    assert trivia_qa(share.text) == max(answers, key=answers.get)
    assert share.confidence == pytest.approx(shares.max(), abs=4 * math.sqrt(0.25 / 2000))
    assert share.unparsed / 2000 == pytest.approx(silent, abs=4 * math.sqrt(0.25 / 2000))
    entropy = -(shares * np.log(shares)).sum()
    for weights, gap in (("count", 0.05), ("probability", 0.02)):
        answer = lm(PROMPT, cw.SemanticEntropy(weights=weights, **settings))
        assert -math.log(answer.confidence) == pytest.approx(entropy, abs=gap)


def test_on_the_toy_a_text_has_the_probability_that_is_enumerated():
    model = ToyModel.random(4)
    lm = cw.wrap(ToyAdapter(model))
    answer = lm(PROMPT, cw.FreeText(confidence="sum", max_tokens=2, normalise=exact))
    assert math.log(answer.confidence) == pytest.approx(enumerated(model, 2)[answer.candidates[0].text])
    best = lm(PROMPT, cw.FreeText(confidence="sum", k=400, temperature=1.0, max_tokens=2, normalise=exact))
    assert math.log(best.confidence) == pytest.approx(max(enumerated(model, 2).values()))


def test_p_true_on_the_toy_is_the_share_of_the_first_label():
    """The toy reads the last token that it knows: nothing of the question, so that of the answer."""
    model = ToyModel.random(4)
    lm = cw.wrap(ToyAdapter(model))
    decoder = cw.PTrue(labels=("A", "B"), ask="?", max_tokens=2, normalise=exact)
    answer = lm(PROMPT, decoder)
    row = model.next_logprobs(model.encode(PROMPT + answer.candidates[0].text.rstrip()))
    a, b = np.exp(row[2]), np.exp(row[3])
    assert answer.confidence == pytest.approx(a / (a + b))
    assert answer.bounds == (answer.confidence, answer.confidence)
    assert answer.text == answer.candidates[0].text.strip()


def test_p_true_out_of_a_short_list_has_bounds():
    from calibwrap.capabilities import Provides

    adapter = ToyAdapter(ToyModel.random(4), provides=Provides(top=2, token_bytes=True))
    decoder = cw.PTrue(labels=("A", "B"), ask="?", max_tokens=2, normalise=exact)
    exactly = cw.wrap(ToyAdapter(ToyModel.random(4)))(PROMPT, decoder).confidence
    low, high = cw.wrap(adapter)(PROMPT, decoder).bounds
    assert low <= exactly <= high
    assert low < high


def test_a_calibrator_of_tokens_maps_the_verdict_exactly():
    """On the full vocabulary: p(A) / (p(A) + p(B)) of the tempered row."""
    model = ToyModel.random(4)
    cool = cw.wrap(ToyAdapter(model)).with_calibrator(cw.Temperature(2.0, level="token"))
    decoder = cw.PTrue(labels=("A", "B"), ask="?", max_tokens=2, normalise=exact)
    answer = cool(PROMPT, decoder)
    row = model.next_logprobs(model.encode(PROMPT + answer.candidates[0].text.rstrip())) / 2.0
    assert answer.confidence == pytest.approx(1.0 / (1.0 + math.exp(row[3] - row[2])))
    assert answer.calibrated_by == "temperature"


def test_p_true_needs_labels():
    from calibwrap.capabilities import Provides

    with pytest.raises(CapabilityError, match="PTrue needs labels"):
        cw.wrap(ToyAdapter(provides=Provides()))(PROMPT, cw.PTrue())


def test_verdicts_of_many_prompts_are_read_in_one_call():
    adapter = ToyAdapter(ToyModel.random(4))
    decoder = cw.PTrue(labels=("A", "B"), normalise=exact, max_tokens=2)
    prompts = [PROMPT, "A", "B sun"]
    together = cw.wrap(adapter).batch(prompts, decoder)
    assert (adapter.calls["generate"], adapter.calls["next_token"]) == (1, 1)
    alone = [cw.wrap(adapter)(prompt, decoder) for prompt in prompts]
    assert [(one.text, one.confidence) for one in together] == [(one.text, one.confidence) for one in alone]


def test_streams_answer_alike():
    lm = cw.wrap(ToyAdapter(ToyModel.random(4))).with_calibrator(cw.Platt(0.5, -0.2))
    for decoder in (
        cw.PTrue(labels=("A", "B"), normalise=exact),
        cw.SelfConsistency(k=3, max_tokens=2),
        cw.FreeText(normalise=exact),
        cw.Stated(),
    ):
        stream = lm.stream(PROMPT, decoder)
        list(stream)
        assert stream.answer.text == lm(PROMPT, decoder).text
        assert stream.answer.confidence == lm(PROMPT, decoder).confidence
        assert stream.answer.calibrated_by == "platt"


def test_a_label_of_a_decoder_is_the_same_in_every_process():
    label = decoder_label(cw.Stated(k=2, temperature=0.5, seed=7))
    assert label == decoder_label(cw.Stated(k=2, temperature=0.5))
    assert "<function trivia_qa>" in label
    assert "Elicitation(name='rewarding-doubt')" in label
    assert " at 0x" not in label


def test_a_label_of_a_decoder_tells_functions_apart_that_python_names_alike():
    def edited(text: str) -> str:
        return text.strip()

    first = edited

    def edited(text: str) -> str:
        return text.strip()[:1]

    def cut(at: int) -> Any:
        return lambda text: text[:at] if text in {"b", "a", "c"} else text

    pairs = [(lambda text: text.strip(), lambda text: text.strip()[:1]), (first, edited), (cut(1), cut(2))]
    for one, other in pairs:
        labels = [decoder_label(cw.SelfConsistency(normalise=each)) for each in (one, other)]
        assert labels[0] != labels[1]
        assert not any(" at 0x" in label for label in labels)
    assert decoder_label(cw.SelfConsistency(normalise=cut(1))) == decoder_label(cw.SelfConsistency(normalise=cut(1)))


class Cut:
    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, text: str) -> str:
        return text[: self.at]


def made_for(at: int) -> list[Any]:
    """Return things that can be called and do another thing for another `at`, each of another sort."""

    def again(text: str) -> str:
        return text[:at] if len(text) < 9 else again(text[1:])

    held = [lambda text: text[:at]]
    of_list = lambda text, kept=held: kept[0](text)  # noqa: E731
    pattern = re.compile("a" * at)
    return [again, cache(lambda text: text[:at]), partial(lambda text: text[:at]), Cut(at), Cut(at).__call__,
            of_list, partial(Cut.__call__, Cut(at)), pattern.sub, partial(again)]  # fmt: skip


def test_a_label_tells_apart_whatever_can_be_called():
    one, same, other = ([shown(each) for each in made_for(at)] for at in (1, 1, 2))
    assert one == same
    assert all(first != second for first, second in zip(one, other, strict=True))
    assert not any(" at 0x" in label for label in one)


def test_an_elicitation_of_ones_own_is_known_by_its_parts_and_not_by_its_name_alone():
    def label(**changed: Any) -> str:
        mine = Elicitation("mine", parse_scale, before="Say it.", after="How sure?")
        return decoder_label(cw.Stated(elicitation=replace(mine, **changed)))

    labels = [label(), label(parse=parse_guess), label(before="Say."), label(after="Sure?"), label(name="other")]
    assert len(set(labels)) == 5
    assert label() == labels[0]
    taken = replace(ONE_STEP, before="Guess.")
    assert shown(ONE_STEP) == repr(ONE_STEP) == repr(taken) != shown(taken)


def test_a_label_of_a_function_is_the_same_in_every_process():
    code = (
        "from calibwrap.decoders.functions import function_label\n"
        "print(function_label(lambda text, at=2: text[:at] if text in {'b', 'a', 'c', 'dd'} else text))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_labels_of_traces_take_no_part_in_the_label_of_a_decoder():
    assert decoder_label(cw.ConfidenceAtK(k=4, labels=("A", "B"))) == decoder_label(cw.ConfidenceAtK(k=4))
    assert decoder_label(cw.ConfidenceAtK(k=4)) != decoder_label(cw.ConfidenceAtK(k=2))


def test_another_decoder_than_fitted_is_said_and_refused_where_that_was_asked_for():
    report = cw.FitReport("platt", 1, 1, 0.0, 0.0, readout=decoder_label(cw.FreeText()))
    lm = cw.wrap(ToyAdapter()).with_calibrator(cw.Platt(1.0, 0.0, report=report))
    lm(PROMPT, cw.FreeText())
    other = r"fitted on answers of FreeText\(.*, and Greedy\("
    with pytest.warns(ProvenanceWarning, match=other):
        lm(PROMPT)
    strict = lm.with_calibrator(lm.calibrator, strict=True)
    strict(PROMPT, cw.FreeText())
    with pytest.raises(ProvenanceMismatch, match=other):
        strict(PROMPT)
    with pytest.raises(ProvenanceMismatch, match=other):
        strict.stream(PROMPT)


def test_a_chain_is_refused_where_a_part_was_fitted_on_something_else():
    report = cw.FitReport("platt", 1, 1, 0.0, 0.0, readout=f"{decoder_label(cw.FreeText())} on mine")
    chained = cw.calibrators.chain(cw.Platt(1.0, 0.5), cw.Platt(1.0, 0.0, report=report))
    strict = cw.wrap(ToyAdapter()).with_calibrator(chained, strict=True)
    strict(PROMPT, cw.FreeText())
    with pytest.raises(ProvenanceMismatch, match=r"This chain calibrator was fitted on answers of FreeText\("):
        strict(PROMPT)
    with pytest.raises(ProvenanceMismatch, match="asked with the template 'mine'"):
        strict.answer_batch([cw.FreeQuestion("Who?")], cw.FreeText())


def test_another_template_than_fitted_is_said_and_refused_where_that_was_asked_for():
    questions = [cw.FreeQuestion("In the morning the sun", ["A"], id=str(n)) for n in range(4)]
    decoder, other = cw.FreeText(max_tokens=2), cw.Template(body="{question}", name="bare")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # four questions make no good fit
        lm = cw.wrap(ToyAdapter()).fit_answers(questions, decoder)
    assert lm.calibrator.report.readout == f"{decoder_label(decoder)} on short-chat"
    lm.answer_batch(questions, decoder)
    wrong = f"asked with the template 'short-chat', and they are asked with '{other.label}'"
    with pytest.warns(ProvenanceWarning, match=wrong):
        lm.answer_batch(questions, decoder, template=other)
    with pytest.raises(ProvenanceMismatch, match=wrong):
        lm.with_calibrator(lm.calibrator, strict=True).answer_batch(questions, decoder, template=other)


@pytest.mark.parametrize("decoder", [cw.Stated(max_tokens=2), cw.PTrue(max_tokens=2), cw.FreeText(max_tokens=2)])
def test_a_calibrator_of_traces_is_refused_without_a_word_about_another_use(decoder):
    report = cw.FitReport("temperature", 9, 9, 0.0, 0.0, readout="trace:letter:Answer:")
    lm = cw.wrap(ToyAdapter()).with_calibrator(cw.Temperature(2.0, report=report), strict=True)
    with pytest.raises(CapabilityError, match="maps probabilities of options"):
        lm(PROMPT, decoder)
