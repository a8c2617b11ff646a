"""The three probes of a model: reading on, facts, and questions. Each yields what it saw, text by text.

Zhu, Xu, Wang, Zhang, Mao, "On the Calibration of Large Language Models and Alignment", Findings of EMNLP 2023: the
confidence is the probability of the likeliest token (of the likeliest option, for questions), and it is right when that
token is the one of the text.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibwrap.base import Adapter
from calibwrap.capabilities import Needs, check_needs
from calibwrap.errors import InputError, PromptTooLong
from calibwrap.lifecycle.corpora import Document
from calibwrap.questions import Question, answers_of
from calibwrap.readouts import Continuation, Label
from calibwrap.scores import Bools, Floats, TokenScores
from calibwrap.wrap import CalibratedLM

NEEDS = Needs(score=True, tokenize=True)
"""What reading on asks of a runtime: exact scores of a given text, and its tokens."""
_WIDEST = 4
"""Characters a token, for a first guess of how long the context is."""
_BLANK = re.compile(r"\s")
_FAR = 40
"""Characters in which a blank is looked for."""


@dataclass(frozen=True)
class Seen:
    """What a probe saw in one text, or of one question: n events."""

    name: str
    """Name of the text, or id of the question."""
    confidence: Floats
    """(n,) probability of what the model holds likeliest."""
    correct: Bools
    """(n,) whether that is right."""
    logprob: Floats
    """(n,) log-probability, in nats, of what is right."""
    group: str = ""
    """The question's group, such as its subject."""
    targets: tuple[int, ...] = ()
    """The tokens that were to be predicted, after their places: what the events are. None for a question."""
    is_cut: bool = False
    """Whether a server hid a part of the probabilities, so that `confidence` and `logprob` are points inside bounds."""

    @property
    def identity(self) -> int:
        """A number that two models share only when they saw the same events."""
        told = f"{self.name}\0{self.targets}".encode()
        return int.from_bytes(hashlib.sha256(told).digest()[:8], "big")


def generation(
    adapter: Adapter, documents: Sequence[Document], *, least_context: int, positions: int | None, seed: int
) -> Iterator[Seen]:
    """Yield next-token predictions inside each text, read once: at `positions` of its places, drawn by the seed.

    Args:
        adapter: the model; its runtime scores given texts.
        documents: the texts; one with too few tokens behind its context has no events.
        least_context: tokens that stand before the first token that counts.
        positions: how many places of a text count, all of them for None. Which, the seed and the text's name say.
        seed: of the places.

    Tokens that the tokenizer or a runtime adds (begin, padding) are no events.

    Raises:
        CapabilityError: the runtime cannot score a given text.
    """
    check_needs("the probe 'generation'", NEEDS, adapter.name, adapter.provides)
    size = adapter.provides.batch_size
    split = ((one, _context(adapter, one.text, least_context)) for one in documents)
    parts = [(one, cut) for one, cut in split if 0 < cut < len(one.text)]
    for start in range(0, len(parts), size):
        batch = parts[start : start + size]
        prompts, rests = [one.text[:cut] for one, cut in batch], [[one.text[cut:]] for one, cut in batch]
        for (one, _), (scores,) in zip(batch, _scored(adapter, prompts, rests), strict=True):
            yield _seen(one.name, scores, _places(len(scores), positions, f"{seed}\0{one.name}"))


def factuality(adapter: Adapter, documents: Sequence[Document], *, least_context: int) -> Iterator[Seen]:
    """Yield the prediction of the first token of each span of each text, given all that stands before it.

    Spans with fewer than `least_context` tokens before them, and those that begin the text, are no events.

    Raises:
        CapabilityError: the runtime cannot score a given text.
    """
    check_needs("the probe 'factuality'", NEEDS, adapter.name, adapter.provides)
    for one in documents:
        places = [(_before(one.text, start), stop) for start, stop in one.spans]
        first = _context(adapter, one.text, least_context) or len(one.text)
        kept = [(start, stop) for start, stop in places if start >= first]
        if not kept:
            continue
        found = _scored(adapter, [one.text[:a] for a, _ in kept], [[one.text[a:b]] for a, b in kept])
        seen = [_seen(one.name, scores, np.array([0])) for (scores,) in found]
        yield Seen(
            one.name,
            np.concatenate([each.confidence for each in seen]),
            np.concatenate([each.correct for each in seen]),
            np.concatenate([each.logprob for each in seen]),
            targets=(*(start for start, _ in kept), *(number for each in seen for number in each.targets)),
        )


def understanding(lm: CalibratedLM, questions: Sequence[Question]) -> Iterator[Seen]:
    """Yield one event a question: the option that the model holds likeliest, read as `lm` reads.

    Raises:
        QuestionError: a question has no answer.
        CapabilityError: the runtime cannot give what the readout needs.
    """
    right = answers_of(questions)
    asked = iter(zip(questions, right, strict=True))
    for scores in lm.scores_by_part(questions):
        for row, (question, answer) in zip(range(len(scores)), asked, strict=False):
            yield Seen(
                question.id,
                np.minimum(scores.confidence[row : row + 1], 1.0),
                np.array([scores.choice[row] == answer]),
                np.minimum(scores.logprobs[row, answer : answer + 1], 0.0),
                question.group,
                is_cut=bool(scores.is_cut[row]),
            )


def with_shots(
    questions: Sequence[Question],
    examples: Sequence[Question],
    readout: Label | Continuation,
    shots: int,
    header: str = "",
) -> list[Question]:
    r"""Return the questions with a header and `shots` solved examples before each: those of its own group, if any.

    The examples are written by the readout's template, a blank line after each, and stand where a context stands. In
    the header {group} is the name of the question's group, a blank in place of each underscore. No question is its own
    example.

    Raises:
        InputError: a chat template, fewer examples than shots, a header with another field, or questions that have a
            context of their own.

    >>> one = Question("Red planet?", ["Mars", "Venus"], answer=0, id="a", group="the_sky")
    >>> hot = Question("Hot planet?", ["Mars", "Venus"], answer=1, id="b", group="the_sky")
    >>> with_shots([one], [one, hot], Continuation(), 1, "On {group}.")[0].context
    'On the sky.\n\nQuestion: Hot planet?\nAnswer: Venus'
    """
    template = readout.template
    if not shots and not header:
        return list(questions)
    if template.style != "plain":
        raise InputError(f"Examples go before plain text, and the template {template.name!r} is of a chat.")
    by_group: dict[str, list[tuple[str, str]]] = {}
    for one, answer in zip(examples, answers_of(examples) if examples else (), strict=True):
        labels = readout.labels if isinstance(readout, Label) else ()
        said = labels[answer] if labels else one.options[answer]
        solved = f"{template.prompt(one, labels)}{template.separator}{said}"
        by_group.setdefault(one.group, []).append((one.prompt, solved))
    return [_behind(question, by_group.get(question.group, ()), shots, header) for question in questions]


def _behind(question: Question, solved: Iterable[tuple[str, str]], shots: int, header: str) -> Question:
    """Return a question behind a header and the first examples that do not ask the same."""
    examples = [text for prompt, text in solved if prompt != question.prompt][:shots]
    if len(examples) < shots or question.context:
        raise InputError(
            f"Expected {shots} examples of the group {question.group!r} for question {question.id!r}, which must "
            f"have no context. Got {len(examples)} and {'a' if question.context else 'no'} context."
        )
    try:
        title = header.format(group=question.group.replace("_", " "))
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"'header' may have the field {{group}} only. Got {header!r}.") from error
    return replace(question, context="\n\n".join([*([title] if title else []), *examples]))


def _scored(adapter: Adapter, prompts: Sequence[str], rests: Sequence[Sequence[str]]) -> list[list[TokenScores]]:
    """Return the scores of texts; one that is too long is an error that says what to change."""
    try:
        return adapter.score(prompts, rests, top=1)
    except PromptTooLong as error:
        raise PromptTooLong(f"{error} Texts are cut at 'longest' characters: set fewer for this probe.") from error


def _context(adapter: Adapter, text: str, least: int) -> int:
    """Return where what follows at least `least` tokens begins; 0 where the text is too short.

    That is before a blank, so that no word is cut, unless the next one is far, as in scripts that write none.
    """
    end = least * _WIDEST
    while end < len(text):
        blank = _BLANK.search(text, end, end + _FAR)
        cut = blank.start() if blank else end
        if len(adapter.tokenize(text[:cut])[0]) >= least:
            return cut
        end = cut + _WIDEST
    return 0


def _before(text: str, start: int) -> int:
    """Return where a span begins with the blank before it, which most tokenizers join with the word."""
    return start - 1 if start and text[start - 1] == " " else start


def _places(count: int, positions: int | None, key: str) -> np.ndarray:
    """Return which of `count` places count, in order; the key alone says which."""
    if positions is None or count <= positions:
        return np.arange(count)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return np.sort(np.random.default_rng(seed).choice(count, positions, replace=False))


def _seen(name: str, scores: TokenScores, places: np.ndarray) -> Seen:
    """Return the events at some places of a scored text."""
    assert scores.ids is not None
    assert scores.chosen is not None
    assert scores.chosen_logprob is not None
    best = scores.logprobs[places, 0]
    return Seen(
        name,
        np.minimum(np.exp(best), 1.0),
        scores.ids[places, 0] == scores.chosen[places],
        np.minimum(scores.chosen_logprob[places], 0.0),
        targets=(*places.tolist(), *scores.chosen[places].tolist()),
    )
