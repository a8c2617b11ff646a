"""Held-out figures of a model that states its confidence: by hand, and against the readout that users read it with."""

import numpy as np
import pytest
from pydantic import ValidationError

import calibwrap as cw
from calibwrap.adapters.hf import Transformers
from calibwrap.readouts import find_readout
from calibwrap.readouts.verbalized import confidence_of
from calibwrap.training.doubt_held_out import StatedHeldOutSet, stated_figures
from calibwrap.training.held_out import held_out_set
from tests.adapters.hf_models import byte_level, llama

from . import runs

QUESTIONS = tuple(cw.Question(f"Is {n} even?", ["yes", "no"], answer=n % 2, id=f"q{n}") for n in range(20))


def test_figures_by_hand():
    """One says 8, one 2, for certain; one is torn between 0 and 10; one says 5 half the time, and else nothing."""
    levels = np.zeros((4, 11))
    levels[0, 8] = levels[1, 2] = 1.0
    levels[2, [0, 10]] = 0.5
    levels[3, 5] = 0.5
    found = stated_figures(levels, [True, False, True, False])
    values = {name: figure.value for name, figure in found.items()}
    # stated are 0.8, 0.2, 0.5 and 0.5, of which the first and the third are right
    wanted = {
        "accuracy": 0.5,
        "mean_confidence": 0.5,
        "ece": (0.2 + 0.2 + 2 * 0.0) / 4,
        "ece_drawn": (0.2 + 0.2 + 0.5 + 0.5) / 4,  # levels 8, 2, 0 and 5; level 10 is right
        "auroc": (1 + 1 + 1 + 0.5) / 4,
        "brier": (0.04 + 0.04 + 0.25 + 0.25) / 4,
        "malformed": 0.125,
    }
    assert list(values) == list(wanted)
    assert values == pytest.approx(wanted)
    assert found["brier"].low <= values["brier"] <= found["brier"].high


def test_silent_questions_count_as_malformed_and_in_the_accuracy_alone():
    levels = np.vstack([np.eye(11)[[9, 9, 1]], np.zeros((1, 11))])
    found = stated_figures(levels, [True, True, False, True])
    assert (found["accuracy"].value, found["malformed"].value) == (0.75, 0.25)
    assert found["mean_confidence"].value == pytest.approx((0.9 + 0.9 + 0.1) / 3)
    nothing = stated_figures(np.zeros((3, 11)), [True, False, True])
    assert nothing["malformed"].value == 1.0
    assert nothing["ece"].value is None
    assert "fewer than two" in nothing["ece_drawn"].reason


def test_a_certain_statement_that_is_wrong_has_a_brier_score_of_1():
    assert stated_figures(np.eye(11)[[10, 0]], [False, True])["brier"].value == 1.0


def test_the_confidence_is_the_one_that_the_readout_states():
    model, tokenizer = llama(max_position_embeddings=256), byte_level()
    asked = StatedHeldOutSet(QUESTIONS, "verbalized", tokenizer)
    found = asked.figures(model, lambda: False)
    reader = Transformers(model, tokenizer)
    sums = [
        [one.chosen_logprob.sum() for one in scored]
        for scored in reader.score([row["prompt"] for row in _rows()], [[" yes", " no"]] * len(QUESTIONS))
    ]
    picked = np.argmax(sums, axis=1)
    levels, _ = find_readout("verbalized").stated(reader, QUESTIONS)
    stated = confidence_of(levels)[np.arange(len(picked)), picked]
    right = picked == [one.answer for one in QUESTIONS]
    assert found["accuracy"]["value"] == pytest.approx(right.mean())
    assert found["mean_confidence"]["value"] == pytest.approx(stated.mean(), abs=1e-4)
    assert found["brier"]["value"] == pytest.approx(((stated - right) ** 2).mean(), abs=1e-4)
    shares = find_readout("verbalized").ask(reader, QUESTIONS).confidence.mean()
    assert abs(shares - stated.mean()) > 0.01  # what stood in the table before: shares among the options


def _rows():
    from calibwrap.training.doubt_answers import question_rows

    return question_rows(QUESTIONS)


def test_it_ends_on_the_way_when_it_is_time_to_stop():
    asked = StatedHeldOutSet(QUESTIONS, "verbalized", byte_level())
    seen = []
    assert asked.figures(llama(max_position_embeddings=256), lambda: seen.append(1) or True) is None
    assert seen == [1]


def test_rewarding_doubt_is_measured_by_what_is_stated_and_nothing_else(tmp_path):
    asked = runs.settings(tmp_path, "doubt", "rewarding-doubt")
    found = held_out_set(asked, QUESTIONS, byte_level())
    assert (type(found), found.readout, found.answer_tokens) == (StatedHeldOutSet, "verbalized", 32)
    assert type(held_out_set(runs.settings(tmp_path), QUESTIONS, byte_level())) is not StatedHeldOutSet
    assert held_out_set(runs.settings(tmp_path, held_out=None), (), byte_level()) is None
    with pytest.raises(ValidationError, match=r"held_out\.readout"):
        runs.settings(tmp_path, "doubt", "rewarding-doubt", held_out={"source": "x.jsonl", "readout": "continuation"})
