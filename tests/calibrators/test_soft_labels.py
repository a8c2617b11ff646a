"""Matching the mean of a reference's probability of the given answer: by hand, by bisection, and by law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.calibrators.soft_labels import soft_labels
from calibwrap.errors import CalibrationWarning, FitError, InputError
from calibwrap.scores import OptionScores, log_softmax


def problem(seed, n=200, k=4, sharpness=3.0):
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(size=(n, k)))
    return sharpness * truth + 0.3 * random.normal(size=(n, k)), truth


def by_bisection(post, pre):
    """The slow way: halve the interval of log T until it is a point; probabilities by scipy."""
    from scipy.special import softmax

    choice = np.argmax(post, axis=1)
    target = softmax(pre, axis=1)[np.arange(len(pre)), choice].mean()
    low, high = np.log(0.01), np.log(100.0)
    for _ in range(200):
        middle = (low + high) / 2
        if softmax(post / np.exp(middle), axis=1).max(axis=1).mean() > target:
            low = middle
        else:
            high = middle
    return np.exp(low)


@pytest.mark.parametrize("seed", range(50))
def test_equals_bisection(seed):
    post, pre = problem(seed, n=20 + 7 * seed, k=2 + seed % 5, sharpness=0.5 + seed / 10)
    assert cw.fit_matched_mean(post, pre, n_bootstrap=0).value == pytest.approx(by_bisection(post, pre), rel=1e-9)


def test_by_hand():
    """Two options, every row with a gap of log 9: 0.9 sure. The reference says 3 : 1, so T = log 9 / log 3 = 2."""
    post, pre = np.log([[0.9, 0.1], [0.1, 0.9]]), np.log([[0.75, 0.25], [0.25, 0.75]])
    assert cw.fit_matched_mean(post, pre).value == pytest.approx(2.0)


@given(st.integers(0, 10_000))
def test_the_mean_confidence_is_the_references_mean_and_constants_do_not_matter(seed):
    post, pre = problem(seed, n=50)
    fitted = cw.fit_matched_mean(post, pre, n_bootstrap=0)
    rows = soft_labels(post, pre, "any")
    assert np.exp(fitted(post)).max(axis=1).mean() == pytest.approx(rows.correct.mean(), abs=1e-9)
    moved = cw.fit_matched_mean(post + np.arange(50.0)[:, None], pre - 7.0, n_bootstrap=0)
    assert moved.value == pytest.approx(fitted.value, rel=1e-9)


def test_soft_labels_are_the_references_probability_of_the_models_choice():
    rows = soft_labels(np.log([[0.9, 0.1], [0.2, 0.8]]), np.log([[0.7, 0.3], [0.6, 0.4]]), "any")
    assert rows.correct == pytest.approx([0.7, 0.4])
    assert rows.confidence == pytest.approx([0.9, 0.8])
    assert rows.report.agreement_rate == 0.5


def test_rows_where_both_disagree_count():
    """DACA would not look at the second row; here it says that the model is right in 0.2 of such cases."""
    post, pre = np.log([[0.9, 0.1], [0.9, 0.1]]), np.log([[0.9, 0.1], [0.2, 0.8]])
    fitted = cw.fit_matched_mean(post, pre)
    assert np.exp(fitted(post)).max() == pytest.approx(0.55)
    assert fitted.report.rows_used == 2


def test_a_reference_out_of_reach_is_told():
    post = np.log([[0.9, 0.1]] * 30)
    with pytest.warns(CalibrationWarning, match="no more confidence than guessing"):
        fitted = cw.fit_matched_mean(post, np.log([[0.3, 0.7]] * 30))
    assert (fitted.value, fitted.report.at_bound) == (100.0, "upper")
    with pytest.warns(CalibrationWarning, match="more confidence than T = 0.5"):
        fitted = cw.fit_matched_mean(post, np.log([[0.999, 0.001]] * 30), bounds=(0.5, 2.0))
    assert (fitted.value, fitted.report.at_bound) == (0.5, "lower")


def test_constant_rows_keep_one():
    fitted = cw.fit_matched_mean(np.zeros((3, 4)), np.log([[0.7, 0.1, 0.1, 0.1]] * 3))
    assert fitted.value == 1.0
    assert "does not depend" in fitted.report.notes[-1]
    assert fitted.report.interval is None


def test_the_interval_covers_the_truth_and_shrinks():
    widths = []
    for n in (100, 10_000):
        post, pre = problem(3, n=n)
        fitted = cw.fit_matched_mean(post, pre)
        low, high = fitted.report.interval
        assert low < fitted.value < high
        widths.append(np.log(high / low))
    assert 0.05 < widths[1] / widths[0] < 0.2  # a tenth for a hundred times the rows
    assert fitted == cw.fit_matched_mean(post, pre, seed=1)
    assert fitted.report.interval == cw.fit_matched_mean(post, pre).report.interval


def test_the_interval_is_that_of_refitted_resamples():
    post, pre = problem(5, n=150)
    low, high = cw.fit_matched_mean(post, pre, n_bootstrap=1000).report.interval
    random = np.random.default_rng(1)
    draws = [random.integers(0, 150, 150) for _ in range(300)]
    slow = np.percentile([cw.fit_matched_mean(post[d], pre[d], n_bootstrap=0).value for d in draws], [2.5, 97.5])
    assert [low, high] == pytest.approx(slow, rel=0.1)


def test_truncated_rows_count_where_the_choice_is_certain():
    sure = OptionScores.from_lists([[0.6, 0.1]], [[0, 1]], tail=[0.3], cut=[0.05], readout="label")
    open_ = OptionScores.from_lists([[0.2, 0.1]], [[1, 1]], tail=[0.7], cut=[0.2], readout="label")
    both = cw.scores.join([sure, open_])
    fitted = cw.fit_matched_mean(both, np.log([[0.7, 0.3]] * 2))
    assert fitted.report.rows_used == 1
    assert any("left out" in note for note in fitted.report.notes)
    assert fitted(both).is_cut.all()
    with pytest.raises(FitError, match="None of the 1 rows"):
        cw.fit_matched_mean(open_, np.log([[0.7, 0.3]]))


def test_bad_input_is_named():
    with pytest.raises(InputError, match="same questions and options"):
        cw.fit_matched_mean(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(InputError, match="bounds"):
        cw.fit_matched_mean(np.zeros((2, 3)), np.zeros((2, 3)), bounds=(2.0, 1.0))


def test_by_name_through_a_wrapped_model():
    from calibwrap.testing import ToyAdapter, ToyModel, toy_questions

    model = ToyModel.random(3)
    questions = toy_questions(400, model=model)
    base = cw.wrap(ToyAdapter(model))
    lm = cw.wrap(ToyAdapter(model.sharpened(3.0))).fit(questions, "matched-mean", reference=base, readout="label")
    assert lm.calibrator.report.method == "matched-mean"
    assert lm.calibrator.keeps_argmax
    assert lm.calibrator.report.reference.model == "toy-bigram"
    assert cw.metrics.ece(*held(lm, questions)) < 0.08


def held(lm, questions):
    scores = lm.calibrator(lm.scores(questions))
    return scores.confidence, scores.choice == np.array([question.answer for question in questions])


@pytest.mark.parametrize("setting", [{"n_bootstrap": -1}, {"n_bootstrap": 2.5}, {"seed": -1}, {"seed": True}])
def test_settings_of_the_resamples_are_checked_as_in_daca(setting):
    rows = np.log([[0.7, 0.3], [0.6, 0.4]])
    for fit in (cw.fit_matched_mean, cw.fit_daca):
        with pytest.raises(InputError, match=f"'{next(iter(setting))}' must be a whole number of at least 0"):
            fit(rows, rows, **setting)


def test_the_report_says_what_the_reference_thinks_of_model_and_itself():
    pre = np.log([[0.8, 0.2], [0.4, 0.6]])  # the model's choice, the first, is right in .6; its own in .7
    note = cw.fit_without_labels([[2.0, 0.0], [3.0, 0.0]], pre).report.notes[0]
    assert "the model is right in 60% of the questions, itself in 70%" in note
    assert "its confidence comes out too low" in note
