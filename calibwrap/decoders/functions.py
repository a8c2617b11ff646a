"""Names of functions in labels: two that do different things never go by the same one."""

import hashlib
import re
from types import CodeType, FunctionType

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Where an object lies in memory: it differs from process to process."""
_OWN = "calibwrap."
"""Beginning of the modules whose functions are known by their names."""


def shown(value: object) -> str:
    """Return a setting of a decoder as its label shows it: the same in every process.

    >>> shown(0.5), shown(max)
    ('0.5', '<built-in function max>')
    """
    return function_label(value) if isinstance(value, FunctionType) else _ADDRESS.sub("", repr(value))


def function_label(function: FunctionType) -> str:
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
    return f"<function {name} {hashlib.sha256(_content(function).encode()).hexdigest()[:8]}>"


def _content(function: FunctionType) -> str:
    """Return all of a function that is its own, as one text."""
    closed = [_value(cell.cell_contents) for cell in function.__closure__ or ()]
    given = [_value(function.__defaults__), _value(function.__kwdefaults__)]
    return repr([_code(function.__code__), given, closed])


def _code(code: CodeType) -> str:
    return repr([code.co_code, code.co_names, [_value(one) for one in code.co_consts]])


def _value(value: object) -> str:
    """Return a constant as a text that is the same in every process."""
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_value, value))})"
    return shown(value)
