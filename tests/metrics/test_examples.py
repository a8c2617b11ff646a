"""The examples in the docstrings are right, to the printed digit."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

from calibwrap import metrics

MODULES = [module.name for module in pkgutil.iter_modules(metrics.__path__, "calibwrap.metrics.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs={"np": np})
    assert result.attempted > 0
    assert result.failed == 0
