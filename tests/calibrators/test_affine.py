"""Vector and matrix scaling: by hand, against scikit-learn's logistic regression, and their refusals."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from calibwrap.calibrators import MatrixScaling, VectorScaling, fit_daca, fit_matrix_scaling, fit_vector_scaling
from calibwrap.calibrators._affine import _cross_entropy
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError
from calibwrap.scores import OptionScores

FITS = {"vector": fit_vector_scaling, "matrix": fit_matrix_scaling}


def biased(seed, n=3000, k=3):
    """Logits that are wrong by a factor and a liking for the first place, and answers drawn from the right ones."""
    rng = np.random.default_rng(seed)
    right = 1.5 * rng.normal(size=(n, k))
    answers = (right + rng.gumbel(size=(n, k))).argmax(1)
    return 2.0 * right + np.array([2.0, *[0.0] * (k - 1)]), answers


def mean_nll(calibrated, answers):
    return -calibrated[np.arange(len(answers)), answers].mean()


def test_by_hand():
    vector = VectorScaling([2.0, 1.0], [0.0, np.log(4.0)])
    assert np.exp(vector(np.log([[0.5, 0.5]]))) == pytest.approx(np.array([[0.25, 2.0]]) / 2.25)
    matrix = MatrixScaling([[1.0, 1.0], [0.0, 1.0]], [0.0, np.log(3.0)])
    assert np.exp(matrix(np.log([[0.5, 0.5]]))) == pytest.approx(np.array([[0.25, 1.5]]) / 1.75)


@pytest.mark.parametrize("full", [False, True])
def test_the_gradient_is_that_of_the_value(full):
    rng = np.random.default_rng(0)
    logprobs = log_softmax(rng.normal(size=(20, 3)), axis=1)
    mask = np.ones((20, 3), dtype=bool)
    if not full:
        mask[:5, 2] = False
    targets = rng.random((20, 3)) * mask
    at = _cross_entropy(logprobs * mask, mask, targets / targets.sum(1, keepdims=True), full)
    for _ in range(5):
        point = rng.normal(size=12 if full else 6)
        assert check_grad(lambda x: at(x)[0], lambda x: at(x)[1], point) < 1e-6


@pytest.mark.parametrize("name", FITS)
def test_a_fit_improves_its_rows_and_finds_what_was_planted(name):
    logits, answers = biased(0)
    fitted = FITS[name](logits, answers)
    report = fitted.report
    assert report.converged
    assert report.method == name
    assert report.objective_before == pytest.approx(mean_nll(log_softmax(logits, axis=1), answers))
    assert report.objective_after == pytest.approx(mean_nll(fitted(logits), answers))
    assert report.objective_after < report.objective_before - 0.05
    if name == "vector":
        assert fitted.weights == pytest.approx(np.full(3, 0.5), abs=0.06)
        assert fitted.biases - fitted.biases[0] == pytest.approx(np.array([0.0, 1.0, 1.0]), abs=0.12)
        assert fitted.biases.sum() == pytest.approx(0.0, abs=1e-6)  # what the ridge settles


def test_matrix_scaling_is_logistic_regression_on_log_probabilities():
    logits, answers = biased(1)
    logprobs = log_softmax(logits, axis=1)
    oracle = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit(logprobs, answers)
    assert np.exp(fit_matrix_scaling(logits, answers)(logits)) == pytest.approx(
        oracle.predict_proba(logprobs), abs=1e-3
    )


FEW = pytest.mark.filterwarnings("ignore:Method .* needs:calibwrap.errors.CalibrationWarning")
"""Of tests that ask what so few rows give that the fit warns."""


@FEW
@pytest.mark.parametrize("name", FITS)
def test_separable_and_constant_rows_stay_finite(name):
    separable = FITS[name]([[5.0, 0.0], [0.0, 5.0]] * 5, [0, 1] * 5)
    assert np.isfinite(separable.weights).all()
    assert separable.report.objective_after <= separable.report.objective_before
    one_class = FITS[name](np.zeros((6, 3)), [1] * 6)
    assert one_class(np.zeros((1, 3))).argmax() == 1
    extreme = FITS[name]([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]], [0, 1, 1])
    assert np.isfinite(extreme.biases).all()
    assert extreme.report.objective_after <= extreme.report.objective_before


@pytest.mark.parametrize(("name", "needed"), [("vector", 80), ("matrix", 200)])
def test_too_few_rows_are_said_outside_the_race_too(name, needed):
    """8 rows for 8 or 20 numbers: the note and the warning name what the race asks for."""
    logits, answers = np.random.default_rng(0).normal(size=(needed, 4)), np.arange(needed) % 4
    told = f"Method '{name}' needs {needed} rows for 4 options, and 8 came."
    with pytest.warns(CalibrationWarning, match=re.escape(told)):
        few = FITS[name](logits[:8], answers[:8])
    assert told in few.report.notes
    assert not FITS[name](logits, answers).report.notes


@pytest.mark.parametrize("name", FITS)
def test_answers_that_are_all_alike_are_said(name):
    logits = np.random.default_rng(0).normal(size=(300, 4))
    with pytest.warns(CalibrationWarning, match="All answers are option 2") as found:
        assert FITS[name](logits, [2] * 300)(logits).argmax(axis=1).tolist() == [2] * 300
    assert found[0].filename == __file__  # the line that asked for the fit


@pytest.mark.parametrize("name", FITS)
def test_a_large_ridge_gives_the_identity(name):
    logits, answers = biased(2, n=200)
    fitted = FITS[name](logits, answers, ridge=1e9)
    assert fitted(logits) == pytest.approx(log_softmax(logits, axis=1), abs=1e-5)
    with pytest.raises(InputError, match="'ridge'"):
        FITS[name](logits, answers, ridge=-1.0)


def test_vector_scaling_takes_shorter_rows_by_their_places():
    rng = np.random.default_rng(3)
    logits, answers = biased(3, n=400)
    logits[::2, 2] = -np.inf
    answers = np.where(answers == 2, rng.integers(0, 2, 400), answers)
    fitted = fit_vector_scaling(logits, answers)
    assert fitted(logits[:1, :2]) == pytest.approx(fitted(logits[:1])[:, :2])  # padding is no information
    assert fitted(logits)[0, 2] == -np.inf
    assert VectorScaling([0.0, -1.0], [0.0, 0.0])([[0.0, -np.inf]])[0, 1] == -np.inf
    with pytest.raises(InputError, match="fitted on 3 options and 4 came"):
        fitted(np.zeros((1, 4)))


def test_matrix_scaling_refuses_rows_of_other_lengths():
    fitted = fit_matrix_scaling(*biased(4, n=200))
    for row in ([[0.0, 0.0]], [[0.0, 0.0, -np.inf]], np.zeros((1, 4))):
        with pytest.raises(InputError, match="exactly 3 options"):
            fitted(row)
    with pytest.raises(InputError, match="Row 1 has 1 of 2"):
        fit_matrix_scaling([[0.0, 0.0], [0.0, -np.inf]], [0, 0])
    with pytest.raises(InputError, match="Row 0 has 1 of 2"):
        fit_daca([[0.0, -np.inf]] * 30, [[0.0, -np.inf]] * 30, "matrix")


@pytest.mark.parametrize("name", FITS)
def test_wrong_labels_are_named_as_for_temperature(name):
    with pytest.raises(InputError, match="from 0 to 1"):
        FITS[name]([[0.0, 1.0]], [2])
    with pytest.raises(InputError, match="row 0, column 0"):
        FITS[name]([[np.nan, 1.0]], [0])
    with pytest.raises(CapabilityError, match="use a temperature"):
        FITS[name](OptionScores([[0.0, 0.0]], "label", missing=[[True, True]]), [0])


@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_what_could_not_be_used_on_cut_off_lists_is_not_fitted_on_them(kind):
    cut = OptionScores.from_rows([[-0.1, -3.0]] * 30, "label")
    cut = replace(cut, lower=np.exp(cut.logprobs) * 0.9, missing=np.array([[False, True]] * 30))
    exact = [[0.0, -1.0]] * 30
    assert fit_daca(cut, exact).value > 0.0
    with pytest.raises(CapabilityError, match=f"'{kind}' .* 30 of 30 rows were cut off"):
        fit_daca(cut, exact, kind)
    assert fit_daca(exact, cut, kind).report.rows_used == 30  # nobody calibrates the reference


def test_parameters_are_checked_locked_and_compared():
    vector = VectorScaling([1.0, 2.0], [0.0, 0.0])
    assert vector == VectorScaling(np.array([1.0, 2.0]), [0, 0])
    assert hash(vector) == hash(VectorScaling([1.0, 2.0], [0.0, 0.0]))
    assert vector != VectorScaling([1.0, 2.0], [0.0, 1.0])
    assert MatrixScaling(np.eye(2), [0, 0]) == MatrixScaling(np.eye(2), [0, 0])
    assert hash(MatrixScaling(np.eye(2), [0, 0])) == hash(MatrixScaling(np.eye(2), [0, 0]))
    assert MatrixScaling(np.eye(2), [0, 0]) != vector
    assert vector != MatrixScaling(np.eye(2), [0, 0])
    with pytest.raises(ValueError, match="read-only"):
        vector.weights[0] = 3.0
    for kind, arguments in (
        (VectorScaling, ([1.0], [0.0, 0.0])),
        (VectorScaling, ([], [])),
        (VectorScaling, ([np.nan], [0.0])),
        (VectorScaling, (["a"], [0.0])),
        (MatrixScaling, ([[1.0, 2.0]], [0.0])),
        (MatrixScaling, (np.eye(2), np.zeros((2, 2)))),
    ):
        with pytest.raises(InputError, match="Scaling must"):
            kind(*arguments)
