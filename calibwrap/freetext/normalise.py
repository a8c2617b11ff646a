"""When two answers are the same: each normaliser maps a text to what is compared, and to "" where it says nothing."""

import re
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from calibwrap.questions import LETTERS
from calibwrap.traces import AnswerRule

if TYPE_CHECKING:
    from decimal import Decimal
    from fractions import Fraction

Normaliser = Callable[[str], str]
"""Maps an answer to the text that stands for it; equal answers to equal texts, no answer to ""."""

_TO_SPACE = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_FRACTION = r"(?:(?P<whole>\d{1,9}) )?(?P<over>\d{1,9})/(?P<under>0*[1-9]\d{0,8})(?![\w/]|\.\d)"
_POINTED = r"(?P<pointed>\d{1,3}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})(?!\d))"
"""A number with points between thousands, where nothing else can be meant: 1.250,5 or 1.250.000, not 1.250."""
_GROUPED = r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?!\d)"
_COMMA = (
    r"(?P<comma>(?<!\d,)(?![1-9]\d{0,2},\d{3}(?!\d))(?:\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+|\d+)"
    r",\d+(?:[eE][-+]?\d{1,2})?(?![,./]?\d))"
)
"""A number with a decimal comma: 2,5 or 10 000,5, not 1,250, whose comma parts thousands, and not the list 1,2,3."""
_PLAIN = rf"(?P<plain>(?:{_GROUPED}|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d{{1,2}}(?!\d))?)"
_NUMBER = re.compile(rf"(?<![\w.])(?P<sign>[-+−]?)(?:(?<!/){_FRACTION}|{_POINTED}|{_COMMA}|{_PLAIN})")
_WORD = re.compile(r"\s*[AI]\s+[a-z]")
"""A text that begins with the article or the pronoun, not with a letter."""
_MARKED = (AnswerRule(LETTERS, "Answer:"), AnswerRule(LETTERS, "answer is"))
_LEADING = AnswerRule(LETTERS, "")


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
    """Return the capital letter that `text` names after its last "Answer:", else "answer is", else begins with.

    A text that begins with the word "A" or "I" begins with no letter.

    >>> [option_letter(text) for text in ("(B) Mars", "I think so. Answer: C.", "The answer is D.", "Apple", "I think")]
    ['B', 'C', 'D', '', '']
    """
    rules = _MARKED if _WORD.match(text) else (*_MARKED, _LEADING)
    named = next((label for rule in rules if (label := rule.named_in(text)) is not None), None)
    return "" if named is None else LETTERS[named]


def number(text: str) -> str:
    """Return the last number in `text`, plainly: no sign +, separators of thousands, exponent or closing zeros.

    Thousands may be parted by commas, spaces, or points where a comma or a second point follows. A comma between
    digits that are no such thousands is a decimal comma, unless a list such as 1,2,3 goes on with another one. A
    fraction is its decimal number, and stays in lowest terms where that does not end.

    >>> [number(text) for text in ("it is 1,250.50 km", "7 or 8?", "-0", "none", "12 000", "1 1/2", "2/6", "2,5")]
    ['1250.5', '8', '0', '', '12000', '1.5', '1/3', '2.5']
    """
    from decimal import Decimal  # libraries of their own, which few need
    from fractions import Fraction

    found = list(_NUMBER.finditer(text))
    if not found:
        return ""
    last, sign = found[-1], -1 if found[-1]["sign"] in ("-", "−") else 1
    if last["under"]:
        return _fraction(sign * (int(last["whole"] or 0) + Fraction(int(last["over"]), int(last["under"]))))
    pointed = re.sub(r"[.\s]", "", last["pointed"] or last["comma"] or "").replace(",", ".")
    return _decimal(sign * Decimal(pointed or re.sub(r"[,\s]", "", last["plain"])))


def _fraction(value: "Fraction") -> str:
    """Return a fraction of small numbers as a decimal number where it is one."""
    from decimal import Decimal, localcontext

    with localcontext(prec=60):
        decimal = Decimal(value.numerator) / Decimal(value.denominator)
        return _decimal(decimal) if decimal.as_integer_ratio() == value.as_integer_ratio() else str(value)


def _decimal(value: "Decimal") -> str:
    return format(value.normalize(), "f") if value else "0"


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
