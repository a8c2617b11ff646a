"""Every malformed input gets a named error that says what was expected and what came."""

import subprocess
import sys

import numpy as np
import pytest

from calibwrap import metrics
from calibwrap.errors import InputError

PAIRED = [
    metrics.ece,
    metrics.reliability_curve,
    metrics.top_label_brier,
    metrics.auroc,
    metrics.aurc,
    metrics.risk_coverage_curve,
    metrics.smooth_ece,
]
BAD_PAIRS = {
    "NaN": ([0.5, np.nan], [1, 0], r"'confidence' must lie in \[0, 1\].*nan at \[1\]"),
    "above 1": ([0.5, 1.001], [1, 0], r"Got 1.001 at \[1\]"),
    "below 0": ([-0.2, 0.5], [1, 0], r"Got -0.2 at \[0\]"),
    "lengths": ([0.5, 0.5, 0.5], [1, 0], "Got 3 and 2"),
    "empty": ([], [], "at least one row"),
    "two-dimensional": ([[0.5, 0.5]], [1, 0], r"shape \(N,\). Got shape \(1, 2\)"),
    "scalar": (0.5, 1, r"Got shape \(\)"),
    "text": (["a", "b"], [1, 0], "dtype"),
    "missing label": ([0.5, 0.5], [1, None], "dtype object"),
    "ragged": ([[0.5], [0.5, 0.5]], [1, 0], "'confidence' must be an array"),
    "label beyond 1": ([0.5, 0.5], [0, 2], r"'correct' must lie in \[0, 1\].*Got 2"),
    "NaN label": ([0.5, 0.5], [0, np.nan], "'correct'"),
}


@pytest.mark.parametrize("metric", PAIRED, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("case", BAD_PAIRS)
def test_confidence_and_correctness(metric, case):
    confidence, correct, words = BAD_PAIRS[case]
    with pytest.raises(InputError, match=words):
        metric(confidence, correct)


TABLES = [metrics.brier, metrics.classwise_ece, lambda table, answers: metrics.nll(np.log(table), answers)]


@pytest.mark.parametrize("metric", TABLES, ids=["brier", "classwise_ece", "nll"])
@pytest.mark.parametrize(
    ("table", "answers", "words"),
    [
        ([[0.5, 0.5]], [2], "from 0 to 1. Got 2 in row 0"),
        ([[0.5, 0.5]], [-1], "without a known answer"),
        ([[0.5, 0.5]], [0, 1], "each of the 1 rows. Got 2"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.4]], [0], r"must sum to 1 within 0.001. Row 0 sums to 0.9;"),
        ([0.5, 0.5], [0], r"\(N, K\)"),
        ([[0.5, np.nan]], [0], "nan"),
    ],
)
def test_tables_and_answers(metric, table, answers, words):
    with pytest.raises(InputError, match=words):
        metric(table, answers)


def test_logits_in_the_place_of_logprobs_are_refused():
    with pytest.raises(InputError, match="normalise logits"):
        metrics.nll([[2.0, 1.0], [900.0, 0.0]], [0, 0])
    with pytest.raises(InputError, match="logits or log-probabilities"):
        metrics.brier([[2.0, -1.0]], [0])


def test_rounding_is_clipped_and_more_is_not():
    assert metrics.ece([1 + 1e-10], [1]) == 0.0
    assert metrics.top_label_brier([-1e-10], [0]) == 0.0
    with pytest.raises(InputError, match="must lie in"):
        metrics.ece([1 + 1e-8], [1])


def test_inputs_are_left_alone_even_when_read_only():
    confidence, correct = np.array([0.2, 1 + 1e-12]), np.array([True, False])
    confidence.flags.writeable = correct.flags.writeable = False
    for metric in PAIRED:
        metric(confidence, correct)
    assert confidence.tolist() == [0.2, 1 + 1e-12]


def test_the_public_names_are_those_of_the_package():
    public = {name for name, value in vars(metrics).items() if not name.startswith("_") and callable(value)}
    assert sorted(public) == metrics.__all__


def test_importing_metrics_imports_nothing_heavy_but_numpy():
    code = "import sys, calibwrap.metrics; print({'scipy', 'torch', 'sklearn', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
