"""The Transformers adapter on a real model, SmolLM2-135M-Instruct, opened from its GGUF file."""

import numpy as np
import pytest

from calibwrap.adapters.hf import Transformers
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import ModelError
from calibwrap.questions import Chat

from . import hf_models as models

pytestmark = pytest.mark.model
QUESTION = "Question: What is the capital of France?\nAnswer:"
OPTIONS = [" Paris", " Rome", " the city of New York", " Paris, of course"]


@pytest.fixture(scope="module")
def smollm(smollm_gguf):
    adapter = Transformers.load(str(smollm_gguf))
    yield adapter
    adapter.close()


def test_it_knows_what_it_is(smollm, smollm_gguf):
    provenance = smollm.fingerprint()
    assert provenance.model == smollm_gguf.name
    assert provenance.revision == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert "float32" in provenance.dtype
    assert smollm.provides.chat
    assert smollm.provides.context_length == 8192


def test_scores_equal_a_plain_forward(smollm):
    """Logits reach 40 here, where float32 numbers are 4e-6 apart; 30 layers leave some tens of those."""
    (row,) = smollm.score([QUESTION], [OPTIONS])
    assert int(np.argmax([scores.chosen_logprob.sum() for scores in row])) == 0
    prefix, tails = smollm._reader.split(QUESTION, OPTIONS)
    for tail, scores in zip(tails, row, strict=True):
        truth = models.plain_score(smollm.model, prefix, tail)
        np.testing.assert_allclose(scores.chosen_logprob, truth, atol=1e-4)


def test_it_answers_in_its_chat_template(smollm):
    chat = Chat((("user", "What is the capital of France? Answer in one sentence."),))
    ids, _ = smollm.tokenize(chat)
    assert smollm.tokenizer.decode(ids).count("<|im_start|>assistant") == 1
    (one,) = smollm.generate([chat], Sampling(max_tokens=32, temperature=0.0))[0]
    assert "Paris" in one.text
    assert one.finish == "stop"
    assert "<|im_end|>" not in one.text
    truth = models.plain_score(smollm.model, ids, one.scores.chosen.tolist())
    np.testing.assert_allclose(one.scores.chosen_logprob, truth, atol=1e-4)


def test_a_calibrator_warms_the_draws(smollm):
    """Drawn hotter, tokens are less probable under the model's own distribution, which is reported unchanged."""
    sampling = Sampling(n=6, max_tokens=8, seed=0)
    own, warm = (
        np.mean([one.scores.chosen_logprob.mean() for one in smollm.generate([QUESTION], sampling, steer=steer)[0]])
        for steer in (None, Temperature(3.0, level="token"))
    )
    assert warm < own - 1.0


def test_a_file_cut_in_half_is_named_and_neither_crashes_nor_hangs(smollm_gguf, tmp_path):
    data = smollm_gguf.read_bytes()
    for share in (0.5, 0.01):
        path = tmp_path / f"cut-{share}.gguf"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ModelError, match=rf"{path.name}.*fetch it again") as caught:
            Transformers.load(str(path))
        assert "\n" not in str(caught.value)
