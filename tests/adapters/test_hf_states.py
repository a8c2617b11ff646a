"""Hidden states of the Transformers adapter: what the output head read, where they are asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import calibwrap as cw
from calibwrap import training
from calibwrap.adapters.hf import Transformers
from calibwrap.base import Sampling
from tests.training import runs

from . import hf_models as models

PROMPTS = ["Question: which planet is red? Answer:", "A"]
TEXTS = [[" Mars", " the red planet, and no other"], [" b"]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba"])
def test_hidden_states_are_what_the_output_head_read(family):
    """On every path: next token, continuations, drawing; and none where they were not asked for."""
    model = models.FAMILIES[family]()
    adapter, head = Transformers(model, models.byte_level(), batch_size=4, hidden=True), model.get_output_embeddings()
    drawn = adapter.generate(PROMPTS, Sampling(n=2, max_tokens=4, seed=1, top=None))
    paths = [*adapter.next_token(PROMPTS), *(s for row in adapter.score(PROMPTS, TEXTS, top=None) for s in row)]
    for scores in [*paths, *(one.scores for many in drawn for one in many)]:
        logits = head(torch.tensor(scores.hidden, dtype=torch.float32)).detach()
        np.testing.assert_allclose(torch.log_softmax(logits, dim=-1).numpy(), scores.logprobs, atol=1e-4)
    assert adapter.provides.hidden
    assert models.adapter(family).next_token(PROMPTS[:1])[0].hidden is None


def test_a_head_on_hidden_states_from_recording_to_answer():
    model, asked = models.llama(), runs.questions(0, 24)
    lm = cw.CalibratedLM(Transformers(model, models.byte_level(), hidden=True))
    rows = training.record_positions(lm, asked, hidden=True)
    head = training.train_catto_head(rows, rows, features="hidden", max_epochs=20, patience=20)
    assert head.needs.hidden
    answer = lm.with_calibrator(head)("Question: which planet", cw.Greedy(max_tokens=2))
    assert answer.calibrated_by == "catto-head"
    prompt = cw.questions.CLOZE.prompt(asked[0])
    ((scores,),) = lm.adapter.score([prompt], [[" " + asked[0].options[asked[0].answer]]], top=None)
    own = rows.take((rows.question == 0) & rows.is_right)
    expected = -np.log(training.head.head_powers(head, own))
    np.testing.assert_allclose(np.log(head.temperatures(scores)), expected, atol=1e-4)
    assert not np.allclose(head.temperatures(replace(scores, hidden=0.0 * scores.hidden)), head.temperatures(scores))
