"""RCFT's targets and regulariser: against the formula written out, hand-worked cases, and known defects."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.training import ece_regulariser, rcft_targets
from calibwrap.training.rcft import BinAccuracies, bin_accuracies

HALF = BinAccuracies(np.array([0.0, 1.0]), np.array([0.5]), np.array([2]))
"""One bin, right half of the time."""


def written_out(row, accuracy, rank_break="allow"):
    """The formula for one question, option by option, for probabilities and A away from the corners."""
    order = sorted(range(len(row)), key=lambda j: -row[j])
    gamma = math.log(len(row) - 1) / (row[order[1]] * (1 - accuracy))
    bent = [math.tanh(gamma * row[j]) for j in order[1:]]
    alpha = (1 - accuracy) / (sum(bent) + len(row) - 1)
    rest = [alpha * (1 + each) for each in bent]
    if rank_break == "uniform" and rest[0] > accuracy:
        rest = [(1 - accuracy) / (len(row) - 1)] * (len(row) - 1)
    target = [0.0] * len(row)
    for j, value in zip(order, [accuracy, *rest], strict=True):
        target[j] = value
    return target


@st.composite
def questions(draw, least=1, most=7):
    weights = draw(st.lists(st.floats(1e-6, 1.0), min_size=least, max_size=most))
    return np.array(weights) / sum(weights)


accuracies = st.floats(0.0, 1.0)
choices = st.sampled_from(["uniform", "allow"])


def one(row, accuracy, **options):
    return rcft_targets(np.array([row]), np.array([accuracy]), **options)[0]


def one_bin(accuracy, rows=1):
    return BinAccuracies(np.array([0.0, 1.0]), np.array([accuracy]), np.array([rows]))


@given(questions(least=3), st.floats(0.01, 0.99), choices)
def test_targets_are_the_formula(row, accuracy, rank_break):
    np.testing.assert_allclose(
        one(row, accuracy, rank_break=rank_break), written_out(list(row), accuracy, rank_break), atol=1e-12
    )


@given(questions(least=2), accuracies, choices)
def test_targets_are_distributions_that_keep_the_order_of_the_rest(row, accuracy, rank_break):
    target = one(row, accuracy, rank_break=rank_break)
    order = np.argsort(-row, kind="stable")
    assert target.sum() == pytest.approx(1.0, abs=1e-12)
    assert (target >= 0).all()
    assert target[order[0]] == pytest.approx(accuracy, abs=1e-15)
    assert (np.diff(target[order[1:]]) <= 1e-15).all()


@given(questions(least=2), st.integers(0, 5), accuracies, choices)
def test_padding_and_the_order_of_options_change_nothing(row, shift, accuracy, rank_break):
    alone = one(row, accuracy, rank_break=rank_break)
    padded = np.concatenate([np.roll(row, shift), [0.0, 0.0]])
    mask = np.arange(len(padded)) < len(row)
    found = rcft_targets(padded[None], np.array([accuracy]), rank_break=rank_break, mask=mask[None])[0]
    assert (found[len(row) :] == 0.0).all()
    if len(set(row)) == len(row):  # among equals the first is the top one, so moving them moves it
        np.testing.assert_allclose(found[: len(row)], np.roll(alone, shift), atol=1e-12)


def test_corner_cases():
    assert one([0.2, 0.7, 0.1], 1.0).tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(one([0.9, 0.1], 0.3), [0.3, 0.7])
    np.testing.assert_allclose(one([0.4, 0.2, 0.2, 0.2], 0.55), [0.55, 0.15, 0.15, 0.15])
    np.testing.assert_allclose(one([1.0, 0.0, 0.0], 0.5), [0.5, 0.25, 0.25])
    assert one([1.0], 0.2).tolist() == [1.0]
    assert np.isfinite(one([1.0 - 1e-320, 1e-320, 0.0], 0.5)).all()
    assert np.isfinite(one([0.5, 0.3, 0.2], 1.0 - 1e-16)).all()


def test_the_number_of_options_is_each_rows_own():
    row = [0.6, 0.25, 0.1, 0.05]
    mixed = rcft_targets(
        np.array([[*row, 0.0], [0.7, 0.2, 0.1, 0.0, 0.0]]),
        np.array([0.5, 0.5]),
        mask=np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=bool),
    )
    np.testing.assert_allclose(mixed[0, :4], written_out(row, 0.5))
    np.testing.assert_allclose(mixed[1, :3], written_out([0.7, 0.2, 0.1], 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_gives_the_same_detached(dtype):
    rows, accuracy = np.array([[0.5, 0.3, 0.2]]), np.array([0.6])
    found = rcft_targets(torch.tensor(rows, dtype=dtype, requires_grad=True), torch.tensor(accuracy))
    assert found.dtype == dtype
    assert not found.requires_grad
    np.testing.assert_allclose(found.numpy(), rcft_targets(rows, accuracy), atol=1e-7)


@pytest.mark.parametrize(
    ("rows", "accuracy", "options", "said"),
    [
        ([[0.5, 0.6]], [0.5], {}, "sum to 1"),
        ([[np.nan, 1.0]], [0.5], {}, "not NaN"),
        ([[0.5, 0.5]], [1.5], {}, r"\[0, 1\]"),
        ([[0.5, 0.5]], [0.5, 0.5], {}, "shape"),
        ([[0.5, 0.5]], [0.5], {"rank_break": "cap"}, "rank_break"),
    ],
)
def test_wrong_arguments_are_named(rows, accuracy, options, said):
    with pytest.raises(InputError, match=said):
        rcft_targets(np.array(rows), np.array(accuracy), **options)


# One test for each defect of the released code that concerns the regulariser.


def test_defect_1_the_last_bin_is_regularised():
    """Nine of ten left edges: the over-confident bin [0.9, 1.0] was never pulled anywhere."""
    bins = bin_accuracies([0.95, 0.99, 1.0, 0.92, 0.3], [0, 0, 1, 0, 1], least_in_bin=1)
    assert bins.edges[-2:].tolist() == [0.9, 1.0]
    assert bins.accuracy[-1] == 0.25
    logprobs = torch.tensor([[0.95, 0.05], [0.999, 0.001]]).log().requires_grad_()
    loss = ece_regulariser(logprobs, bins)
    assert loss.item() == pytest.approx((2 * 0.7**2 + 2 * 0.749**2) / 2, abs=1e-5)
    loss.backward()
    assert logprobs.grad[0, 0] > 0  # descent lowers the top option


def test_defect_6_the_broken_rank_is_a_choice():
    """Below A of about 0.26 to 0.32 the runner-up got more mass than the top option, unasked."""
    row = [0.9, 0.05, 0.03, 0.02]
    np.testing.assert_allclose(one(row, 0.25, rank_break="allow"), [0.25, 0.278, 0.249, 0.223], atol=1e-3)
    np.testing.assert_allclose(one(row, 0.25, rank_break="uniform"), [0.25] * 4)
    np.testing.assert_allclose(one(row, 0.1, rank_break="uniform"), [0.1, 0.3, 0.3, 0.3])


@given(questions(least=2), accuracies)
def test_defect_6_the_top_option_stays_first_where_it_can(row, accuracy):
    if accuracy >= 1 / len(row):
        target = one(row, accuracy)
        assert target[np.argmax(row)] >= target.max() - 1e-12


def test_defect_gradient_flows_through_the_scores_alone():
    """The released code let the targets move with the runners-up."""
    scores = torch.tensor([[0.2, -0.4, -1.0]], dtype=torch.float64, requires_grad=True)
    bins = one_bin(0.7)
    frozen = rcft_targets(torch.softmax(scores, -1), bins.accuracy)
    (plain,) = torch.autograd.grad(((torch.softmax(scores, -1) - frozen) ** 2).sum(), scores)
    (found,) = torch.autograd.grad(ece_regulariser(scores, bins), scores)
    torch.testing.assert_close(found, plain)


def test_defect_three_options_are_not_four():
    """ln 3 was written into the code."""
    assert one([0.6, 0.3, 0.1], 0.6)[1] != pytest.approx(
        0.4 * (1 + math.tanh(math.log(3) / 0.4)) / (2 + math.tanh(math.log(3) / 0.4) + math.tanh(math.log(3) / 1.2)),
        abs=1e-4,
    )


def test_no_loss_and_no_gradient_at_the_targets():
    scores = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.7, 0.3, 0.0, 0.0]], dtype=torch.float64).log().requires_grad_()
    loss = ece_regulariser(scores, one_bin(0.7, 2))
    loss.backward()
    assert loss.item() < 1e-14
    assert float(scores.grad.abs().max()) < 1e-10
    assert metrics.ece([0.7] * 10, [1] * 7 + [0] * 3, n_bins=10) == pytest.approx(0.0, abs=1e-12)


def test_the_regulariser_is_the_sum_of_the_bins_means():
    bins = BinAccuracies(np.array([0.0, 0.5, 1.0]), np.array([0.4, 0.6]), np.array([1, 2]))
    rows = np.array([[0.45, 0.35, 0.2], [0.8, 0.15, 0.05], [0.7, 0.2, 0.1]])
    distance = [
        sum((p - t) ** 2 for p, t in zip(row, written_out(list(row), a), strict=True))
        for row, a in zip(rows, [0.4, 0.6, 0.6], strict=True)
    ]
    found = ece_regulariser(torch.tensor(rows).log(), bins)
    assert float(found) == pytest.approx(distance[0] + (distance[1] + distance[2]) / 2)


def test_members_are_the_e_steps_own():
    bins = BinAccuracies(np.array([0.0, 0.5, 1.0]), np.array([0.4, 0.6]), np.array([1, 1]))
    score = torch.tensor([[0.6, 0.4]]).log()
    assert float(ece_regulariser(score, bins)) == pytest.approx(0.0, abs=1e-12)
    assert float(ece_regulariser(score, bins, [0])) == pytest.approx(2 * 0.2**2)
    with pytest.raises(InputError, match="'members' must be bins from 0 to 1"):
        ece_regulariser(score, bins, [2])


def test_arrays_give_a_float_and_tensors_a_tensor():
    rows = np.log([[0.6, 0.4], [0.9, 0.1]])
    value = ece_regulariser(rows, HALF)
    assert isinstance(value, float)
    assert value == pytest.approx(float(ece_regulariser(torch.tensor(rows), HALF)))
    assert value == pytest.approx(np.mean([2 * 0.1**2, 2 * 0.4**2]))


@pytest.mark.parametrize(
    ("rows", "bins", "members", "said"),
    [
        ([[0.0, 0.0]], None, None, "must be a BinAccuracies"),
        (np.zeros((0, 2)), HALF, None, "neither of them 0"),
        ([[np.nan, 0.0]], HALF, None, "must be no NaN"),
        ([[-np.inf, -np.inf]], HALF, None, "an option that is not -inf"),
        ([[0.0], [0.0, 1.0]], HALF, None, "all rows of one length"),
        ([[0.0, 0.0]], HALF, [0, 0], "the bins of 1 questions"),
        ([[0.0, 0.0]], HALF, [0.5], "must be bins from 0 to 0"),
    ],
)
def test_what_the_regulariser_cannot_take_is_named(rows, bins, members, said):
    with pytest.raises(InputError, match=said):
        ece_regulariser(rows, bins, members)


@given(st.integers(0, 2**32 - 1))
def test_batches_are_unbiased(seed):
    random = np.random.default_rng(seed)
    scores = torch.tensor(random.normal(size=(12, 4)))
    confidence = torch.softmax(scores, -1).max(-1).values.numpy()
    bins = bin_accuracies(confidence, random.random(12) < confidence, n_bins=5, least_in_bin=2)
    members = bins.index(confidence)
    whole = float(ece_regulariser(scores, bins))
    parts = [
        float(ece_regulariser(scores[rows], bins, members[rows], sampled=True))
        for rows in random.permutation(12).reshape(4, 3)
    ]
    assert np.mean(parts) == pytest.approx(whole)


def test_padding_gives_no_gradient_and_half_precision_is_read_in_single():
    scores = torch.tensor([[0.0, -1.0, -math.inf]], requires_grad=True)
    ece_regulariser(scores, one_bin(0.4)).backward()
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[0, 2] == 0.0
    assert ece_regulariser(scores.detach().half(), one_bin(0.4)).dtype == torch.float32


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 12), st.integers(1, 9)
)
def test_bins_cover_everything_and_are_not_sparse(rows, n_bins, least):
    confidence, correct = (np.array(part) for part in zip(*rows, strict=True))
    bins = bin_accuracies(confidence, correct, n_bins, least)
    assert bins.edges[0] == 0.0
    assert bins.edges[-1] == 1.0
    assert (np.diff(bins.edges) > 0).all()
    assert len(bins.rows) == 1 or bins.rows.min() >= least
    members = bins.index(confidence)
    np.testing.assert_array_equal(np.bincount(members, minlength=len(bins.rows)), bins.rows)
    for each, accuracy in enumerate(bins.accuracy):
        if (members == each).any():
            assert correct[members == each].mean() == pytest.approx(accuracy)


def test_a_sparse_bin_joins_its_sparser_neighbour():
    confidence = [0.05] * 3 + [0.35] + [0.65] * 2 + [0.95] * 4
    bins = bin_accuracies(confidence, [1] * 10, n_bins=4, least_in_bin=2)
    assert bins.edges.tolist() == [0.0, 0.25, 0.75, 1.0]
    assert bins.rows.tolist() == [3, 3, 4]
    with pytest.raises(InputError, match="least_in_bin"):
        bin_accuracies([0.5], [1], least_in_bin=0)
