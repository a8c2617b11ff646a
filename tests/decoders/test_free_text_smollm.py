"""Free text on a real model: SmolLM2-135M-Instruct in llama.cpp, asked in its chat template and in plain text."""

import warnings

import pytest

import calibwrap as cw
from calibwrap.errors import CalibrationWarning
from calibwrap.freetext import TWO_STEP, f1_above_half

pytestmark = pytest.mark.model
QUESTIONS = [
    cw.FreeQuestion("What is the capital of France?", ["Paris"], id="a"),
    cw.FreeQuestion("Which planet is called the red planet?", ["Mars"], id="b"),
    cw.FreeQuestion("Who wrote Hamlet?", ["William Shakespeare", "Shakespeare"], id="c"),
    cw.FreeQuestion("What is the chemical symbol of gold?", ["Au"], id="d"),
]
SHORT = {"max_tokens": 12}


@pytest.fixture(scope="module")
def lm():
    pytest.importorskip("llama_cpp")
    from calibwrap.data import packaged_model

    with cw.wrap(f"llama-cpp:{packaged_model('smollm2-135m-instruct')}", n_ctx=512, n_threads=1) as opened:
        yield opened


def test_p_true_reads_chats_and_texts(lm):
    asked = cw.Chat((("user", f"Answer with a few words only.\n\n{QUESTIONS[0].prompt}"),))
    for answer in lm.batch(["The capital of France is", asked], cw.PTrue(**SHORT)):
        assert 0.0 < answer.confidence < 1.0
        assert "Paris" in answer.text


def test_stated_confidence_is_read_or_counted(lm):
    for decoder in (cw.Stated(max_tokens=24), cw.Stated(elicitation=TWO_STEP, **SHORT)):
        for answer in lm.answer_batch(QUESTIONS[:2], decoder):
            assert answer.unparsed == (answer.text == "")
            assert answer.candidates


def test_a_calibrator_fitted_on_answers_maps_them_and_no_others(lm, tmp_path):
    decoder = cw.FreeText(**SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # four rows
        fitted = lm.fit_answers(QUESTIONS, decoder, judge=f1_above_half, smoothing=True)
    report = fitted.calibrator.report
    assert report.provenance == lm.adapter.fingerprint()
    assert report.readout.startswith("FreeText(k=1")
    fitted.save(tmp_path / "platt.json")
    again = lm.with_calibrator(cw.load(tmp_path / "platt.json"), strict=True)
    raw, mapped = (one.answer_batch(QUESTIONS, decoder) for one in (lm, again))
    assert [one.text for one in raw] == [one.text for one in mapped]
    assert all(one.text for one in raw)
    assert [one.confidence for one in mapped] == pytest.approx(
        fitted.calibrator([one.confidence for one in raw]).tolist()
    )
    assert {one.calibrated_by for one in mapped} == {"platt"}


def test_draws_agree_where_the_model_knows(lm):
    answer = lm("The capital of France is", cw.SelfConsistency(k=4, temperature=0.3, max_tokens=1))
    assert len(answer.candidates) == 4
    assert (answer.text, answer.calibrated_by) == ("Paris", "none")
    assert answer.confidence >= 0.5
