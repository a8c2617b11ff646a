"""Answers in free text on the command line: the decoders by name, and what the options say of them."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from calibwrap.calibrators import CONFIDENCE_FITS
from calibwrap.capabilities import Provides
from calibwrap.cli.parts import named_template
from calibwrap.decoders import FreeText, PTrue, SelfConsistency, SemanticEntropy, Stated
from calibwrap.decoders.answer_fits import template_for
from calibwrap.decoders.free_text import FreeTextDecoder
from calibwrap.decoders.named import GREEDY, find_decoder
from calibwrap.errors import InputError
from calibwrap.evaluate_free import find_judge
from calibwrap.evaluate_free_answers import default_free_stops
from calibwrap.freetext import NORMALISERS, ONE_STEP, REWARDING_DOUBT, TWO_STEP, Elicitation, top_guesses
from calibwrap.questions import TEMPLATES, FreeQuestion, Question, Template

DEFAULT = "freetext"
"""The decoder of questions in free text when none is named."""
TOKENS, GUESSES_TOKENS = 64, 128
"""Most tokens of a completion, and of one that holds several guesses."""
_NAME = re.compile(r"(?P<kind>[a-z-]+)(?::(?P<form>[a-z0-9-]+))?(?:@(?P<k>[1-9][0-9]{0,5}))?")
_ELICITATIONS = {"rewarding-doubt": REWARDING_DOUBT, "1s": ONE_STEP, "2s": TWO_STEP}


@dataclass(frozen=True)
class _Kind:
    """A decoder of free text, how many completions it draws when nobody says, and what may follow the colon."""

    make: type[FreeTextDecoder]
    k: int
    field: str
    forms: Mapping[str, Any]


def _named(*forms: str) -> dict[str, str]:
    return {form: form for form in forms}


FREE_DECODERS: Mapping[str, _Kind] = MappingProxyType(
    {
        "freetext": _Kind(FreeText, 1, "confidence", _named("mean", "sum", "least")),
        "p-true": _Kind(PTrue, 1, "", {}),
        "self-consistency": _Kind(SelfConsistency, 8, "", {}),
        "semantic-entropy": _Kind(SemanticEntropy, 8, "weights", _named("count", "probability")),
        "stated": _Kind(Stated, 1, "elicitation", {**_ELICITATIONS, "top-4": top_guesses(4)}),
    }
)
"""What a name of a decoder of free text begins with; ":FORM" and "@K" may follow."""


_MEANINGS = {
    "freetext": "geometric mean of its tokens' probabilities",
    "freetext:sum": "the model's own probability of exactly this text",
    "freetext:least": "probability of its most surprising token",
    "p-true": "the model's own probability of calling it right",
    "self-consistency": "share of the completions that say so",
    "semantic-entropy": "how much the completions agree, exp(-entropy)",
    "stated": "what the model says its confidence is",
}
"""What the raw confidence of each decoder is."""


@dataclass(frozen=True)
class Freely:
    """What the options say of answers in free text; None leaves the default."""

    decoder: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    judge: str | None = None
    normaliser: str | None = None
    seed: int = 0
    adaptive: bool = False
    threshold: float | None = None

    @property
    def judge_name(self) -> str:
        """Name of the judge."""
        return self.judge or "exact-match"

    @property
    def stopping(self) -> dict[str, Any]:
        """Settings of a decoder of traces that say when it stops early; empty where it does not.

        >>> Freely("confidence@8", adaptive=True, threshold=0.9).stopping
        {'adaptive': True, 'threshold': 0.9}
        """
        told = {"adaptive": True, "threshold": self.threshold} if self.adaptive else {}
        return {name: value for name, value in told.items() if value is not None}

    def checked(self, data: str, template: Path | None) -> FreeTextDecoder:
        """Return the decoder when all names are known, before a model is loaded, which may ask for another template.

        Raises:
            InputError: an unknown name, a decoder for options, or a template that shows options.
        """
        if self.decoder is not None and not is_free_name(self.decoder):
            raise _not_free(self.decoder, data)
        find_judge(self.judge_name)
        return self.made(free_template(template) or TEMPLATES["short"])

    def asked(self, provides: Provides, template: Path | None) -> tuple[FreeTextDecoder, Template]:
        """Return the decoder and the template for a model."""
        kind = FREE_DECODERS[self._parts()[0]].make
        chosen = template_for(free_template(template), provides, kind)
        return self.made(chosen), chosen

    def made(self, template: Template) -> FreeTextDecoder:
        """Return the decoder for prompts that a template writes.

        Raises:
            InputError: unknown form or normaliser, or a setting that is out of range.

        >>> Freely("self-consistency@4").made(TEMPLATES["short"]).k
        4
        """
        name, form, number = self._parts()
        kind = FREE_DECODERS[name]
        if form and form not in kind.forms:
            known = ", ".join(f"{name}:{one}" for one in kind.forms) or f"{name} alone"
            raise InputError(f"There is no {name}:{form}. Known: {known}.")
        if self.normaliser is not None and self.normaliser not in NORMALISERS:
            raise InputError(f"There is no normaliser {self.normaliser!r}. Known: {', '.join(NORMALISERS)}.")
        k = int(number or kind.k)
        settings: dict[str, Any] = {kind.field: kind.forms[form]} if form else {}
        several = isinstance(settings.get("elicitation"), Elicitation) and form.startswith("top")
        return cast("Callable[..., FreeTextDecoder]", kind.make)(
            **settings,
            k=k,
            temperature=float(k > 1) if self.temperature is None else self.temperature,
            max_tokens=self.max_tokens or (GUESSES_TOKENS if several else TOKENS),
            seed=self.seed,
            stop=default_free_stops(template, kind.make) if self.stop is None else self.stop,
            normalise=NORMALISERS[self.normaliser or "trivia-qa"],
        )

    @property
    def meaning(self) -> str:
        """What the raw confidence is, for people.

        >>> Freely("freetext:least").meaning
        'probability of its most surprising token'
        """
        name, form, _ = self._parts()
        return _MEANINGS.get(f"{name}:{form}", _MEANINGS[name])

    def _parts(self) -> tuple[str, str, str]:
        found = _NAME.fullmatch(self.decoder or DEFAULT)
        return ("", "", "") if found is None else (found["kind"], found["form"] or "", found["k"] or "")


def is_free_name(name: str) -> bool:
    """Return whether a name is that of a decoder of free text, whatever form and k it has.

    >>> is_free_name("self-consistency@8"), is_free_name("confidence@8")
    (True, False)
    """
    found = _NAME.fullmatch(name)
    return found is not None and found["kind"] in FREE_DECODERS


def free_template(named: Path | None) -> Template | None:
    """Return a built-in template by its name, else the one in a file; None where none is named.

    Raises:
        InputError: it shows options, which questions in free text have not.
    """
    if named is None:
        return None
    chosen = named_template(named)
    if chosen.shows_options:
        raise InputError(
            f"The template {chosen.name!r} shows options, and questions in free text have none: use short, short-chat, "
            "or one of your own without {options}."
        )
    return chosen


def are_free(questions: Sequence[Question | FreeQuestion]) -> bool:
    """Return whether these are questions in free text; a set holds one kind."""
    return bool(questions) and isinstance(questions[0], FreeQuestion)


def check_unread(data: str, *readouts: str | None) -> None:
    """Return nothing when no readout is named for questions in free text.

    Raises:
        InputError: one is.

    >>> check_unread("trivia.jsonl", None)
    """
    if any(readouts):
        raise InputError(
            f"--readout and --reference-readout are for options, and the questions of {data} are in free text: "
            "--decoder says how they are answered."
        )


def check_name(decoder: str) -> None:
    """Return nothing when a decoder has this name, for options or for free text.

    Raises:
        InputError: there is none.

    >>> check_name("self-consistency@4")
    """
    if is_free_name(decoder):
        return
    try:
        find_decoder(decoder)
    except InputError as error:
        near = difflib.get_close_matches(decoder.partition("@")[0], FREE_DECODERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{error} For free text: {', '.join(FREE_DECODERS)}.{hint}") from error


def check_adaptive(freely: Freely) -> None:
    """Return nothing when an adaptive decoder, if one is asked for, has several traces of which it can do without some.

    Raises:
        InputError: no decoder of several traces, or a threshold without it or out of range.

    >>> check_adaptive(Freely("confidence@8", adaptive=True, threshold=0.9))
    """
    if not freely.adaptive:
        if freely.threshold is not None:
            raise InputError("--threshold says when an adaptive decoder stops: add --adaptive.")
        return
    if freely.decoder is None or is_free_name(freely.decoder) or find_decoder(freely.decoder, **freely.stopping).k == 1:
        raise InputError(
            "--adaptive stops drawing traces that each name an option, so it needs a --decoder of several of them, "
            f"such as confidence@8. Got {'none' if freely.decoder is None else freely.decoder}."
        )


def check_for_options(freely: Freely, data: str, fits: Sequence[str] = ()) -> None:
    """Return nothing when the options suit questions that have options.

    Raises:
        InputError: a decoder, judge or normaliser of free text, or a fit or settings of what is drawn when nothing is.
    """
    decoder = freely.decoder
    if decoder is not None and is_free_name(decoder):
        raise InputError(
            f"--decoder {decoder} answers in free text, and the questions of {data} have options: use confidence@8, "
            "another decoder of options, or none, which reads the options' probabilities."
        )
    if decoder is None and (freely.stop, freely.temperature, freely.max_tokens) != (None, None, None):
        raise InputError(
            "--temperature, --max-tokens and --stop belong to what --decoder draws, and none is named: the options' "
            "probabilities are read, nothing is drawn."
        )
    if decoder == GREEDY and freely.temperature:
        raise InputError(
            "--decoder greedy takes the most probable token each time, which is temperature 0: leave --temperature "
            "out, or take confidence@1, which draws."
        )
    confidence = [method for method in fits if method in CONFIDENCE_FITS]
    if decoder is None and confidence:
        raise InputError(
            f"--fit {confidence[0]} maps the confidence of drawn answers: add --decoder, such as confidence@8, or fit "
            "temperature, which maps the options' probabilities."
        )
    if freely.judge is not None or freely.normaliser is not None:
        raise InputError(f"--judge and --normaliser are for free text, and the questions of {data} have options.")


def _not_free(name: str, data: str) -> InputError:
    near = difflib.get_close_matches(name.partition("@")[0], FREE_DECODERS, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"--decoder {name} is none for free text, and the questions of {data} have no options. {hint}Known: "
        f"{', '.join(FREE_DECODERS)}; @K says how many completions to draw."
    )
