"""A probe on a model: a tiny random one whose states tell the last word, and the packaged SmolLM2."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.errors import CapabilityError, InputError, ProvenanceMismatch, ProvenanceWarning, QuestionError
from calibwrap.probing import ProbeReadout, fit_probe_on, option_states, with_probe
from calibwrap.questions import CLOZE, LETTER, Question
from calibwrap.testing import ToyAdapter
from tests.adapters import hf_models as models

WORDS = ["Mars", "Paris", "Rome", "water", "umbrella", "yes", "no", "red"]
QUICK = {"strengths": (1e-1,), "n_folds": 3, "layers": (1, 2)}


def questions(n, seed=0):
    """Which of some words is a town? A random model cannot say it, but its states hold the word."""
    random, found = np.random.default_rng(seed), []
    for number in range(n):
        town = ["Paris", "Rome"][number % 2]
        others = random.permutation([word for word in WORDS if word not in ("Paris", "Rome")])[: 1 + number % 3]
        options = random.permutation([town, *others]).tolist()
        found.append(Question(f"Which is a town, number {number}?", options, answer=options.index(town)))
    return found


@pytest.fixture(scope="module")
def probed():
    return fit_probe_on(cw.wrap(models.adapter("llama")), questions(60), **QUICK)


def test_it_answers_what_the_model_knows_and_does_not_say(probed):
    asked = questions(40, seed=1)
    right = np.array([question.answer for question in asked])
    plain = cw.wrap(probed.adapter)
    assert (plain.scores(asked).choice == right).mean() < 0.8
    assert (probed.scores(asked).choice == right).mean() > 0.95
    answer = probed.choose(asked[0].prompt, asked[0].options)
    assert answer.text in ("Paris", "Rome")
    assert answer.calibrated_by == "probe"
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)


def test_fitted_by_name_like_any_method(probed):
    lm, seen = cw.wrap(models.adapter("llama")), []
    again = lm.fit(questions(60), "probe", progress=lambda done, total: seen.append((done, total)), **QUICK)
    assert again.calibrator == probed.calibrator
    assert seen[-1] == (60, 60)


def test_by_name_what_it_does_not_take_is_refused_before_anything_is_read(monkeypatch):
    adapter = models.adapter("llama")
    monkeypatch.setattr(type(adapter), "states", None)  # a call of it would be a TypeError
    lm = cw.wrap(adapter)
    for words in ({"strenghts": (1.0,)}, {"bounds": (1, 2)}, {"provenance": None}):
        with pytest.raises(InputError, match="Method 'probe': Unknown option"):
            lm.fit(questions(30), "probe", **words)
    for words in ({"readout": "label"}, {"reference": lm}):
        with pytest.raises(InputError, match="takes no 'reference='"):
            lm.fit(questions(30), "probe", **words)


def test_the_order_of_options_does_not_matter(probed):
    asked = questions(20, seed=2)
    turned = [Question(q.prompt, q.options[::-1], answer=len(q.options) - 1 - q.answer) for q in asked]
    texts = [[answer.text for answer in probed.choose_batch(some)] for some in (asked, turned)]
    assert texts[0] == texts[1]


def test_saved_loaded_and_put_back(probed, tmp_path):
    probed.save(tmp_path / "probe")
    again = with_probe(cw.wrap(models.adapter("llama")), cw.load(tmp_path / "probe"))
    asked = questions(6, seed=3)
    np.testing.assert_array_equal(again.scores(asked).logprobs, probed.scores(asked).logprobs)
    assert again.calibrator.report.provenance == probed.adapter.fingerprint()
    assert again.calibrator.report.readout == probed.readout.label


def test_states_of_ragged_options():
    adapter, asked = models.adapter("llama"), questions(3)
    states, mask = option_states(adapter, asked, (1, 2))
    assert mask.sum(axis=1).tolist() == [2, 3, 4]
    assert states.shape[:3] == (3, 4, 2)
    text = f"Question: {asked[1].prompt}\nAnswer: {asked[1].options[2]}\n"
    np.testing.assert_allclose(states[1, 2], adapter.states([text], (1, 2))[0], atol=2e-5)
    assert not states[0, 2:].any()


def test_wrong_use_is_named(probed):
    with pytest.raises(CapabilityError, match="hidden states"):
        fit_probe_on(cw.wrap(ToyAdapter()), questions(30))
    with pytest.raises(CapabilityError, match="hidden states"):
        with_probe(cw.wrap(ToyAdapter()), probed.calibrator)
    with pytest.raises(QuestionError):
        fit_probe_on(cw.wrap(probed.adapter), [Question("Which?", ["a", "b"])] * 30)
    with pytest.raises(InputError, match="template"):
        ProbeReadout(probed.calibrator, LETTER)
    with pytest.raises(InputError, match="one option at a time"):
        option_states(probed.adapter, questions(2), (1,), LETTER)
    with pytest.raises(InputError, match="with_probe"):
        cw.wrap(probed.adapter).with_calibrator(cw.Probe([1.0], 1))
    with pytest.raises(CapabilityError, match="with_calibrator"):
        cw.Probe([1.0], 1)([[0.0, -1.0]])


def test_a_loaded_probe_is_read_as_it_was_fitted(probed, tmp_path):
    probed.save(tmp_path / "probe.safetensors")
    again = cw.wrap(probed.adapter).with_calibrator(cw.load(tmp_path / "probe.safetensors"), strict=True)
    assert (again.readout, again.calibrator, again.strict) == (probed.readout, probed.calibrator, True)
    asked = questions(5)
    np.testing.assert_array_equal(again.scores(asked).logprobs, probed.scores(asked).logprobs)


def test_another_model_has_states_of_another_width(probed):
    other = cw.Probe(probed.calibrator.weights[:-1], 1, CLOZE.label)
    with pytest.raises(InputError, match="as this probe was fitted"):
        with_probe(probed, other).choose("Which?", ["a", "b"])


def test_a_probe_of_another_model_is_told_or_refused(probed):
    assert with_probe(probed, probed.calibrator, strict=True).strict
    report = probed.calibrator.report
    elsewhere = replace(
        probed.calibrator, report=replace(report, provenance=replace(report.provenance, dtype="float16"))
    )
    with pytest.warns(ProvenanceWarning, match="probe calibrator"):
        assert not with_probe(probed, elsewhere).strict
    with pytest.raises(ProvenanceMismatch, match="probe calibrator"):
        with_probe(probed, elsewhere, strict=True)
