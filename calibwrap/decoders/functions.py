"""Names of functions in labels: two that do different things never go by the same one."""

import hashlib
import re
from collections.abc import Collection
from functools import cache, partial
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType

from calibwrap.freetext.stated import BUILT_IN, Elicitation

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Where an object lies in memory: it differs from process to process."""
_OWN = "calibwrap."
"""Beginning of the modules whose functions are known by their names."""
_CACHED = type(cache(len))
"""What functools.cache and lru_cache make of a function."""


def shown(value: object, inside: tuple[object, ...] = ()) -> str:
    """Return a setting of a decoder as its label shows it: the same in every process.

    A partial or cached function, a method, and an instance of a class that can be called are shown with all that they
    are made of; `inside` are the functions and instances that `value` was found in, which are not shown again.

    >>> shown(0.5), shown(max), shown(partial(max, 2))
    ('0.5', '<built-in function max>', 'partial(<built-in function max>, (2,), {})')
    """
    known = next((index for index, one in enumerate(inside) if one is value), None)
    if known is not None:
        return f"<number {known} around this>"
    if isinstance(value, FunctionType):
        return function_label(value, inside)
    if isinstance(value, CodeType):
        return _code(value, inside)
    if isinstance(value, (tuple, list, set, frozenset, dict)):
        return _container(value, inside)
    return _callable(value, inside) if callable(value) else _ADDRESS.sub("", _plain(value, inside))


def function_label(function: FunctionType, inside: tuple[object, ...] = ()) -> str:
    """Return the name of a function; of one that is not calibwrap's also a hash of what it does.

    The hash is over the function's code, its defaults and the values that it closes over, so that a function that was
    edited, or another lambda, has another label. Python compiles the same text differently from one version to the
    next: a label of a function of your own holds within one Python version. What the function calls is not looked at.

    >>> from calibwrap.freetext import trivia_qa
    >>> function_label(trivia_qa)
    '<function trivia_qa>'
    >>> function_label(lambda text: text.strip()) == function_label(lambda text: text.strip()[:1])
    False
    """
    name = function.__qualname__
    if function.__module__.startswith(_OWN) and "<" not in name:
        return f"<function {name}>"
    return f"<function {name} {_hash(_content(function, (*inside, function)))}>"


def _callable(value: object, inside: tuple[object, ...]) -> str:
    """Return what something that can be called, and is no plain function, is made of."""
    if isinstance(value, partial):
        return f"partial({', '.join(shown(one, inside) for one in (value.func, value.args, value.keywords))})"
    if isinstance(value, _CACHED):
        return shown(value.__wrapped__, inside)
    if isinstance(value, MethodType):
        return f"{shown(value.__func__, inside)} of {shown(value.__self__, inside)}"
    if isinstance(value, BuiltinMethodType) and not isinstance(value.__self__, ModuleType):
        return f"<{value.__qualname__} of {shown(value.__self__, inside)}>"
    kind, plain = type(value), _ADDRESS.sub("", repr(value))
    if isinstance(value, type) or kind.__module__.startswith(_OWN) or not isinstance(kind.__call__, FunctionType):
        return plain
    within = (*inside, value)
    return f"{plain} {_hash(repr([_content(kind.__call__, within), shown(object.__getstate__(value), within)]))}"


def _plain(value: object, inside: tuple[object, ...]) -> str:
    """Return the text of what cannot be called; of an elicitation that is not calibwrap's also a hash of its parts."""
    if not isinstance(value, Elicitation) or value in BUILT_IN:
        return repr(value)
    parts = _hash(repr([shown(value.parse, inside), value.before, value.after]))
    return f"Elicitation(name={value.name!r}, {parts})"


def _container(value: Collection[object], inside: tuple[object, ...]) -> str:
    """Return the members of a container, those of a set in the order of their texts."""
    within = (*inside, value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(key, within)}: {shown(one, within)}' for key, one in value.items())}}}"
    members = [shown(one, within) for one in value]
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(members)})"
    if isinstance(value, list):
        return f"[{', '.join(members)}]"
    return f"({', '.join(members)}{',' * (len(members) == 1)})"


def _content(function: FunctionType, inside: tuple[object, ...]) -> str:
    """Return all of a function that is its own, as one text."""
    closed = [shown(cell.cell_contents, inside) for cell in function.__closure__ or ()]
    given = [shown(function.__defaults__, inside), shown(function.__kwdefaults__, inside)]
    return repr([_code(function.__code__, inside), given, closed])


def _code(code: CodeType, inside: tuple[object, ...]) -> str:
    return repr([code.co_code, code.co_names, [shown(one, inside) for one in code.co_consts]])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
