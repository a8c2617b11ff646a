"""Sections refuse what does not belong together; examples in the docstrings are right."""

import doctest
import importlib
import pkgutil

import pytest

from calibwrap import report, summary
from calibwrap.errors import InputError
from calibwrap.questions import Question
from calibwrap.report import Section, Series

from .sets import scores

MODULES = [module.name for module in pkgutil.iter_modules(report.__path__, "calibwrap.report.")]
TWO = [Question("?", ["a", "b"], 0), Question("?", ["a", "b"])]


@pytest.mark.parametrize("name", [*MODULES, summary.__name__])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_a_section_freezes_its_lists():
    section = Section("set", TWO, [Series("raw", scores([[0.0, -1.0]] * 2))])
    assert isinstance(section.questions, tuple)
    assert section.answers.tolist() == [0]
    assert section.answered.tolist() == [True, False]
    confidence, correct = section.stated(section.series[0])
    assert confidence == pytest.approx([0.7310586])
    assert correct.tolist() == [True]


def test_rows_must_be_the_questions():
    with pytest.raises(InputError, match="one row for each of the 2 questions"):
        Section("set", TWO, [Series("raw", scores([[0.0, -1.0]]))])


@pytest.mark.parametrize("logits", [[[0.0, -1.0, -2.0]] * 2, [[0.0]] * 2])
def test_columns_must_be_the_options(logits):
    with pytest.raises(InputError, match="the 2 options"):
        Section("set", TWO, [Series("raw", scores(logits))])


def test_series_need_different_names():
    one = Series("raw", scores([[0.0, -1.0]] * 2))
    with pytest.raises(InputError, match="different names"):
        Section("set", TWO, [one, one])
