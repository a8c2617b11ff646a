"""Which readout is taken when nobody names one."""

from calibwrap.base import Readout
from calibwrap.capabilities import Provides
from calibwrap.readouts.named import find_readout


def default_readout(provides: Provides) -> Readout:
    """Return the first readout that the backend can give: options' texts, else letters (in a chat), else decisions.

    >>> default_readout(Provides(top=20, token_bytes=True, plain=False, chat=True)).label
    'label:letter-chat'
    """
    if provides.score and provides.plain:
        return find_readout("continuation")
    if provides.decides and not provides.labels:
        return find_readout("decision")
    return find_readout("label:letter-chat" if provides.chat else "label")


def default_reference_readout(readout: Readout) -> Readout:
    """Return how a reference is read when nobody says: per token for continuations, else like the model.

    A base model's summed scores favour short options and are over-confident; per token it is close to calibrated, and
    a fit without labels inherits the reference's calibration. The figures are in the documentation of DACA.
    """
    from calibwrap.readouts.continuation import Continuation  # loaded with the first readout of its kind

    return Continuation("token", readout.template) if isinstance(readout, Continuation) else readout
