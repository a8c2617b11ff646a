"""What goes with a decoder of answers: the template that asks for them, and the fit of their confidence."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from calibwrap.base import Answer, Calibrator, Decoder
from calibwrap.capabilities import Provides
from calibwrap.decoders.answering import fitted_on
from calibwrap.decoders.free_text import SelfConsistency, SemanticEntropy
from calibwrap.decoders.stated import Stated
from calibwrap.decoders.votes import MajorityVote
from calibwrap.freetext.fitting import fit_on_answers, free_template
from calibwrap.freetext.stated import SCALE
from calibwrap.provenance import Provenance
from calibwrap.questions import Template

ASKED = Template(body="Question: {question}", name="asked")
"""The plain prompt of `Stated`, whose reply has a form of its own: it does not end with "Answer:"."""


def template_for(template: Template | None, provides: Provides, decoder: type[Decoder]) -> Template:
    """Return the template that asks questions in free text: the given one, else what suits model and decoder.

    That is `SHORT_CHAT` for a model with a chat template, else `ASKED` for `Stated` and `SHORT` for any other decoder.

    Raises:
        InputError: `template` is not a `Template`.

    >>> from calibwrap.decoders import FreeText
    >>> template_for(None, Provides(chat=True), FreeText).name, template_for(None, Provides(), Stated).name
    ('short-chat', 'asked')
    """
    if template is None and not provides.chat and issubclass(decoder, Stated):
        return ASKED
    return free_template(template, provides)


def fit_decoded(
    answers: Sequence[Answer],
    correct: ArrayLike,
    method: str,
    decoder: Decoder,
    template: str,
    provenance: Provenance,
    **options: Any,
) -> Calibrator:
    """Return the calibrator of one confidence that `method` fits on a decoder's answers, with a full report.

    Args:
        answers: N raw answers of `decoder`.
        correct: (N,) in [0, 1], how right each one is.
        method: a fit of one confidence; "platt" takes none beyond `clip_of(decoder)`, unless `options` say so.
        decoder: what answered.
        template: label of the template that asked.
        provenance: the model that answered.
        options: passed to the method.

    Raises:
        InputError: as `fit_on_answers`.
        FitError: the same.

    >>> said = [Answer("a", p, (p, p)) for p in (0.5, 0.75, 1.0, 0.25)]
    >>> origin = Provenance(runtime="toy", model="toy")
    >>> fit_decoded(said, [1, 0, 1, 0], "platt", SelfConsistency(k=4), "short", origin).clip
    0.125
    """
    clip = clip_of(decoder)
    given = {"clip": clip, **options} if method == "platt" and clip is not None else options
    made_by = fitted_on(decoder, template)
    return fit_on_answers(answers, correct, method, decoder=made_by, provenance=provenance, **given)


def clip_of(decoder: Decoder) -> float | None:
    """Return half a step of a confidence that comes in steps, beyond which Platt takes none; None for any other.

    Eight equal draws of eight, or a stated 10 of 10, are no proof.

    >>> clip_of(SelfConsistency(k=8)), clip_of(MajorityVote(k=4)), clip_of(Stated()), clip_of(MajorityVote(k=1))
    (0.0625, 0.125, 0.05, None)
    """
    if isinstance(decoder, (SelfConsistency, SemanticEntropy, MajorityVote)) and decoder.k > 1:
        return 1.0 / (2 * decoder.k)
    return 1.0 / (2 * SCALE) if isinstance(decoder, Stated) else None
