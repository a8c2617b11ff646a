"""The state of all options: streaming equals batch, merging is a commutative monoid, ragged rows are padded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.metrics import OptionState
from calibwrap.scores import log_softmax


def drawn(seed, n, k=4):
    """Rows of two to k options with sharp, flat and tied probabilities, and answers."""
    random = np.random.default_rng(seed)
    logits = np.round(random.normal(0, random.choice([0.1, 1, 5], (n, 1)), (n, k)), 1)
    logits[np.arange(k) >= random.integers(2, k + 1, n)[:, None]] = -np.inf
    logprobs = log_softmax(logits)
    return logprobs, (logprobs + random.gumbel(size=logprobs.shape)).argmax(axis=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([1, 7, 15]))
def test_streaming_in_any_pieces_equals_the_functions_on_all_rows(seed, pieces, bins):
    logprobs, answers = drawn(seed, sum(pieces))
    parts = zip(*(np.split(of, np.cumsum(pieces)[:-1]) for of in (logprobs, answers)), strict=True)
    states = [OptionState.empty(4, bins).update(*part) for part in parts]
    state = sum(states[1:], states[0])
    backwards = sum(states[-2::-1], states[-1])
    for one in (state, backwards):
        assert one.n == len(answers)
        assert one.brier == pytest.approx(metrics.brier(np.exp(logprobs), answers), abs=1e-12)
        assert one.nll == pytest.approx(metrics.nll(logprobs, answers), abs=1e-12)
        wanted = metrics.classwise_ece(np.exp(logprobs), answers, bins)
        assert one.classwise_ece() == pytest.approx(wanted, abs=1e-12)
    assert np.array_equal(state.count, backwards.count)


def test_by_hand():
    state = OptionState.empty(3, 2).update(np.log([[0.5, 0.25, 0.25]]), [2])
    assert state.count.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert state.answer_sum.tolist() == [[0, 0], [0, 0], [1, 0]]
    assert state.brier == pytest.approx(0.25 + 0.0625 + 0.5625)
    assert state.nll == pytest.approx(np.log(4))
    assert state.classwise_ece() == pytest.approx((0.5 + 0.25 + 0.75) / 3)


def test_an_answer_of_probability_zero_is_an_infinite_loss_and_a_finite_brier_score():
    state = OptionState.empty(2).update([[0.0, -np.inf]], [1]).update(np.log([[0.5, 0.5]]), [0])
    assert state.nll == np.inf
    assert state.brier == pytest.approx((2.0 + 0.5) / 2)


def test_what_does_not_fit_is_refused():
    state = OptionState.empty(3)
    with pytest.raises(InputError, match="the 3 columns of this state"):
        state.update(np.log([[0.5, 0.5]]), [0])
    with pytest.raises(InputError, match="equally many options and bins"):
        state.merge(OptionState.empty(3, 10))
    with pytest.raises(InputError, match="sum to 1"):
        state.update([[0.0, 0.0, 0.0]], [0])
    for measure in (lambda: state.brier, lambda: state.nll, state.classwise_ece):
        with pytest.raises(InputError, match="no rows"):
            measure()
    for options, bins in ((0, 15), (2, 0), (10**6, 10**6)):
        with pytest.raises(InputError):
            OptionState.empty(options, bins)
