"""What people read for the name of a series: built from what each fit is and needs, so that a new one has words too."""

from calibwrap.base import Calibrator
from calibwrap.calibrators import CONFIDENCE_FITS, FITS
from calibwrap.calibrators._fits import PROBE
from calibwrap.evaluate import RAW, SAVED

_MAPS = {
    "beta": "beta calibration",
    "histogram": "histogram binning",
    "isotonic": "isotonic map",
    "platt": "Platt scaling",
    "venn-abers": "Venn-Abers calibration",
}
"""Maps of one confidence."""

_FITS = {
    "auto": "the method that cross-validation chose",
    "batch": "batch calibration",
    "daca": "DACA",
    "dirichlet": "Dirichlet calibration",
    "group-temperature": "a temperature for each group",
    "matched-mean": "temperature by the reference's mean confidence",
    "matrix": "matrix scaling",
    "naive-kl": "naive KL alignment",
    "probe": "probe of hidden states",
    "temperature": "temperature scaling",
    "vector": "vector scaling",
}
"""Fits of options."""

_INSIDE = {
    "class-wise": "{} of each option's probability",
    "soft": "{} towards the reference",
    "top-label": "{} of the first choice's probability",
}
"""Fits that have a map of one confidence inside."""


def series_name(name: str, calibrator: Calibrator | None = None) -> str:
    """Return what people read for the name of a series; a name that nobody knows stands for itself.

    A series that is called after its calibrator's kind came with the model. How it was fitted is in its report: a
    temperature may come from labels or from a reference.

    >>> series_name("daca"), series_name("top-label:beta"), series_name("mine")
    ('DACA, without labels', "beta calibration of the first choice's probability, with labels", 'mine')
    """
    plain = name.removeprefix(SAVED)
    if calibrator is not None and plain == calibrator.kind:
        known = plain if calibrator.report is None else _words(calibrator.report.method)
    else:
        known = _words(plain)
    return f"{known} (saved before)" if name.startswith(SAVED) else known


def _words(name: str) -> str:
    """Return the words for the name of a fit, and for any other name the name."""
    if name == RAW:
        return "as the model says it"
    if name == PROBE:
        return f"{_FITS[name]}, with labels"
    if name in FITS:
        spec = FITS[name]
        around = name.partition(":")[0]
        what = _INSIDE[around].format(_MAPS.get(spec.part, spec.part)) if spec.part else _FITS.get(name, name)
        return f"{what}, {'with' if spec.needs_answers else 'without'} labels"
    if name == "auto-confidence":
        return f"{_FITS['auto']} for the answer's confidence, with labels"
    if name in CONFIDENCE_FITS:
        return f"{_MAPS.get(name, name)} of the answer's confidence, with labels"
    return name
