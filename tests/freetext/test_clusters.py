"""Equal answers among completions, and their entropy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from calibwrap.errors import InputError
from calibwrap.freetext import (
    clusters_of,
    counts,
    entropy_confidence,
    semantic_entropy,
    spelling,
    summed_probabilities,
)

answers = st.lists(st.sampled_from(["Paris", "paris.", "the Paris", "Rome", "...", "Oslo"]), min_size=1, max_size=12)


@given(answers, st.randoms(use_true_random=False))
def test_every_text_that_speaks_is_in_one_cluster_whatever_the_order(texts, random):
    found = clusters_of(texts)
    members = sorted(index for cluster in found for index in cluster.members)
    assert members == [index for index, text in enumerate(texts) if text != "..."]
    mixed = random.sample(texts, len(texts))
    assert [cluster.key for cluster in clusters_of(mixed)] == [cluster.key for cluster in found]
    assert counts(clusters_of(mixed)).tolist() == counts(found).tolist()
    for one, other in zip(found, clusters_of(mixed), strict=True):
        assert spelling([texts[at] for at in one.members]) == spelling([mixed[at] for at in other.members])


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=9))
def test_entropy_equals_scipys_and_bounds_the_confidence(weights):
    found = semantic_entropy(weights)
    assert found == pytest.approx(entropy(weights), abs=1e-12)
    assert 1.0 / len(weights) - 1e-12 <= entropy_confidence(found) <= 1.0


def test_the_confidence_ranks_as_the_entropy_does_and_one_answer_is_certain():
    rows = [[8.0], [7.0, 1.0], [4.0, 4.0], [4.0, 2.0, 2.0], [1.0] * 8]
    confidences = [entropy_confidence(semantic_entropy(row)) for row in rows]
    assert confidences[0] == 1.0
    assert (np.diff(confidences) < 0.0).all()
    assert semantic_entropy([3.0, 0.0]) == 0.0


def test_a_text_that_came_twice_counts_once():
    texts = ["Paris", "Paris", "paris", "Rome"]
    sums = summed_probabilities(clusters_of(texts), texts, np.log([0.4, 0.4, 0.1, 0.2]))
    np.testing.assert_allclose(sums, [0.5, 0.2])


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0, 2.0], [np.nan], [np.inf], [[1.0]]])
def test_what_is_no_weight_is_refused(weights):
    with pytest.raises(InputError, match="'weights' must be"):
        semantic_entropy(weights)
