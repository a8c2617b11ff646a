"""The checks are checked: each catches its saboteur, and none is without one."""

import pytest

from calibwrap.testing import ADAPTER_CHECKS, AdapterProbe, CheckFailed, ToyAdapter, ToyModel

from .adapter_saboteurs import ADAPTER_SABOTEURS

CHECKS = {check.__name__: check for check in ADAPTER_CHECKS}


def test_every_check_has_a_saboteur():
    assert {name for name, _ in ADAPTER_SABOTEURS} == set(CHECKS)


def test_every_check_function_is_listed():
    from calibwrap.testing import adapter_drawing, adapter_inputs, adapter_scores

    modules = (adapter_drawing, adapter_inputs, adapter_scores)
    written = {name for module in modules for name in vars(module) if name.startswith("check_")}
    assert written == set(CHECKS)


@pytest.mark.parametrize(("name", "saboteur"), ADAPTER_SABOTEURS, ids=lambda value: getattr(value, "__name__", value))
def test_the_check_catches_its_saboteur(name, saboteur):
    with pytest.raises(CheckFailed, match="Expected"):
        CHECKS[name](AdapterProbe(saboteur(ToyModel.random())))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("check", ADAPTER_CHECKS, ids=lambda check: check.__name__)
def test_the_honest_toy_passes(check, seed):
    check(AdapterProbe(ToyAdapter(ToyModel.random(seed))))
