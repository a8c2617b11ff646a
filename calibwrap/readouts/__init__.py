"""Readouts turn questions into option scores; each says in `needs` what it wants of a backend."""

import difflib
from collections.abc import Mapping

from calibwrap.base import Readout
from calibwrap.errors import InputError
from calibwrap.questions import TEMPLATES, Template
from calibwrap.readouts.continuation import Continuation
from calibwrap.readouts.decision import Decision
from calibwrap.readouts.label import Label

__all__ = ["Continuation", "Decision", "Label", "find_readout"]

_BY_NAME: Mapping[str, Readout] = {
    "continuation": Continuation(),
    "continuation:sum": Continuation("sum"),
    "continuation:token": Continuation("token"),
    "continuation:byte": Continuation("byte"),
    "label": Label(),
    "decision": Decision(),
}


def find_readout(name: str | Readout, template: Template | None = None) -> Readout:
    """Return a readout by its name: "label", "continuation", "continuation:token", "decision".

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
