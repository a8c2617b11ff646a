"""Where a drawn text names its answer: the last marker that one of the labels follows.

A trace is a completion that thinks first and then names its answer, such as "... so it is Mars. Answer: B". Its text
tells the label; its tokens tell the position at which the label was drawn, where a distribution over all labels can be
read. Tokens are bytes: a label may share its token with the space before it, a character may need several tokens, and
so positions are counted in bytes, never in characters of decoded tokens.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from calibwrap.errors import InputError

_BETWEEN = r"[\s*_~`\"'“”‘’(\[{$]*"
"""What may stand between marker and label: space, emphasis, quotes, an opening bracket."""
_SET = r"\\(?:(?:text|textbf|mathrm|mathbf)\s*\{|[(\[])"
"""What LaTeX may write there besides."""
_LONGER = r"(?!\w|['’\-/]\w|(?<=\d)[.,]\d)"
"""What must not follow a label: the rest of a longer word or number ("Apple", "A's", "A-level", "1,000"), or "A/B"."""
MARKER = "Answer:"
"""The default marker, which is read as models write it."""
_WRITTEN = r"(?:(?i:answer)[ *_~`]*:|(?P<boxed>\\boxed)(?=\s*\{))"
"""The default marker in any case, with emphasis that ends before its colon, or the box that mathematicians put."""
_CLOSED = r"(?(boxed)(?=\s*(?:[.:)\]}*$]|\Z)))"
r"""What follows a label in a box: \boxed{A} and \boxed{A. Mars} name A, and the formula \boxed{A + B} nothing."""


@dataclass(frozen=True)
class Named:
    """Where the tokens of a trace name its answer."""

    label: int
    """Index of the label."""
    first: int
    """Position of the token in which the label begins."""
    last: int
    """Position of the token in which it ends; the same one where the label is one token."""
    before: bytes
    """What the first token holds before the label, such as a space."""
    after: bytes
    """What the last token holds after it, such as a full stop."""


@dataclass(frozen=True)
class AnswerRule:
    r"""How a trace names its answer: `marker`, then one of `labels`; where it does so twice, the last time counts.

    Between both there may be space, emphasis, quotes and an opening bracket: "**Answer:** (B)" names B. A label that
    only begins a longer word or number, or that a stroke joins to another one, does not count: "Answer: Apple",
    "Answer: 1,000" and "Answer: A/B" name nothing. With an empty `marker` the trace must begin with its label, as a
    trace does when the prompt ends with the marker.

    The default marker stands for what models write in its place: "answer: B", "**Answer**: B" and "\boxed{B}". Any
    other marker is read as it is given, and no label is read in another case.

    Raises:
        InputError: fewer than two labels, an empty one, two that differ by a full stop only, or space around one.

    >>> rule = AnswerRule(("A", "B"))
    >>> rule.named_in("Answer: A? No, 2 + 2 = 4. **Answer:** (B)."), rule.named_in("Answer: Apple")
    (1, None)
    >>> rule.named_in(r"Answer: A? No, so **Answer**: $\boxed{\text{B}}$")
    1
    """

    labels: tuple[str, ...] = ("A", "B", "C", "D")
    """Names of the K possible answers; each should be one token of the model."""
    marker: str = MARKER
    """Text that announces the answer, such as "answer is"; the default one is read in any case."""

    def __post_init__(self) -> None:
        """Check that the labels can be told apart."""
        labels = self.labels
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels) or len(labels) < 2:
            raise InputError(f"'labels' must be at least two texts, such as ('A', 'B'). Got {labels!r}.")
        if len({label.rstrip(".") for label in labels} - {""}) < len(labels) or any(
            one != one.strip() for one in labels
        ):
            raise InputError(
                f"'labels' must differ by more than a full stop and have no space around them. Got {labels!r}."
            )
        if not isinstance(self.marker, str):
            raise InputError(f"'marker' must be a text. Got {self.marker!r}.")
        object.__setattr__(self, "labels", tuple(labels))

    @property
    def readout(self) -> str:
        """Name of the scores that are read by this rule, such as "trace:Answer::A/B"."""
        return f"trace:{self.marker}:{'/'.join(self.labels)}"

    def named_in(self, text: str) -> int | None:
        """Return the index of the label that `text` names as its answer, or None where it names none."""
        found = self._matches(text)
        return self.labels.index(found[-1]["label"]) if found else None

    def named_by(self, tokens: Sequence[bytes], text: str) -> Named | None:
        r"""Return where the drawn tokens name the answer that `text` names; None where either names none.

        Args:
            tokens: bytes of each drawn token, those of a stop text included; b"" for tokens without text.
            text: what the runtime made of them, without the stop text.

        >>> named = AnswerRule(("A", "B")).named_by([b"Answer", b":", b" B", b".\n"], "Answer: B.")
        >>> named.label, named.first, named.before
        (1, 2, b' ')
        """
        drawn = b"".join(tokens).decode("utf-8", "surrogateescape")
        index = len(self._matches(text)) - 1
        found = self._matches(drawn)[: index + 1]
        if index < 0 or len(found) <= index or self.labels.index(found[index]["label"]) != self.named_in(text):
            return None
        start, end = (len(drawn[:at].encode("utf-8", "surrogateescape")) for at in found[index].span("label"))
        ends = list(accumulate(map(len, tokens)))
        first, last = bisect_right(ends, start), bisect_left(ends, end)
        before = tokens[first][: start - ends[first] + len(tokens[first])]
        after = tokens[last][end - ends[last] + len(tokens[last]) :]
        return Named(self.labels.index(found[index]["label"]), first, last, before, after)

    def _matches(self, text: str) -> list[re.Match[str]]:
        return list(_pattern(self).finditer(text))


@lru_cache
def _pattern(rule: AnswerRule) -> re.Pattern[str]:
    """Return what an answer looks like; of labels that begin alike the longest is tried first."""
    names = "|".join(map(re.escape, sorted(rule.labels, key=len, reverse=True)))
    label = f"(?P<label>{names}){_LONGER}"
    if rule.marker == MARKER:
        return re.compile(f"{_WRITTEN}{_BETWEEN}(?:{_SET}{_BETWEEN})*{label}{_CLOSED}")
    return re.compile(f"{re.escape(rule.marker) or chr(92) + 'A'}{_BETWEEN}{label}")
