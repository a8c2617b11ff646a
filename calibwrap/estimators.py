"""Calibrators as scikit-learn estimators: for arrays of scores, in a `Pipeline`, and around a classifier.

Needs scikit-learn: `pip install 'calibwrap[sklearn]'`. Nothing else of calibwrap imports this file.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibwrap.base import Calibrator
from calibwrap.calibrators import FitSpec, Temperature, chain, fit_named, with_report
from calibwrap.calibrators._confidence import CLIP
from calibwrap.errors import InputError, need
from calibwrap.metrics._checks import check_total, within_unit
from calibwrap.scores import Floats, Ints

need("sklearn", feature="calibwrap.estimators", extra="sklearn")

from sklearn.base import (  # noqa: E402 - a missing scikit-learn is named first
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    TransformerMixin,
    clone,
)
from sklearn.frozen import FrozenEstimator  # noqa: E402
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, check_cv, cross_val_predict  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from sklearn.utils import assert_all_finite, get_tags  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402

SMALLEST = float(np.finfo(np.float64).eps)
"""A probability below it counts as this, since a classifier's 0 does not mean that the class does not exist."""

WORDS = {"sigmoid": "class-wise:platt", "isotonic": "class-wise:isotonic"}
"""What scikit-learn calls methods, and their names here."""

REACH = -math.log(CLIP) / 2
"""Nats from a row's least to its greatest score within which no map of a probability clips it, nor one twice as far."""

ScoreKind = Literal["logits", "probabilities"]
"""What columns hold: logits or log-probabilities (both give the same), or probabilities."""


class ScoreCalibrator(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Calibrates scores that are there already: column k of X speaks of the k-th class.

    X has one column a class, in the sorted order of the labels, or in that of `classes`. One column alone speaks of the
    second of two classes: a logit s stands for the two logits 0 and s, a probability p for 1 - p and p. As the last
    step of a `Pipeline` it gives `predict_proba`, before another step `transform` gives calibrated log-probabilities.

    Scores on any scale will do, margins in the thousands too. What maps a probability is fitted to scores that are
    divided by a constant before, so that no probability is clipped, and `calibrator_` is then a chain of both.

    Args:
        method: name of a fit with labels, such as "temperature", "vector" or "auto"; "sigmoid" and "isotonic" too.
        scores: what X holds, "logits" (or log-probabilities) or "probabilities". A probability of 0 counts as 2e-16.
        classes: all labels in the order of the columns; None takes those that are in y, sorted.
        options: passed to the fit, such as `{"ridge": 1e-3}`.

    After `fit`: `classes_`, `calibrator_` (a `calibwrap.Calibrator`: save it with `calibwrap.save`), `n_features_in_`.

    >>> model = ScoreCalibrator().fit([[0.0, 4.0]] * 4, ["no", "yes", "yes", "yes"])
    >>> model.predict_proba([[0.0, 4.0]]).round(4).tolist(), round(model.calibrator_.value, 3)
    ([[0.25, 0.75]], 3.641)
    """

    def __init__(
        self,
        method: str = "temperature",
        *,
        scores: ScoreKind = "logits",
        classes: ArrayLike | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Keep the settings; they are checked by `fit`, as scikit-learn wants it."""
        self.method = method
        self.scores = scores
        self.classes = classes
        self.options = options

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's names
        """Return this estimator, fitted.

        Args:
            X: (N, K) scores, or (N, 1) of two classes.
            y: (N,) labels.

        Raises:
            InputError: columns that are not one a class, labels that are no class, classes that are repeated, or an
                unknown method.
            FitError: the data do not determine the calibrator.
        """
        rows, labels = validate_data(self, X, y)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels) if self.classes is None else _distinct(self.classes)
        logits = as_logits(rows, self.scores, len(self.classes_))
        self.calibrator_ = fitted_on(self.method, logits, labels, self.classes_, self.options, self.scores)
        return self

    def predict_log_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return calibrated log-probabilities (N, K), one column a class in the order of `classes_`."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False)
        return np.asarray(self.calibrator_(as_logits(rows, self.scores, len(self.classes_))))

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return calibrated probabilities (N, K); each row sums to 1."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable label of each row, (N,)."""
        chosen = self.predict_log_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def transform(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return calibrated log-probabilities (N, K), for a step that comes after."""
        return self.predict_log_proba(X)


class CalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """A classifier whose probabilities are calibrated on rows that it did not see while it learned.

    The words are those of scikit-learn's `CalibratedClassifierCV` with `ensemble=False`: every row is scored by a copy
    of `estimator` that was fitted on the other folds, one calibrator is fitted on all these scores, and the classifier
    that answers is fitted on all rows. A classifier that is fitted already, wrapped as `FrozenEstimator(classifier)`,
    is not touched: then all rows given to `fit` calibrate. Rows have no weights: `fit` takes no `sample_weight`. Scores
    on any scale will do, as for `ScoreCalibrator`.

    Args:
        estimator: a classifier with `decision_function` or `predict_proba`; the first is preferred.
        method: name of a fit with labels, such as "temperature", "vector" or "auto"; "sigmoid" and "isotonic" too.
        cv: number of folds, a splitter, or an iterable of splits, as everywhere in scikit-learn; None is 5.
        n_jobs: folds that run at a time.
        ensemble: False; here for scikit-learn's sake. One classifier and one calibrator answer, never their mean.
        options: passed to the fit of the calibrator.

    After `fit`: `classes_`, `estimator_`, `calibrator_`.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        method: str = "temperature",
        cv: Any = None,
        n_jobs: int | None = None,
        ensemble: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Keep the settings; they are checked by `fit`, as scikit-learn wants it."""
        self.estimator = estimator
        self.method = method
        self.cv = cv
        self.n_jobs = n_jobs
        self.ensemble = ensemble
        self.options = options

    def fit(self, X: Any, y: ArrayLike) -> Self:  # noqa: N803
        """Return this estimator, fitted: the classifier and its calibrator.

        Args:
            X: (N, F) features, whatever `estimator` takes.
            y: (N,) labels.

        Raises:
            InputError: a classifier that gives no scores of classes, a class that is in one fold alone, an unknown
                method, or an `ensemble`.
            FitError: the data do not determine the calibrator.
        """
        if self.ensemble is not False:
            raise InputError(
                "'ensemble' must be False: one calibrator is fitted on the held-out scores of all folds, and can be "
                f"saved; no mean over pairs of classifiers and calibrators is offered. Got {self.ensemble!r}."
            )
        if y is None:
            raise InputError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        named_fit(self.method)
        labels = np.asarray(column_or_1d(y, warn=True))
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        response = _response(self.estimator)
        if isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator
            found = getattr(self.estimator_, response)(X)
        else:
            folds = list(check_cv(self.cv, labels, classifier=True).split(X, labels))
            _check_folds(folds, labels)
            found = cross_val_predict(self.estimator, X, labels, cv=folds, n_jobs=self.n_jobs, method=response)
            self.estimator_ = clone(self.estimator).fit(X, labels)
        self.classes_ = self.estimator_.classes_
        _check_columns(self.estimator, len(self.classes_))
        kind = _kind(response)
        logits = as_logits(np.asarray(found), kind, len(self.classes_))
        self.calibrator_ = fitted_on(self.method, logits, labels, self.classes_, self.options, kind)
        return self

    def predict_log_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return calibrated log-probabilities (N, K), one column a class in the order of `classes_`."""
        check_is_fitted(self)
        response = _response(self.estimator_)
        found = np.asarray(getattr(self.estimator_, response)(X))
        return np.asarray(self.calibrator_(as_logits(found, _kind(response), len(self.classes_))))

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return calibrated probabilities (N, K); each row sums to 1."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable label of each row, (N,)."""
        chosen = self.predict_log_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    @property
    def n_features_in_(self) -> int:
        """Number of features that the classifier was fitted on."""
        check_is_fitted(self)
        return int(self.estimator_.n_features_in_)

    def __sklearn_tags__(self) -> Any:
        """Return what the classifier inside accepts."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags


def as_logits(scores: NDArray[Any], kind: ScoreKind, n_classes: int) -> Floats:
    """Return (N, K) logits for scores of K classes; one column, or one dimension, speaks of the second of two.

    Raises:
        InputError: another number of columns, an unknown kind, a probability outside [0, 1], or rows of them that do
            not sum to 1.

    >>> as_logits(np.array([[0.75]]), "probabilities", 2).round(4).tolist()
    [[-1.3863, -0.2877]]
    """
    if kind not in ("logits", "probabilities"):
        raise InputError(f"'scores' must be 'logits' or 'probabilities'. Got {kind!r}.")
    table = np.asarray(scores, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    table = within_unit("X", table) if kind == "probabilities" else table
    if table.shape[1] == 1 and n_classes == 2:
        table = np.hstack([1.0 - table if kind == "probabilities" else np.zeros_like(table), table])
    if table.shape[1] != n_classes:
        raise InputError(
            f"X must have one column for each of the {n_classes} classes. Got {table.shape[1]}: give all labels in "
            "'classes=', in the order of the columns."
        )
    if kind == "logits":
        return table
    check_total("X", table.sum(axis=1))
    return np.asarray(np.log(np.maximum(table, SMALLEST)))


def fitted_on(
    method: str,
    logits: Floats,
    labels: NDArray[Any],
    classes: NDArray[Any],
    options: dict[str, Any] | None,
    kind: ScoreKind = "logits",
) -> Calibrator:
    """Return the calibrator fitted on logits (N, K) and labels (N,), which name the columns by `classes` (K,).

    What came as probabilities is taken as it is; of logits, which may be on any scale, see `_on_any_scale`.

    Raises:
        InputError: a label that is no class, a method without labels, or options that it does not take.
    """
    spec = named_fit(method)
    right, given = _columns(labels, classes), options or {}
    if kind == "probabilities":
        return spec(logits, answers=right, **given)
    return _on_any_scale(spec, logits, right, given)


def named_fit(method: str) -> FitSpec:
    """Return the fit with labels of that name, scikit-learn's words included.

    Raises:
        InputError: there is none, or it is fitted without labels.

    >>> named_fit("sigmoid").name
    'class-wise:platt'
    """
    spec = fit_named(WORDS.get(method, method))
    if not spec.needs_answers:
        on = "a reference model" if spec.needs_reference else "scores alone"
        raise InputError(f"'method' must be a fit with labels. Got {method!r}, which is fitted on {on}.")
    return spec


def _on_any_scale(spec: FitSpec, logits: Floats, right: Ints, options: dict[str, Any]) -> Calibrator:
    """Return the calibrator fitted on logits (N, K) whose unit nobody knows.

    A temperature is searched within bounds that go along with the scale. What maps probabilities would clip those next
    to 0 and 1: where scores leave `REACH`, they are divided by a constant first.
    """
    scale = float(np.ptp(logits, axis=1).max()) / REACH or 1.0
    if spec.name == "temperature":
        return spec(logits, answers=right, **{"bounds": (0.01 * min(1.0, scale), 100.0 * max(1.0, scale))} | options)
    if scale <= 1.0 or not (spec.part or spec.name == "auto"):  # the others clip nothing
        return spec(logits, answers=right, **options)
    within = Temperature(scale)
    fitted = spec(within(logits), answers=right, **options)
    return chain(within, fitted) if fitted.report is None else with_report(chain(within, fitted), fitted.report)


def _distinct(classes: ArrayLike) -> NDArray[Any]:
    """Return the labels (K,) that name K columns.

    Raises:
        InputError: two columns have the same one.
    """
    names = np.asarray(classes)
    found, counts = np.unique(names, return_counts=True)
    if names.shape != found.shape:
        raise InputError(
            f"'classes' must name each column by a label of its own. Got {names.tolist()}, with "
            f"{found[counts.argmax()]} {counts.max()} times."
        )
    return names


def _columns(labels: NDArray[Any], classes: NDArray[Any]) -> Ints:
    """Return (N,) the column of each label."""
    order = np.argsort(classes)
    at = np.minimum(np.searchsorted(classes, labels, sorter=order), len(classes) - 1)
    columns = order[at]
    wrong = classes[columns] != labels
    if wrong.any():
        raise InputError(f"'y' must hold labels out of {classes.tolist()}. Got {labels[wrong][0]}.")
    return np.asarray(columns)


def _response(estimator: Any) -> str:
    """Return the method of a classifier that gives its scores."""
    for name in ("decision_function", "predict_proba"):
        if getattr(estimator, name, None) is not None:
            return name
    raise InputError(
        f"'estimator' must have decision_function or predict_proba. Got {type(estimator).__name__}, which has neither."
    )


def _check_folds(folds: Sequence[tuple[Ints, Ints]], labels: NDArray[Any]) -> None:
    """Return nothing when every class is learned from in every fold, (training rows, held-out rows).

    Raises:
        InputError: one is not, so that no score of it was learned there.
    """
    for number, (training, _) in enumerate(folds, start=1):
        missing = np.setdiff1d(labels, labels[training])
        if len(missing):
            raise InputError(
                f"'y' must have every class among the training rows of every fold. Class {missing[0]} is not among "
                f"those of fold {number} of {len(folds)}: bring more rows of it, or folds that spread it ('cv=')."
            )


def _check_columns(estimator: Any, n_classes: int) -> None:
    """Return nothing, unless the scores of three classes or more would be those of pairs of classes.

    Raises:
        InputError: a support vector machine that was told so.
    """
    while isinstance(estimator, FrozenEstimator | GridSearchCV | RandomizedSearchCV | Pipeline):
        estimator = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator.estimator
    if n_classes > 2 and getattr(estimator, "decision_function_shape", None) == "ovo":
        raise InputError(
            f"'estimator' must score classes, one column each. Got {type(estimator).__name__} with "
            "decision_function_shape='ovo', which scores pairs of classes: set it to 'ovr'."
        )


def _kind(response: str) -> ScoreKind:
    return "logits" if response == "decision_function" else "probabilities"
