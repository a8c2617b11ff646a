"""Fits and kinds by name."""

import importlib.metadata

import numpy as np
import pytest

from calibwrap.calibrators import FITS, KINDS, Identity, Temperature, calibrator_class, fit_named
from calibwrap.errors import InputError, SavedFileError

POST, PRE = np.random.default_rng(0).normal(size=(2, 60, 3)) * 0.1 + np.eye(3)[np.arange(60) % 3] * [[[4.0]], [[2.0]]]
ANSWERS = np.where(np.arange(60) % 5, np.arange(60) % 3, 0)
WANTED = {"group-temperature": {"groups": ["a", "b", "c"] * 20}}
"""What a fit cannot do without beside scores and answers."""


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")  # sure choices are the worse ones there
@pytest.mark.parametrize("name", FITS)
def test_every_fit_runs_by_name_and_says_what_it_needs(name):
    spec = fit_named(name)
    assert not (spec.needs_answers and spec.needs_reference)
    calibrator = spec(POST, answers=ANSWERS, reference=PRE, **WANTED.get(name, {}))
    assert calibrator.report.method == name or calibrator.report.candidates  # the choice names its winner
    if not spec.needs_answers and not spec.needs_reference:
        return
    missing = {"reference": PRE} if spec.needs_answers else {"answers": ANSWERS}
    with pytest.raises(InputError, match=f"method='{name}' needs"):
        spec(POST, **missing)


def test_options_go_through():
    assert FITS["daca"](POST, reference=PRE, calibrator="vector").kind == "vector-scaling"


def test_an_unknown_method_is_told_the_nearest_and_all():
    with pytest.raises(InputError, match=rf"Did you mean 'temperature'.* {', '.join(sorted(FITS))}"):
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
