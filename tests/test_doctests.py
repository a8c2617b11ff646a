"""The examples in the docstrings print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import calibwrap


def module_names() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(calibwrap.__path__, "calibwrap.")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", module_names())
def test_examples_print_what_they_say(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
