"""A tiny model, a few questions and short runs over them, for the tests of whole runs."""

from calibwrap.data import save_questions
from calibwrap.questions import Question
from calibwrap.training import save_weights
from calibwrap.training.reading import METHODS
from tests.adapters import hf_models

TOWNS = ("Paris", "Rome", "New York", "New Delhi", "Mars", "Answer")


def questions(start, count):
    """Return questions on which anything can be learnt: the right option is the town that the question names."""
    made = []
    for number in range(start, start + count):
        options = [TOWNS[(number + step) % len(TOWNS)] for step in range(3)]
        made.append(Question(f"Which {number} is {options[number % 3]}?", options, answer=number % 3, id=f"q{number}"))
    return made


def prepare(folder):
    """Write a tiny model, questions to train on and held-out ones into `folder`."""
    save_weights(hf_models.llama(max_position_embeddings=512), hf_models.byte_level(), folder / "model")
    save_questions(questions(0, 18), folder / "train.jsonl")
    save_questions(questions(100, 10), folder / "held-out.jsonl")


def settings(folder, name="run", method="cft", **changed):
    """Return the settings of a short run in `folder / name`."""
    values = {
        "model": str(folder / "model" / "weights"),
        "output": folder / name,
        "train": {"source": str(folder / "train.jsonl")},
        "held_out": {"source": str(folder / "held-out.jsonl"), "every_steps": 2},
        "max_steps": 5,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "max_length": 100,
        "lora": {"rank": 2, "alpha": 4},
        "save_steps": 2,
    }
    return METHODS[method].model_validate({**values, **changed})
