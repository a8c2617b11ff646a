"""The same numbers from netcal, torchmetrics and scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from calibwrap import metrics
from calibwrap.scores import log_softmax


@pytest.fixture(scope="module")
def logprobs():
    return log_softmax(np.random.default_rng(11).normal(size=(3000, 4)) * 2)


@pytest.fixture(scope="module")
def answers(logprobs):
    rng = np.random.default_rng(12)
    planted = np.exp(log_softmax(logprobs / 2))  # the model is over-confident by a temperature of 2
    return np.array([rng.choice(4, p=row) for row in planted])


@pytest.fixture(scope="module")
def confidence(logprobs):
    return np.exp(logprobs).max(axis=1)


@pytest.fixture(scope="module")
def correct(logprobs, answers):
    return logprobs.argmax(axis=1) == answers


@pytest.fixture(scope="module")
def netcal_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it pulls in packages that warn about their own future
        import netcal.metrics
    return netcal.metrics


@pytest.fixture(scope="module")
def torch_error():
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it pulls in packages that warn about their own future
        from torchmetrics.functional.classification import binary_calibration_error

    def error(confidence, correct, n_bins, norm):
        target = torch.tensor(correct.astype(np.int64))
        return float(binary_calibration_error(torch.tensor(confidence), target, n_bins=n_bins, norm=norm))

    return error


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # netcal calls numpy by names that are going away
@pytest.mark.parametrize("n_bins", [1, 10, 15, 37])
def test_netcal(netcal_metrics, n_bins, logprobs, answers, confidence, correct):
    table = np.exp(logprobs)
    ours = [metrics.ece(confidence, correct, n_bins, norm=norm) for norm in ("l1", "max")]
    theirs = [getattr(netcal_metrics, name)(n_bins).measure(table, answers) for name in ("ECE", "MCE")]
    assert ours == pytest.approx([float(value) for value in theirs], abs=1e-12)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("n_bins", [1, 11, 15])
def test_torchmetrics(torch_error, n_bins, norm, confidence, correct):
    assert confidence.max() < 1  # it puts 1.0 in a hidden extra bin
    ours = metrics.ece(confidence, correct, n_bins, norm=norm)
    assert ours == pytest.approx(torch_error(confidence, correct, n_bins, norm), abs=1e-6)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_sklearn_calibration_curve(strategy, confidence, correct):
    # 7 does not divide 2999: no quantile falls on a row, where sklearn's bins (lo, hi] would differ from ours.
    accuracy, mean = calibration_curve(correct, confidence, n_bins=7, strategy=strategy)
    curve = metrics.reliability_curve(confidence, correct, n_bins=7, strategy=strategy)
    filled = curve.count > 0
    assert curve.accuracy[filled] == pytest.approx(accuracy, abs=1e-12)
    assert curve.confidence[filled] == pytest.approx(mean, abs=1e-12)


def test_sklearn_auroc(confidence, correct):
    assert metrics.auroc(confidence, correct) == pytest.approx(roc_auc_score(correct, confidence), abs=1e-12)
    coarse = confidence.round(1)
    assert metrics.auroc(coarse, correct) == pytest.approx(roc_auc_score(correct, coarse), abs=1e-12)


def test_sklearn_brier_and_log_loss(logprobs, answers, confidence, correct):
    table = np.exp(logprobs)
    theirs = brier_score_loss(answers, table, labels=[0, 1, 2, 3], scale_by_half=False)
    assert metrics.brier(table, answers) == pytest.approx(theirs, abs=1e-12)
    assert metrics.top_label_brier(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence))
    assert metrics.nll(logprobs, answers) == pytest.approx(log_loss(answers, table, labels=[0, 1, 2, 3]), abs=1e-12)
