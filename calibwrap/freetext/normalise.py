"""When two answers are the same: each normaliser maps a text to what is compared, and to "" where it says nothing."""

import re
import string
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType

from calibwrap.questions import LETTERS
from calibwrap.traces import AnswerRule

Normaliser = Callable[[str], str]
"""Maps an answer to the text that stands for it; equal answers to equal texts, no answer to ""."""

_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d{1,2}(?!\d))?")
_MARKED, _LEADING = AnswerRule(LETTERS, "Answer:"), AnswerRule(LETTERS, "")


def trivia_qa(text: str) -> str:
    """Return `text` in lower case, without punctuation, articles and surplus space: TriviaQA's rules.

    Underscores and punctuation become spaces. Articles stay where nothing else is left, so that the answers "A" and
    "The" are two: the published rules make both of them nothing.

    References:
        Joshi, Choi, Weld, Zettlemoyer: TriviaQA (2017), and its published evaluation.

    >>> trivia_qa("  The_Beatles' “Help!”"), trivia_qa("A")
    ('beatles “help ”', 'a')
    """
    plain = text.lower().translate(_TO_SPACE)
    return " ".join(_ARTICLES.sub(" ", plain).split()) or " ".join(plain.split())


def option_letter(text: str) -> str:
    """Return the capital letter that `text` names after its last "Answer:", else the one that it begins with.

    >>> [option_letter(text) for text in ("(B) Mars", "I think so. Answer: C.", "Apple")]
    ['B', 'C', '']
    """
    named = _MARKED.named_in(text)
    named = _LEADING.named_in(text) if named is None else named
    return "" if named is None else LETTERS[named]


def number(text: str) -> str:
    """Return the last number in `text`, plainly: no sign +, separators of thousands, exponent or closing zeros.

    >>> [number(text) for text in ("it is 1,250.50 km", "7 or 8?", "-0", "none")]
    ['1250.5', '8', '0', '']
    """
    found = _NUMBER.findall(text)
    if not found:
        return ""
    value = Decimal(found[-1].replace(",", "").replace("−", "-"))
    return format(value.normalize() if value else Decimal(0), "f")


def exact(text: str) -> str:
    """Return `text` without the space around it.

    >>> exact(" Paris ")
    'Paris'
    """
    return text.strip()


NORMALISERS: Mapping[str, Normaliser] = MappingProxyType(
    {"exact": exact, "number": number, "option-letter": option_letter, "trivia-qa": trivia_qa}
)
"""The normalisers by name."""
