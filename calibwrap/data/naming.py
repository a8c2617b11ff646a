"""What to say when a name is not known."""

import difflib
from collections.abc import Sequence

from calibwrap.errors import InputError


def unknown_name(kind: str, name: str, known: Sequence[str]) -> InputError:
    """Return the error for a name that is none of `known`: near ones first, then the list.

    >>> print(unknown_name("packaged set", "arc-easy", ["arc_easy", "sciq"]))
    No packaged set is called 'arc-easy'. Did you mean 'arc_easy'? There are: arc_easy, sciq.
    """
    near = difflib.get_close_matches(name.lower(), known, n=3)
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return InputError(f"No {kind} is called {name!r}.{meant} There are: {', '.join(known)}.")
