r"""Confidence that a model states in words: what to ask for, and how to read the reply.

Each parser returns what a reply states, or nothing at all where the reply is malformed; nothing is guessed. The replies
that count and those that do not are in the tests' golden table.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from calibwrap.errors import InputError

SCALE = 10
"""Highest confidence of the scale from 0 to 10."""
_DOUBT = re.compile(r"answer:\s*(?P<answer>\S.*?)\s*,\s*confidence:\s*(?P<level>\d{1,2})\s*\.?", re.IGNORECASE)
_PROBABILITY = r"(?P<number>\d*\.\d+|\d+\.?)\s*(?P<percent>%?)"
_ALONE = re.compile(rf"(?:probability:\s*)?{_PROBABILITY}\s*\.?", re.IGNORECASE)
_GUESS = re.compile(r"guess:\s*(?P<answer>\S.*?)\s*", re.IGNORECASE)
_STATED = re.compile(rf"probability:\s*{_PROBABILITY}", re.IGNORECASE)
_NUMBERED = re.compile(rf"G(?P<guess>\d+):\s*(?P<answer>\S.*?)\s*|P(?P<of>\d+):\s*{_PROBABILITY}", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """An answer and the confidence that the model states in it."""

    answer: str
    """The answer; empty where the reply is about an answer given before."""
    confidence: float
    """In [0, 1]."""


Parser = Callable[[str], tuple[Statement, ...]]
"""Returns the statements of a reply; none at all where it is malformed."""


def parse_scale(text: str) -> tuple[Statement, ...]:
    """Return the statement in "Answer: ..., Confidence: n", n a whole number from 0 to 10, as n / 10.

    The first line that begins with "Answer:" counts and must have the form; case, and a full stop at its end, do not
    matter. An answer may hold commas.

    References:
        Stangel, Bani-Harouni et al.: Rewarding doubt (2025), for the format.

    >>> parse_scale("Answer: Paris, France, Confidence: 7"), parse_scale("Answer: Paris, Confidence: 7.5")
    ((Statement(answer='Paris, France', confidence=0.7),), ())
    """
    line = next((line for line in _lines(text) if line.lower().startswith("answer:")), "")
    found = _DOUBT.fullmatch(line)
    if found is None or int(found["level"]) > SCALE:
        return ()
    return (Statement(found["answer"], int(found["level"]) / SCALE),)


def parse_lettered_scale(text: str) -> tuple[Statement, ...]:
    """Return what `parse_scale` does, the answer cut to its option's letter: "A: Paris" is A.

    A part before the colon that is not one character is malformed.

    >>> parse_lettered_scale("Answer: B: Mars, Confidence: 9")
    (Statement(answer='B', confidence=0.9),)
    """
    cut = [(one.answer.partition(":")[0].strip(), one.confidence) for one in parse_scale(text)]
    return tuple(Statement(letter, confidence) for letter, confidence in cut if len(letter) == 1)


def parse_guess(text: str) -> tuple[Statement, ...]:
    r"""Return the statement in the lines "Guess: ..." and "Probability: p", p from 0 to 1 or a percentage.

    >>> parse_guess("Guess: Paris\nProbability: 0.85"), parse_guess("Guess: Paris\nProbability: 85")
    ((Statement(answer='Paris', confidence=0.85),), ())
    """
    lines = _lines(text)
    guess = next((index for index, line in enumerate(lines) if _GUESS.fullmatch(line)), len(lines))
    said, stated = (_GUESS.fullmatch(lines[guess]), lines[guess + 1 :]) if guess < len(lines) else (None, [])
    confidence = _probability(_STATED.fullmatch(stated[0])) if stated else None
    return () if said is None or confidence is None else (Statement(said["answer"], confidence),)


def parse_guesses(text: str) -> tuple[Statement, ...]:
    r"""Return the statements in lines "G1: ...", "P1: p", "G2: ..." and so on, in the order of their numbers.

    Fewer guesses than were asked for count; a guess without its probability, a number used twice or a probability out
    of range make all of it malformed.

    >>> [one.confidence for one in parse_guesses("G1: Paris\nP1: 0.6\nG2: Rome\nP2: 20%")]
    [0.6, 0.2]
    """
    guesses: dict[int, str] = {}
    stated: dict[int, float] = {}
    for line in _lines(text):
        if re.match(r"[GP]\d+:", line, re.IGNORECASE) is None:
            continue
        found = _NUMBERED.fullmatch(line)
        if found is None:
            return ()
        number = int(found["guess"] or found["of"])
        confidence = _probability(found) if found["of"] else 0.0
        if confidence is None or number in (stated if found["of"] else guesses):
            return ()
        if found["of"]:
            stated[number] = confidence
        else:
            guesses[number] = found["answer"]
    if guesses.keys() != stated.keys():
        return ()
    return tuple(Statement(guesses[number], stated[number]) for number in sorted(guesses))


def parse_probability(text: str) -> tuple[Statement, ...]:
    """Return the statement of a reply whose first line is a probability alone, from 0 to 1 or a percentage.

    >>> parse_probability("Probability: 85%"), parse_probability("rather sure")
    ((Statement(answer='', confidence=0.85),), ())
    """
    lines = _lines(text)
    confidence = _probability(_ALONE.fullmatch(lines[0])) if lines else None
    return () if confidence is None else (Statement("", confidence),)


def _lines(text: str) -> list[str]:
    """Return the lines that are not blank, without space and emphasis around them."""
    stripped = (line.strip(" \t\r*_`") for line in text.replace("**", "").splitlines())
    return [line for line in stripped if line]


def _probability(found: re.Match[str] | None) -> float | None:
    """Return the probability that was matched; None where there is none, or it lies above 1."""
    if found is None:
        return None
    value = float(found["number"]) / (100.0 if found["percent"] else 1.0)
    return value if value <= 1.0 else None


@dataclass(frozen=True)
class Elicitation:
    """How a model is asked to state its confidence, and how its reply is read."""

    name: str
    """Name in reports and saved calibrators."""
    parse: Parser = field(repr=False)
    """Reads a reply."""
    before: str = field(default="", repr=False)
    """What the model is told before the question; empty where the question is asked as it stands."""
    after: str = field(default="", repr=False)
    """What it is asked after its answer, in a second round; empty where one reply holds both."""

    def __post_init__(self) -> None:
        """Check that something is asked."""
        if not self.before and not self.after:
            raise InputError(f"Elicitation {self.name!r} asks for nothing: give 'before' or 'after'.")


REWARDING_DOUBT = Elicitation(
    "rewarding-doubt",
    parse_scale,
    before="Answer the question, and say how confident you are that your answer is right: a whole number from 0 to 10. "
    "0 means that it is certainly wrong, 10 that it is certainly right. Write one line of exactly this form, and "
    "nothing else:\nAnswer: <your answer>, Confidence: <number>",
)
"""One reply, confidence from 0 to 10: the format of Rewarding Doubt."""

ONE_STEP = Elicitation(
    "1s",
    parse_guess,
    before="Give your best guess at the answer, and the probability between 0.0 and 1.0 that this guess is right. "
    "Write two lines and nothing else:\nGuess: <a few words>\nProbability: <number>",
)
"""One reply with the best guess and its probability (Tian et al.: Just ask for calibration, 2023)."""

TWO_STEP = Elicitation(
    "2s",
    parse_probability,
    after="How probable is it that your answer is right? Reply with one number between 0.0 and 1.0 and nothing else.",
)
"""The question as it stands, then a second request for the probability (Tian et al., 2023)."""


def top_guesses(n: int) -> Elicitation:
    """Return the elicitation of the n best guesses, each with its probability (Tian et al., 2023).

    Raises:
        InputError: `n` is below 2; for one guess there is `ONE_STEP`.

    >>> top_guesses(4).name
    'top-4'
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise InputError(f"'n' must be a whole number of at least 2. Got {n!r}: use ONE_STEP for one guess.")
    return Elicitation(
        f"top-{n}",
        parse_guesses,
        before=f"Give your {n} best guesses at the answer, each with the probability between 0.0 and 1.0 that it is "
        "right. Write two lines for each guess and nothing else, and count the guesses:\nG1: <a few words>\n"
        "P1: <number>\nG2: <a few words>\nP2: <number>",
    )


BUILT_IN = (REWARDING_DOUBT, ONE_STEP, TWO_STEP, top_guesses(4))
"""The elicitations that a decoder's label shows by their names alone."""
