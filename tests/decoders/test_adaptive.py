"""Early stopping: the posterior, the rounds and their seeds; and what all decoders of traces check at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.decoders import label_posterior
from calibwrap.errors import InputError

from .made import LABELS, finish, trace


def test_the_posterior_worked_by_hand():
    # 0.9 for A, 0.6 for B, of three labels: A 0.9 * 0.2, B 0.05 * 0.6, C 0.05 * 0.2
    wanted = np.array([0.18, 0.03, 0.01]) / 0.22
    np.testing.assert_allclose(label_posterior([0, 1], [0.9, 0.6], 3), wanted)
    np.testing.assert_allclose(label_posterior([], [], 4), 0.25)


def test_one_trace_gives_its_own_confidence_and_an_even_one_says_nothing():
    assert label_posterior([1], [0.7], 4)[1] == pytest.approx(0.7)
    np.testing.assert_allclose(label_posterior([0, 0, 2], [0.25] * 3, 4), 0.25)


def test_certain_traces_that_contradict_each_other_are_no_nan():
    np.testing.assert_allclose(label_posterior([0, 1], [1.0, 1.0], 2), 0.5)
    np.testing.assert_allclose(label_posterior([0], [0.0], 2), [1e-6, 1 - 1e-6])


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 1.0)), min_size=1, max_size=10), st.randoms())
def test_the_posterior_is_a_distribution_in_which_order_does_not_matter(traces, random):
    shuffled = list(traces)
    random.shuffle(shuffled)
    first, again = (label_posterior(*zip(*order, strict=True), 3) for order in (traces, shuffled))
    assert first.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(first, again, rtol=1e-9)


def test_the_posterior_is_right_where_its_assumption_holds():
    """Independent traces, right with their stated confidence, else any other label alike."""
    random = np.random.default_rng(0)
    stated, right = [], []
    for truth in random.integers(3, size=4000):
        confidence = random.uniform(0.4, 0.8, size=3)
        wrong = (truth + random.integers(1, 3, size=3)) % 3
        posterior = label_posterior(np.where(random.uniform(size=3) < confidence, truth, wrong), confidence, 3)
        stated.append(posterior.max())
        right.append(posterior.argmax() == truth)
    assert cw.metrics.ece(stated, right) < 0.03


def rounds(decoder):
    return [decoder.request(drawn) for drawn in range(0, decoder.k, decoder.request(0).n)]


@pytest.mark.parametrize(("k", "sizes"), [(1, [1]), (2, [1, 1]), (4, [1] * 4), (8, [2] * 4), (10, [3, 3, 3, 1])])
def test_rounds_are_equal_and_stay_within_k(k, sizes):
    assert [request.n for request in rounds(cw.ConfidenceAtK(k=k, adaptive=True))] == sizes
    assert cw.ConfidenceAtK(k=k).request(0).n == k


def test_each_round_has_a_seed_of_its_own():
    decoders = [cw.ConfidenceAtK(k=8, adaptive=True, seed=seed) for seed in range(9)]
    seeds, again = ([[request.seed for request in rounds(one)] for one in decoders] for _ in range(2))
    assert [of[0] for of in seeds] == list(range(9))  # the first round is that of a decoder that does not stop early
    assert seeds == again
    drawn = [seed + index for of in seeds for seed in of[1:] for index in range(2)]  # as runtimes seed completion i
    assert len({*drawn, *range(10)}) == len(drawn) + 10
    assert {request.seed for request in rounds(cw.ConfidenceAtK(k=8, adaptive=True, seed=None))} == {None}


@pytest.mark.parametrize("decoder", [cw.MajorityVote, cw.ConfidenceWeightedVote, cw.MeanPosterior, cw.ConfidenceAtK])
def test_drawing_ends_when_the_answer_is_settled(decoder):
    adaptive = decoder(k=8, labels=LABELS, adaptive=True, threshold=0.95)
    sure, unsure = trace("A", [0.9, 0.05, 0.05]), trace("B", [0.3, 0.4, 0.3])
    assert len(finish(adaptive, [sure, sure]).candidates) == 2
    assert len(finish(adaptive, [unsure, unsure], [sure, sure]).candidates) == 4
    answer = finish(adaptive, *[[unsure, trace("", [1.0, 0.0, 0.0])]] * 4)
    assert (len(answer.candidates), answer.unparsed, answer.text) == (8, 4, "B")
    assert len(finish(adaptive, *[[trace("", [1.0, 0.0, 0.0])] * 2] * 4).candidates) == 8


def test_it_is_the_answer_that_must_be_settled():
    """One certain C is picked; three good As together are more probable: nothing is settled before the budget ends."""
    decoder = cw.ConfidenceAtK(k=4, labels=LABELS, adaptive=True, threshold=0.9)
    good = trace("A", [0.8, 0.1, 0.1])
    answer = finish(decoder, [good], [trace("C", [0.05, 0.1, 0.85])], [good], [good])
    assert (answer.text, len(answer.candidates)) == ("C", 4)


def test_a_threshold_of_one_never_stops():
    decoder = cw.MajorityVote(k=2, labels=LABELS, adaptive=True, threshold=1.0)
    assert len(finish(decoder, [trace("A", [1.0, 0.0, 0.0])], [trace("A", [1.0, 0.0, 0.0])]).candidates) == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"k": 0}, "k"),
        ({"k": 2.5}, "k"),
        ({"k": True}, "k"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"labels": ("A",)}, "labels"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"stop": ("",)}, "stop"),
    ],
)
def test_bad_settings_are_refused_when_the_decoder_is_made(settings, named):
    with pytest.raises(InputError, match=f"'{named}'"):
        cw.ConfidenceAtK(**settings)


def test_the_settings_are_in_the_request():
    decoder = cw.BestOfN(k=3, labels=["yes", "no"], marker="So:", temperature=0.7, max_tokens=9, seed=4, stop=["\n\n"])
    rule = cw.AnswerRule(("yes", "no"), "So:")
    assert decoder.request(0) == cw.Sampling(3, 9, 0.7, 4, ("\n\n",), answer=rule)
