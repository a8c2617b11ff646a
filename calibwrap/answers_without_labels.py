"""Calibrated answers in free text without references: another model's word stands in for what is right."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from calibwrap.base import Adapter, Answer, Calibrator, Decoder
from calibwrap.calibrators import Identity, with_report
from calibwrap.decoders import FreeText, PTrue, decoder_label
from calibwrap.decoders.answer_fits import fit_decoded, template_for
from calibwrap.decoders.answering import fitted_on
from calibwrap.decoders.judgement import fit_daca_judged, judgements, own_judgements
from calibwrap.errors import FitError, InputError
from calibwrap.freetext.reevaluation import reevaluated
from calibwrap.provenance import FitReport
from calibwrap.questions import FreeQuestion, Template
from calibwrap.wrap import CalibratedLM, Progress, borrowed


def fit_answers_without_labels(
    lm: CalibratedLM,
    questions: Sequence[FreeQuestion],
    reference: CalibratedLM | Adapter | str,
    decoder: Decoder | None = None,
    method: str = "platt",
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
        method: a fit of one confidence, such as "platt" or "isotonic", on the mean probability that the reference gives
            to the answer's tokens ("BaseCal", 2026); or "daca", on what both models say when asked whether the answer
            is right (Luo et al., 2025), which needs a `PTrue` decoder.
        template: writes the model's prompts, as in `CalibratedLM.answer_batch`.
        reference_template: writes the reference's.
        progress: called with (done, in all) of the model's answers.
        options: passed to the method.

    Raises:
        InputError: an unknown method, or "daca" with another decoder than `PTrue`.
        CapabilityError: the reference cannot score a given text, or not show labels for "daca".
        FitError: no answer says anything, or for "daca" the two agree nowhere.

    >>> from calibwrap.testing import ToyAdapter, ToyModel
    >>> lm, base = (CalibratedLM(ToyAdapter(ToyModel.random(3).sharpened(by))) for by in (2.0, 1.0))
    >>> asked = [FreeQuestion(f"{first} {last}") for first in "ABC" for last in ("A", "B", "C", "sun")]
    >>> fit_answers_without_labels(lm, asked, base, FreeText(max_tokens=2), "isotonic").calibrator.report.rows
    12
    """
    chosen = decoder or (PTrue() if method == "daca" else FreeText())
    if method == "daca" and not isinstance(chosen, PTrue):
        raise InputError(f"Method 'daca' compares verdicts, so it needs a PTrue decoder. Got {decoder_label(chosen)}.")
    origin, raw = lm.adapter.fingerprint(), replace(lm, calibrator=Identity())
    asked = template_for(template, lm.adapter.provides, type(chosen)).label
    with borrowed(reference) as other:
        answers = raw.answer_batch(questions, chosen, template=template, progress=progress)
        if isinstance(chosen, PTrue) and method == "daca":
            calibrator = _judged(answers, questions, other.adapter, chosen, reference_template, **options)
        else:
            texts = [answer.text for answer in answers]
            soft = reevaluated(other.adapter, questions, texts, reference_template)
            calibrator = fit_decoded(answers, soft, method, chosen, asked, origin, **options)
        source = other.adapter.fingerprint()
    if calibrator.report is not None:
        report: FitReport = replace(
            calibrator.report,
            readout=fitted_on(chosen, asked),
            reference_readout=f"{'verdicts' if method == 'daca' else 'mean token probability'} of the reference",
            provenance=origin,
            reference=source,
        )
        calibrator = with_report(calibrator, report)
    return replace(lm, calibrator=calibrator)


def _judged(
    answers: Sequence[Answer],
    questions: Sequence[FreeQuestion],
    reference: Adapter,
    decoder: PTrue,
    template: Template | None,
    **options: Any,
) -> Calibrator:
    """Return DACA's map between the model's verdicts on its answers and the reference's."""
    spoken = [index for index, answer in enumerate(answers) if answer.text]
    if not spoken:
        raise FitError(f"None of the {len(answers)} answers says anything: change the prompt or 'max_tokens'.")
    said = [answers[index] for index in spoken]
    theirs = judgements(reference, [questions[i] for i in spoken], [one.text for one in said], decoder, template)
    return fit_daca_judged(own_judgements(said), theirs, **options)
