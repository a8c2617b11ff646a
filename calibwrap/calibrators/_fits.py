"""The fits and the calibrators by name, so that nobody else needs an if for each."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._confidence_fits import CONFIDENCE_MAPS
from calibwrap.calibrators.auto import fit_auto, fit_auto_confidence
from calibwrap.calibrators.batch import fit_batch
from calibwrap.calibrators.beta import Beta
from calibwrap.calibrators.catto_head import CattoHead
from calibwrap.calibrators.chain import Chain
from calibwrap.calibrators.class_wise import ClassWise, fit_class_wise
from calibwrap.calibrators.daca import fit_daca, fit_naive_kl
from calibwrap.calibrators.dirichlet import fit_dirichlet
from calibwrap.calibrators.group_temperature import GroupTemperature, fit_group_temperature
from calibwrap.calibrators.histogram_binning import HistogramBinning
from calibwrap.calibrators.identity import Identity
from calibwrap.calibrators.isotonic import Isotonic
from calibwrap.calibrators.matrix_scaling import MatrixScaling, fit_matrix_scaling
from calibwrap.calibrators.platt import Platt
from calibwrap.calibrators.probe import Probe
from calibwrap.calibrators.soft_labels import fit_matched_mean
from calibwrap.calibrators.temperature import Temperature, fit_temperature
from calibwrap.calibrators.top_label import TopLabel, fit_top_label
from calibwrap.calibrators.vector_scaling import VectorScaling, fit_vector_scaling
from calibwrap.calibrators.venn_abers import VennAbers
from calibwrap.calibrators.without_labels import fit_without_labels
from calibwrap.errors import InputError, SavedFileError
from calibwrap.scores import OptionScores


@dataclass(frozen=True)
class FitSpec:
    """One fit: what to call, and what it wants beside the scores."""

    name: str
    """Name of the method, as in `lm.fit(method=...)`."""
    fit: Callable[..., Calibrator]
    """Takes the scores, and at most one more: the answers, or the reference's scores."""
    needs_answers: bool = False
    """Whether the one more is the right answers."""
    needs_reference: bool = False
    """Whether the one more is the reference model's scores; where neither is needed, there is no one more."""
    resamples: bool = False
    """Whether it takes `n_bootstrap`, the resamples for an interval that only the report shows."""
    needs_groups: bool = False
    """Whether it takes `groups`, the name of each row's group, and cannot do without."""

    def __call__(
        self,
        scores: OptionScores | ArrayLike,
        *,
        answers: ArrayLike | None = None,
        reference: OptionScores | ArrayLike | None = None,
        **options: Any,
    ) -> Calibrator:
        """Return the calibrator fitted on `scores` and what this fit needs; `options` go to it untouched.

        Raises:
            InputError: what it needs was not given. What it does not need is not looked at.

        >>> FITS["temperature"]([[4.0, 0.0]] * 4, answers=[0, 0, 0, 1]).kind
        'temperature'
        """
        if not self.needs_answers and not self.needs_reference:
            return self.fit(scores, **options)
        needed = answers if self.needs_answers else reference
        if needed is None:
            what = "the right answers of all questions" if self.needs_answers else "a reference model (reference=...)"
            raise InputError(f"method={self.name!r} needs {what}.")
        return self.fit(scores, needed, **options)


FITS: Mapping[str, FitSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            FitSpec("auto", fit_auto, needs_answers=True),
            FitSpec("batch", fit_batch),
            FitSpec("daca", fit_daca, needs_reference=True, resamples=True),
            FitSpec("dirichlet", fit_dirichlet, needs_answers=True),
            FitSpec("group-temperature", fit_group_temperature, needs_answers=True, needs_groups=True),
            FitSpec("matched-mean", fit_matched_mean, needs_reference=True, resamples=True),
            FitSpec("matrix", fit_matrix_scaling, needs_answers=True),
            FitSpec("naive-kl", fit_naive_kl, needs_reference=True, resamples=True),
            FitSpec("temperature", fit_temperature, needs_answers=True),
            FitSpec("vector", fit_vector_scaling, needs_answers=True),
            *(FitSpec(f"top-label:{name}", partial(fit_top_label, method=name), True) for name in CONFIDENCE_MAPS),
            *(
                FitSpec(f"soft:{name}", partial(fit_without_labels, method=name), needs_reference=True)
                for name in CONFIDENCE_MAPS
            ),
            *(FitSpec(f"class-wise:{name}", partial(fit_class_wise, method=name), True) for name in CONFIDENCE_MAPS),
        )
    }
)
"""Every fit by name."""

CONFIDENCE_FITS: Mapping[str, Callable[..., Calibrator]] = MappingProxyType(
    {"auto-confidence": fit_auto_confidence, **CONFIDENCE_MAPS}
)
"""Every fit of one confidence by name: each takes (N,) confidences and (N,) how right the answers were."""

KINDS: Mapping[str, type[Calibrator]] = MappingProxyType(
    {
        one.kind: one
        for one in (
            Beta,
            CattoHead,
            Chain,
            ClassWise,
            GroupTemperature,
            HistogramBinning,
            Identity,
            Isotonic,
            MatrixScaling,
            Platt,
            Probe,
            Temperature,
            TopLabel,
            VectorScaling,
            VennAbers,
        )
    }
)
"""Every calibrator of this package by its `kind`, the name in saved files."""

ENTRY_POINTS = "calibwrap.calibrators"
"""Entry-point group where other packages list their calibrator classes under their `kind`."""


def fit_named(method: str) -> FitSpec:
    """Return the fit called `method`.

    Raises:
        InputError: there is none; the message names the nearest and lists all.

    >>> fit_named("daca").needs_reference
    True
    """
    if method in CONFIDENCE_FITS:
        inside = f"'top-label:{method}' on options, or " if method in CONFIDENCE_MAPS else ""
        raise InputError(f"Method {method!r} fits one confidence, not options: use {inside}fit_answers.")
    if method not in FITS:
        raise InputError(_unknown("method", method, FITS))
    return FITS[method]


def groupless_fit(method: str) -> FitSpec:
    """Return the fit called `method`, for questions that are not told to be of any group.

    Raises:
        InputError: there is none, or it needs the group of each question.

    >>> groupless_fit("temperature").name
    'temperature'
    """
    spec = fit_named(method)
    if spec.needs_groups:
        raise InputError(
            f"Method {method!r} needs the name of each question's group, which nothing tells here: use "
            f"lm.fit(questions, method={method!r}, groups=[...])."
        )
    return spec


def confidence_fit(method: str) -> Callable[..., Calibrator]:
    """Return the fit of one confidence called `method`.

    Raises:
        InputError: there is none; the message names the nearest and lists all.

    >>> confidence_fit("platt")([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0]).kind
    'platt'
    """
    if method not in CONFIDENCE_FITS:
        raise InputError(_unknown("method for one confidence", method, CONFIDENCE_FITS))
    return CONFIDENCE_FITS[method]


def calibrator_class(kind: str) -> type[Calibrator]:
    """Return the class of calibrators of this `kind`; other packages' are looked up when it is none of ours.

    Raises:
        SavedFileError: nobody knows the kind, or the package that lists it fails to import.

    >>> calibrator_class("temperature").__name__
    'Temperature'
    """
    if kind in KINDS:
        return KINDS[kind]
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=kind):
        try:
            found = point.load()
        except Exception as error:
            raise SavedFileError(
                f"The calibrator {kind!r} of {point.value!r} could not be imported: {error}"
            ) from error
        if isinstance(found, type) and issubclass(found, Calibrator):
            return found
        raise SavedFileError(f"The entry point {kind!r} must be a class of Calibrator. Got {point.value!r}.")
    raise SavedFileError(f"{_unknown('kind', kind, KINDS)} Install the package that brings it, or update calibwrap.")


def _unknown(what: str, name: object, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {what} {name!r}.{hint} There are {', '.join(sorted(known))}."
