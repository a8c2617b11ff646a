"""Which readout is taken when nobody names one."""

from calibwrap.base import Readout
from calibwrap.capabilities import Provides
from calibwrap.readouts import Continuation, find_readout


def default_readout(provides: Provides) -> Readout:
    """Return the first readout that the backend can give: options' texts, else letters (in a chat), else decisions.

    >>> default_readout(Provides(top=20, token_bytes=True, plain=False, chat=True)).label
    'label:letter-chat'
    """
    if provides.score and provides.plain:
        return Continuation()
    if provides.decides and not provides.labels:
        return find_readout("decision")
    return find_readout("label:letter-chat" if provides.chat else "label")
