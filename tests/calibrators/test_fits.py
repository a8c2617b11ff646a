"""Fits and kinds by name."""

import importlib.metadata

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.calibrators import (
    CONFIDENCE_FITS,
    FITS,
    KINDS,
    Identity,
    Temperature,
    calibrator_class,
    confidence_fit,
    fit_for,
    fit_named,
    options_of,
)
from calibwrap.errors import InputError, SavedFileError
from calibwrap.testing import ToyAdapter, toy_questions

POST, PRE = np.random.default_rng(0).normal(size=(2, 60, 3)) * 0.1 + np.eye(3)[np.arange(60) % 3] * [[[4.0]], [[2.0]]]
ANSWERS = np.where(np.arange(60) % 5, np.arange(60) % 3, 0)
WANTED = {"group-temperature": {"groups": ["a", "b", "c"] * 20}}
"""What a fit cannot do without beside scores and answers."""
ASKED = [cw.Question("Who?", ["I", "you"])] * 3


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")  # sure choices are the worse ones there
@pytest.mark.parametrize("name", FITS)
def test_every_fit_runs_by_name_and_says_what_it_needs(name):
    spec = fit_named(name)
    assert not (spec.needs_answers and spec.needs_reference)
    calibrator = spec(POST, answers=ANSWERS, reference=PRE, **WANTED.get(name, {}))
    assert calibrator.report.method == name or calibrator.report.candidates  # the choice names its winner
    assert spec.keeps_argmax == calibrator.keeps_argmax or name == "auto"  # which may choose one that does not
    if not spec.needs_answers and not spec.needs_reference:
        return
    missing = {"reference": PRE} if spec.needs_answers else {"answers": ANSWERS}
    with pytest.raises(InputError, match=f"method='{name}' needs"):
        spec(POST, **missing)


def test_options_go_through():
    assert FITS["daca"](POST, reference=PRE, calibrator="vector").kind == "vector-scaling"


@pytest.mark.parametrize("name", FITS)
def test_every_option_of_a_fit_is_known_and_no_other(name):
    """What is listed is what the function says, and what it hands on to the map inside."""
    spec, data = FITS[name], {"answers": ANSWERS, "reference": PRE}
    spec.check_options(spec.options)
    assert "method" not in spec.options
    with pytest.raises(InputError, match=rf"Method '{name}': Unknown option 'boundz'"):
        spec(POST, **data, boundz=(1, 2))
    if spec.part:
        assert set(options_of(CONFIDENCE_FITS[spec.part], 2)) <= set(spec.options)


def test_an_unknown_option_is_told_the_nearest_and_all():
    with pytest.raises(InputError, match=r"Method 'auto': Unknown option 'n_fold'. Did you mean 'n_folds'"):
        fit_for("auto", {"n_fold": 3}, ASKED)
    with pytest.raises(InputError, match=r"Method 'batch': Unknown option 'x'. There are none"):
        fit_for("batch", {"x": 3}, ASKED)
    with pytest.raises(InputError, match=r"Method 'platt': Unknown option 'bounds'. There are clip, smoothing"):
        confidence_fit("platt", ["bounds"])
    assert fit_for("top-label:histogram", {"n_bins": 5, "keeps_choice": False}, ASKED)[0].part == "histogram"


def test_groups_are_checked_before_anything_is_read():
    with pytest.raises(InputError, match="'groups' must be 3 texts"):
        fit_for("group-temperature", {"groups": ["law"]}, ASKED)
    with pytest.raises(InputError, match="Method 'temperature': Unknown option 'groups'"):
        fit_for("temperature", {"groups": ["law"] * 3}, ASKED)
    with pytest.raises(InputError, match=r"needs the name of each question's group"):
        fit_for("group-temperature", {}, ASKED)


def test_an_option_that_a_fit_does_not_take_costs_no_model_call():
    adapter = ToyAdapter()
    lm, asked = cw.wrap(adapter), toy_questions(20)
    for words in (["temperature", {"groups": ["a"] * 20}], ["auto", {"bounds": (1, 2)}], ["vector", {"rigde": 1.0}]):
        with pytest.raises(InputError, match=rf"Method '{words[0]}': Unknown option"):
            lm.fit(asked, words[0], **words[1])
    with pytest.raises(InputError, match="'groups' must be 20 texts"):
        lm.fit(asked, "group-temperature", groups=["a"] * 19)
    free = [cw.FreeQuestion("Who?", answers=["I"])]
    for method, options in (("platt", {"smooth": True}), ("plat", {})):
        with pytest.raises(InputError, match=r"Did you mean '(smoothing|platt)'"):
            lm.fit_answers(free, method=method, **options)
    assert not any(adapter.calls.values())


def test_the_probe_is_named_where_scores_are_fitted():
    with pytest.raises(InputError, match=r"reads hidden states.*lm\.fit\(questions, 'probe'\)"):
        fit_named("probe")
    with pytest.raises(InputError, match="Did you mean 'probe'"):
        fit_named("prob")


def test_an_unknown_method_is_told_the_nearest_and_all():
    with pytest.raises(InputError, match=rf"Did you mean 'temperature'.* {', '.join(sorted([*FITS, 'probe']))}"):
        fit_named("temprature")
    with pytest.raises(InputError, match=r"Unknown method 'zzz'.+There are"):
        fit_named("zzz")


def test_kinds_are_found_by_name():
    assert {kind: calibrator_class(kind) for kind in KINDS} == dict(KINDS)
    assert {kind: one.kind for kind, one in KINDS.items()} == {kind: kind for kind in KINDS}
    with pytest.raises(SavedFileError, match="Did you mean 'temperature'"):
        calibrator_class("temperatur")


def test_other_packages_bring_their_own(monkeypatch):
    # an installed third-party distribution is what no test here produces on demand
    def listed(*, group, name):
        assert group == "calibwrap.calibrators"
        found = {"mine": "calibwrap.calibrators:Identity", "wrong": "json:loads", "gone": "no_such_package:Thing"}
        return [importlib.metadata.EntryPoint(name, found[name], group)] if name in found else []

    monkeypatch.setattr(importlib.metadata, "entry_points", listed)
    assert calibrator_class("mine") is Identity
    assert calibrator_class("temperature") is Temperature
    with pytest.raises(SavedFileError, match="must be a class of Calibrator"):
        calibrator_class("wrong")
    with pytest.raises(SavedFileError, match="could not be imported"):
        calibrator_class("gone")
    with pytest.raises(SavedFileError, match="Install the package"):
        calibrator_class("other")
