"""CATTO's loss: closed forms against finite differences and plain torch, and the laws that the paper's form implies."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from calibwrap.errors import InputError
from calibwrap.training import catto, catto_loss, catto_loss_and_gradient
from calibwrap.training.catto import TokenLoss

VARIANTS = [
    {"loss": loss, "target": target, "detach_target": detach, "invert": invert, "margin_scale": scale}
    for loss in ("l1", "l2", "bce")
    for target, scale in (("surrogate", 1.0), ("surrogate", 4.0), ("hard", 1.0))
    for detach in (False, True)
    for invert in (False, True)
]
seeds = st.integers(0, 2**32 - 1)


def batch(seed, shape=(2, 3, 7), spread=2.0):
    """Return logits, targets and a mask in which every sequence has a token; half of the targets are the argmax."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=shape)
    targets = np.where(rng.random(shape[:2]) < 0.5, logits.argmax(-1), rng.integers(0, shape[2], shape[:2]))
    mask = rng.random(shape[:2]) < 0.6
    mask[:, 0] = True
    return logits, targets, mask


def one(logits, token, **options):
    """Return loss and gradient (V,) of one token."""
    value, gradient = catto_loss_and_gradient([[logits]], [[token]], [[1]], **options)
    return value, gradient[0, 0]


def confidence_and_correctness(logits, targets, scale=1.0):
    """Return c and s of rows, from scipy's softmax."""
    p = softmax(logits, axis=-1)
    rows = np.arange(len(p))
    others = p.copy()
    others[rows, targets] = -1.0
    return p.max(1), expit(scale * (p[rows, targets] - others.max(1)))


def plain_torch(logits, targets, mask, *, loss, target, detach_target, invert, margin_scale):
    """Return the loss as anyone would write it in torch, with torch's own gradient."""
    p = torch.softmax(logits, dim=-1)
    chosen = p.gather(-1, targets[..., None])[..., 0]
    others = p.scatter(-1, targets[..., None], -1.0).max(dim=-1).values
    c = p.max(dim=-1).values
    s = torch.sigmoid(margin_scale * (chosen - others)) if target == "surrogate" else (chosen >= others).to(p.dtype)
    s = 1 - s if invert else s
    s = s.detach() if detach_target else s
    each = {"l1": (c - s).abs(), "l2": (c - s) ** 2, "bce": -(s * c.log() + (1 - s) * (1 - c).log())}[loss]
    return ((each * mask).sum(1) / mask.sum(1)).mean()


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())))
def test_numpy_and_torch_equal_plain_torch(options):
    logits, targets, mask = batch(1, shape=(3, 6, 11))
    value, gradient = catto_loss_and_gradient(logits, targets, mask, **options)
    ours, theirs = (torch.tensor(logits, requires_grad=True) for _ in range(2))
    mine = catto_loss(ours, torch.tensor(targets), torch.tensor(mask), **options)
    truth = plain_torch(theirs, torch.tensor(targets), torch.tensor(mask), **options)
    mine.backward()
    truth.backward()
    assert value == pytest.approx(truth.item(), abs=1e-12)
    assert mine.item() == pytest.approx(truth.item(), abs=1e-12)
    assert catto_loss(logits, targets, mask, **options) == value
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-12)


@settings(max_examples=40)
@given(seed=seeds, options=st.sampled_from([one for one in VARIANTS if not one["detach_target"]]))
def test_gradient_is_that_of_finite_differences(seed, options):
    logits, targets, mask = batch(seed, shape=(2, 2, 5))
    scores = np.sort(logits, axis=-1)
    c, s = confidence_and_correctness(logits.reshape(-1, 5), targets.ravel(), options["margin_scale"])
    s = 1 - s if options["invert"] else s
    assume((np.diff(scores) > 1e-3).all() and (abs(c - s) > 1e-3).all())  # away from ties and from c = s
    _, gradient = catto_loss_and_gradient(logits, targets, mask, **options)
    step = 1e-5
    for at in np.ndindex(logits.shape):
        moved = [logits.copy(), logits.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        up, down = (catto_loss(z, targets, mask, **options) for z in moved)
        assert gradient[at] == pytest.approx((up - down) / (2 * step), abs=1e-7)


@settings(max_examples=60)
@given(seed=seeds, spread=st.floats(0.1, 20.0), scale=st.floats(0.1, 8.0))
def test_no_entry_of_a_tokens_gradient_exceeds_its_bound(seed, spread, scale):
    logits, targets, _ = batch(seed, shape=(1, 1, 6), spread=spread)
    for options, bound in (
        ({}, 3 / 8),
        ({"detach_target": True}, 1 / 4),
        ({"margin_scale": scale}, 1 / 4 + scale / 8),
    ):
        assert abs(one(logits[0, 0], targets[0, 0], **options)[1]).max() <= bound + 1e-12


def test_the_bounds_are_tight():
    assert one([1e-3, 0.0], 1)[1].max() == pytest.approx(3 / 8, abs=1e-3)
    assert one([1e-3, 0.0], 1, detach_target=True)[1].max() == pytest.approx(1 / 4, abs=1e-3)
    assert one([1e-3, 0.0], 1, margin_scale=4.0)[1].max() == pytest.approx(3 / 4, abs=2e-3)


@settings(max_examples=60)
@given(seed=seeds, spread=st.floats(0.1, 30.0), bins=st.integers(1, 12))
def test_bounded_and_above_the_binned_gap(seed, spread, bins):
    logits, targets, _ = batch(seed, shape=(1, 40, 5), spread=spread)
    value = catto_loss(logits, targets, np.ones((1, 40)))
    c, s = confidence_and_correctness(logits[0], targets[0])
    assert value == pytest.approx(abs(c - s).mean())
    assert 0.0 <= value <= expit(1.0)
    groups = np.random.default_rng(seed).integers(0, bins, 40)  # Jensen holds for any binning
    gap = sum(abs(c[groups == m].sum() - s[groups == m].sum()) for m in range(bins)) / 40
    assert value >= gap - 1e-12


@settings(max_examples=30)
@given(seed=seeds)
def test_other_tokens_may_change_places_and_constants_do_not_count(seed):
    logits, targets, mask = batch(seed, shape=(1, 2, 8))
    rng = np.random.default_rng(seed)
    changed = logits.copy()
    for t in range(2):
        others = np.flatnonzero(np.arange(8) != targets[0, t])
        changed[0, t, others] = logits[0, t, rng.permutation(others)]
    value = catto_loss(logits, targets, mask)
    assert catto_loss(changed, targets, mask) == pytest.approx(value)
    assert catto_loss(logits + rng.normal(size=(1, 2, 1)) * 100, targets, mask) == pytest.approx(value)


def test_gradient_rows_sum_to_zero():
    _, gradient = catto_loss_and_gradient(*batch(3))
    np.testing.assert_allclose(gradient.sum(-1), 0.0, atol=1e-15)


def test_zero_loss_points():
    assert one([0.0, 0.0], 0)[0] == 0.0  # one competitor: c = 1/2, margin 0
    fixed = 0.6590460684  # sigmoid(x) = x, where no single competitor counts
    thin = np.log(np.r_[fixed, np.full(100_000, (1 - fixed) / 100_000)])
    assert one(thin, 0)[0] == pytest.approx(0.0, abs=1e-5)


def test_sure_and_wrong_is_the_worst_and_its_gradient_mends_it():
    logits = np.array([12.0, 0.0, -1.0])
    value, gradient = one(logits, 1)
    assert value == pytest.approx(expit(1.0), abs=1e-4)
    assert gradient[0] > 0 > gradient[1]  # descent lowers the top logit and raises the target's
    _, detached = one(logits, 1, detach_target=True)
    assert detached[0] > 0
    assert gradient[1] < detached[1]  # the margin lifts the target beyond what the softmax does


def test_sure_and_right_is_drawn_down_to_the_cap():
    value, gradient = one([6.0, 0.0], 0)
    assert value == pytest.approx(1 - expit(1.0), abs=5e-3)
    assert gradient[0] > 0


def test_hard_target_by_hand():
    p = softmax([2.0, 0.0, 0.0])[0]
    assert one([2.0, 0.0, 0.0], 0, target="hard")[0] == pytest.approx(1 - p)
    assert one([2.0, 0.0, 0.0], 1, target="hard")[0] == pytest.approx(p)
    assert one([2.0, 0.0, 0.0], 1, target="hard", invert=True)[0] == pytest.approx(1 - p)


def test_mean_of_each_sequence_then_of_sequences():
    logits, targets, mask = batch(5, shape=(2, 4, 6))
    mask[:] = [[1, 0, 0, 0], [1, 1, 1, 1]]
    each = [catto_loss(logits[i : i + 1], targets[i : i + 1], mask[i : i + 1]) for i in range(2)]
    assert catto_loss(logits, targets, mask) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_masked_positions_have_no_influence(poison):
    logits, targets, mask = batch(6)
    clean, slope = catto_loss_and_gradient(logits, targets, mask)
    logits[~mask], targets[~mask] = poison, -100
    value, gradient = catto_loss_and_gradient(logits, targets, mask)
    z = torch.tensor(logits, requires_grad=True)
    catto_loss(z, torch.tensor(targets), torch.tensor(mask)).backward()
    assert value == clean
    np.testing.assert_array_equal(gradient, slope)
    assert (z.grad[torch.tensor(~mask)] == 0).all()
    np.testing.assert_allclose(z.grad.numpy(), slope, atol=1e-15)


def test_banned_tokens_have_probability_zero():
    value, gradient = one([0.0, 1.0, -np.inf], 1)
    shorter, slope = one([0.0, 1.0], 1)
    assert value == pytest.approx(shorter)
    np.testing.assert_allclose(gradient, [*slope, 0.0])
    assert one([0.0, 3.0, -np.inf], 2)[0] == pytest.approx(one([0.0, 3.0, -1e3], 2)[0])


def test_nan_at_a_response_token_shows():
    assert np.isnan(catto_loss(np.array([[[np.nan, 0.0]]]), [[0]], [[1]]))
    assert torch.isnan(catto_loss(torch.tensor([[[torch.nan, 0.0]]]), [[0]], [[1]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_numbers_are_worked_on_in_32_bits(dtype):
    torch.manual_seed(0)
    logits = (30 * torch.randn(1, 3, 131_072)).to(dtype).requires_grad_()
    targets, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3)
    value = catto_loss(logits, targets, mask)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(catto_loss(logits.detach().double(), targets, mask).item(), abs=1e-5)
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()
    single = catto_loss_and_gradient(logits.detach().float().numpy(), targets.numpy(), mask.numpy())
    assert single[1].dtype == np.float32
    assert single[0] == pytest.approx(value.item(), abs=1e-5)


def test_chunks_change_nothing(monkeypatch):
    logits, targets, mask = batch(7, shape=(4, 9, 5))
    whole, slope = catto_loss_and_gradient(logits, targets, mask)
    monkeypatch.setattr(catto, "CHUNK", 15)
    value, gradient = catto_loss_and_gradient(logits, targets, mask)
    z = torch.tensor(logits, requires_grad=True)
    of_torch = catto_loss(z, torch.tensor(targets), torch.tensor(mask))
    of_torch.backward()
    assert value == pytest.approx(whole)
    assert of_torch.item() == pytest.approx(whole)
    np.testing.assert_array_equal(gradient, slope)
    np.testing.assert_allclose(z.grad.numpy(), slope, atol=1e-15)


def test_gradient_follows_the_loss_of_a_larger_graph():
    logits, targets, mask = (torch.tensor(one) for one in batch(8))
    logits.requires_grad_()
    (3.0 * catto_loss(2.0 * logits, targets, mask)).backward()
    _, slope = catto_loss_and_gradient(2.0 * logits.detach().numpy(), targets.numpy(), mask.numpy())
    np.testing.assert_allclose(logits.grad.numpy(), 6.0 * slope, atol=1e-14)


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(
    ("shape", "targets", "mask", "says"),
    [
        ((1, 2, 3), [[0, 1]], [[0, 0]], "Sequence 0 .* has no response token"),
        ((2, 1, 3), [[0], [1]], [[1], [0]], "Sequence 1 .* has no response token"),
        ((1, 2, 3), [[0, 3]], [[1, 1]], "from 0 to 2 .* Got 0 to 3"),
        ((1, 2, 3), [[-1, 1]], [[1, 1]], "Got -1 to 1"),
        ((1, 2, 3), [0, 1], [[1, 1]], r"Got \(1, 2, 3\), \(2,\) and"),
        ((1, 2, 1), [[0, 0]], [[1, 1]], "V at least 2"),
        ((1, 2, 3), [[0, 1]], [[1]], "Got"),
        ((1, 2, 3), [[0, 1]], [[1, -1]], "'mask' must hold"),
        ((1, 2, 3), [[0, 1]], [[1.0, float("nan")]], "'mask' must hold"),
        ((1, 2, 3), [[0.0, 1.5]], [[1, 1]], "'targets' must be integers"),
        ((1, 2, 3), [[True, False]], [[1, 1]], "'targets' must be integers"),
    ],
)
def test_what_cannot_be_meant_is_refused(library, shape, targets, mask, says):
    with pytest.raises(InputError, match=says):
        catto_loss(library(np.zeros(shape)), library(targets), library(mask))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "l3"}, "'loss' must be one of 'l1', 'l2', 'bce'"),
        ({"target": "soft"}, "'target' must be one of 'surrogate', 'hard'"),
        ({"margin_scale": 0.0}, "above 0"),
        ({"margin_scale": float("nan")}, "above 0"),
        ({"margin_scale": "1"}, "above 0"),
    ],
)
def test_unknown_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        TokenLoss(**options)


@pytest.mark.parametrize("logits", ["abc", [[[0.0, 1.0]], [[0.0]]], [[[1j, 0.0]]]], ids=["text", "ragged", "complex"])
def test_what_is_no_array_of_numbers_is_refused(logits):
    with pytest.raises(InputError, match="'logits' must"):
        catto_loss(logits, [[0]], [[1]])


def test_whole_numbers_as_torch_logits_are_refused():
    with pytest.raises(InputError, match="floating-point"):
        catto_loss(torch.zeros(1, 1, 2, dtype=torch.long), [[0]], [[1]])


def test_numpy_needs_no_torch():
    code = (
        "import sys; from calibwrap import training; training.catto_loss([[[0.0, 1.0]]], [[1]], [[1]]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
