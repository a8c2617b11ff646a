"""What decoders are handed, checked once and named: a text is no list of texts, a name is no function."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from calibwrap.base import Calibrator, Decoder
from calibwrap.errors import InputError
from calibwrap.questions import Chat


def check_decoder_type(decoder: Any) -> None:
    """Return nothing when `decoder` is one.

    Raises:
        InputError: something else, such as a name or a class.

    >>> from calibwrap.decoders import Greedy
    >>> check_decoder_type(Greedy())
    """
    if isinstance(decoder, Decoder):
        return
    if isinstance(decoder, type) and issubclass(decoder, Decoder):
        raise InputError(f"'decoder' must be a decoder. Got the class {decoder.__name__}: call it, with its settings.")
    hint = f": cw.decoders.find_decoder({decoder!r}) finds one by its name" if isinstance(decoder, str) else ""
    raise InputError(f"'decoder' must be a decoder, such as cw.ConfidenceAtK(k=8). Got {decoder!r}{hint}.")


def check_calibrator_type(name: str, calibrator: Any) -> None:
    """Return nothing when `calibrator` is one.

    Raises:
        InputError: something else, such as the name of a file or a class.
    """
    if isinstance(calibrator, Calibrator):
        return
    hint = ": cw.load(...) reads one from its file" if isinstance(calibrator, str) else ""
    hint = ": call it with its numbers, or fit one" if isinstance(calibrator, type) else hint
    raise InputError(f"'{name}' must be a calibrator, such as cw.Temperature(2.0). Got {calibrator!r}{hint}.")


def check_type(name: str, value: Any, kind: type, example: str) -> None:
    """Return nothing when `value` is of a kind.

    Raises:
        InputError: something else; `example` is a right one.
    """
    if not isinstance(value, kind):
        raise InputError(f"'{name}' must be a {kind.__name__}, such as {example}. Got {value!r}.")


def check_prompt_list(prompts: Any) -> None:
    """Return nothing when `prompts` may be a list of prompts: a single one is not.

    Raises:
        InputError: a single prompt, or no list.
    """
    if isinstance(prompts, (str, Chat)) or not isinstance(prompts, Sequence):
        raise InputError(f"'prompts' must be a list of prompts, such as [{str(prompts)[:40]!r}]. Got {prompts!r}.")


def drawing_settings(decoder: Any, names: Sequence[str]) -> None:
    """Return nothing; check those of a decoder's fields that say how to draw, and give each the type that it is of.

    Raises:
        InputError: a number that is none, or a `stop` that is no list of texts.
    """
    checks: dict[str, Callable[[str, Any], Any]] = {
        "k": whole,
        "max_tokens": whole,
        "seed": lambda name, value: None if value is None else whole(name, value, least=0),
        "temperature": number,
        "stop": texts,
    }
    for name in names:
        object.__setattr__(decoder, name, checks[name](name, getattr(decoder, name)))


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number, NumPy's included.

    Raises:
        InputError: something else, or less than `least`.

    >>> whole("k", np.int64(3))
    3
    """
    try:
        found = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least:
        raise InputError(f"'{name}' must be a whole number of at least {least}. Got {value!r}.")
    return found


def number(name: str, value: Any) -> float:
    """Return a finite number of at least 0.

    Raises:
        InputError: something else.

    >>> number("temperature", 1)
    1.0
    """
    known = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or value < 0:
        raise InputError(f"'{name}' must be a finite number of at least 0. Got {value!r}.")
    return float(value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    r"""Return a list of texts as a tuple.

    Raises:
        InputError: one text alone, whose characters would else be taken one by one; or anything else.

    >>> texts("stop", ["\n\n"])
    ('\n\n',)
    """
    if isinstance(value, str):
        raise InputError(f"'{name}' must be a list of texts: write [{value!r}]. Got the text {value!r} alone.")
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise InputError(f"'{name}' must be a list of texts, () for none. Got {value!r}.")
    return tuple(value)


def function(name: str, value: Any, example: str) -> None:
    """Return nothing when `value` can be called.

    Raises:
        InputError: something else, such as the name of a function; `example` is a right one.
    """
    if not callable(value) or isinstance(value, type):
        raise InputError(f"'{name}' must be a function, such as {example}. Got {value!r}.")
