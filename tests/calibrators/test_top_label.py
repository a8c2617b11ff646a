"""Top-label and class-wise maps: scikit-learn as oracle, hand-worked rows, bounds, and what becomes of the argmax."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

import calibwrap as cw
from calibwrap.calibrators._confidence_fits import CONFIDENCE_MAPS, fit_part
from calibwrap.errors import CalibrationWarning, CapabilityError, FitError, InputError
from calibwrap.scores import OptionScores, log_softmax


def made(n=600, k=4, seed=0, sharpness=2.5):
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(0.0, 1.2, (n, k)))
    return log_softmax(sharpness * truth), (truth + random.gumbel(size=truth.shape)).argmax(axis=1)


@pytest.mark.parametrize("method", CONFIDENCE_MAPS)
def test_the_first_choice_has_what_the_map_says_and_the_rest_keep_their_proportions(method):
    logprobs, answers = made()
    fitted = cw.fit_top_label(logprobs, answers, method=method, keeps_choice=False)
    before, after = np.exp(logprobs), np.exp(fitted(logprobs))
    top = before.argmax(axis=1)
    correct = (top == answers).astype(float)
    wanted = np.clip(CONFIDENCE_MAPS[method](before.max(axis=1), correct)(before.max(axis=1)), 1e-6, 1 - 1e-6)
    rows = np.arange(len(top))
    np.testing.assert_allclose(after[rows, top], wanted, atol=1e-9)
    before[rows, top] = after[rows, top] = 0.0
    np.testing.assert_allclose(
        after / after.sum(axis=1, keepdims=True), before / before.sum(axis=1, keepdims=True), atol=1e-9
    )
    assert fitted.report.method == f"top-label:{method}"
    assert fitted.part.report is None


def test_isotonic_equals_scikit_learn_on_the_first_choice():
    logprobs, answers = made(seed=3)
    confidence = np.exp(logprobs.max(axis=1))
    correct = logprobs.argmax(axis=1) == answers
    oracle = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct).predict(confidence)
    fitted = cw.fit_top_label(logprobs, answers, method="isotonic", keeps_choice=False)
    got = np.exp(fitted(logprobs))[np.arange(len(answers)), logprobs.argmax(axis=1)]
    np.testing.assert_allclose(got, np.clip(oracle, 1e-6, 1 - 1e-6), atol=1e-7)


def test_the_choice_stays_or_goes_by_the_record():
    """0.5 becomes 0.2; the others share 0.8 in the proportion 3 : 2, or the first keeps as much as the second."""
    part = cw.HistogramBinning([0.0, 1.0], [0.2])
    rows = np.log([[0.5, 0.3, 0.2]])
    goes = cw.TopLabel(part, keeps_choice=False)
    assert np.exp(goes(rows))[0] == pytest.approx([0.2, 0.48, 0.32])
    assert not goes.keeps_argmax
    stays = cw.TopLabel(part)
    assert np.exp(stays(rows))[0] == pytest.approx([0.375, 0.375, 0.25])
    assert stays(rows).argmax() == 0
    assert stays.keeps_argmax
    tied = np.log([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert stays(tied).argmax(axis=1).tolist() == [0, 1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-30.0, 0.0), min_size=1, max_size=6), st.floats(0.0, 1.0), st.booleans())
def test_rows_stay_normalised_and_choices_kept(row, value, keeps):
    part = cw.HistogramBinning([0.0, 1.0], [value])
    mapped = cw.TopLabel(part, keeps)([row])
    assert np.exp(mapped).sum() == pytest.approx(1.0)
    if keeps:
        assert mapped.argmax() == np.argmax(log_softmax([row]))


def test_a_cut_list_has_bounds_where_the_choice_stays():
    lists = OptionScores.from_lists(
        [[0.6, 0.0, 0.1], [0.3, 0.3, 0.0]], [[0, 1, 0], [1, 1, 1]], tail=[0.3, 0.2], cut=[0.05, 0.1], readout="label"
    )
    fitted = cw.TopLabel(cw.Platt(0.5, -0.2))
    mapped = fitted(lists)
    assert mapped.lower[1].tolist() == [0.0, 0.0, 0.0]  # which of the two is first is open
    assert mapped.upper[1].tolist() == [1.0, 1.0, 1.0]
    for hidden in np.linspace(0.0, 0.05, 11):
        exact = np.exp(fitted(np.log([[0.6, hidden or 1e-300, 0.1]])))[0]
        assert (mapped.lower[0] <= exact + 1e-9).all()
        assert (mapped.upper[0] >= exact - 1e-9).all()
    assert mapped.upper[0, 0] - mapped.lower[0, 0] < 0.05
    for refused in (
        cw.TopLabel(cw.Platt(0.5, 0.0), keeps_choice=False),
        cw.TopLabel(cw.HistogramBinning([0.0, 0.5, 0.8, 1.0], [0.5, 0.3, 0.9])),
        cw.ClassWise((cw.Platt(0.5, 0.0),) * 3),
    ):
        with pytest.raises(CapabilityError, match="exact probability"):
            refused(lists)


def test_a_ragged_cut_row_has_the_bounds_of_the_row_alone():
    """The first choice may have 1, so that all shares of what is left are open, but those of options that exist."""
    shown, mask = [[0.6, 0.2, 0.1], [0.6, 0.0, 0.0]], [[True, True, True], [True, True, False]]
    ragged = OptionScores.from_lists(shown, [[0, 0, 0], [0, 1, 0]], [0.1, 0.3], [0.05, 0.05], "label", mask)
    alone = OptionScores.from_lists([[0.6, 0.0]], [[0, 1]], [0.3], [0.05], "label")
    for part in (cw.Platt(0.5, -0.2), cw.Platt(0.5, -3.0)):  # the second is held by the second choice's share
        wide, narrow = cw.TopLabel(part)(ragged), cw.TopLabel(part)(alone)
        assert wide.upper[1, 2] == 0.0
        np.testing.assert_allclose(wide.lower[1, :2], narrow.lower[0])
        np.testing.assert_allclose(wide.upper[1, :2], narrow.upper[0])


def test_truncated_rows_are_fitted_where_their_choice_is_certain():
    lists = OptionScores.from_lists(
        [[0.6, 0.0], [0.3, 0.3], [0.5, 0.2], [0.7, 0.1]],
        [[0, 1], [1, 1], [0, 0], [0, 0]],
        [0.1] * 4,
        [0.1] * 4,
        "label",
    )
    with pytest.warns(CalibrationWarning):
        fitted = cw.fit_top_label(lists, [0, 1, 1, 0])
    assert (fitted.report.rows, fitted.report.rows_used, fitted.report.readout) == (4, 3, "label")
    assert "1 rows were truncated" in fitted.report.notes[0]
    assert "1 rows were left out" in fitted.report.notes[1]
    with pytest.raises(CapabilityError, match="'class-wise:platt' needs"):
        cw.fit_class_wise(lists, [0, 1, 1, 0])
    with pytest.raises(FitError, match="None of the 2 rows"):
        cw.fit_top_label(lists.take([1, 1]), [0, 1])


@pytest.mark.parametrize("method", CONFIDENCE_MAPS)
def test_class_wise_is_one_map_a_label_renormalised(method):
    logprobs, answers = made(k=3)
    fitted = cw.fit_class_wise(logprobs, answers, method=method)
    columns = [
        CONFIDENCE_MAPS[method](column, (answers == label).astype(float))(column)
        for label, column in enumerate(np.exp(logprobs).T)
    ]
    wanted = np.clip(np.stack(columns, axis=1), 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(np.exp(fitted(logprobs)), wanted / wanted.sum(axis=1, keepdims=True), atol=1e-9)
    assert fitted.report.objective_after < fitted.report.objective_before


def test_class_wise_equals_scikit_learn():
    """CalibratedClassifierCV on a fitted classifier: isotonic per class, then divided by the sum."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.naive_bayes import GaussianNB

    random = np.random.default_rng(5)
    features, labels = random.normal(size=(900, 3)), random.integers(0, 3, 900)
    features[np.arange(900), labels] += 1.0
    model = GaussianNB().fit(features[:300], labels[:300])
    oracle = CalibratedClassifierCV(FrozenEstimator(model), method="isotonic").fit(features[300:], labels[300:])
    logprobs = np.log(model.predict_proba(features[300:]))
    got = np.exp(cw.fit_class_wise(logprobs, labels[300:], method="isotonic")(logprobs))
    np.testing.assert_allclose(got, oracle.predict_proba(features[300:]), atol=1e-4)


def test_class_wise_takes_fewer_options_and_refuses_more():
    rows, answers = made(k=3)
    rows[::2, 2] = -np.inf
    answers = np.where(answers == 2, 0, answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # the third label is never right
        fitted = cw.fit_class_wise(rows, answers)
    assert np.isneginf(fitted(rows)[::2, 2]).all()
    assert fitted(np.log([[0.6, 0.4]])).shape == (1, 2)
    assert any(note.startswith("Label 2: ") for note in fitted.report.notes)
    with pytest.raises(InputError, match="fitted on 3 labels and 4"):
        fitted(np.zeros((1, 4)))
    with pytest.raises(FitError, match="Label 0 is an option of none"):
        cw.fit_class_wise([[-np.inf, 0.0]] * 3, [1, 1, 1])


def test_wrong_parts_and_methods_are_named():
    with pytest.raises(InputError, match="'part' of TopLabel"):
        cw.TopLabel(cw.Temperature(2.0))
    with pytest.raises(InputError, match="'keeps_choice'"):
        cw.TopLabel(cw.Platt(1.0, 0.0), keeps_choice="yes")
    for parts in ((), (cw.Temperature(2.0),), cw.Temperature(2.0)):
        with pytest.raises(InputError, match="'parts' of ClassWise"):
            cw.ClassWise(parts)
    with pytest.raises(InputError, match="beta, histogram, isotonic, platt, venn-abers"):
        fit_part("betta", np.array([0.5]), np.array([1.0]))
    with pytest.raises(InputError, match="Row 0 names option 1"):
        cw.fit_top_label([[0.0, -np.inf]], [1])


def test_top_label_calibrates_what_a_temperature_cannot():
    """Confidence that is right at the top and far too high below: a temperature must compromise."""
    random = np.random.default_rng(1)
    confidence = random.choice([0.99, 0.7], 4000)
    right = random.uniform(size=4000) < np.where(confidence > 0.9, 0.99, 0.4)
    logprobs = np.log(np.stack([confidence, (1 - confidence) * 0.6, (1 - confidence) * 0.4], axis=1))
    answers = np.where(right, 0, random.integers(1, 3, 4000))
    errors = {}
    for name, fitted in (("temperature", cw.fit_temperature), ("top-label", cw.fit_top_label)):
        mapped = np.exp(fitted(logprobs, answers)(logprobs))
        errors[name] = cw.metrics.ece(mapped.max(axis=1), mapped.argmax(axis=1) == answers)
    assert errors["top-label"] < 0.03 < errors["temperature"]


@pytest.mark.parametrize("fit", [cw.fit_top_label, cw.fit_class_wise])
@pytest.mark.parametrize("method", ["isotonic", "histogram", "venn-abers"])
def test_equal_probabilities_that_rounding_tells_apart_are_mapped_alike(fit, method):
    rest = np.array([0.3, 0.1, 0.05, 0.35, 0.2, 0.25])
    rows = np.log(np.tile(np.stack([np.full(6, 0.6), rest, 0.4 - rest], axis=1), (100, 1)))
    answers = np.where(np.random.default_rng(0).uniform(size=600) < 0.5, 0, 1)
    assert len(set(np.exp(log_softmax(rows))[:, 0])) > 1  # 0.6 and its neighbours
    more = {"keeps_choice": False} if fit is cw.fit_top_label else {}
    fitted = fit(rows, answers, method=method, **more)
    part = fitted.part if fit is cw.fit_top_label else fitted.parts[0]
    said = np.exp(log_softmax(rows))[:, 0]
    assert np.ptp(part(np.round(said, 12))) == 0.0
    if fit is cw.fit_top_label:
        assert np.ptp(np.exp(fitted(rows))[:, 0]) < 1e-12


def test_probabilities_in_place_of_log_probabilities_are_told_of():
    logprobs, answers = made()
    with pytest.warns(CalibrationWarning, match="lie in \\[0, 1\\] and sum to 1"):
        cw.fit_temperature(np.exp(logprobs), answers)
    with pytest.warns(CalibrationWarning, match="'pre' lie in"):
        cw.fit_daca(logprobs, np.exp(logprobs))
