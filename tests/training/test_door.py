"""The door of the training package: every name has a home, and opening it loads nothing heavy."""

import subprocess
import sys

import pytest

from calibwrap import training


def test_the_door_opens_without_torch() -> None:
    code = "import sys, calibwrap.training as t; t.catto_loss; t.log_score_reward; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "False"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_public_name_is_there() -> None:
    assert list(training.__all__) == sorted(training.__all__)
    for name in training.__all__:
        assert getattr(training, name).__doc__, name


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        training.nonsense  # noqa: B018
