"""The headline figures: equal to hand-worked values and to plain formulas; what is not defined says so."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from calibwrap import metrics, summary
from calibwrap.errors import InputError
from calibwrap.scores import OptionScores
from calibwrap.summary import FIGURES, Figure, chance_ece, difference, figures


def scores_of(probabilities):
    with np.errstate(divide="ignore"):
        return OptionScores(np.log(probabilities), readout="label:letter")


def drawn(rows, sharpness, seed=0):
    """Return scores of planted over-confidence and answers drawn from the true distribution."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 3)) * 1.5
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = (true.cumsum(axis=1) < random.random((rows, 1))).sum(axis=1)
    return OptionScores(logits * sharpness, readout="label:letter"), answers, true


def test_hand_worked_figures():
    """Four questions of two options; every figure worked out with pen and paper."""
    found = figures(scores_of([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]), [0, 1, 1, 0])
    expected = {
        "accuracy": 2 / 4,
        "mean_confidence": (0.9 + 0.8 + 0.7 + 0.6) / 4,
        "ece": (0.1 + 0.8 + 0.3 + 0.6) / 4,
        "smooth_ece": 3 / 4 - 2 / 4,  # as wide a kernel makes every smoothed residual negative: the gap of the means
        "brier": 2 * (0.1**2 + 0.8**2 + 0.3**2 + 0.6**2) / 4,
        "nll": -np.log([0.9, 0.2, 0.7, 0.4]).mean(),
        "auroc": 3 / 4,
        "aurc": (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4,
    }
    assert tuple(found) == FIGURES
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(expected)


def test_losses_are_those_of_the_metrics():
    scores, answers, _ = drawn(300, 2.0)
    ragged = OptionScores(
        np.where(np.arange(300)[:, None] % 2 & (answers[:, None] < 2) & (np.arange(3) == 2), -np.inf, scores.logprobs),
        readout=scores.readout,
    )
    for one in (scores, ragged):
        found = figures(one, answers)
        assert found["brier"].value == pytest.approx(metrics.brier(one.probabilities, answers), rel=1e-12)
        assert found["nll"].value == pytest.approx(metrics.nll(one.logprobs, answers), rel=1e-12)
        assert found["accuracy"].value == metrics.accuracy(one.choice == answers)


def test_intervals_hold_the_value_of_means_and_narrow_with_more_questions():
    small, large = (figures(*drawn(rows, 3.0)[:2]) for rows in (60, 6000))
    for name in ("accuracy", "mean_confidence", "smooth_ece", "brier", "nll", "auroc", "aurc"):
        for found in (small, large):
            assert found[name].low <= found[name].value <= found[name].high
        assert large[name].high - large[name].low < (small[name].high - small[name].low) / 4


def test_accuracy_interval_is_the_binomial_one():
    found = figures(*drawn(2000, 1.0)[:2])["accuracy"]
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 2000)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.005)


def test_same_seed_same_intervals():
    scores, answers, _ = drawn(50, 2.0)
    assert figures(scores, answers, seed=4) == figures(scores, answers, seed=4)
    assert figures(scores, answers, seed=4) != figures(scores, answers, seed=5)


@pytest.mark.parametrize(("answers", "reason"), [([0, 0, 0], "all answers are right"), ([1, 1, 1], "are wrong")])
def test_auroc_without_a_pair_is_not_defined_and_says_so(answers, reason):
    found = figures(scores_of([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), answers)
    assert found["auroc"].value is None
    assert reason in found["auroc"].reason
    assert found["ece"].value is not None


def test_a_rare_class_leaves_the_auroc_without_an_interval():
    found = figures(scores_of([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), [0, 0, 1])["auroc"]
    assert found == Figure(1.0, None, None, "too few right or too few wrong answers")


def test_a_right_answer_of_probability_zero_has_an_infinite_likelihood_loss():
    scores = OptionScores([[0.0, -800.0], [0.0, -1.0]], readout="verbalized", mask=np.ones((2, 2), bool))
    assert figures(scores, [1, 0])["nll"].value == pytest.approx(400.0, rel=1e-2)
    ruled_out = OptionScores([[0.0, -np.inf], [0.0, -1.0]], readout="verbalized", mask=np.ones((2, 2), bool))
    found = figures(ruled_out, [1, 0])
    assert found["nll"].value is None
    assert "probability 0" in found["nll"].reason


def test_one_question_has_values_and_no_intervals():
    found = figures(scores_of([[0.75, 0.25]]), [0])
    assert found["ece"].value == pytest.approx(0.25)
    assert found["ece"].low is None
    assert found["ece"].reason == "one question has no spread"


def test_ragged_questions():
    found = figures(scores_of([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]]), [0, 1])
    assert found["brier"].value == pytest.approx((0.25 + 0.09 + 0.04 + 0.36 + 0.36) / 2)


@pytest.mark.parametrize("answers", [[0, 2], [0, -1], [0], [0.0, 1.0], [[0, 1]]])
def test_answers_that_do_not_fit_are_refused(answers):
    with pytest.raises(InputError, match="answers"):
        figures(scores_of([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]]), answers)


def test_difference_is_after_minus_before():
    before, answers, _ = drawn(400, 4.0)
    after = OptionScores(before.logprobs / 4.0, readout=before.readout)
    first, second, change = figures(before, answers), figures(after, answers), difference(before, after, answers)
    for name in FIGURES:
        assert change[name].value == pytest.approx(second[name].value - first[name].value)
    assert change["ece"].high < 0
    assert change["accuracy"] == Figure(0.0, 0.0, 0.0)


def test_difference_is_paired():
    """Two states of the same questions vary together: the change is known far better than either."""
    before, answers, _ = drawn(400, 1.0)
    after = OptionScores(before.logprobs * 1.05, readout=before.readout)
    wide, narrow = figures(before, answers)["nll"], difference(before, after, answers)["nll"]
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5


def test_difference_of_the_same_scores_is_zero_with_an_interval_of_zero():
    scores, answers, _ = drawn(40, 2.0)
    assert set(difference(scores, scores, answers).values()) == {Figure(0.0, 0.0, 0.0)}


def test_difference_of_other_questions_is_refused():
    with pytest.raises(InputError, match="same questions"):
        difference(drawn(4, 1.0)[0], drawn(5, 1.0)[0], [0, 0, 0, 0])


def test_chance_ece_covers_calibrated_scores_and_not_overconfident_ones():
    within = [
        metrics.ece(scores.confidence, scores.choice == answers) <= chance_ece(scores).high
        for scores, answers, _ in (drawn(200, 1.0, seed) for seed in range(20))
    ]
    assert sum(within) >= 17
    sharp, answers, _ = drawn(200, 4.0)
    assert metrics.ece(sharp.confidence, sharp.choice == answers) > 2 * chance_ece(sharp).high


def test_figures_can_be_written_as_json():
    found = figures(scores_of([[0.9, 0.1], [0.8, 0.2]]), [0, 0])
    again = json.loads(json.dumps({name: asdict(figure) for name, figure in found.items()}, allow_nan=False))
    assert again["auroc"] == {"value": None, "low": None, "high": None, "reason": found["auroc"].reason}


def test_large_sets_draw_fewer_resamples():
    drawn = [summary._resampled(metrics.auroc, rows) for rows in (2, 2000, 5000, 10**6)]
    assert drawn == [(metrics.auroc, samples) for samples in (1000, 1000, 400, 200)]


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_the_smooth_error_is_that_of_the_metrics_and_its_interval_that_of_the_full_grid(sharpness):
    scores, answers, _ = drawn(150, sharpness)
    stated = scores.confidence, scores.choice == answers
    found = figures(scores, answers, seed=2)["smooth_ece"]
    assert found.value == metrics.smooth_ece(*stated)
    wanted = metrics.bootstrap_ci(metrics.smooth_ece, *stated, n_resamples=summary.FEWEST, seed=2)
    assert (found.low, found.high) == pytest.approx(wanted, abs=1e-4)
