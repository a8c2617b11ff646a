"""One model on two real runtimes: what is recorded agrees, and a head that was trained on one serves the other."""

import contextlib

import numpy as np
import pytest

import calibwrap as cw
from calibwrap import training
from tests.servers import matched

from . import runs

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    model = matched.tiny(tmp_path_factory.mktemp("matched"))
    exact = {"n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0, "flash_attn": False}
    with cw.wrap(f"hf:{model.directory}") as hf, cw.wrap(f"llama-cpp:{model.gguf}", **exact) as llamacpp:
        yield hf, llamacpp


def test_a_head_moves_between_runtimes(sides, tmp_path):
    asked = runs.questions(0, 20)
    hf, llamacpp = (training.record_positions(lm, asked, wrong="all") for lm in sides)
    for name in ("logprobs", "groups", "chosen_logprob"):
        np.testing.assert_allclose(getattr(hf, name), getattr(llamacpp, name), atol=2e-3)
    np.testing.assert_array_equal(hf.question, llamacpp.question)
    head = training.train_catto_head(hf, hf, max_epochs=30)
    np.testing.assert_allclose(
        training.head.head_powers(head, hf), training.head.head_powers(head, llamacpp), atol=5e-3
    )
    cw.save(head, tmp_path / "head.safetensors")
    answers = []
    for lm in sides:
        with pytest.warns(cw.errors.ProvenanceWarning) if lm is sides[1] else contextlib.nullcontext():
            tuned = lm.with_calibrator(cw.load(tmp_path / "head.safetensors"))
        answers.append(tuned("Question: which planet", cw.Greedy(max_tokens=3), steer=True))
    assert answers[0].text == answers[1].text
    assert answers[0].confidence == pytest.approx(answers[1].confidence, abs=5e-3)
    assert answers[0].calibrated_by == "catto-head"


def test_a_list_of_a_runtime_has_the_temperatures_of_its_whole_rows(sides):
    """A list of the 20 most probable tokens, as APIs send them, and the interval that it leaves."""
    rows = training.record_positions(sides[0], runs.questions(0, 20))
    head = training.train_catto_head(rows, rows, max_epochs=30)
    for lm in sides:
        (whole,), (listed,) = (lm.adapter.next_token(["Question: which planet"], top=top) for top in (None, 20))
        np.testing.assert_allclose(head.temperatures(listed), head.temperatures(whole), rtol=1e-6)
        low, high = head.interval(listed, vocabulary=whole.logprobs.shape[1])
        truth = head(whole).logprobs[0, listed.ids[0]]
        assert (low[0] <= truth + 1e-6).all()
        assert (truth <= high[0] + 1e-6).all()
        assert np.isfinite(high - low).all()
