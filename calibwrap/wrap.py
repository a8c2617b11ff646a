"""`wrap` and `CalibratedLM`: the only file that knows adapters, readouts, calibrators and decoders at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from calibwrap import calibrators, decoders, freetext, saving
from calibwrap.base import Adapter, Answer, Calibrator, Decoder, Readout, answer_of
from calibwrap.capabilities import check_needs
from calibwrap.errors import InputError
from calibwrap.freetext import Judge, exact_match
from calibwrap.opening import check_alone, opened_adapter
from calibwrap.provenance import Provenance
from calibwrap.questions import FreeQuestion, Prompt, Question, Template, answers_of, check_questions
from calibwrap.readouts import find_readout, warn_of_little_mass
from calibwrap.readouts.defaults import default_readout, default_reference_readout
from calibwrap.scores import OptionScores, join

if TYPE_CHECKING:
    from calibwrap.answer_stream import AnswerStream
    from calibwrap.guarantees import SetMethod
    from calibwrap.guarded import GuardedLM, SetLM

Progress = Callable[[int, int], None]
"""Called with (questions done, questions in all) after every piece of work."""


@dataclass(frozen=True)
class CalibratedLM:
    """A model, a way to read its confidence, and a calibrator. Fitting returns a new one; nothing changes in place.

    >>> from calibwrap.testing import ToyAdapter
    >>> lm = CalibratedLM(ToyAdapter())
    >>> lm.calibrator.kind
    'identity'
    """

    adapter: Adapter
    calibrator: Calibrator = field(default_factory=calibrators.Identity)
    readout: Readout = None  # type: ignore[assignment]  # filled below
    strict: bool = False  # whether answering in another way than that of the fit is an error, not a warning

    def __post_init__(self) -> None:
        """Choose the readout that the backend can give when none is named, and check what the calibrator needs."""
        if self.readout is None:
            object.__setattr__(self, "readout", default_readout(self.adapter.provides))
        calibrator = self.calibrator
        check_needs(f"calibrator '{calibrator.kind}'", calibrator.needs, self.adapter.name, self.adapter.provides)

    def scores(
        self, questions: Sequence[Question], readout: str | Readout | None = None, progress: Progress | None = None
    ) -> OptionScores:
        """Return the model's own, uncalibrated scores of the options of N questions, shape (N, K).

        Args:
            questions: the questions; numbers of options may differ.
            readout: "label", "continuation", "continuation:token", a `Readout`, or None for this model's own.
            progress: called with (done, in all) after every few questions.

        Raises:
            CapabilityError: the backend cannot give what the readout needs; raised before any model call.
            InputError: no questions, or one that the readout cannot ask.
        """
        parts: list[OptionScores] = []
        for part in self.scores_by_part(questions, readout):
            parts.append(part)
            if progress is not None:
                progress(sum(map(len, parts)), len(questions))
        scores = join(parts)
        warn_of_little_mass(self.readout if readout is None else find_readout(readout), scores)
        return scores

    def scores_by_part(
        self, questions: Sequence[Question], readout: str | Readout | None = None
    ) -> Iterator[OptionScores]:
        """Yield the scores of a few questions at a time, in order, so that a caller can keep what is done."""
        chosen = self.readout if readout is None else find_readout(readout)
        check_questions(questions)
        check_needs(f"readout {chosen.label!r}", chosen.needs, self.adapter.name, self.adapter.provides)
        size = self.adapter.provides.batch_size
        for start in range(0, len(questions), size):
            yield chosen.ask(self.adapter, questions[start : start + size])

    def fit(
        self,
        questions: Sequence[Question],
        method: str | None = None,
        *,
        reference: "CalibratedLM | Adapter | str | None" = None,
        readout: str | Readout | None = None,
        reference_readout: str | Readout | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> "CalibratedLM":
        """Return this model with a calibrator fitted on `questions`.

        Args:
            questions: with answers for methods that use labels; none are looked at by the others.
            method: "temperature", "auto", "dirichlet", "top-label:beta", ... (labels); "daca", "matched-mean",
                "soft:platt", ... (a reference model, no labels); "batch" (neither), all of them in `calibrators.FITS`;
                "probe" (labels and hidden states, see `probing.fit_probe_on`). By default "temperature", or with a
                reference "soft:platt": what was best without labels in benchmarks/shootout.py.
            reference: the pre-trained model of methods without labels: wrapped, an adapter, or a spec, whose model is
                loaded beside this one and closed again.
            readout: how this model is read; kept for its answers.
            reference_readout: how the reference is read; by default per token where this model is read by
                continuations (summed scores make a base model over-confident, and DACA inherits that), else the same.
            progress: called with (done, in all), once for the model and once for the reference.
            options: passed to the method, such as `bounds=` or `groups=`.

        Raises:
            QuestionError: answers are missing and the method needs them.
            InputError: unknown method or option, groups missing, or a reference missing or given in vain.
            FitError: the data do not determine the calibrator.
        """
        method = method or calibrators.default_fit(has_reference=reference is not None)
        if method == "probe":
            from calibwrap.probing import probed

            return probed(self, questions, progress, options, reference, readout, reference_readout)
        spec, given = calibrators.fit_for(method, options, questions)  # before any model call
        chosen = self.readout if readout is None else find_readout(readout)
        if spec.needs_reference != (reference is not None):
            wanted = "needs" if spec.needs_reference else "takes no"
            raise InputError(f"Method {method!r} {wanted} 'reference=', a pre-trained model. Got {reference!r}.")
        if reference is None:
            scores = self.scores(questions, chosen, progress)
            answers = answers_of(questions) if spec.needs_answers else None
            return self.fitted(method, scores, answers=answers, readout=chosen, **given)
        how = default_reference_readout(chosen) if reference_readout is None else find_readout(reference_readout)
        with borrowed(reference) as other:
            scores = self.scores(questions, chosen, progress)
            theirs = other.scores(questions, how, progress)
            provenance = other.adapter.fingerprint()
        return self.fitted(method, scores, reference=theirs, provenance=provenance, readout=chosen, **given)

    def fitted(
        self,
        method: str,
        scores: OptionScores,
        *,
        answers: Sequence[int] | None = None,
        reference: OptionScores | None = None,
        provenance: Provenance | None = None,
        readout: Readout | None = None,
        **options: Any,
    ) -> "CalibratedLM":
        """Return this model with a calibrator fitted on scores that were read before; no model call.

        `answers` are for methods with labels, `reference` (scores of the same questions by the reference model, whose
        `provenance` is noted) for methods without.
        """
        fitted = calibrators.fit_named(method)(scores, answers=answers, reference=reference, **options)
        theirs = "" if reference is None else reference.readout
        told = calibrators.with_origin(fitted, scores.readout, self.adapter.fingerprint(), theirs, provenance)
        return replace(self, calibrator=told, readout=readout or self.readout)

    def calibrated_scores(
        self, questions: Sequence[Question], progress: Progress | None = None, groups: Sequence[str] | None = None
    ) -> OptionScores:
        """Return the calibrated scores (N, K) of the options of N questions.

        `groups` (N,) name each question's group; without it, those that the questions name count, where any does.

        Raises:
            ProvenanceMismatch: `strict`, and the calibrator was fitted on traces; else a warning.
            InputError: `groups` are not one text a question, or the calibrator knows no groups.
        """
        decoders.warn_of_other_use(self.calibrator, is_on_traces=False, strict=self.strict)
        mapped = calibrators.on_questions(self.calibrator, questions, groups)
        return mapped(self.scores(questions, progress=progress))

    def choose(self, prompt: str, options: Sequence[str], context: str = "") -> Answer:
        """Return the option that the model holds most probable, and the calibrated probability that it is right.

        Raises:
            QuestionError: an empty prompt, or empty or repeated options.
        """
        return self.choose_batch([Question(prompt, options, context=context)])[0]

    def choose_batch(
        self, questions: Sequence[Question], progress: Progress | None = None, groups: Sequence[str] | None = None
    ) -> list[Answer]:
        """Return one answer a question, in order; the arguments are those of `calibrated_scores`."""
        scores = self.calibrated_scores(questions, progress, groups)
        return [answer_of(question, scores, row, self.calibrator.kind) for row, question in enumerate(questions)]

    def __call__(self, prompt: Prompt, decoder: Decoder | None = None, *, steer: bool = False) -> Answer:
        """Return the answer that `decoder` (greedy by default) makes of the model's completions of `prompt`.

        With `steer`, a calibrator of tokens also acts inside the drawing: tokens come from the calibrated distribution.
        """
        return self.batch([prompt], decoder, steer=steer)[0]

    def stream(self, prompt: Prompt, decoder: Decoder | None = None, *, steer: bool = False) -> "AnswerStream":
        """Return the tokens of that answer as they are drawn; `AnswerStream.answer` is the answer in the end.

        Raises:
            CapabilityError: the backend does not stream; and as `batch`.
        """
        from calibwrap.answer_stream import AnswerStream

        return AnswerStream(self.adapter, self.calibrator, prompt, self._fit_for(decoder), steer)

    def batch(self, prompts: Sequence[Prompt], decoder: Decoder | None = None, *, steer: bool = False) -> list[Answer]:
        """Return one answer a prompt; all flows run in lock-step, one adapter call a round for equal requests.

        A calibrator of options calibrates the labels of traces, one of tokens what was read at each position, and one
        of confidences what the decoder says in the end. `steer` is that of `__call__`.

        Raises:
            CapabilityError: the backend cannot give what the decoder needs, the calibrator maps options and the
                decoder reads no labels, or with `steer` the backend draws by itself or the calibrator maps no tokens.
        """
        return decoders.answered(self.adapter, prompts, self._fit_for(decoder), self.calibrator, steer)

    def _fit_for(self, decoder: Decoder | None) -> Decoder:
        """Return the decoder, `Greedy` for none; warn, or refuse, where the calibrator was fitted on something else."""
        chosen = decoders.Greedy() if decoder is None else decoder
        decoders.check_decoder_type(chosen)
        if chosen.needs.traces:  # one of options does not go with any other decoder at all
            decoders.warn_of_other_use(self.calibrator, is_on_traces=True, strict=self.strict)
        decoders.check_decoder(self.calibrator, chosen, strict=self.strict)
        return chosen

    def answer_batch(
        self,
        questions: Sequence[FreeQuestion],
        decoder: Decoder | None = None,
        *,
        template: Template | None = None,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """Return one answer in free text a question, in order; `decoder` is `FreeText()` by default.

        `template` writes the prompts; `decoders.answer_fits.template_for` says by which they are written by default.
        """
        chosen = self._fit_for(decoder or decoders.FreeText())
        asked = decoders.template_for(template, self.adapter.provides, type(chosen))
        prompts = freetext.free_prompts(questions, asked, self.adapter.provides)
        decoders.check_template(self.calibrator, asked.label, strict=self.strict)
        answers, size = list[Answer](), self.adapter.provides.batch_size
        for start in range(0, len(prompts), size):
            answers += decoders.answered(self.adapter, prompts[start : start + size], chosen, self.calibrator)
            if progress is not None:
                progress(len(answers), len(prompts))
        return answers

    def fit_answers(
        self,
        questions: Sequence[FreeQuestion],
        decoder: Decoder | None = None,
        method: str = "platt",
        *,
        judge: Judge = exact_match,
        template: Template | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> "CalibratedLM":
        """Return this model with a calibrator of one confidence, fitted on its raw answers to `questions`.

        Args:
            questions: with `answers`, the texts that are right.
            decoder: what answers, `FreeText()` by default; the calibrator is good for this decoder.
            method: "platt", "isotonic", "auto-confidence", ...; `calibrators.CONFIDENCE_FITS` holds all.
            judge: says from 0 to 1 how right an answer is: `exact_match`, `f1_above_half`, or a function of yours.
            template: writes the prompts, as in `answer_batch`.
            progress: called with (done, in all).
            options: passed to the method, such as `smoothing=True`.

        Raises:
            QuestionError: a question has no references.
            InputError: unknown method or option.
            FitError: no answer says anything.
        """
        freetext.references_of(questions)  # before any model call
        freetext.check_judge(judge)
        calibrators.confidence_fit(method, options)
        chosen, raw = decoder or decoders.FreeText(), replace(self, calibrator=calibrators.Identity())
        answers = raw.answer_batch(questions, chosen, template=template, progress=progress)
        asked = decoders.template_for(template, self.adapter.provides, type(chosen)).label
        correct, origin = freetext.graded(answers, questions, judge), self.adapter.fingerprint()
        return replace(
            self, calibrator=decoders.fit_decoded(answers, correct, method, chosen, asked, origin, **options)
        )

    def guard(
        self, questions: Sequence[Question], risk: float = 0.1, delta: float = 0.05, *, progress: Progress | None = None
    ) -> "GuardedLM":
        """Return this model behind a guard: it answers or abstains, and few of its answers are wrong.

        Args:
            questions: with answers, like those to come, and not those that the calibrator was fitted on.
            risk: largest share of wrong answers among those given.
            delta: chance, over the draw of `questions`, that the promise fails.
            progress: called with (done, in all).

        Raises:
            QuestionError: a question has no answer.
            FitError: too few questions for that risk, even without an error.
        """
        from calibwrap.guarded import guarded

        return guarded(self, questions, progress, risk=risk, delta=delta)

    def sets(
        self,
        questions: Sequence[Question],
        coverage: float = 0.9,
        method: "SetMethod" = "lac",
        *,
        progress: Progress | None = None,
        **options: Any,
    ) -> "SetLM":
        """Return this model answering with sets of options that hold the right one with chance `coverage`.

        Args:
            questions: as for `guard`.
            coverage: promised share of sets that hold the right option.
            method: "lac", "aps" or "raps"; see `fit_sets`.
            progress: called with (done, in all).
            options: `penalty=` and `free_ranks=` of "raps".

        Raises:
            QuestionError: a question has no answer.
        """
        from calibwrap.guarded import in_sets

        return in_sets(self, questions, progress, coverage=coverage, method=method, **options)

    def with_calibrator(self, calibrator: Calibrator, strict: bool = False) -> "CalibratedLM":
        """Return this model with a calibrator, such as a loaded one, read the way it was fitted.

        Raises:
            ProvenanceMismatch: `strict`, and it was fitted elsewhere, as seen here or when it is used; else a warning.
        """
        decoders.check_calibrator_type("calibrator", calibrator)
        if isinstance(calibrator, calibrators.Probe):
            from calibwrap.probing import with_probe

            return with_probe(self, calibrator, strict=strict)
        readout = self.readout
        if calibrator.report is not None and calibrator.report.readout:
            with suppress(InputError):  # a readout of the user's own: it must be set by hand, and is compared below
                readout = find_readout(calibrator.report.readout)
        is_for_decoders = calibrator.level == "confidence" or decoders.fitted_on_traces(calibrator)
        compared = "" if is_for_decoders else readout.label  # what is for decoders is compared when it is used
        saving.check_provenance(calibrator, self.adapter.fingerprint(), compared, strict=strict)
        return replace(self, calibrator=calibrator, readout=readout, strict=strict)

    def save(self, path: str | Path) -> None:
        """Write the calibrator and where it was fitted to one file."""
        saving.save(self.calibrator, path, provenance=self.adapter.fingerprint())

    def close(self) -> None:
        """Free the model if it was loaded here."""
        self.adapter.close()

    def __enter__(self) -> Self:
        """Return this model; leaving the block closes it."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Free the model if it was loaded here."""
        self.close()


def wrap(target: Any, *parts: Any, **options: Any) -> CalibratedLM:
    """Return a `CalibratedLM` around a model.

    Args:
        target: a spec, "hf:DIR_OR_ID", "llama-cpp:FILE.gguf", "vllm:DIR_OR_ID" or "openai:MODEL"; a loaded object, such
            as a Transformers model (followed by its tokenizer), a `llama_cpp.Llama`, a `vllm.LLM` or an `openai.OpenAI`
            (with `model=`); an `Adapter`; or a `CalibratedLM`, returned as it is.
        parts: what belongs to a loaded object.
        options: passed to the runtime untouched.

    Raises:
        InputError: an unknown spec or object; or parts and options that are missing, or that it does not take.
        MissingExtra: the runtime is not installed.
        ModelError: the model could not be opened.

    >>> from calibwrap.testing import ToyAdapter
    >>> wrap(ToyAdapter()).readout.label
    'continuation:sum:cloze'
    """
    check_alone(target, (Adapter, CalibratedLM), parts, options)
    return target if isinstance(target, CalibratedLM) else CalibratedLM(opened_adapter(target, parts, options))


def borrowed(target: "CalibratedLM | Adapter | str") -> AbstractContextManager[CalibratedLM]:
    """Return a model for a `with` block, whose end closes it if it was opened here, from a spec, and only then."""
    model = wrap(target)
    return model if isinstance(target, str) else nullcontext(model)
