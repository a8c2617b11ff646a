"""Readouts turn questions into option scores; each says in `needs` what it wants of a backend."""

import difflib
import warnings
from collections.abc import Mapping

from calibwrap.base import Readout
from calibwrap.errors import CalibrationWarning, InputError
from calibwrap.questions import TEMPLATES, Template
from calibwrap.readouts.continuation import Continuation
from calibwrap.readouts.decision import Decision
from calibwrap.readouts.label import Label
from calibwrap.readouts.p_true import OptionPTrue
from calibwrap.readouts.verbalized import STATED_CHAT, Verbalized
from calibwrap.scores import OptionScores

__all__ = ["Continuation", "Decision", "Label", "OptionPTrue", "Verbalized", "find_readout", "warn_of_little_mass"]

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


def find_readout(name: str | Readout, template: Template | None = None) -> Readout:
    """Return a readout by its name: "label", "continuation", "continuation:token", "p_true", "verbalized", "decision".

    All but "decision", whose prompt is the server's, take ":TEMPLATE" at will.

    Raises:
        InputError: no such name; near ones and all are listed.

    >>> find_readout("continuation:token:cloze-chat").label
    'continuation:token:cloze-chat'
    """
    if isinstance(name, Readout):
        return name
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
    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"There is no readout {name!r}. {hint}Known: {', '.join(_BY_NAME)}; add ':' and one of the templates "
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
