"""From prompt to answer on the exact toy model: what is asked and read, against enumerated probabilities."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.calibrators import Identity
from calibwrap.capabilities import Provides
from calibwrap.decoders.reading import completed
from calibwrap.errors import CalibrationWarning, CapabilityError
from calibwrap.scores import TokenScores
from calibwrap.testing import ToyAdapter, ToyModel
from calibwrap.testing.toy import LETTER_IDS, TOKENS
from calibwrap.wrap import CalibratedLM

MODEL = ToyModel.random(seed=2)
LABELS = ("A", "B", "C")
PROMPT = "In the morning the sun"
FIRST = {"labels": LABELS, "marker": "", "max_tokens": 1}
"""The trace is one token, and names its answer when that is a letter."""
LATER = {"labels": LABELS, "marker": " sun", "max_tokens": 8}
SIBLINGS = (cw.ConfidenceAtK, cw.MajorityVote, cw.ConfidenceWeightedVote, cw.MeanPosterior, cw.BestOfN)
TOP_3 = Provides(top=3, token_bytes=True)


def odds(model=MODEL):
    """Probability of each token after the prompt, and of each label among the labels."""
    row = np.exp(model.next_logprobs(model.encode(PROMPT)))
    return row, row[LETTER_IDS] / row[LETTER_IDS].sum()


def many(decoder, n, model=MODEL, **parts):
    """n answers to the same prompt, each with seeds of its own."""
    lm = CalibratedLM(ToyAdapter(model), **parts)
    return [lm(PROMPT, replace(decoder, seed=1000 * index)) for index in range(n)]


@pytest.mark.parametrize("marker", [FIRST, LATER])
def test_labels_read_in_a_trace_are_the_models_own_probabilities(marker):
    answer = cw.wrap(ToyAdapter(MODEL))(PROMPT, cw.ConfidenceAtK(k=40, **marker))
    read = [one.labels for one in answer.candidates if one.labels is not None]
    assert len(read) == 40 - answer.unparsed > 3
    for labels in read:
        np.testing.assert_allclose(labels.probabilities[0], odds()[1], rtol=1e-9)
        np.testing.assert_allclose(labels.lower, labels.upper, atol=1e-9)
        assert labels.label_mass[0] == pytest.approx(odds()[0][LETTER_IDS].sum())


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_sampling_temperature_does_not_touch_what_is_read(temperature):
    answer = cw.wrap(ToyAdapter(MODEL))(PROMPT, cw.ConfidenceAtK(k=20, temperature=temperature, **FIRST))
    for one in answer.candidates:
        if one.labels is not None:
            np.testing.assert_allclose(one.labels.probabilities[0], odds()[1], rtol=1e-9)
        assert one.settings["temperature"] == temperature


def chance_of_confidence_at_k(k):
    """P(label is answered): the most probable one that any of k independent traces names; "" where none does."""
    row, share = odds()
    reach = {}
    for label, own in zip(LABELS, share, strict=True):
        less = 1 - sum(row[token] for token, other in zip(LETTER_IDS, share, strict=True) if other >= own)
        above = 1 - sum(row[token] for token, other in zip(LETTER_IDS, share, strict=True) if other > own)
        reach[label] = above**k - less**k
    return reach | {"": (1 - row[LETTER_IDS].sum()) ** k}


@pytest.mark.parametrize("k", [1, 3])
def test_answers_of_confidence_at_k_have_their_enumerated_probabilities(k):
    wanted = chance_of_confidence_at_k(k)
    assert sum(wanted.values()) == pytest.approx(1.0)
    answers = many(cw.ConfidenceAtK(k=k, **FIRST), 1500)
    for text, chance in wanted.items():
        share = np.mean([answer.text == text for answer in answers])
        assert share == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 1500))
    share = dict(zip(LABELS, odds()[1], strict=True))
    assert all(answer.confidence == pytest.approx(share.get(answer.text, 0.0)) for answer in answers)


def test_the_share_of_votes_tends_to_the_probability_of_the_label():
    answer = cw.wrap(ToyAdapter(MODEL))(PROMPT, cw.MajorityVote(k=3000, **FIRST))
    for label, share in zip(LABELS, odds()[1], strict=True):
        assert answer.probabilities[label] == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 2000))
    unparsed = 1 - odds()[0][LETTER_IDS].sum()
    assert answer.unparsed / 3000 == pytest.approx(unparsed, abs=4 * np.sqrt(unparsed * (1 - unparsed) / 3000))


def test_the_mean_posterior_is_the_posterior_where_all_traces_agree_on_it():
    answer = cw.wrap(ToyAdapter(MODEL))(PROMPT, cw.MeanPosterior(k=8, **FIRST))
    assert list(answer.probabilities.values()) == pytest.approx(odds()[1].tolist())


@pytest.mark.parametrize("decoder", SIBLINGS)
def test_a_planted_temperature_is_undone_by_an_option_calibrator(decoder):
    """A sharpened model with temperature 3 states what the model before sharpening states."""
    sharp = CalibratedLM(ToyAdapter(MODEL.sharpened(3.0)), calibrator=cw.Temperature(3.0))
    answer = sharp(PROMPT, decoder(k=8, **FIRST))
    share = dict(zip(LABELS, odds()[1], strict=True))
    for one in answer.candidates:
        if one.labels is not None:
            np.testing.assert_allclose(one.labels.probabilities[0], odds()[1], rtol=1e-6)
    if decoder in (cw.ConfidenceAtK, cw.MeanPosterior, cw.BestOfN):
        assert answer.confidence == pytest.approx(share[answer.text], rel=1e-6)
    assert answer.calibrated_by == ("none" if decoder is cw.MajorityVote else "temperature")


def test_a_token_calibrator_calibrates_labels_and_scores():
    hot = CalibratedLM(ToyAdapter(MODEL.sharpened(3.0)), calibrator=cw.Temperature(3.0, level="token"))
    answer = hot(PROMPT, cw.ConfidenceAtK(k=8, **FIRST))
    for one in answer.candidates:
        np.testing.assert_allclose(np.exp(one.scores.logprobs[0]), odds()[0], atol=1e-9)
        if one.labels is not None:
            np.testing.assert_allclose(one.labels.probabilities[0], odds()[1], rtol=1e-6)
            assert one.labels.is_exact


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decoder", SIBLINGS)
def test_bounds_out_of_cut_off_lists_hold_the_truth(decoder, seed):
    model = ToyModel.random(seed, spread=2.0)
    made = decoder(k=12, temperature=2.0, seed=seed, **FIRST)
    cut, whole = (CalibratedLM(ToyAdapter(model, given))(PROMPT, made) for given in (TOP_3, ToyAdapter.everything))
    assert cut.unparsed == whole.unparsed
    for one, other in zip(cut.candidates, whole.candidates, strict=True):
        assert (one.labels is None) == (other.labels is None)
        if one.labels is not None:
            assert (one.labels.lower <= other.labels.probabilities + 1e-12).all()
            assert (one.labels.upper >= other.labels.probabilities - 1e-12).all()
    low, high = cut.bounds
    assert 0.0 <= low <= cut.confidence <= high <= 1.0
    if cut.text == whole.text:
        assert low - 1e-9 <= whole.confidence <= high + 1e-9


def test_the_drawn_label_is_known_even_where_the_list_does_not_show_it():
    model = ToyModel.random(0, spread=2.0)
    answer = CalibratedLM(ToyAdapter(model, Provides(top=1, token_bytes=True)))(
        PROMPT, cw.MajorityVote(k=60, temperature=3.0, **FIRST)
    )
    row = odds(model)[0]
    for one in answer.candidates:
        if one.labels is not None:
            named = LABELS.index(one.text.strip())
            assert not one.labels.missing[0, named]
            assert one.labels.label_mass[0] >= row[LETTER_IDS[named]] - 1e-12
    assert {one.text for one in answer.candidates} >= {" A", " B", " C"}


def test_labels_of_several_tokens_have_no_vote_and_a_warning():
    """The snowman is two tokens: it can be named, and not read at one position."""
    with pytest.warns(CalibrationWarning, match="one token"):
        answer = cw.wrap(ToyAdapter(MODEL))(
            PROMPT, cw.MajorityVote(k=60, labels=("A", "☃"), marker="", max_tokens=2, temperature=2.0)
        )
    assert answer.unparsed >= sum(one.text == "☃" for one in answer.candidates) > 0


@pytest.mark.parametrize(
    "provides",
    [Provides(given_ids=None, tokenize=True, token_bytes=True), Provides(top=5, tokenize=True), Provides(score=True)],
)
def test_a_backend_that_cannot_show_labels_is_refused_before_any_call(provides):
    adapter = ToyAdapter(MODEL, provides)
    with pytest.raises(CapabilityError, match="ConfidenceAtK needs traces"):
        cw.wrap(adapter)(PROMPT, cw.ConfidenceAtK(**FIRST))
    assert adapter.calls["generate"] == 0


def test_free_text_with_an_option_calibrator_is_refused_before_any_call():
    adapter = ToyAdapter(MODEL)
    with pytest.raises(CapabilityError, match="ConfidenceAtK"):
        CalibratedLM(adapter, calibrator=cw.Temperature(2.0))(PROMPT, cw.Greedy())
    assert adapter.calls["generate"] == 0


def test_adapters_are_not_bothered_with_the_rule_and_lists_are_as_long_as_they_can_be():
    asked = []

    class Listening(ToyAdapter):
        def generate(self, prompts, sampling, steer=None):
            asked.append(sampling)
            return super().generate(prompts, sampling, steer)

    cw.wrap(Listening(MODEL))(PROMPT, cw.ConfidenceAtK(**FIRST))
    CalibratedLM(Listening(MODEL, TOP_3))(PROMPT, cw.ConfidenceAtK(**FIRST))
    token = cw.Temperature(2.0, level="token")
    CalibratedLM(Listening(MODEL), calibrator=token)(PROMPT, cw.ConfidenceAtK(**FIRST))
    assert [(sampling.top, sampling.answer) for sampling in asked] == [(100, None), (3, None), (None, None)]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("decoder", SIBLINGS)
def test_a_batch_equals_single_prompts_with_one_call_a_round(decoder, adaptive):
    prompts = [PROMPT, "What comes after A", "é", "B"]
    made = decoder(k=8, adaptive=adaptive, threshold=0.9, **LATER)
    adapter = ToyAdapter(MODEL)
    together = cw.wrap(adapter).batch(prompts, made)
    assert adapter.calls["generate"] <= (4 if adaptive else 1)
    for answer, prompt in zip(together, prompts, strict=True):
        alone = cw.wrap(ToyAdapter(MODEL))(prompt, made)
        assert (answer.text, answer.confidence, answer.bounds) == (alone.text, alone.confidence, alone.bounds)
        assert [one.text for one in answer.candidates] == [one.text for one in alone.candidates]


def test_adaptive_draws_the_same_kind_of_traces_and_fewer_of_them():
    sharp = MODEL.sharpened(3.0)
    fixed, adaptive = (many(cw.MajorityVote(k=16, adaptive=stops, **FIRST), 100, sharp) for stops in (False, True))
    drawn = [len(answer.candidates) for answer in adaptive]
    assert max(drawn) <= 16
    assert set(drawn) <= {4, 8, 12, 16}
    assert np.mean(drawn) < 10
    same = np.mean([one.text == other.text for one, other in zip(fixed, adaptive, strict=True)])
    assert same > 0.9


def test_rounds_draw_other_traces():
    never = cw.MajorityVote(k=16, adaptive=True, threshold=1.0, labels=LABELS, marker="", max_tokens=6, temperature=2.0)
    texts = [one.text for one in cw.wrap(ToyAdapter(MODEL))(PROMPT, never).candidates]
    quarters = [tuple(texts[start : start + 4]) for start in range(0, 16, 4)]
    assert len(set(quarters)) == 4


def test_completions_without_drawn_tokens_name_nothing():
    class Silent(ToyAdapter):
        def generate(self, prompts, sampling, steer=None):
            drawn = super().generate(prompts, sampling, steer)
            return [
                [replace(one, scores=TokenScores(one.scores.logprobs, one.scores.ids)) for one in many]
                for many in drawn
            ]

    [[one]] = completed(Silent(MODEL), [PROMPT], cw.Sampling(answer=cw.AnswerRule(LABELS, ""), seed=0), Identity())
    assert one.labels is None


def test_the_toy_writes_the_labels_as_the_tests_say():
    assert [TOKENS[token] for token in LETTER_IDS] == [b" A", b" B", b" C"]
