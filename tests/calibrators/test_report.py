"""The report is what may be exchanged on a calibrator; nothing else moves, and what is no record is refused."""

import pytest

from calibwrap.base import Calibrator
from calibwrap.calibrators import CattoHead, Chain, Temperature, with_report
from calibwrap.errors import InputError
from calibwrap.provenance import FitReport

NEW = FitReport("new", 3, 2, 0.5, 0.25)


class Bare(Calibrator):
    """Its numbers are no fields."""

    kind = "bare"

    def logits(self, logprobs):
        return logprobs


@pytest.mark.parametrize(
    "calibrator",
    [
        Temperature(2.0, report=FitReport("old", 1, 1, 1.0, 1.0)),
        Chain((Temperature(2.0), Temperature(3.0))),
        CattoHead([0.0] * 7, [1.0] * 7, [[0.1]] * 7, [0.0], [0.3], 0.1),
    ],
    ids=lambda one: one.kind,
)
def test_the_report_alone_changes(calibrator):
    told = with_report(calibrator, NEW)
    assert (told, told.report) == (calibrator, NEW)
    assert calibrator.report != NEW


def test_a_calibrator_that_is_no_dataclass_is_named():
    with pytest.raises(InputError, match=r"must be a dataclass.* Got Bare"):
        with_report(Bare(), NEW)
