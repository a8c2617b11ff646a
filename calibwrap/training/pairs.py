"""Preference pairs from question sets and from a model's own traces, in TRL's standard formats."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calibwrap.base import Completion
from calibwrap.errors import InputError, PromptTooLong, QuestionError, need
from calibwrap.evaluate import question_keys
from calibwrap.questions import CLOZE, LETTERS, Chat, Prompt, Question, Template, answers_of, check_questions
from calibwrap.readouts import Continuation, Label
from calibwrap.stored_traces import Drawing, labels_of
from calibwrap.traces import AnswerRule
from calibwrap.wrap import CalibratedLM

if TYPE_CHECKING:
    from datasets import Dataset

Rejected = Literal["random", "hardest"]


def preference_pairs(
    questions: Sequence[Question],
    *,
    rejected: Rejected = "random",
    lm: CalibratedLM | None = None,
    seed: int = 0,
    template: Template = CLOZE,
) -> "Dataset":
    r"""Return one pair a question, its right answer against a wrong one, with columns id, prompt, chosen, rejected.

    Prompts and answers are written as the continuation readout reads them or, where `template` shows the options, as
    the label readout does, with a letter as the answer. Texts are plain with a plain template, else lists of messages.

    Args:
        questions: with answers, and at least two options each.
        rejected: which wrong option: a "random" one, or the "hardest": the wrong one that `lm` finds most probable.
        lm: scores the options for "hardest", with its own probabilities.
        seed: of the random choice, which depends on nothing else but the question's id.
        template: how a question is written.

    Raises:
        QuestionError: a question without an answer, with no wrong option, or with more options than letters where
            the template shows them.
        InputError: an unknown rule, or "hardest" without a model.

    >>> pairs = preference_pairs([Question("Red planet?", ["Mars", "Venus"], answer=0, id="q1")])
    >>> pairs[0]["prompt"], pairs[0]["chosen"], pairs[0]["rejected"]
    ('Question: Red planet?\nAnswer:', ' Mars', ' Venus')
    """
    check_questions(questions)
    keys, answers = question_keys(questions), answers_of(questions)
    for key, question in zip(keys, questions, strict=True):
        if len(question.options) < 2:
            raise QuestionError(f"A pair needs a wrong option, and question {key!r} has one option: leave it out.")
        if template.shows_options and len(question.options) > len(LETTERS):
            raise QuestionError(
                f"There are {len(LETTERS)} letters, and question {key!r} has {len(question.options)} options: leave it "
                "out, or take a template that does not show the options."
            )
    if rejected == "hardest":
        wrong = _hardest(questions, answers, lm, template)
    elif rejected == "random":
        wrong = [_drawn(question, key, seed) for question, key in zip(questions, keys, strict=True)]
    else:
        raise InputError(f"'rejected' must be 'random' or 'hardest'. Got {rejected!r}.")
    rows = []
    for key, question, right, other in zip(keys, questions, answers, wrong, strict=True):
        names = LETTERS if template.shows_options else question.options
        texts = tuple(template.separator + names[index] for index in (right, other))
        rows.append(_row(key, template.prompt(question, LETTERS), *texts))
    return _dataset(rows)


def traced_pairs(
    questions: Sequence[Question],
    traces: Sequence[Sequence[Completion]],
    drawing: Drawing,
    *,
    seed: int = 0,
) -> "Dataset":
    """Return a pair for each question with both kinds of trace: one that ends in the right label against a wrong one.

    Traces that name no label are not used, and a question whose traces are all right, or all wrong, gives no pair.
    Which of several traces is taken is random.

    Args:
        questions: with answers.
        traces: of each question, as `calibwrap.stored_traces.draw_traces` returns them.
        drawing: how they were drawn; it says how the prompt was written and where a trace names its answer.
        seed: of the random choice, which depends on nothing else but the question's id.

    Raises:
        QuestionError: a question without an answer.
        InputError: no question at all gives a pair.
    """
    check_questions(questions)
    rows = []
    for key, question, right, drawn in zip(
        question_keys(questions), questions, answers_of(questions), traces, strict=True
    ):
        labels = labels_of(question)
        named = [AnswerRule(labels, drawing.marker).named_in(one.text) for one in drawn]
        good = [one.text for one, label in zip(drawn, named, strict=True) if label == right]
        bad = [one.text for one, label in zip(drawn, named, strict=True) if label is not None and label != right]
        if good and bad:
            generator = _generator(key, seed)
            texts = (good[generator.integers(len(good))], bad[generator.integers(len(bad))])
            rows.append(_row(key, drawing.template.prompt(question, labels), *texts))
    if not rows:
        raise InputError(
            f"None of the {len(questions)} questions has both a trace with the right answer and one with a wrong one: "
            "draw more traces of each, or take other questions."
        )
    return _dataset(rows)


def check_lengths(pairs: "Dataset", tokenizer: Any, max_length: int) -> None:
    """Return nothing when prompt, answer and end token of every pair fit; TRL would cut, or drop, without a word.

    Args:
        pairs: as `preference_pairs` returns them.
        tokenizer: a Transformers tokenizer.
        max_length: most tokens.

    Raises:
        PromptTooLong: names the first question that does not fit, and how long it is.
    """
    for row in pairs:
        for side in ("chosen", "rejected"):
            if isinstance(row["prompt"], str):
                length = len(tokenizer(row["prompt"] + row[side] + tokenizer.eos_token)["input_ids"])
            else:
                length = len(tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"])
            if length > max_length:
                raise PromptTooLong(
                    f"Question {row['id']!r} with its {side} answer has {length} tokens, and 'max_length' is "
                    f"{max_length}: raise it, or leave the question out."
                )


def _hardest(
    questions: Sequence[Question], answers: Sequence[int], lm: CalibratedLM | None, template: Template
) -> list[int]:
    if lm is None:
        raise InputError("rejected='hardest' needs a model that scores the options: pass lm=cw.wrap(...).")
    readout = Label(template=template) if template.shows_options else Continuation(template=template)
    scores = lm.scores(questions, readout).logprobs.copy()
    scores[np.arange(len(questions)), answers] = -np.inf
    return [int(index) for index in scores.argmax(axis=1)]


def _drawn(question: Question, key: str, seed: int) -> int:
    wrong = [index for index in range(len(question.options)) if index != question.answer]
    return wrong[_generator(key, seed).integers(len(wrong))]


def _generator(key: str, seed: int) -> np.random.Generator:
    """Return a generator of this question's own, so that other questions and their order do not matter."""
    return np.random.default_rng(list(hashlib.sha256(f"{seed}\0{key}".encode()).digest()))


def _row(key: str, prompt: Prompt, chosen: str, rejected: str) -> dict[str, Any]:
    if not isinstance(prompt, Chat):
        return {"id": key, "prompt": prompt, "chosen": chosen, "rejected": rejected}
    messages = [{"role": role, "content": content} for role, content in prompt.messages]
    sides = {"chosen": chosen, "rejected": rejected}
    said = {side: [{"role": "assistant", "content": prompt.prefix + text}] for side, text in sides.items()}
    return {"id": key, "prompt": messages, **said}


def _dataset(rows: list[dict[str, Any]]) -> "Dataset":
    need("datasets", feature="preference pairs", extra="train")
    from datasets import Dataset

    return Dataset.from_list(rows)
