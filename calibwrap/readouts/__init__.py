"""Readouts turn questions into option scores; each says in `needs` what it wants of a backend."""

from typing import TYPE_CHECKING

from calibwrap.on_demand import door

if TYPE_CHECKING:
    from calibwrap.readouts.contextual import Contextual
    from calibwrap.readouts.continuation import Continuation
    from calibwrap.readouts.decision import Decision
    from calibwrap.readouts.label import Label
    from calibwrap.readouts.named import find_readout, keeps_argmax, warn_of_little_mass
    from calibwrap.readouts.p_true import OptionPTrue
    from calibwrap.readouts.permuted import Permuted
    from calibwrap.readouts.verbalized import Verbalized

__all__ = [
    "Contextual",
    "Continuation",
    "Decision",
    "Label",
    "OptionPTrue",
    "Permuted",
    "Verbalized",
    "find_readout",
    "keeps_argmax",
    "warn_of_little_mass",
]

_HOMES = {
    "contextual": ["Contextual"],
    "continuation": ["Continuation"],
    "decision": ["Decision"],
    "label": ["Label"],
    "named": ["find_readout", "keeps_argmax", "warn_of_little_mass"],
    "p_true": ["OptionPTrue"],
    "permuted": ["Permuted"],
    "verbalized": ["Verbalized"],
}
"""Public names by the file that holds them, which is imported when one is first used."""

__getattr__, __dir__ = door(__name__, _HOMES)
