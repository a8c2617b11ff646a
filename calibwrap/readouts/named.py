"""Readouts by name, and the warning when a model would rather write something else than what a readout looks for."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from calibwrap.base import Readout
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.questions import CLOZE, TEMPLATES, Template
from calibwrap.scores import OptionScores

if TYPE_CHECKING:
    from calibwrap.readouts._around import Around

Make = Callable[[Template | None], Readout]


def find_readout(name: str | Readout, template: Template | None = None) -> Readout:
    """Return a readout by its name: "label", "continuation", "continuation:token", "p_true", "verbalized", "decision".

    All but "decision", whose prompt is the server's, take ":TEMPLATE" at will. "permuted" averages over the orders of
    the options, and "contextual:" before another name takes out what the model says when nothing is asked.

    Raises:
        InputError: no such name; near ones and all are listed.

    >>> find_readout("continuation:token:cloze-chat").label
    'continuation:token:cloze-chat'
    """
    if isinstance(name, Readout):
        return name
    around, _, inside = name.partition(":")
    if around in _AROUND:
        return _AROUND[around](inside, template)
    head, _, tail = name.rpartition(":")
    if template is None and tail in TEMPLATES:
        name, template = head, TEMPLATES[tail]
    if name in _BY_NAME:
        return _BY_NAME[name](template)
    import difflib  # needed for what goes wrong only

    known = [*_BY_NAME, *_AROUND]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"There is no readout {name!r}. {hint}Known: {', '.join(known)}; add ':' and one of the templates "
        f"{', '.join(TEMPLATES)}."
    )


def keeps_argmax(label: str) -> bool:
    """Return whether the first choice of a readout of this label is always the model's own answer as it was asked.

    One around another readout corrects it, and says by `keeps_argmax` whether the choice may differ; a probe of hidden
    states answers by itself. All others, and those that nobody here knows, correct nothing.

    >>> keeps_argmax("label:letter"), keeps_argmax("permuted:label:letter"), keeps_argmax("probe:20:cloze:1f2e3d4c")
    (True, False, False)
    """
    name = label.partition(":")[0].partition("(")[0]
    if name in _AROUND:
        return _AROUND[name]("", None).keeps_argmax
    return name != "probe"


def warn_of_little_mass(readout: Readout, scores: OptionScores) -> None:
    """Warn when a model mostly wants to write something else than one of the labels of a question set."""
    mass = float(scores.label_mass.mean())
    if mass < readout.min_mass:
        warnings.warn(
            f"The labels together carry only {mass:.2f} of the probability on average, so the model mostly wants to "
            "write something else: try a chat template, or readout='continuation'.",
            CalibrationWarning,
            stacklevel=3,
        )


# Each file is imported when its readout is first asked for: few programs need more than one.


def _continuation(template: Template | None, normalise: str = "sum") -> Readout:
    from calibwrap.readouts.continuation import Continuation

    return Continuation(normalise, CLOZE if template is None else template)  # type: ignore[arg-type]


def _label(template: Template | None) -> Readout:
    from calibwrap.readouts.label import Label

    return Label() if template is None else Label(template)


def _decision(template: Template | None) -> Readout:
    from calibwrap.readouts.decision import Decision

    if template is not None:
        raise InputError("The decision readout takes no template: the server writes the prompt.")
    return Decision()


def _p_true(template: Template | None) -> Readout:
    from calibwrap.readouts.p_true import OptionPTrue

    return OptionPTrue() if template is None else OptionPTrue(template)


def _verbalized(template: Template | None, chat: bool = False) -> Readout:
    from calibwrap.readouts.verbalized import STATED, STATED_CHAT, Verbalized

    return Verbalized(template or (STATED_CHAT if chat else STATED))


def _permuted(inside: str, template: Template | None) -> "Around":
    """Return the readout "permuted:INSIDE", of which the label readout is the only one."""
    from calibwrap.readouts.label import Label
    from calibwrap.readouts.permuted import Permuted

    inner = find_readout(inside or "label", template)
    if not isinstance(inner, Label):
        raise InputError(f"Only the label readout can be permuted: 'permuted:label:letter'. Got {inner.label!r}.")
    return Permuted(inner)


def _contextual(inside: str, template: Template | None) -> "Around":
    from calibwrap.readouts.contextual import Contextual

    return Contextual(find_readout(inside or "continuation", template))


_BY_NAME: Mapping[str, Make] = {
    "continuation": _continuation,
    "continuation:sum": _continuation,
    "continuation:token": partial(_continuation, normalise="token"),
    "continuation:byte": partial(_continuation, normalise="byte"),
    "label": _label,
    "decision": _decision,
    "p_true": _p_true,
    "verbalized": _verbalized,
    "verbalized:stated": _verbalized,
    "verbalized:stated-chat": partial(_verbalized, chat=True),
}
_AROUND: Mapping[str, Callable[[str, Template | None], "Around"]] = {"contextual": _contextual, "permuted": _permuted}
"""Readouts around another one, whose name follows theirs."""
