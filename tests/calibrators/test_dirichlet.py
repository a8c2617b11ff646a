"""Dirichlet calibration: a slow search as oracle, what the penalties do, and the choice among them."""

import numpy as np
import pytest
from scipy.optimize import minimize

import calibwrap as cw
from calibwrap.calibrators import _affine
from calibwrap.calibrators._affine import Penalty, fit_penalised
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.scores import log_softmax

FEW = pytest.mark.filterwarnings("ignore:Method .* needs:calibwrap.errors.CalibrationWarning")
"""Of tests that ask what so few rows give that the fit warns."""


def made(n, k=3, seed=0):
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(0.0, 1.2, (n, k)))
    mixed = log_softmax(2.0 * truth + 0.4 * truth[:, ::-1] + random.normal(0.0, 0.4, k))
    return mixed, (truth + random.gumbel(size=truth.shape)).argmax(axis=1)


def penalised_loss(numbers, logprobs, answers, off_diagonal, intercept):
    """The paper's formula, written out, and the ridge that settles what is open."""
    k = logprobs.shape[1]
    weights, biases = numbers[:-k].reshape(k, k), numbers[-k:]
    mapped = log_softmax(logprobs @ weights.T + biases)
    loss = -mapped[np.arange(len(answers)), answers].mean()
    outside = weights[~np.eye(k, dtype=bool)]
    ridge = 0.5e-6 * (((weights - np.eye(k)) ** 2).sum() + biases @ biases)
    return loss + off_diagonal * (outside**2).mean() + intercept * (biases**2).mean() + ridge


@pytest.mark.parametrize("seed", range(50))
def test_equals_a_slow_search(seed):
    logprobs, answers = made(80, seed=seed)
    strengths = 10.0 ** np.random.default_rng(seed).uniform(-3, 1, 2)
    fitted = cw.fit_dirichlet(logprobs, answers, off_diagonal=strengths[0], intercept=strengths[1])
    start = np.concatenate([np.eye(3).ravel(), np.zeros(3)])
    given = (logprobs, answers, *strengths)
    oracle = minimize(penalised_loss, start, given, method="BFGS", options={"gtol": 1e-7})
    mine = penalised_loss(np.concatenate([fitted.weights.ravel(), fitted.biases]), *given)
    assert mine <= oracle.fun + 1e-9
    np.testing.assert_allclose(fitted.biases, oracle.x[-3:], atol=2e-3)
    assert fitted.report.converged


@pytest.mark.parametrize("full", [True, False])
def test_newton_equals_the_quasi_newton_search(full, monkeypatch):
    logprobs, answers = made(300, k=4, seed=2)
    if not full:
        logprobs[::3, 3] = -np.inf
        answers = np.where(answers == 3, 0, answers)
    targets = np.eye(4)[answers]
    exact = fit_penalised(logprobs, targets, full=full, penalty=Penalty(1e-4, 0.01, 0.01))
    monkeypatch.setattr(_affine, "MOST_FULL", 0)
    monkeypatch.setattr(_affine, "MOST_DIAGONAL", 0)
    slow = fit_penalised(logprobs, targets, full=full, penalty=Penalty(1e-4, 0.01, 0.01))
    np.testing.assert_allclose(exact.weights, slow.weights, atol=1e-3)
    assert exact.after == pytest.approx(slow.after, abs=1e-7)
    assert exact.converged
    assert slow.converged


@pytest.mark.parametrize("strength", [0.0, 1.0, 1e4])
def test_a_search_over_many_options_is_short_whatever_the_penalty(strength, monkeypatch):
    looks = []

    def counted(*rows):
        inner = exact(*rows)
        return lambda at: looks.append(at) or inner(at)

    exact = _affine._cross_entropy
    monkeypatch.setattr(_affine, "_cross_entropy", counted)
    logprobs, answers = made(6000, k=16)
    found = fit_penalised(logprobs, np.eye(16)[answers], full=True, penalty=Penalty(1e-6, strength, strength))
    assert found.converged
    assert len(looks) < 400


def test_where_a_temperature_is_the_truth_so_strong_a_penalty_is_chosen_that_nothing_is_lost():
    random = np.random.default_rng(3)
    truth = log_softmax(1.5 * random.normal(size=(11_000, 10)))
    rows, answers = log_softmax(2.5 * truth), (truth + random.gumbel(size=truth.shape)).argmax(axis=1)

    def held_out(fitted):
        return -fitted(rows[1000:])[np.arange(10_000), answers[1000:]].mean()

    best = held_out(cw.fit_temperature(rows[:1000], answers[:1000]))
    assert held_out(cw.fit_dirichlet(rows[:1000], answers[:1000])) < best + 0.01
    assert held_out(cw.fit_dirichlet(rows[:1000], answers[:1000], off_diagonal=10.0, intercept=10.0)) > best + 0.03


def test_strong_penalties_leave_the_diagonal():
    logprobs, answers = made(400)
    fitted = cw.fit_dirichlet(logprobs, answers, off_diagonal=1e6, intercept=1e6)
    assert np.abs(fitted.weights[~np.eye(3, dtype=bool)]).max() < 1e-4
    assert np.abs(fitted.biases).max() < 1e-4
    vector = cw.fit_vector_scaling(logprobs, answers, intercept=1e6)
    np.testing.assert_allclose(np.diag(fitted.weights), vector.weights, atol=1e-3)
    assert np.abs(vector.biases).max() < 1e-4


def test_matrix_scaling_takes_the_same_penalties():
    logprobs, answers = made(400)
    one = cw.fit_dirichlet(logprobs, answers, off_diagonal=0.1, intercept=0.2)
    assert one == cw.fit_matrix_scaling(logprobs, answers, off_diagonal=0.1, intercept=0.2)
    with pytest.raises(InputError, match="'off_diagonal' must be a finite number of at least 0"):
        cw.fit_dirichlet(logprobs, answers, off_diagonal=-1.0)
    with pytest.raises(InputError, match="'intercept'"):
        cw.fit_vector_scaling(logprobs, answers, intercept=np.inf)


@FEW
def test_few_rows_choose_a_strong_penalty_and_many_a_weak_one():
    test_rows, test_answers = made(20_000, k=4, seed=9)

    def loss(fitted):
        return -fitted(test_rows)[np.arange(len(test_answers)), test_answers].mean()

    few_rows, few_answers = test_rows[:60], test_answers[:60]
    few = cw.fit_dirichlet(few_rows, few_answers)
    assert loss(few) < loss(cw.fit_matrix_scaling(few_rows, few_answers))
    many = cw.fit_dirichlet(test_rows[:8000], test_answers[:8000])
    assert loss(many) < loss(few)
    assert loss(many) == pytest.approx(loss(cw.fit_matrix_scaling(test_rows[:8000], test_answers[:8000])), abs=2e-3)


def test_the_choice_does_not_depend_on_the_order_of_rows():
    logprobs, answers = made(97)
    order = np.random.default_rng(0).permutation(97)
    one, two = cw.fit_dirichlet(logprobs, answers), cw.fit_dirichlet(logprobs[order], answers[order])
    assert one.report.notes == two.report.notes
    np.testing.assert_allclose(one.weights, two.weights, atol=1e-6)


def test_one_strength_may_be_given():
    logprobs, answers = made(97)
    note = cw.fit_dirichlet(logprobs, answers, intercept=3.0).report.notes[0]
    assert note.endswith("for off_diagonal.")


@FEW
def test_too_few_rows_to_choose_are_named():
    logprobs, answers = made(4)
    with pytest.raises(FitError, match=r"at least 5 rows\. Got 4"):
        cw.fit_dirichlet(logprobs, answers)
    assert cw.fit_dirichlet(logprobs, answers, off_diagonal=1.0, intercept=1.0).kind == "matrix-scaling"


def test_too_few_rows_for_its_numbers_are_said():
    logprobs, answers = made(60)
    with pytest.warns(CalibrationWarning, match="Method 'dirichlet' needs 60 rows for 3 options, and 59 came"):
        assert "59 came" in cw.fit_dirichlet(logprobs[:59], answers[:59]).report.notes[-1]
    assert "came" not in " ".join(cw.fit_dirichlet(logprobs, answers).report.notes)
