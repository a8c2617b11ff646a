"""A reference model's word on answers that another model gave, and the calibrators that are fitted to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from calibwrap.base import Adapter, Answer, Calibrator, Decoder
from calibwrap.calibrators import confidence_fit, with_report
from calibwrap.capabilities import check_needs
from calibwrap.decoders.answer_fits import fit_decoded
from calibwrap.decoders.answering import decoder_label, fitted_on
from calibwrap.decoders.judgement import fit_daca_judged, judgements, own_judgements
from calibwrap.decoders.stated import PTrue
from calibwrap.errors import FitError, InputError
from calibwrap.freetext.reevaluation import NEEDS, reevaluated
from calibwrap.provenance import FitReport, Provenance
from calibwrap.questions import FreeQuestion, Template
from calibwrap.scores import Floats, OptionScores

DACA = "daca"
SOFT = "soft:"
"""What the names of fits to the reference's probabilities begin with, as on options."""


@dataclass(frozen=True)
class Referee:
    """A reference model, and the N answers that it judges; it is asked once, however many fits want its word."""

    reference: Adapter
    questions: Sequence[FreeQuestion]
    answers: Sequence[Answer]
    """The raw answers of the other model, one a question."""
    decoder: Decoder
    """What made them."""
    template: Template | None = None
    """Writes the reference's prompts; None: what suits it."""
    progress: Callable[[int, int], None] | None = None
    """Called with (answers judged, in all)."""

    @cached_property
    def probabilities(self) -> Floats:
        """(N,) mean probability that the reference gives to the tokens of each answer."""
        texts = [answer.text for answer in self.answers]
        return reevaluated(self.reference, self.questions, texts, self.template, self.progress)

    @cached_property
    def verdicts(self) -> tuple[OptionScores, OptionScores]:
        """The model's verdicts on those of its answers that say anything, and the reference's; (n, 2) each."""
        spoken = [index for index, answer in enumerate(self.answers) if answer.text]
        if not spoken:
            raise FitError(f"None of the {len(self.answers)} answers says anything: change the prompt or 'max_tokens'.")
        said, asked = [self.answers[index] for index in spoken], [self.questions[index] for index in spoken]
        judge = self.decoder if isinstance(self.decoder, PTrue) else None
        texts = [one.text for one in said]
        theirs = judgements(self.reference, asked, texts, judge, self.template, self.progress)
        return own_judgements(said), theirs

    def fit(self, method: str, template: str, origin: Provenance, **options: Any) -> Calibrator:
        """Return the calibrator of one confidence that `method` fits to the reference's word.

        Args:
            method: "soft:platt", "soft:isotonic", ...; or "daca".
            template: label of the template that asked the model.
            origin: the model that answered.
            options: passed to the method.

        Raises:
            InputError: as `check_method`.
            FitError: no answer says anything, or for "daca" the two agree nowhere.
        """
        check_method(method, self.decoder, options)
        if method == DACA:
            calibrator: Calibrator = fit_daca_judged(*self.verdicts, **options)
        else:
            inside = method.removeprefix(SOFT)
            calibrator = fit_decoded(
                self.answers, self.probabilities, inside, self.decoder, template, origin, **options
            )
        if calibrator.report is None:
            return calibrator
        report: FitReport = replace(
            calibrator.report,
            method=method,
            readout=fitted_on(self.decoder, template),
            reference_readout=f"{'verdicts' if method == DACA else 'mean token probability'} of the reference",
            provenance=origin,
            reference=self.reference.fingerprint(),
        )
        return with_report(calibrator, report)


def is_without_labels(method: str) -> bool:
    """Return whether a fit of answers in free text goes by a reference's word instead of by right answers.

    >>> [is_without_labels(name) for name in ("platt", "soft:platt", "daca")]
    [False, True, True]
    """
    return method == DACA or method.startswith(SOFT)


def check_method(method: str, decoder: Decoder, options: Any = ()) -> None:
    """Return nothing when a fit without labels of this name goes with the decoder.

    Raises:
        InputError: no such method, an option that it does not take, or "daca" with another decoder than `PTrue`.

    >>> check_method("soft:isotonic", PTrue())
    """
    if not is_without_labels(method):
        confidence_fit(method)  # names what is unknown
        raise InputError(
            f"Method {method!r} needs right answers. Without them {SOFT + method!r} takes a reference's word for them."
        )
    if method != DACA:
        confidence_fit(method.removeprefix(SOFT), options)
    elif not isinstance(decoder, PTrue):
        raise InputError(
            "Method 'daca' compares verdicts, so it needs a PTrue decoder, p-true on the command line. Got "
            f"{decoder_label(decoder)}."
        )


def check_reference(methods: Sequence[str], reference: Adapter) -> None:
    """Return nothing when a reference can give what these methods ask it for; asked before any model call.

    Raises:
        CapabilityError: it cannot score a given text, or not show labels for "daca".
    """
    for method in methods:
        needs = PTrue().needs if method == DACA else NEEDS
        check_needs(f"method {method!r}", needs, reference.name, reference.provides)
