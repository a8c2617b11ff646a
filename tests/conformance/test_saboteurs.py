"""The checks are checked: each catches its saboteur, none is without one, and the honest parts pass them all."""

import pytest

from calibwrap.calibrators import fit_platt, fit_temperature
from calibwrap.testing import (
    ADAPTER_CHECKS,
    CALIBRATOR_CHECKS,
    CONFIDENCE_CHECKS,
    CONFIDENCE_FIT_CHECKS,
    DECODER_CHECKS,
    FIT_CHECKS,
    AdapterProbe,
    CalibratorProbe,
    CheckFailed,
    ConfidenceFitProbe,
    ConfidenceProbe,
    DecoderProbe,
    FitProbe,
    ToyAdapter,
    ToyModel,
    adapter_drawing,
    adapter_inputs,
    adapter_scores,
    adapter_streaming,
    calibrator_checks,
    confidence_fit_checks,
    decoder_checks,
    fit_checks,
)

from . import calibrator_saboteurs, confidence_saboteurs, decoder_saboteurs
from .adapter_saboteurs import ADAPTER_SABOTEURS
from .calibrator_saboteurs import CALIBRATOR_SABOTEURS, FIT_SABOTEURS
from .confidence_saboteurs import CONFIDENCE_FIT_SABOTEURS, CONFIDENCE_SABOTEURS, FREE_TEXT_SABOTEURS
from .decoder_saboteurs import DECODER_SABOTEURS
from .drawing_saboteurs import DRAWING_SABOTEURS
from .streaming_saboteurs import STREAMING_SABOTEURS

OWN = tuple(check for check in CONFIDENCE_CHECKS if check not in CALIBRATOR_CHECKS)
CHECKS = (*ADAPTER_CHECKS, *CALIBRATOR_CHECKS, *OWN, *FIT_CHECKS, *CONFIDENCE_FIT_CHECKS, *DECODER_CHECKS)
BY_NAME = {check.__name__: check for check in CHECKS}
READING_AND_DRAWING = (*ADAPTER_SABOTEURS, *DRAWING_SABOTEURS, *STREAMING_SABOTEURS)
SABOTEURS = [
    *((name, lambda wrong=wrong: AdapterProbe(wrong(ToyModel.random())), wrong) for name, wrong in READING_AND_DRAWING),
    *((name, lambda wrong=wrong: CalibratorProbe(wrong), wrong) for name, wrong in CALIBRATOR_SABOTEURS),
    *((name, lambda wrong=wrong: FitProbe(wrong, "answers"), wrong) for name, wrong in FIT_SABOTEURS),
    *((name, lambda wrong=wrong: ConfidenceProbe(wrong), wrong) for name, wrong in CONFIDENCE_SABOTEURS),
    *((name, lambda wrong=wrong: ConfidenceFitProbe(wrong), wrong) for name, wrong in CONFIDENCE_FIT_SABOTEURS),
    *(
        (name, lambda wrong=wrong: DecoderProbe(wrong()), wrong)
        for name, wrong in (*DECODER_SABOTEURS, *FREE_TEXT_SABOTEURS)
    ),
]


def test_every_check_has_a_name_of_its_own_and_a_saboteur():
    assert len(BY_NAME) == len(CHECKS)
    assert {name for name, _, _ in SABOTEURS} == set(BY_NAME)


def test_every_check_that_is_written_is_run():
    modules = (
        adapter_drawing,
        adapter_inputs,
        adapter_scores,
        adapter_streaming,
        *map(_module, ("calibrator", "confidence", "decoder", "fit")),
    )
    written = {name for module in modules for name in vars(module) if name.startswith("check_")}
    assert written == set(BY_NAME)


def _module(part):
    import importlib

    return importlib.import_module(f"calibwrap.testing.{part}_checks")


def _label(name, wrong):
    return f"{name}-{getattr(wrong, '__name__', type(wrong).__name__)}"


@pytest.mark.parametrize(
    ("name", "probe"),
    [pytest.param(name, probe, id=_label(name, wrong)) for name, probe, wrong in SABOTEURS],
)
def test_the_check_catches_its_saboteur(name, probe):
    with pytest.raises(CheckFailed, match="Expected"):
        BY_NAME[name](probe())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("check", ADAPTER_CHECKS, ids=lambda check: check.__name__)
def test_the_honest_toy_passes(check, seed):
    check(AdapterProbe(ToyAdapter(ToyModel.random(seed))))


def test_the_saboteurs_start_from_parts_that_pass():
    unsaved = {"check_saving_is_exact": "a stranger's kind is not among the saved ones"}
    found = dict(calibrator_checks(calibrator_saboteurs.Honest(), exempt=unsaved))
    assert found["check_rows_are_independent"] == "passed"
    assert set(dict(calibrator_checks(confidence_saboteurs.Honest(), exempt=unsaved)).values()) <= {
        "passed",
        "exempt: a stranger's kind is not among the saved ones",
    }
    outcomes = dict(decoder_checks(decoder_saboteurs.Honest()))
    for_free_text = {"check_silent_texts_have_no_vote", "check_nothing_said_is_no_answer"}
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} == for_free_text
    assert {dict(decoder_checks(confidence_saboteurs.Shares()))[name] for name in for_free_text} == {"passed"}
    assert set(dict(fit_checks(fit_temperature)).values()) == {"passed"}
    assert set(dict(confidence_fit_checks(fit_platt)).values()) == {"passed"}
