"""Questions as batches of tokens: the right answer to learn, and where the options' scores stand in the logits.

Everything is tokenised as the readouts tokenise it, so what a trainer computes from its own logits is what the readout
gives later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibwrap.adapters._tokenizer import Reader
from calibwrap.adapters.hf import Transformers
from calibwrap.base import Readout
from calibwrap.errors import InputError, PromptTooLong, QuestionError
from calibwrap.questions import Question
from calibwrap.readouts import Continuation, Label, find_readout
from calibwrap.readouts._forms import surface_forms
from calibwrap.readouts.label import one_token_forms
from calibwrap.training.packing import PADDING, packed, sees

IGNORED = -100
"""Label of a token that the likelihood leaves out."""


@dataclass(frozen=True)
class Example:
    """One question, tokenised."""

    index: int
    """Place in the data set."""
    prompt: list[int]
    """Tokens that stand before every option."""
    options: list[list[int]]
    """For each option the tokens of its text; for the label readout those that may stand for its letter, own first."""
    answer: list[int]
    """The tokens of the right option."""
    right: int
    """Which option that is."""
    divisors: list[float]
    """What the sum of each option's log-probabilities is divided by; not used for labels."""


def trained_readout(name: str | Readout) -> Label | Continuation:
    """Return the readout of that name, if its scores can be computed from a trainer's logits.

    Raises:
        InputError: another readout than labels or continuations.

    >>> trained_readout("continuation:token").label
    'continuation:token:cloze'
    """
    readout = find_readout(name)
    if not isinstance(readout, (Label, Continuation)):
        raise InputError(f"'readout' must be 'label' or 'continuation' for training. Got {readout.label!r}.")
    return readout


def encoded(
    questions: Sequence[Question], readout: Label | Continuation, adapter: Transformers, max_length: int
) -> list[Example]:
    """Return the questions tokenised as `readout` does it.

    Raises:
        QuestionError: a question's answer is not known.
        PromptTooLong: a prompt with its longest option has more than `max_length` tokens; nothing is cut off.
        AmbiguousOptions: a label is not one token after its prompt.
    """
    found = []
    for index, question in enumerate(questions):
        if question.answer is None:
            raise QuestionError(f"Training needs the right answer, and question {question.id!r} has none.")
        if isinstance(readout, Label):
            example = _of_label(index, question, readout, adapter)
        else:
            example = _of_text(index, question, readout, adapter)
        longest = len(example.prompt) + (1 if isinstance(readout, Label) else max(map(len, example.options)))
        if longest > max_length:
            raise PromptTooLong(
                f"Question {question.id!r} has {longest} tokens with its longest option, and 'max_length' is "
                f"{max_length}: raise it, or leave the question out. Nothing is cut off in silence."
            )
        found.append(example)
    return found


def _of_text(index: int, question: Question, readout: Continuation, adapter: Transformers) -> Example:
    texts = [readout.template.separator + option for option in question.options]
    prompt, tails = Reader(adapter.tokenizer).split(readout.template.prompt(question), texts)
    right = question.answer or 0
    divisors = readout.lengths(question, [len(tail) for tail in tails])
    return Example(index, prompt, tails, tails[right], right, divisors.tolist())


def _of_label(index: int, question: Question, readout: Label, adapter: Transformers) -> Example:
    readout.check_enough(question)
    prompt = readout.template.prompt(question, readout.labels)
    forms = [surface_forms(readout.template.separator, label) for label in readout.labels[: len(question.options)]]
    tokens = one_token_forms(adapter, prompt, question.id, forms)
    right = question.answer or 0
    return Example(index, adapter.tokenize(prompt)[0], tokens, tokens[right][:1], right, [1.0] * len(tokens))


@dataclass(frozen=True)
class Collator:
    """Makes batches of examples."""

    pad: int
    """Token that fills rows up, on the right."""
    labels: bool
    """Whether options are letters, which all stand at one position of one row."""
    options: bool
    """Whether the batch must show the options' scores, or the right answer alone."""
    learns_prompt: bool
    """Whether the likelihood is that of question and answer, or of the answer alone."""
    packs: bool = False
    """Whether the options of a question stand in one row, each seeing the question and itself, or in a row each."""

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the batch of N questions.

        `index` (N,); `input_ids` and `labels` (R, L), where every question has one row, or one a text of an option if
        `options` and not `packs`; `attention_mask` (R, L), or (R, 1, L, L) beside `position_ids` (R, L) where options
        are packed. With `options` also `row`, `column`, `token` and `counted` (N, K, F): which logit says how probable
        each of the F tokens of an option is, and `divisor` (N, K).
        """
        batch = {"index": torch.tensor([example.index for example in examples])}
        if self.packs and self.options and not self.labels:
            return {**batch, **self._packed(examples)}
        rows: list[list[int]] = []
        labels: list[list[int]] = []
        places = []
        for example in examples:
            first, one = len(rows), 0 if self.labels else 1
            begins = [(first + one * number, len(example.prompt)) for number in range(len(example.options))]
            places.append(self._places(example, begins))
            for option in self._rows(example):
                rows.append([*example.prompt, *(example.answer if option is None else example.options[option])])
                learnt = option in (None, example.right)
                labels.append(self._learnt(example) if learnt else [IGNORED] * len(rows[-1]))
        batch |= {
            "input_ids": _padded(rows, self.pad),
            "attention_mask": _padded([[1] * len(row) for row in rows], 0),
            "labels": _padded(labels, IGNORED),
        }
        return {**batch, **_stacked(places, examples)} if self.options else batch

    def _packed(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the batch but for `index`, a row a question, in which the right answer follows the question."""
        rows = [packed(example.prompt, example.options, example.right) for example in examples]
        width = max(len(row.ids) for row in rows)
        places = [
            self._places(example, [(number, start) for start in row.starts])
            for number, (example, row) in enumerate(zip(examples, rows, strict=True))
        ]
        return {
            "input_ids": _padded([row.ids for row in rows], self.pad),
            "attention_mask": sees(_padded([row.parts for row in rows], PADDING)),
            "position_ids": _padded([row.positions for row in rows], 0),
            "labels": _padded([self._learnt(example) for example in examples], IGNORED, width),
            **_stacked(places, examples),
        }

    def _rows(self, example: Example) -> list[int | None]:
        """Return the option that each row of the question reads; None is the right answer."""
        return list(range(len(example.options))) if self.options and not self.labels else [None]

    def _learnt(self, example: Example) -> list[int]:
        """Return the labels of the row of the right answer; the first token has nothing before it to predict it."""
        prompt = example.prompt[1:] if self.learns_prompt else [IGNORED] * (len(example.prompt) - 1)
        return [IGNORED, *prompt, *example.answer]

    def _places(self, example: Example, begins: Sequence[tuple[int, int]]) -> list[list[tuple[int, int, int]]]:
        """Return (row, column, token) of every token of every option, from the row and column where each begins."""
        last = len(example.prompt) - 1
        return [
            [(row, start + step - 1 if step and not self.labels else last, token) for step, token in enumerate(tokens)]
            for (row, start), tokens in zip(begins, example.options, strict=True)
        ]


def _padded(rows: Sequence[Sequence[int]], fill: int, at_least: int = 0) -> Tensor:
    width = max(at_least, *map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _stacked(places: Sequence[list[list[tuple[int, int, int]]]], examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return places padded to (N, K, F), and divisors to (N, K)."""
    options = max(map(len, places))
    tokens = max(len(one) for of in places for one in of)
    place = torch.zeros(3, len(places), options, tokens, dtype=torch.long)
    counted = torch.zeros(len(places), options, tokens, dtype=torch.bool)
    divisor = torch.ones(len(places), options)
    for n, of in enumerate(places):
        divisor[n, : len(of)] = torch.tensor(examples[n].divisors)
        for k, one in enumerate(of):
            place[:, n, k, : len(one)] = torch.tensor(one).T
            counted[n, k, : len(one)] = True
    return {"row": place[0], "column": place[1], "token": place[2], "counted": counted, "divisor": divisor}


def option_logprobs(logits: Tensor, log_z: Tensor, batch: Mapping[str, Tensor], labels: bool) -> Tensor:
    """Return the readout's scores of the options, (N, K), not normalised over them; -inf where there is no option.

    Args:
        logits: (R, L, V).
        log_z: (R, L) their log-partition.
        batch: what `Collator` made.
        labels: whether tokens of one option are alternatives, whose probabilities add up, or one text.
    """
    row, column, counted = batch["row"], batch["column"], batch["counted"]
    each = logits[row, column, batch["token"]].float() - log_z[row, column]
    if labels:
        score = torch.logsumexp(torch.where(counted, each, torch.finfo(each.dtype).min), dim=-1)
    else:
        score = torch.where(counted, each, 0.0).sum(dim=-1) / batch["divisor"]
    return torch.where(counted.any(dim=-1), score, -torch.inf)


def likelihood(logits: Tensor, log_z: Tensor, labels: Tensor) -> Tensor:
    """Return the summed negative log-likelihood of all labelled tokens; a row's label t is predicted at t - 1."""
    target = labels[:, 1:]
    learnt = target != IGNORED
    of_target = logits[:, :-1].gather(-1, target.clamp(min=0)[..., None])[..., 0].float() - log_z[:, :-1]
    return -torch.where(learnt, of_target, 0.0).sum()


def questions_of(dataset: Any) -> list[Question]:
    """Return the questions of a data set: `Question`s themselves, or rows with prompt, options and answer.

    Raises:
        QuestionError: a row is no question with options; its place is named.
        InputError: there are none.

    >>> questions_of([{"prompt": "Red planet?", "options": ["Mars", "Venus"], "answer": 0}])[0].answer_text
    'Mars'
    """
    from calibwrap.data.rows import question_from_row

    found = []
    for place, row in enumerate(dataset):
        question = row if isinstance(row, Question) else question_from_row(row, f"row-{place}")
        if not isinstance(question, Question):
            raise QuestionError(f"Row {place} of the data set has no options; this training needs them.")
        found.append(question)
    if not found:
        raise InputError("The data set must hold at least one question. Got none.")
    return found
