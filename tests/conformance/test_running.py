"""How checks are run: everything is reported, exemptions are strict."""

import numpy as np
import pytest

from calibwrap.errors import InputError
from calibwrap.testing.checks import (
    Check,
    CheckFailed,
    NotApplicable,
    expect,
    expect_close,
    expect_raises,
    expect_works,
    run_checks,
)


def check_small(number):
    expect(number < 10, f"Expected less than 10. Got {number}.")


def check_even(number):
    if number != int(number):
        raise NotApplicable("it is no whole number")
    expect(number % 2 == 0, f"Expected an even number. Got {number}.")


def check_breaks(number):
    return 1 / number


def run(number, exempt=None):
    return run_checks("the number", [check_small, check_even, check_breaks], number, exempt)


def test_outcomes_make_a_dictionary():
    assert run(4) == [Check("check_small", "passed"), Check("check_even", "passed"), Check("check_breaks", "passed")]
    assert dict(run(0.5))["check_even"] == "not applicable: it is no whole number"


def test_all_failures_are_reported_together():
    with pytest.raises(CheckFailed, match="the number fails 2 of 3 checks") as caught:
        run(11)
    assert "Expected less than 10. Got 11." in str(caught.value)
    assert "Expected an even number. Got 11." in str(caught.value)


def test_a_part_that_breaks_is_a_failure_with_its_name():
    with pytest.raises(CheckFailed, match=r"check_breaks: .*ZeroDivisionError"):
        run(0)


def test_a_named_exemption_is_reported_with_its_reason():
    assert dict(run(7, {"check_even": "odd by design"}))["check_even"] == "exempt: odd by design"


def test_an_exemption_that_passes_is_a_failure():
    with pytest.raises(CheckFailed, match=r"exempt \(odd by design\) and passes"):
        run(4, {"check_even": "odd by design"})


def test_an_unknown_exemption_names_the_nearest_check():
    with pytest.raises(InputError, match=r"'check_evn'.*check_even"):
        run(4, {"check_evn": "a slip"})


@pytest.mark.parametrize(
    ("got", "wanted"),
    [([1.0], [1.1]), ([np.nan], [np.nan]), ([0.0], [-np.inf]), ([1.0], [1.0, 1.0]), ([[1.0]], [1.0])],
)
def test_values_that_differ_fail(got, wanted):
    with pytest.raises(CheckFailed, match="same"):
        expect_close(got, wanted, 1e-3, "Expected the same.")


def test_equal_infinities_agree():
    assert expect_close([-np.inf, 1.0], [-np.inf, 1.0005], 1e-3, "Expected the same.") is None


def raiser(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize("call", [raiser(KeyError("x")), raiser(ValueError()), lambda: 3])
def test_another_error_an_error_without_words_and_no_error_all_fail(call):
    with pytest.raises(CheckFailed, match="Expected ValueError"):
        expect_raises(ValueError, call, "a wrong value")


def test_a_refusal_where_none_is_due_fails():
    with pytest.raises(CheckFailed, match=r"Expected it to work. Got InputError: no"):
        expect_works(raiser(InputError("no")), "it")
