"""Every plug-in in the table keeps its contract."""

import pytest

from calibwrap.testing import adapter_checks, calibrator_checks, confidence_fit_checks, decoder_checks, fit_checks

from .table import ADAPTERS, CALIBRATORS, CONFIDENCE_FITS, DECODERS, FITS


def entries(table):
    return pytest.mark.parametrize("entry", table, ids=lambda entry: entry.name)


def passes(found):
    """At least one check must have had something to look at."""
    assert "passed" in dict(found).values()


@entries(ADAPTERS)
def test_adapter(entry, tmp_path):
    adapter = entry.make(tmp_path)
    try:
        passes(adapter_checks(adapter, **entry.options))
    finally:
        adapter.close()


@pytest.mark.filterwarnings("ignore:No groups were named:calibwrap.errors.CalibrationWarning")  # the checks know none
@entries(CALIBRATORS)
def test_calibrator(entry):
    passes(calibrator_checks(entry.make(), **entry.options))


@pytest.mark.filterwarnings("ignore:No groups were named:calibwrap.errors.CalibrationWarning")  # the checks know none
@entries(FITS)
def test_fit(entry):
    passes(fit_checks(entry.make(), **entry.options))


@entries(CONFIDENCE_FITS)
def test_confidence_fit(entry):
    passes(confidence_fit_checks(entry.make(), **entry.options))


@entries(DECODERS)
def test_decoder(entry):
    passes(decoder_checks(entry.make(), **entry.options))
