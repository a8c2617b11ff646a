"""Traces of a real model: a resumed run draws what an uninterrupted one draws, and the template brings letters."""

import pytest

import calibwrap as cw
from calibwrap.data import load_questions, packaged_model
from calibwrap.decoders.named import find_decoder
from calibwrap.questions import LETTER_REASONED
from calibwrap.stored_traces import default_stops, draw_traces, drawing_of

QUESTIONS = load_questions("arc_easy", limit=3, seed=0)
DECODER = find_decoder("confidence@4", max_tokens=48, stop=default_stops(LETTER_REASONED))


class Killed(Exception):
    """The process ends here."""


def draw(path, resume=False, stop_at=None):
    def progress(done, _):
        if done == stop_at:
            raise Killed

    with cw.wrap(f"llama-cpp:{packaged_model('smollm2-135m-instruct')}", n_ctx=512, n_threads=1) as lm:
        drawing = drawing_of(DECODER, LETTER_REASONED)
        return draw_traces(lm, QUESTIONS, drawing, DECODER, path, resume=resume, progress=progress)


def test_a_resumed_run_of_a_real_model_equals_an_uninterrupted_one(tmp_path):
    whole = draw(tmp_path / "whole.jsonl")
    with pytest.raises(Killed):
        draw(tmp_path / "torn.jsonl", stop_at=1)
    draw(tmp_path / "torn.jsonl", resume=True)
    assert (tmp_path / "torn.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    every = [one for of in whole for one in of]
    named = [one for one in every if one.labels is not None]
    assert len(every) == 12
    assert len(named) >= 4  # most of them do; the exact number is the model's
    assert all(one.labels.probabilities.sum() == pytest.approx(1.0) for one in named)
    assert len({one.text for one in every}) > 6  # every question and every sample draws for itself
