"""The fits and the calibrators by name, so that nobody else needs an if for each."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from numpy.typing import ArrayLike

from calibwrap.base import Calibrator
from calibwrap.calibrators._confidence_fits import CONFIDENCE_MAPS
from calibwrap.errors import InputError, SavedFileError
from calibwrap.on_demand import OnDemand, named
from calibwrap.questions import Question, check_questions
from calibwrap.scores import OptionScores

_PACKAGE = "calibwrap.calibrators."


@dataclass(frozen=True)
class FitSpec:
    """One fit: what to call, and what it wants beside the scores."""

    name: str
    """Name of the method, as in `lm.fit(method=...)`."""
    home: str
    """Where the function is, FILE:NAME of this package; its file is imported when `fit` is first asked for."""
    needs_answers: bool = False
    """Whether the one more is the right answers."""
    needs_reference: bool = False
    """Whether the one more is the reference model's scores; where neither is needed, there is no one more."""
    resamples: bool = False
    """Whether it takes `n_bootstrap`, the resamples for an interval that only the report shows."""
    needs_groups: bool = False
    """Whether it takes `groups`, the name of each row's group, and cannot do without."""
    keeps_argmax: bool = False
    """Whether the first choice, and so the accuracy, stays under whatever it fits with default options."""
    part: str = ""
    """Name in `CONFIDENCE_MAPS` of the map inside, of a function that takes one as `method`."""

    @property
    def fit(self) -> Callable[..., Calibrator]:
        """Takes the scores, and at most one more: the answers, or the reference's scores."""
        function: Callable[..., Calibrator] = named(_PACKAGE + self.home)
        return partial(function, method=self.part) if self.part else function

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that the fit takes, in alphabetical order.

        >>> FITS["temperature"].options, FITS["top-label:platt"].options
        (('bounds',), ('clip', 'keeps_choice', 'smoothing'))
        """
        own = options_of(named(_PACKAGE + self.home), 1 + (self.needs_answers or self.needs_reference))
        return tuple(sorted({*own, *options_of(CONFIDENCE_MAPS[self.part], 2)} - {"method"} if self.part else own))

    def check_options(self, options: Iterable[str]) -> None:
        """Return nothing when the fit takes options of these names.

        Raises:
            InputError: it does not take one; the message names the nearest and lists all.
        """
        check_options(f"Method {self.name!r}", options, self.options)

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
            InputError: what it needs was not given, or an option that it does not take. What it does not need is not
                looked at.

        >>> FITS["temperature"]([[4.0, 0.0]] * 4, answers=[0, 0, 0, 1]).kind
        'temperature'
        """
        self.check_options(options)
        if not self.needs_answers and not self.needs_reference:
            return self.fit(scores, **options)
        needed = answers if self.needs_answers else reference
        if needed is None:
            what = "the right answers of all questions" if self.needs_answers else "a reference model (reference=...)"
            raise InputError(f"method={self.name!r} needs {what}.")
        return self.fit(scores, needed, **options)


def _mapped(kind: str, home: str, **flags: bool) -> list[FitSpec]:
    """Return the fits of one function, a map of one confidence inside each."""
    return [FitSpec(f"{kind}:{name}", home, part=name, **flags) for name in CONFIDENCE_MAPS]


FITS: Mapping[str, FitSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            FitSpec("auto", "auto:fit_auto", needs_answers=True),
            FitSpec("batch", "batch:fit_batch"),
            FitSpec("daca", "daca:fit_daca", needs_reference=True, resamples=True, keeps_argmax=True),
            FitSpec("dirichlet", "dirichlet:fit_dirichlet", needs_answers=True),
            FitSpec(
                "group-temperature",
                "group_temperature:fit_group_temperature",
                needs_answers=True,
                needs_groups=True,
                keeps_argmax=True,
            ),
            FitSpec(
                "matched-mean", "soft_labels:fit_matched_mean", needs_reference=True, resamples=True, keeps_argmax=True
            ),
            FitSpec("matrix", "matrix_scaling:fit_matrix_scaling", needs_answers=True),
            FitSpec("naive-kl", "daca:fit_naive_kl", needs_reference=True, resamples=True, keeps_argmax=True),
            FitSpec("temperature", "temperature:fit_temperature", needs_answers=True, keeps_argmax=True),
            FitSpec("vector", "vector_scaling:fit_vector_scaling", needs_answers=True),
            *_mapped("top-label", "top_label:fit_top_label", needs_answers=True, keeps_argmax=True),
            *_mapped("soft", "without_labels:fit_without_labels", needs_reference=True, keeps_argmax=True),
            *_mapped("class-wise", "class_wise:fit_class_wise", needs_answers=True),
        )
    }
)
"""Every fit by name."""

DEFAULT_FIT, DEFAULT_WITHOUT_LABELS = "temperature", "soft:platt"
"""What fits where no method is named: with labels, and with a reference in their place."""

PROBE = "probe"
"""Name, as in `lm.fit(method=...)`, of the one fit that reads hidden states instead of scores: probing.py."""

CONFIDENCE_FITS: Mapping[str, Callable[..., Calibrator]] = OnDemand(
    {"auto-confidence": _PACKAGE + "auto:fit_auto_confidence", **CONFIDENCE_MAPS.homes}
)
"""Every fit of one confidence by name: each takes (N,) confidences and (N,) how right the answers were."""

KINDS: Mapping[str, type[Calibrator]] = OnDemand(
    {
        kind: _PACKAGE + home
        for kind, home in {
            "beta": "beta:Beta",
            "catto-head": "catto_head:CattoHead",
            "chain": "chain:Chain",
            "class-wise": "class_wise:ClassWise",
            "group-temperature": "group_temperature:GroupTemperature",
            "histogram-binning": "histogram_binning:HistogramBinning",
            "identity": "identity:Identity",
            "isotonic": "isotonic:Isotonic",
            "matrix-scaling": "matrix_scaling:MatrixScaling",
            "platt": "platt:Platt",
            "probe": "probe:Probe",
            "temperature": "temperature:Temperature",
            "top-label": "top_label:TopLabel",
            "vector-scaling": "vector_scaling:VectorScaling",
            "venn-abers": "venn_abers:VennAbers",
        }.items()
    }
)
"""Every calibrator of this package by its `kind`, the name in saved files."""

ENTRY_POINTS = "calibwrap.calibrators"
"""Entry-point group where other packages list their calibrator classes under their `kind`."""


def default_fit(*, has_reference: bool) -> str:
    """Return the method where none is named.

    >>> default_fit(has_reference=False), default_fit(has_reference=True)
    ('temperature', 'soft:platt')
    """
    return DEFAULT_WITHOUT_LABELS if has_reference else DEFAULT_FIT


def fit_named(method: str) -> FitSpec:
    """Return the fit called `method`, which maps the scores of options.

    Raises:
        InputError: there is none; the message names the nearest and lists all.

    >>> fit_named("daca").needs_reference
    True
    """
    if method in CONFIDENCE_FITS:
        inside = f"'top-label:{method}' on options, or " if method in CONFIDENCE_MAPS else ""
        raise InputError(f"Method {method!r} fits one confidence, not options: use {inside}fit_answers.")
    if method == PROBE:
        raise InputError(
            f"Method {method!r} reads hidden states, not scores, so that it takes a model: lm.fit(questions, 'probe')."
        )
    if method not in FITS:
        raise InputError(_unknown("method", method, (*FITS, PROBE)))
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
            f"Method {method!r} needs the name of each question's group, which nothing tells here: give every question "
            f"a 'group', or use lm.fit(questions, method={method!r}, groups=[...])."
        )
    return spec


def fit_for(
    method: str, options: Mapping[str, Any], questions: Sequence[Question]
) -> tuple[FitSpec, Mapping[str, Any]]:
    """Return the fit called `method` and its options; asked before a model reads anything, which may cost money.

    A fit that takes the groups of questions is told them where all questions name theirs and `options` do not.

    Raises:
        InputError: there is none, it takes no such option, it needs groups that are missing, or not one a question.

    >>> spec, options = fit_for("auto", {}, [Question("Red planet?", ["Mars", "Venus"], group="astronomy")])
    >>> spec.name, options
    ('auto', {'groups': ['astronomy']})
    """
    from calibwrap.calibrators.group_temperature import checked_groups

    check_questions(questions)
    spec, known = fit_named(method), [question.group for question in questions]
    spec.check_options(options)
    if options.get("groups") is not None:
        checked_groups(options["groups"], len(known))
    elif all(known) and "groups" in spec.options:
        return spec, {**options, "groups": known}
    else:
        groupless_fit(method)
    return spec, options


def confidence_fit(method: str, options: Iterable[str] = ()) -> Callable[..., Calibrator]:
    """Return the fit of one confidence called `method`, which takes options of the given names.

    Raises:
        InputError: there is none, or it takes no such option; the message names the nearest and lists all.

    >>> confidence_fit("platt")([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0]).kind
    'platt'
    """
    if method not in CONFIDENCE_FITS:
        raise InputError(_unknown("method for one confidence", method, CONFIDENCE_FITS))
    fit = CONFIDENCE_FITS[method]
    check_options(f"Method {method!r}", options, options_of(fit, 2))
    return fit


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


def options_of(fit: Callable[..., Any], n_data: int) -> tuple[str, ...]:
    """Return the names of what a function takes after its first `n_data` arguments, which are the data.

    >>> options_of(lambda rows, answers, shape="line", *, n_bins=15, **more: None, 2)
    ('shape', 'n_bins')
    """
    parameters = list(inspect.signature(fit).parameters.values())[n_data:]
    return tuple(one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD)


def check_options(whose: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Return nothing when all names `given` are among those `known`.

    Raises:
        InputError: one is not; the message says whose options these are, names the nearest and lists all.
    """
    allowed = list(known)
    for name in given:
        if name not in allowed:
            raise InputError(f"{whose}: {_unknown('option', name, allowed)}")


def _unknown(what: str, name: object, known: Iterable[str]) -> str:
    import difflib  # needed for what goes wrong only

    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {what} {name!r}.{hint} There are {', '.join(sorted(known)) or 'none'}."
