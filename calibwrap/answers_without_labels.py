"""Calibrated answers in free text without references: another model's word stands in for what is right."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from calibwrap.base import Adapter, Decoder
from calibwrap.calibrators import Identity
from calibwrap.decoders import FreeText, PTrue
from calibwrap.decoders.answer_fits import template_for
from calibwrap.decoders.referee import DACA, Referee, check_method, check_reference
from calibwrap.questions import FreeQuestion, Template
from calibwrap.wrap import CalibratedLM, Progress, borrowed


def fit_answers_without_labels(
    lm: CalibratedLM,
    questions: Sequence[FreeQuestion],
    reference: CalibratedLM | Adapter | str,
    decoder: Decoder | None = None,
    method: str = "soft:platt",
    *,
    template: Template | None = None,
    reference_template: Template | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> CalibratedLM:
    """Return the model with a calibrator of one confidence, fitted on its raw answers without knowing which are right.

    Args:
        lm: the model.
        questions: what it is asked; `answers` are not looked at.
        reference: the pre-trained model that says how far to trust them: wrapped, an adapter, or a spec, whose
            model is loaded beside this one and closed again.
        decoder: what answers; by default `PTrue()` for "daca", else `FreeText()`. The calibrator is good for this one.
        method: "soft:platt", "soft:isotonic", ...: a fit of one confidence on the mean probability that the reference
            gives to the answer's tokens ("BaseCal", 2026); or "daca", on what both models say when asked whether the
            answer is right (Luo et al., 2025), which needs a `PTrue` decoder.
        template: writes the model's prompts, as in `CalibratedLM.answer_batch`.
        reference_template: writes the reference's.
        progress: called with (done, in all) of the model's answers.
        options: passed to the method.

    Raises:
        InputError: an unknown method or option, or "daca" with another decoder than `PTrue`.
        CapabilityError: the reference cannot score a given text, or not show labels for "daca".
        FitError: no answer says anything, or for "daca" the two agree nowhere.

    >>> from calibwrap.testing import ToyAdapter, ToyModel
    >>> lm, base = (CalibratedLM(ToyAdapter(ToyModel.random(3).sharpened(by))) for by in (2.0, 1.0))
    >>> asked = [FreeQuestion(f"{first} {last}") for first in "ABC" for last in ("A", "B", "C", "sun")]
    >>> fit_answers_without_labels(lm, asked, base, FreeText(max_tokens=2), "soft:isotonic").calibrator.report.rows
    12
    """
    chosen = decoder or (PTrue() if method == DACA else FreeText())
    check_method(method, chosen, options)
    raw = replace(lm, calibrator=Identity())
    asked = template_for(template, lm.adapter.provides, type(chosen)).label
    with borrowed(reference) as other:
        check_reference([method], other.adapter)
        answers = raw.answer_batch(questions, chosen, template=template, progress=progress)
        referee = Referee(other.adapter, questions, answers, chosen, reference_template)
        return replace(lm, calibrator=referee.fit(method, asked, lm.adapter.fingerprint(), **options))
