"""The scikit-learn estimators: scikit-learn's own checks, its CalibratedClassifierCV as oracle, pipelines, errors."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score
from sklearn.multiclass import OneVsOneClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import has_fit_parameter

import calibwrap as cw
from calibwrap.calibrators._confidence import CLIP
from calibwrap.errors import InputError, MissingExtra
from calibwrap.estimators import CalibratedClassifier, ScoreCalibrator, as_logits
from calibwrap.scores import log_softmax

COLUMNS = dict.fromkeys(
    (
        "check_classifiers_classes",
        "check_classifiers_train",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
    ),
    "the check's X does not have one column a class, which is what scores are",
)
"""Checks that fit features, not scores; below each is asked of scores where it says something."""


RANDOM_LABELS = pytest.mark.filterwarnings("ignore:The optimum lies outside:calibwrap.errors.CalibrationWarning")
"""Some checks draw labels that have nothing to do with X, and we say so."""


def scored(n=200, k=3, seed=0):
    """Scores too sharp by 3, and names drawn from the truth."""
    random = np.random.default_rng(seed)
    truth = log_softmax(random.normal(0.0, 1.0, (n, k)))
    return 3.0 * truth, np.array(["ant", "bee", "cat", "dog"])[(truth + random.gumbel(size=truth.shape)).argmax(axis=1)]


def features(k=3, seed=0):
    return make_classification(400, 8, n_informative=5, n_classes=k, random_state=seed)


@RANDOM_LABELS
def test_scikit_learn_checks_the_classifier():
    found = check_estimator(CalibratedClassifier(LogisticRegression()), on_skip=None)
    assert {one["status"] for one in found} <= {"passed", "skipped"}


@RANDOM_LABELS
def test_scikit_learn_checks_the_scores():
    """The list of exceptions is exact: one that passes must leave it."""
    found = check_estimator(ScoreCalibrator(), expected_failed_checks=COLUMNS, on_skip=None)
    assert {one["check_name"] for one in found if one["status"] == "xfail"} == set(COLUMNS)
    assert sum(one["status"] == "passed" for one in found) > 35


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_scores_of_any_number_type_and_read_only(dtype):
    rows, labels = scored()
    given = (10 * rows).astype(dtype)
    given.flags.writeable = False
    model = ScoreCalibrator().fit(given, labels)
    assert model is model.fit(given.tolist(), labels.tolist())
    np.testing.assert_allclose(model.predict_proba(given).sum(axis=1), 1.0)
    assert model.n_features_in_ == 3
    assert list(model.classes_) == ["ant", "bee", "cat"]
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.predict_proba(given), model.predict_proba(given))
    with pytest.raises(ValueError, match="NaN"):
        model.predict(np.full((1, 3), np.nan))


def test_the_calibrator_is_the_one_of_the_functions():
    rows, labels = scored()
    model = ScoreCalibrator().fit(rows, labels)
    wanted = cw.fit_temperature(rows, np.searchsorted(["ant", "bee", "cat"], labels))
    assert model.calibrator_ == wanted
    assert model.calibrator_.value == pytest.approx(3.0, abs=0.8)
    np.testing.assert_array_equal(model.predict_log_proba(rows), wanted(rows))
    assert (model.predict(rows) == model.classes_[rows.argmax(axis=1)]).all()
    loss = [log_loss(labels, np.exp(table)) for table in (model.transform(rows), log_softmax(rows))]
    assert loss[0] < loss[1]


def test_classes_may_come_in_any_order_and_be_absent():
    rows, labels = scored()
    plain = ScoreCalibrator().fit(rows, labels)
    turned = ScoreCalibrator(classes=["cat", "ant", "bee"]).fit(rows[:, [2, 0, 1]], labels)
    assert turned.calibrator_.value == pytest.approx(plain.calibrator_.value)
    np.testing.assert_array_equal(turned.predict(rows[:, [2, 0, 1]]), plain.predict(rows))
    few = np.flatnonzero(labels != "cat")
    with pytest.raises(InputError, match="one column for each of the 2 classes"):
        ScoreCalibrator().fit(rows[few], labels[few])
    assert ScoreCalibrator(classes=["ant", "bee", "cat"]).fit(rows[few], labels[few]).predict_proba(rows).shape[1] == 3


def test_one_column_speaks_of_the_second_class():
    rows, labels = scored(k=2)
    two = ScoreCalibrator().fit(rows, labels)
    margin = (rows[:, 1] - rows[:, 0])[:, None]
    one = ScoreCalibrator().fit(margin, labels)
    np.testing.assert_allclose(one.predict_proba(margin), two.predict_proba(rows), atol=1e-9)
    chance = 1.0 / (1.0 + np.exp(-margin / 3.0))
    from_chance = ScoreCalibrator(scores="probabilities").fit(chance, labels)
    np.testing.assert_allclose(from_chance.predict_proba(chance), two.predict_proba(rows), atol=1e-6)


def test_rows_of_probabilities_sum_to_one_but_for_rounding():
    exact = as_logits(np.array([[0.25, 0.75], [0.0, 1.0]]), "probabilities", 2)
    rounded = np.array([[0.25, 0.75], [-1e-17, 1.0 + 2.3e-16]])
    np.testing.assert_array_equal(as_logits(rounded, "probabilities", 2), exact)
    np.testing.assert_array_equal(as_logits(rounded[:, 1:], "probabilities", 2), exact)
    with pytest.raises(InputError, match=r"'X' must sum to 1 within 0\.001\. Row 1 sums to 1\.3"):
        as_logits(np.array([[0.5, 0.5], [0.9, 0.4]]), "probabilities", 2)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("classifier", [LogisticRegression(C=100.0), LinearDiscriminantAnalysis()])
def test_equals_scikit_learns_temperature(k, classifier):
    """Theirs ends its search at a tolerance of 1e-5 or so in the temperature; the certificate of ours goes further."""
    rows, labels = features(k)
    ours = CalibratedClassifier(classifier, cv=4).fit(rows, labels)
    theirs = CalibratedClassifierCV(classifier, method="temperature", cv=4, ensemble=False).fit(rows, labels)
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), atol=1e-3)


@pytest.mark.parametrize(("method", "tolerance"), [("isotonic", 2e-3), ("sigmoid", 0.02)])
def test_scikit_learns_words_mean_the_same(method, tolerance):
    """Isotonic but for the scale between two steps, margin or probability; sigmoid but for their smoothed targets."""
    rows, labels = features(2)
    ours = CalibratedClassifier(LinearDiscriminantAnalysis(), method=method, cv=4).fit(rows, labels)
    theirs = CalibratedClassifierCV(LinearDiscriminantAnalysis(), method=method, cv=4, ensemble=False).fit(rows, labels)
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), atol=tolerance)


class Rescaled(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose margins are multiplied by `scale`."""

    def __init__(self, inner, scale):
        self.inner, self.scale = inner, scale
        self.classes_ = inner.classes_

    def fit(self, rows, labels):
        raise AssertionError("frozen")

    def __sklearn_is_fitted__(self):
        return True

    def decision_function(self, rows):
        return self.scale * self.inner.decision_function(rows)

    def predict(self, rows):
        return self.inner.predict(rows)


@pytest.fixture(scope="module")
def margins():
    """A support vector machine, and rows to calibrate and to judge it on."""
    rows, labels = make_classification(3000, 8, n_informative=5, flip_y=0.1, random_state=1)
    return LinearSVC().fit(rows[:500], labels[:500]), (rows[500:1500], labels[500:1500]), (rows[1500:], labels[1500:])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 40.0, 1000.0, 1e6])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_margins_on_any_scale_lose_nothing_beside_scikit_learn(margins, method, scale):
    """A probability beyond 1 in a million is clipped: margins in the thousands must not become one."""
    inner, fit, held = margins
    model = FrozenEstimator(Rescaled(inner, scale))
    ours = CalibratedClassifier(model, method=method).fit(*fit)
    if method == "temperature":  # theirs searches from e^-10 to e^10 in 1/T, and ends early beyond some
        wanted = log_loss(held[1], CalibratedClassifier(FrozenEstimator(inner)).fit(*fit).predict_proba(held[0]))
    else:
        theirs = CalibratedClassifierCV(model, method=method, ensemble=False).fit(*fit)
        wanted = log_loss(held[1], np.clip(theirs.predict_proba(held[0]), CLIP, 1.0 - CLIP))  # their steps reach 0
    assert log_loss(held[1], ours.predict_proba(held[0])) == pytest.approx(wanted, abs=2e-4)


def test_what_maps_rescaled_margins_is_one_calibrator_with_a_report(margins, tmp_path):
    inner, fit, held = margins
    model = CalibratedClassifier(FrozenEstimator(Rescaled(inner, 1000.0)), method="sigmoid").fit(*fit)
    assert [part.kind for part in model.calibrator_.parts] == ["temperature", "class-wise"]
    assert model.calibrator_.report.method == "class-wise:platt"
    cw.save(model.calibrator_, tmp_path / "cal")
    logits = as_logits(1000.0 * inner.decision_function(held[0]), "logits", 2)
    np.testing.assert_array_equal(cw.load(tmp_path / "cal")(logits), model.predict_log_proba(held[0]))


def test_scores_that_say_nothing_have_a_scale_all_the_same():
    for method in ("temperature", "isotonic"):
        model = ScoreCalibrator(method).fit(np.zeros((120, 2)), [0, 1] * 60)
        np.testing.assert_allclose(model.predict_proba(np.zeros((1, 2))), 0.5)


def test_isotonic_of_three_classes_from_probabilities():
    """To the digit, but that a step at 0 is 1e-6 here."""
    rows, labels = features(3)
    ours = CalibratedClassifier(GaussianNB(), method="isotonic", cv=4).fit(rows, labels)
    theirs = CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=4, ensemble=False).fit(rows, labels)
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), atol=1e-5)


def test_a_frozen_classifier_is_not_touched():
    rows, labels = features()
    inner = GaussianNB().fit(rows[:200], labels[:200])
    before = inner.predict_proba(rows)
    model = CalibratedClassifier(FrozenEstimator(inner)).fit(rows[200:], labels[200:])
    theirs = CalibratedClassifierCV(FrozenEstimator(inner), method="temperature").fit(rows[200:], labels[200:])
    np.testing.assert_array_equal(inner.predict_proba(rows), before)
    assert (model.predict(rows) == inner.predict(rows)).all()
    assert log_loss(labels[200:], model.predict_proba(rows[200:])) < log_loss(labels[200:], before[200:])
    np.testing.assert_allclose(model.predict_proba(rows), theirs.predict_proba(rows), atol=1e-3)


@pytest.mark.parametrize("classifier", [LogisticRegression(), GaussianNB()], ids=["logits", "probabilities"])
def test_a_class_that_a_fold_does_not_learn_is_named(classifier):
    """scikit-learn would score it with the smallest number there is, and the fit would make something of that."""
    rows, labels = features()
    names = np.array(["ant", "bee", "cat"])[labels]
    all_bees_in_the_second = PredefinedSplit(np.where(names == "bee", 1, np.arange(len(names)) % 3))
    with pytest.raises(InputError, match="Class bee is not among those of fold 2 of 3"):
        CalibratedClassifier(classifier, cv=all_bees_in_the_second).fit(rows, names)


PAIRWISE = SVC(decision_function_shape="ovo")


@pytest.mark.parametrize(
    "classifier",
    [
        PAIRWISE,
        make_pipeline(StandardScaler(), PAIRWISE),
        GridSearchCV(PAIRWISE, {"C": [1.0]}),
        FrozenEstimator(clone(PAIRWISE).fit(*features())),
        FrozenEstimator(make_pipeline(StandardScaler(), PAIRWISE).fit(*features())),
    ],
    ids=["alone", "pipeline", "search", "frozen", "frozen pipeline"],
)
def test_scores_of_pairs_are_refused(classifier):
    """Three classes have three pairs, so that the number of columns tells nothing."""
    with pytest.raises(InputError, match=r"Got SVC with decision_function_shape='ovo'.*set it to 'ovr'"):
        CalibratedClassifier(classifier).fit(*features())


@pytest.mark.parametrize(("classifier", "k"), [(PAIRWISE, 2), (SVC(), 3), (OneVsOneClassifier(SVC()), 3)])
def test_scores_of_classes_that_come_from_pairs_are_taken(classifier, k):
    rows, labels = features(k)
    alone = clone(classifier).fit(rows, labels)
    assert CalibratedClassifier(classifier).fit(rows, labels).score(rows, labels) >= alone.score(rows, labels) - 0.01


def test_in_pipelines_searches_and_clones():
    rows, labels = features()
    first = make_pipeline(StandardScaler(), CalibratedClassifier(LogisticRegression(), method="vector"))
    assert cross_val_score(first, rows, labels, cv=3, scoring="neg_log_loss").mean() > -1.1
    scores, names = scored()
    second = make_pipeline(FunctionTransformer(lambda table: table / 2.0), ScoreCalibrator())
    assert second.fit(scores, names).predict_proba(scores).shape == (200, 3)
    middle = make_pipeline(ScoreCalibrator(), LogisticRegression()).fit(scores, names)
    assert middle.score(scores, names) > 0.5
    grid = GridSearchCV(ScoreCalibrator(), {"method": ["temperature", "vector"]}, scoring="neg_log_loss", cv=3)
    assert grid.fit(scores, names).best_params_["method"] in ("temperature", "vector")
    copy = clone(ScoreCalibrator("vector", scores="probabilities", options={"ridge": 0.5}))
    assert copy.get_params()["options"] == {"ridge": 0.5}


def test_a_saved_calibrator_leaves_scikit_learn(tmp_path):
    rows, labels = scored()
    model = ScoreCalibrator("vector", options={"ridge": 0.1}).fit(rows, labels)
    cw.save(model.calibrator_, tmp_path / "cal")
    np.testing.assert_array_equal(cw.load(tmp_path / "cal")(rows), model.predict_log_proba(rows))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ScoreCalibrator("tempera"), "Did you mean 'temperature'"),
        (ScoreCalibrator("daca"), "fit with labels.*fitted on a reference model"),
        (ScoreCalibrator("batch"), "fit with labels.*fitted on scores alone"),
        (ScoreCalibrator("vector", options={"rigde": 0.1}), "Did you mean 'ridge'"),
        (CalibratedClassifier(LogisticRegression(), ensemble=True), "'ensemble' must be False"),
        (CalibratedClassifier(LogisticRegression(), ensemble="auto"), "'ensemble' must be False"),
        (ScoreCalibrator(scores="odds"), "'logits' or 'probabilities'"),
        (ScoreCalibrator(scores="probabilities"), r"'X' must lie in \[0, 1\]"),
        (ScoreCalibrator(classes=["ant", "bee", "eel"]), "Got cat"),
        (ScoreCalibrator(classes=["ant", "cat", "bee", "cat"]), "with cat 2 times"),
        (CalibratedClassifier(StandardScaler()), "decision_function or predict_proba"),
    ],
)
def test_mistakes_are_named(model, said):
    with pytest.raises(InputError, match=said):
        model.fit(*scored())


def test_the_word_ensemble_is_taken_where_it_says_what_is_done():
    rows, labels = features()
    ours = [CalibratedClassifier(GaussianNB(), **words).fit(rows, labels) for words in ({}, {"ensemble": False})]
    assert ours[0].calibrator_ == ours[1].calibrator_
    assert not has_fit_parameter(ours[0], "sample_weight")


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    import importlib
    import sys

    import calibwrap.estimators

    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"calibwrap\[sklearn\]"):
        importlib.reload(calibwrap.estimators)


def test_an_unknown_method_is_named_before_anything_is_trained():
    trained = []

    class Counted(LinearDiscriminantAnalysis):
        def fit(self, X, y):  # noqa: N803
            trained.append(len(y))
            return super().fit(X, y)

    X, y = make_classification(60, random_state=0)  # noqa: N806
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        CalibratedClassifier(Counted(), method="temprature").fit(X, y)
    assert not trained
