"""Votes: of traces, of confidences, of whole posteriors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibwrap as cw

from .made import LABELS, finish, trace

SIBLINGS = (cw.MajorityVote, cw.ConfidenceWeightedVote, cw.MeanPosterior, cw.ConfidenceAtK, cw.BestOfN)
DRAWN = [
    trace("A", [0.40, 0.35, 0.25]),
    trace("A", [0.40, 0.35, 0.25]),
    trace("B", [0.05, 0.90, 0.05]),
    trace("C", [0.30, 0.34, 0.36]),
]


@pytest.mark.parametrize(
    ("decoder", "text", "confidence", "calibrated_by"),
    [
        (cw.MajorityVote, "A", 0.5, "none"),
        (cw.ConfidenceWeightedVote, "B", 0.90 / (0.4 + 0.4 + 0.9 + 0.36), "identity"),
        (cw.MeanPosterior, "B", (0.35 + 0.35 + 0.90 + 0.34) / 4, "identity"),
        (cw.ConfidenceAtK, "B", 0.9, "identity"),
    ],
)
def test_the_same_traces_worked_by_hand(decoder, text, confidence, calibrated_by):
    answer = finish(decoder(k=4, labels=LABELS), DRAWN)
    assert answer.text == text
    assert answer.confidence == pytest.approx(confidence)
    assert answer.confidence == answer.probabilities[text]
    assert answer.bounds == pytest.approx((confidence, confidence))
    assert answer.calibrated_by == calibrated_by
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)


def test_many_weak_votes_can_outweigh_a_strong_one():
    drawn = [*DRAWN[:2], trace("A", [0.4, 0.3, 0.3]), DRAWN[2]]
    assert finish(cw.ConfidenceWeightedVote(k=4, labels=LABELS), drawn).text == "A"
    assert finish(cw.ConfidenceAtK(k=4, labels=LABELS), drawn).text == "B"


def test_the_mean_posterior_may_answer_what_no_trace_names():
    drawn = [trace("A", [0.45, 0.44, 0.11]), trace("C", [0.11, 0.44, 0.45])]
    assert finish(cw.MeanPosterior(k=2, labels=LABELS), drawn).text == "B"


@pytest.mark.parametrize("decoder", [cw.MajorityVote, cw.ConfidenceWeightedVote])
def test_equal_votes_go_to_the_first_label_in_any_order(decoder):
    drawn = [trace("C", [0.2, 0.3, 0.5]), trace("B", [0.2, 0.5, 0.3])]
    assert {finish(decoder(k=2, labels=LABELS), order).text for order in (drawn, drawn[::-1])} == {"B"}


def test_votes_without_weight_have_no_confidence():
    drawn = [trace("A", [0.0, 0.5, 0.5]), trace("B", [1.0, 0.0, 0.0])]
    answer = finish(cw.ConfidenceWeightedVote(k=2, labels=LABELS), drawn)
    assert (answer.text, answer.confidence) == ("A", 0.0)


def test_bounds_of_a_weighted_vote_are_attained():
    """A with weight in [0.4, 0.8] against B with weight in [0.1, 0.6]."""
    drawn = [
        trace("A", [0.6, 0.3, 0.1], bounds=([0.4, 0.1, 0.0], [0.8, 0.5, 0.3])),
        trace("B", [0.5, 0.4, 0.1], bounds=([0.3, 0.1, 0.0], [0.8, 0.6, 0.3])),
    ]
    answer = finish(cw.ConfidenceWeightedVote(k=2, labels=LABELS), drawn)
    assert answer.confidence == pytest.approx(0.6)
    assert answer.bounds == pytest.approx((0.4 / (0.4 + 0.6), 0.8 / (0.8 + 0.1)))
    mean = finish(cw.MeanPosterior(k=2, labels=LABELS), drawn)
    assert mean.text == "A"
    assert mean.bounds == pytest.approx((0.35, 0.8))


def rows():
    return st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)), min_size=1, max_size=6
    )


@settings(max_examples=50)
@given(rows(), st.randoms(), st.sampled_from(SIBLINGS))
def test_the_order_of_traces_changes_nothing_but_ties(drawn, random, decoder):
    traces = [trace((*LABELS, "")[label], np.array(row) / sum(row)) for label, row in drawn]
    shuffled = list(traces)
    random.shuffle(shuffled)
    first, again = (finish(decoder(k=len(traces), labels=LABELS), order) for order in (traces, shuffled))
    assert first.unparsed == again.unparsed
    assert 0.0 <= first.bounds[0] <= first.confidence <= first.bounds[1] <= 1.0
    if decoder in (cw.MajorityVote, cw.ConfidenceWeightedVote, cw.MeanPosterior):
        assert (first.text, first.confidence, first.bounds) == (again.text, again.confidence, again.bounds)
    elif decoder is cw.ConfidenceAtK:
        assert first.confidence == again.confidence


@settings(max_examples=50)
@given(rows())
def test_confidence_at_k_states_the_largest_confidence_and_never_less_than_a_vote_would(drawn):
    traces = [trace((*LABELS, "")[label], np.array(row) / sum(row)) for label, row in drawn]
    own = [one.labels.probabilities[0, label] for one, (label, _) in zip(traces, drawn, strict=True) if label < 3]
    answer = finish(cw.ConfidenceAtK(k=len(traces), labels=LABELS), traces)
    assert answer.confidence == pytest.approx(max(own, default=0.0))
