"""Toy worlds whose truth is known: texts drawn from a model's own probabilities, questions, and files of both."""

import json
from pathlib import Path

import numpy as np

from calibwrap.lifecycle.corpora import Document
from calibwrap.testing import ToyModel, toy_questions
from calibwrap.testing.toy import TOKENS

WORDS = (2, 3, 4, 5, 6)
"""Tokens that are drawn: letters, a word, and a letter outside ASCII; no end, no half character."""


def world(seed: int = 0, spread: float = 1.5) -> ToyModel:
    """Return a model that says words only."""
    scores = np.full((len(TOKENS), len(TOKENS)), -np.inf)
    drawn = np.random.default_rng(seed).normal(0.0, spread, (len(TOKENS), len(WORDS)))
    scores[:, WORDS] = drawn - np.log(np.exp(drawn).sum(axis=1, keepdims=True))
    return ToyModel(scores)


def texts(model: ToyModel, count: int, seed: int, length: int = 120) -> list[Document]:
    """Return texts drawn from the model's own probabilities, each of the last 20 words a span, whichever it is."""
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        ids = [WORDS[0]]
        while len(ids) < length:
            ids.append(int(random.choice(len(TOKENS), p=np.exp(model.next_logprobs(ids)))))
        ends = [len(model.decode(ids[:at])) for at in range(length + 1)]
        spans = [(start + len(word) - len(word.lstrip()), start + len(word)) for start, word in
                 ((ends[at], model.decode(ids[at : at + 1])) for at in range(length - 20, length))]  # fmt: skip
        found.append(Document(f"text-{seed}-{number}", model.decode(ids), tuple(spans)))
    return found


def written(folder: Path, model: ToyModel, count: int = 40) -> dict[str, Path]:
    """Write a corpus in T-REx's form and a question file, and return where they are."""
    corpus, questions = folder / "corpus.jsonl", folder / "questions.jsonl"
    rows = [
        {
            "docid": one.name,
            "text": one.text,
            "entities": [{"boundaries": list(span), "surfaceform": one.text[slice(*span)]} for span in one.spans],
        }
        for one in texts(model, count, seed=1)
    ]
    corpus.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = [
        {
            "id": one.id,
            "prompt": one.prompt,
            "options": list(one.options),
            "answer": one.answer,
            "group": f"g{number % 3}",
        }
        for number, one in enumerate(toy_questions(120, seed=2, model=ToyModel.random(seed=0)))
    ]
    questions.write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    return {"corpus": corpus, "questions": questions}
