"""`calibwrap ask`: one question, one answer, one probability."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibwrap import saving
from calibwrap.base import Answer, Calibrator, Decoder, answer_of
from calibwrap.cli.calibrator_files import load_calibrator
from calibwrap.cli.console import print_json, printable
from calibwrap.cli.free_text import DEFAULT, FREE_DECODERS, TOKENS, Freely, is_free_name
from calibwrap.cli.parts import named_template, open_model, read_readout
from calibwrap.decoders import Greedy, SelfConsistency, TraceDecoder, fitted_on_traces
from calibwrap.decoders.answering import check_template
from calibwrap.decoders.named import GREEDY, find_decoder
from calibwrap.errors import InputError
from calibwrap.guarantees import Abstention
from calibwrap.guarded import GuardedLM
from calibwrap.guarded_answers import GuardedAnswers
from calibwrap.questions import Chat, FreeQuestion, Prompt, Question, Template
from calibwrap.scores import OptionScores
from calibwrap.stored_traces import (
    TRACE_TOKENS,
    default_stops,
    default_template,
    drawing_of,
    labels_of,
    warn_of_template,
)
from calibwrap.wrap import CalibratedLM

if TYPE_CHECKING:
    from rich.console import Console

UNWRITTEN = "(none: the question as it stands)"
"""Stands for the template where a question is asked without one."""
WIDE = 0.001
"""Width of an interval that is worth showing beside percentages of one decimal."""


@dataclass(frozen=True)
class How:
    """How an answer is drawn; `k` and `decoder` None draw one greedy text, or read the options' probabilities."""

    k: int | None = None
    decoder: str | None = None
    max_tokens: int | None = None
    seed: int = 0
    stream: bool = False
    normaliser: str | None = None

    @property
    def draws(self) -> bool:
        """Whether several completions make the answer."""
        return self.k is not None or self.decoder is not None

    @property
    def name(self) -> str:
        """Name of the decoder with its k, as `find_decoder` knows it.

        >>> How(k=8).name, How(k=4, decoder="majority").name, How(decoder="weighted@8").name
        ('confidence@8', 'majority@4', 'weighted@8')
        """
        name = self.decoder or "confidence"
        return name if self.k is None or "@" in name else f"{name}@{self.k}"


@dataclass(frozen=True)
class Known:
    """How exactly the probabilities of options are known."""

    option_bounds: Mapping[str, tuple[float, float]]
    """For each option the interval that its probability lies in for certain."""
    first_choice_certain: bool
    """Whether no other option can be the first choice."""

    @property
    def is_cut(self) -> bool:
        """Whether an interval is wide enough to be seen."""
        return any(_is_wide(bounds) for bounds in self.option_bounds.values())


def run(
    spec: str,
    question: str,
    options: list[str],
    context: str,
    calibrator: Path | None,
    strict: bool,
    readout: str | None,
    template: Path | None,
    settings: list[str] | None,
    as_json: bool,
    how: How = How(),
) -> None:
    """Ask and print the answer."""
    if options and how.draws:
        _check_choosing(options, how)
    saved = None if calibrator is None or (options and not how.draws) else load_calibrator(calibrator)
    is_of_free_text = saved is not None and saved.level == "confidence" and not options
    if is_of_free_text and not how.draws and not how.stream:
        how = replace(how, decoder=DEFAULT)  # what `fit` draws for such a calibrator
    freely = None if options else _freely(how)
    if freely is not None:
        freely.checked("ask without -o", template)
    with ExitStack() as opened:
        if options and not how.draws:
            lm = opened.enter_context(open_model(spec, settings, read_readout(readout, template), calibrator, strict))
            _choose(lm, Question(question, options, context=context), as_json)
            return
        lm = opened.enter_context(open_model(spec, settings))
        names: Mapping[str, str] = {}
        decoder: Decoder
        if options:
            asked = Question(question, options, context=context)
            names = dict(zip(labels_of(asked), options, strict=True))
            prompt, traced, written = _traces(lm, asked, template, how)
            decoder, compared, asked_with = traced, drawing_of(traced, written).label, written.label
        elif freely is not None:
            decoder, written = freely.asked(lm.adapter.provides, template)
            prompt, compared, asked_with = written.prompt(FreeQuestion(question, context=context)), "", written.label
        else:
            prompt, decoder = _free_prompt(lm, question, context), _free_decoder(how)
            compared, asked_with = "", UNWRITTEN
        if saved is not None:
            lm = _calibrated(lm, saved, compared, asked_with, strict)
        meaning = "" if freely is None else freely.meaning
        _answer(lm, prompt, decoder, names, how.stream, as_json, meaning)


def run_guarded(
    spec: str,
    question: Question | FreeQuestion,
    guard: Path,
    readout: str | None,
    template: Path | None,
    settings: list[str] | None,
    as_json: bool,
    how: How = How(),
) -> None:
    """Ask and print the answer, or that there is none and why; as the guard was fitted or not at all."""
    found: Answer | Abstention
    if isinstance(question, Question):
        with open_model(spec, settings, read_readout(readout, template)) as lm:
            found = GuardedLM.load(lm, guard).choose(question.prompt, question.options, question.context)
    else:
        freely = _freely(how) or Freely(max_tokens=how.max_tokens, normaliser=how.normaliser, seed=how.seed)
        freely.checked("ask without -o", template)
        with open_model(spec, settings) as lm:
            decoder, written = freely.asked(lm.adapter.provides, template)
            found = GuardedAnswers.load(lm, guard, decoder, written).answer_batch([question])[0]
    if isinstance(found, Answer):
        _print(found, as_json)
    elif as_json:
        print_json({"text": None, "abstained": found.reason, "withheld": fields_of(found.withheld)})
    else:
        print(f"No answer. {printable(found.reason)}")


def _check_choosing(options: list[str], how: How) -> None:
    """Return nothing when what is drawn can choose among the options; asked before a model is loaded.

    Raises:
        InputError: a single option, a decoder of free text, or several completions of a greedy one.
    """
    if how.decoder is not None and is_free_name(how.decoder):
        raise InputError(
            f"--decoder {how.decoder} answers in free text, and -o gives options: leave -o out, or take a decoder that "
            "chooses among options, such as confidence@8."
        )
    if how.decoder == GREEDY and how.k is not None:
        raise InputError("--decoder greedy draws one text, always the same: leave --k out, or take confidence.")
    if len(options) < 2:
        raise InputError(f"To choose among options takes at least two: give -o again. Got {options}.")


def _choose(lm: CalibratedLM, question: Question, as_json: bool) -> None:
    """Read the options' probabilities and print the answer, with how exactly each of them is known."""
    scores = lm.calibrator(lm.scores([question]))
    answer, known = answer_of(question, scores, 0, lm.calibrator.kind), _known(question, scores)
    if as_json:
        print_json({**fields_of(answer), **asdict(known)})
    else:
        _print(answer, False, known=known)


def _known(question: Question, scores: OptionScores) -> Known:
    ends = zip(question.options, scores.lower[0], scores.upper[0], strict=False)
    bounds = {option: (float(low), float(high)) for option, low, high in ends}
    return Known(bounds, bool(scores.argmax_certified[0]))


def _calibrated(lm: CalibratedLM, saved: Calibrator, readout: str, template: str, strict: bool) -> CalibratedLM:
    """Return the model with a saved calibrator; warn, or refuse when strict, where it was fitted on something else.

    What the model itself finds to be another use, when it is called, is left to it, so that it is said once.
    """
    is_compared = saved.level == "option" and (strict or fitted_on_traces(saved))
    saving.check_provenance(saved, lm.adapter.fingerprint(), readout if is_compared else "", strict=strict)
    check_template(saved, template, strict=strict)
    return replace(lm, calibrator=saved, strict=strict)


def _traces(
    lm: CalibratedLM, question: Question, template: Path | None, how: How
) -> tuple[Prompt, TraceDecoder, Template]:
    """Return prompt, decoder and template for a question whose answer traces come to."""
    chosen = default_template(lm.adapter.provides) if template is None else named_template(template)
    asked: dict[str, Any] = {"labels": labels_of(question), "stop": default_stops(chosen), "seed": how.seed}
    decoder = find_decoder(how.name, **asked, max_tokens=how.max_tokens or TRACE_TOKENS)
    warn_of_template(chosen, decoder.marker)
    return chosen.prompt(question, decoder.labels), decoder, chosen


def _freely(how: How) -> Freely | None:
    """Return the decoder of free text that was named, with its settings; None where none was.

    Raises:
        InputError: a decoder was named, and there are no options that it could choose among.
    """
    if how.decoder is None:
        return None
    if not is_free_name(how.decoder):
        raise InputError(
            f"--decoder {how.decoder} chooses among options: give them with -o, leave it out, or name one of free "
            f"text: {', '.join(FREE_DECODERS)}."
        )
    return Freely(how.name, max_tokens=how.max_tokens, normaliser=how.normaliser, seed=how.seed)


def _free_decoder(how: How) -> Decoder:
    """Return how a text is drawn when no decoder is named: the greedy one, or what most of k texts say."""
    most = how.max_tokens or TOKENS
    return Greedy(max_tokens=most) if how.k is None else SelfConsistency(k=how.k, max_tokens=most, seed=how.seed)


def _free_prompt(lm: CalibratedLM, question: str, context: str) -> Prompt:
    """Return the question as a chat where the model has a template for one."""
    text = f"{context}\n\n{question}" if context else question
    return Chat((("user", text),)) if lm.adapter.provides.chat else text


def _answer(
    lm: CalibratedLM,
    prompt: Prompt,
    decoder: Decoder,
    names: Mapping[str, str],
    stream: bool,
    as_json: bool,
    meaning: str = "",
) -> None:
    """Draw the answer, show its tokens as they come where that was asked for, and print it."""
    if not stream:
        _print(_named(lm(prompt, decoder), names), as_json, meaning=meaning)
        return
    from calibwrap.cli.tokens import print_line, show

    with lm.stream(prompt, decoder) as tokens:
        show(tokens, as_json)
    answer = _named(tokens.answer, names)
    if as_json:
        print_line(fields_of(answer))
    else:
        _print(answer, False, was_shown=not names and len(answer.candidates) == 1, meaning=meaning)


def _named(answer: Answer, names: Mapping[str, str]) -> Answer:
    """Return an answer in the options' own words in place of their labels."""
    if not names:
        return answer
    probabilities = {names[label]: value for label, value in answer.probabilities.items()}
    return replace(answer, text=names.get(answer.text, ""), probabilities=probabilities)


def fields_of(answer: Answer) -> dict[str, Any]:
    """Return an answer as machines get it."""
    return {
        "text": answer.text,
        "confidence": answer.confidence,
        "bounds": list(answer.bounds),
        "probabilities": dict(answer.probabilities),
        "calibrated_by": answer.calibrated_by,
        "drawn": len(answer.candidates),
        "unparsed": answer.unparsed,
    }


def _print(
    answer: Answer, as_json: bool, was_shown: bool = False, known: Known | None = None, meaning: str = ""
) -> None:
    if as_json:
        print_json(fields_of(answer))
        return
    from rich.console import Console

    console = Console()
    if not was_shown:
        console.print(f"{printable(answer.text) or 'No answer could be read.'}\n", markup=False, highlight=False)
    if answer.text:  # else there is nothing that a probability could be of
        console.print(f"{answer.confidence:.1%}  {_kind(answer, meaning)}")
    if answer.unparsed:
        console.print(f"{answer.unparsed} of {len(answer.candidates)} completions named no answer.")
    if answer.probabilities:
        _print_options(console, answer, {} if known is None else known.option_bounds)
    if known is not None and known.is_cut:
        first = "The first choice is certain." if known.first_choice_certain else "The first choice is not certain."
        console.print(
            "The list of the most probable tokens was cut off before all options were seen: each probability lies in "
            f"its interval, and the number before it is a point between. {first}"
        )


def _print_options(console: "Console", answer: Answer, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Print each option's probability, with its interval where that is wide enough to be seen."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for option, probability in sorted(answer.probabilities.items(), key=lambda pair: -pair[1]):
        interval = bounds.get(option, (probability, probability))
        shown = f"{interval[0]:.1%} to {interval[1]:.1%}" if _is_wide(interval) else ""
        table.add_row(f"{probability:6.1%}", "█" * round(30 * probability), Text(printable(option)), shown)
    console.print(table)


def _is_wide(bounds: tuple[float, float]) -> bool:
    """Return whether the ends of an interval differ in the one decimal of a percentage that is shown."""
    return bounds[1] - bounds[0] >= WIDE


def _kind(answer: Answer, meaning: str = "") -> str:
    """Return what the confidence of an answer is; `meaning` says it of a decoder of free text."""
    if meaning and answer.calibrated_by in ("none", "identity"):
        return f"{meaning}, which is not the probability of being right"
    if answer.calibrated_by == "none":
        return "share of the completions that say so, which no calibrator touched"
    between = f"; for certain it is from {answer.bounds[0]:.1%} to {answer.bounds[1]:.1%}"
    known = between if _is_wide(answer.bounds) else ""
    if answer.calibrated_by != "identity":
        return f"calibrated probability of being right ({answer.calibrated_by}){known}"
    if answer.probabilities:
        if known:
            return f"an estimate of the model's own probability, not calibrated{known}"
        return "the model's own probability, not calibrated"
    return "the model's own probability of exactly this text, which is not the probability of being right"
