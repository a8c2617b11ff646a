"""Smooth ECE against a direct evaluation of its definition."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from calibwrap import metrics
from calibwrap.metrics.smooth import GRID, _mirrored, _smoothed_error, residual_sums, smooth_error


def direct_smooth_ece(confidence, correct):
    """Sum of mirrored Gaussians at every row, integrated on a fine grid; then the root of smECE_s = s."""
    at = np.linspace(0, 1, 4001)[:, None]
    residual = (correct - confidence) / len(confidence)

    def error(width):
        density = np.zeros((len(at), len(confidence)))
        for image in range(-4, 5):
            for centre in (2 * image + confidence, 2 * image - confidence):
                density += np.exp(-0.5 * ((at - centre) / width) ** 2)
        smoothed = np.abs(density @ residual) / (width * np.sqrt(2 * np.pi))
        return np.trapezoid(smoothed, at[:, 0])

    return brentq(lambda width: error(width) - width, 1e-3, 1.0, xtol=1e-10)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_agrees_with_the_definition(power):
    rng = np.random.default_rng(int(10 * power))
    confidence = rng.random(120)
    correct = (rng.random(120) < confidence**power).astype(float)
    assert metrics.smooth_ece(confidence, correct) == pytest.approx(direct_smooth_ece(confidence, correct), abs=1e-6)


def test_agrees_with_the_definition_at_the_ends_of_the_scale():
    confidence = np.array([0.0, 0.0, 0.01, 0.99, 1.0, 1.0])
    correct = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    assert metrics.smooth_ece(confidence, correct) == pytest.approx(direct_smooth_ece(confidence, correct), abs=1e-6)


def test_residuals_of_one_sign_give_their_mean():
    assert metrics.smooth_ece([0.2, 0.5, 0.9], [0.3, 0.7, 1.0]) == pytest.approx((0.1 + 0.2 + 0.1) / 3, abs=1e-9)
    assert metrics.smooth_ece([0.0, 1.0], [0, 1]) == pytest.approx(0.0, abs=1e-9)
    assert metrics.smooth_ece([0.0, 1.0], [1, 0]) == pytest.approx(
        direct_smooth_ece(np.array([0.0, 1.0]), np.array([1.0, 0.0])), abs=1e-6
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
@example([(1e-05, False)])  # narrower than a cell of the grid
@example([(1e-07, False), (1e-05, False), (0.00011, False)])
def test_lies_between_the_global_gap_and_the_mean_absolute_residual(rows):
    confidence, correct = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    error = metrics.smooth_ece(confidence, correct)
    assert abs(confidence.mean() - correct.mean()) - 1e-9 <= error <= np.abs(confidence - correct).mean() + 1e-9


def test_a_calibrated_sampler_has_a_small_error_that_shrinks():
    rng = np.random.default_rng(7)
    confidence = rng.beta(4, 2, 300_000)
    correct = rng.random(len(confidence)) < confidence
    few, many = metrics.smooth_ece(confidence[:1000], correct[:1000]), metrics.smooth_ece(confidence, correct)
    assert many < 0.01 < few < 0.06


def test_a_bin_border_does_not_make_it_jump():
    correct = np.arange(1000) % 2
    below, above = np.full(1000, 0.5) - 1e-6 * correct, np.full(1000, 0.5) + 1e-6 * correct
    assert metrics.ece(below, correct, n_bins=2) > 0.4
    assert abs(metrics.smooth_ece(below, correct) - metrics.smooth_ece(above, correct)) < 1e-5


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=40), st.sampled_from([1e-9, 1e-3, 1.0]))
def test_the_root_is_that_of_plain_bisection_with_all_frequencies(residuals, scale):
    nodes = scale * np.array(residuals) / len(residuals)
    cells, low, high = len(nodes) - 1, 0.0, 1.0
    spectrum = np.fft.rfft(_mirrored(nodes))
    most = np.abs(np.fft.irfft(spectrum, n=2 * cells)[: cells + 1])
    most = most.sum() - (most[0] + most[-1]) / 2  # a kernel makes no error larger; one narrower than a cell would here
    for _ in range(60):
        width = (low + high) / 2
        damping = np.exp(-0.5 * (np.pi * np.arange(cells + 1) * width) ** 2)
        sizes = np.abs(np.fft.irfft(spectrum * damping, n=2 * cells)[: cells + 1])
        error = min(sizes.sum() - (sizes[0] + sizes[-1]) / 2, most)
        low, high = (width, high) if error > width else (low, width)
    assert smooth_error(nodes) == pytest.approx(low, abs=2e-12)


@pytest.mark.parametrize("width", [1e-4, 3.0 / GRID, 1e-2, 0.3])
def test_frequencies_that_are_left_out_do_not_count(width):
    random = np.random.default_rng(3)
    confidence = random.random(50)
    nodes = residual_sums(confidence, random.random(50) < 0.5) / 50
    spectrum = np.fft.rfft(_mirrored(nodes))
    damped = spectrum * np.exp(-0.5 * (np.pi * np.arange(GRID + 1) * width) ** 2)
    sizes = np.abs(np.fft.irfft(damped)[: GRID + 1])
    whole = sizes.sum() - (sizes[0] + sizes[-1]) / 2
    assert _smoothed_error(spectrum, GRID, width) == pytest.approx(whole, abs=1e-13)
