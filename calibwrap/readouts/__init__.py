"""Readouts turn questions into option scores; each says in `needs` what it wants of a backend."""

import difflib
import warnings
from collections.abc import Callable, Mapping

from calibwrap.base import Readout
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.questions import TEMPLATES, Template
from calibwrap.readouts.contextual import Contextual
from calibwrap.readouts.continuation import Continuation
from calibwrap.readouts.decision import Decision
from calibwrap.readouts.label import Label
from calibwrap.readouts.p_true import OptionPTrue
from calibwrap.readouts.permuted import Permuted
from calibwrap.readouts.verbalized import STATED_CHAT, Verbalized
from calibwrap.scores import OptionScores

__all__ = [
    "Contextual",
    "Continuation",
    "Decision",
    "Label",
    "OptionPTrue",
    "Permuted",
    "Verbalized",
    "find_readout",
    "warn_of_little_mass",
]

_BY_NAME: Mapping[str, Readout] = {
    "continuation": Continuation(),
    "continuation:sum": Continuation("sum"),
    "continuation:token": Continuation("token"),
    "continuation:byte": Continuation("byte"),
    "label": Label(),
    "decision": Decision(),
    "p_true": OptionPTrue(),
    "verbalized": Verbalized(),
    "verbalized:stated": Verbalized(),
    "verbalized:stated-chat": Verbalized(STATED_CHAT),
}


def _permuted(inside: str, template: Template | None) -> Permuted:
    """Return the readout "permuted:INSIDE", of which the label readout is the only one."""
    inner = find_readout(inside or "label", template)
    if not isinstance(inner, Label):
        raise InputError(f"Only the label readout can be permuted: 'permuted:label:letter'. Got {inner.label!r}.")
    return Permuted(inner)


_AROUND: Mapping[str, Callable[[str, Template | None], Readout]] = {
    "contextual": lambda inside, template: Contextual(find_readout(inside or "continuation", template)),
    "permuted": _permuted,
}
"""Readouts around another one, whose name follows theirs."""


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
    found = _BY_NAME.get(name)
    if isinstance(found, Continuation):
        return found if template is None else Continuation(found.normalise, template)
    if isinstance(found, OptionPTrue):
        return found if template is None else OptionPTrue(template)
    if isinstance(found, Verbalized):
        return found if template is None else Verbalized(template)
    if isinstance(found, Label):
        return found if template is None else Label(template)
    if isinstance(found, Decision):
        if template is None:
            return found
        raise InputError("The decision readout takes no template: the server writes the prompt.")
    known = [*_BY_NAME, *_AROUND]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"There is no readout {name!r}. {hint}Known: {', '.join(known)}; add ':' and one of the templates "
        f"{', '.join(TEMPLATES)}."
    )


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
