"""The promises on real scores: 1 000 resamplings of SmolLM2's answers to 400 questions of ARC-Easy."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import calibwrap as cw
from calibwrap.errors import CalibrationWarning
from calibwrap.guarantees import fit_guard, fit_sets

STORED = json.loads((Path(__file__).parent / "smollm2_arc_easy.json").read_text(encoding="utf-8"))
ANSWERS = np.array(STORED["answers"])
with np.errstate(divide="ignore"):
    SCORES = cw.OptionScores.from_rows([np.log(row).tolist() for row in STORED["probabilities"]], "continuation")
CALIBRATED = cw.fit_temperature(SCORES.take(range(100)), ANSWERS[:100])(SCORES)


@pytest.mark.parametrize("method", ["lac", "raps"])
def test_coverage_is_inside_the_band(method: str) -> None:
    """Random orders of real questions are exchangeable, so one new question for each fit makes 1 000 fair coins."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        order = random.permutation(np.arange(100, 400))
        rule = fit_sets(CALIBRATED.take(order[:200]), ANSWERS[order[:200]], coverage=0.8, method=method)
        covered += bool(rule(CALIBRATED.take(order[200:201]))[0, ANSWERS[order[200]]])
    assert covered >= binom.ppf(0.001, 1000, 0.8)
    if method == "lac":
        assert covered <= binom.ppf(0.999, 1000, 0.8 + 1 / 201)


def test_the_risk_is_inside_the_band() -> None:
    """Rows drawn with replacement from 300 questions, whose risk above every threshold is known."""
    confidence, correct = CALIBRATED.confidence[100:], CALIBRATED.choice[100:] == ANSWERS[100:]
    broken = answering = 0
    for seed in range(1000):
        drawn = np.random.default_rng(seed).integers(300, size=600)
        with np.testing.suppress_warnings() as quiet:
            quiet.filter(CalibrationWarning)
            guard = fit_guard(confidence[drawn], correct[drawn], risk=0.4, delta=0.1, seed=seed)
        if guard.threshold is not None:
            answering += 1
            broken += correct[confidence >= guard.threshold].mean() < 0.6
    assert broken <= binom.ppf(0.999, 1000, 0.1)
    assert answering > 100
