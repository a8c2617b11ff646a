"""A second engine, made by its user without calibwrap: processed values, short lists, prompts read in chunks."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.base import Sampling
from calibwrap.calibrators import Temperature
from calibwrap.errors import CapabilityError, SemanticsMismatch

from . import vllm_models as models

LONG = "Question: which planet is red? Answer: Mars. " * 2
"""More tokens than one chunk."""


@pytest.fixture(scope="module")
def handed_in():
    """The adapter around a user's own engine, which is closed by the user."""

    def make():
        import vllm

        own = {"logprobs_mode": "processed_logprobs", "max_logprobs": 20, "max_num_batched_tokens": 16}
        return vllm.LLM(str(models.folder()), **{**models.OPTIONS, **own, "enable_chunked_prefill": True})

    llm = models.quietly(make)
    yield cw.wrap(llm).adapter
    llm.llm_engine.engine_core.shutdown()


def test_it_says_what_it_can_and_what_its_values_are(handed_in):
    provides = handed_in.provides
    assert (provides.top, provides.full_vocabulary, provides.given_ids) == (20, False, None)
    assert (provides.steers, provides.score, provides.token_bytes) == (False, True, True)
    assert handed_in.fingerprint().semantics == "processed"
    assert "processed" in handed_in.probe()["log-probabilities"]


def test_v7_prompts_read_in_chunks_have_every_score_at_its_place(handed_in):
    truth = models.transformers()
    texts = [[" yes", " The capital of Italy is Rome. Answer: A."]]
    assert sum(map(len, handed_in.tokenize(LONG, texts[0][1]))) > 2 * 16  # three chunks or more
    for mine, theirs in zip(*(one.score([LONG], texts, top=5)[0] for one in (handed_in, truth)), strict=True):
        np.testing.assert_array_equal(mine.chosen, theirs.chosen)
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=1e-4)
    ids = [[*range(300)]]
    one, two = (which.next_token([LONG], ids=ids)[0] for which in (handed_in, truth))
    np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-4)


def test_v4_a_list_beyond_max_logprobs_is_refused_and_ids_are_not(handed_in):
    with pytest.raises(CapabilityError, match="max_logprobs=21"):
        handed_in.next_token([LONG], top=21)
    with pytest.raises(CapabilityError, match="max_logprobs=-1"):
        handed_in.next_token([LONG])
    assert handed_in.next_token([LONG], top=20)[0].logprobs.shape == (1, 20)


def test_v2_processed_values_are_given_only_where_they_are_raw(handed_in):
    truth = models.transformers()
    row = truth.next_token([LONG])[0].logprobs[0]
    (drawn,) = handed_in.generate([LONG], Sampling(n=4, max_tokens=1))
    for one in drawn:
        assert one.scores.chosen_logprob[0] == pytest.approx(row[one.scores.chosen[0]], abs=1e-4)
    with pytest.raises(SemanticsMismatch, match="raw_logprobs"):
        handed_in.generate([LONG], Sampling(temperature=0.5))


def test_v6_it_cannot_be_steered_and_says_how_it_could(handed_in):
    with pytest.raises(CapabilityError, match=r"logits_processors=\['calibwrap.adapters._vllm_steering:Steering'\]"):
        handed_in.generate([LONG], Sampling(), Temperature(2.0, level="token"))


def test_seeded_draws_that_would_end_it_are_refused(handed_in):
    with pytest.raises(CapabilityError, match="enable_chunked_prefill=False"):
        handed_in.generate([LONG], Sampling(seed=1))
    assert handed_in.next_token([LONG], top=1)


def test_closing_the_adapter_leaves_the_engine_alone(handed_in):
    llm = handed_in.llm
    other = type(handed_in)(llm)
    other.close()
    assert handed_in.llm is llm
    assert handed_in.next_token([LONG], top=1)
