"""Greedy: the likeliest text, its own probability as confidence."""

import numpy as np
import pytest

from calibwrap.base import Completion
from calibwrap.decoders import Greedy
from calibwrap.errors import CapabilityError, InputError
from calibwrap.scores import TokenScores
from calibwrap.testing import DecoderProbe, ToyAdapter, ToyModel


def finish(decoder, completion):
    flow = decoder.flow()
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send([completion])
    return end.value.value


def completion(values):
    rows = np.array(values)[:, None]
    return Completion("text", TokenScores(rows, np.zeros_like(rows), np.zeros(len(rows)), np.array(values)), "stop")


def test_confidence_is_the_product_of_the_token_probabilities():
    answer = finish(Greedy(), completion(np.log([0.5, 0.8])))
    assert answer.confidence == pytest.approx(0.4)
    assert answer.bounds == (answer.confidence, answer.confidence)
    assert answer.candidates[0].text == answer.text == "text"


def test_confidence_is_the_models_own_probability_of_the_text():
    model = ToyModel.random(seed=2)
    probe = DecoderProbe(Greedy(max_tokens=6), ToyAdapter(model))
    answer = probe.answer()
    wanted = model.sequence_logprob(probe.prompt, answer.text)
    if answer.candidates[0].finish == "stop":
        wanted += float(model.next_logprobs(model.encode(answer.text))[1])
    assert np.log(answer.confidence) == pytest.approx(wanted)


def test_the_request_is_one_greedy_completion():
    request = next(Greedy(max_tokens=5, stop=(".",)).flow())
    assert (request.n, request.temperature, request.max_tokens, request.stop) == (1, 0.0, 5, (".",))


def test_bad_settings_are_refused_when_the_decoder_is_made():
    with pytest.raises(InputError, match="max_tokens"):
        Greedy(max_tokens=0)


@pytest.mark.parametrize("values", [[-0.5, np.nan], []])
def test_a_token_whose_log_probability_is_not_known_is_no_certainty(values):
    flow = Greedy().flow()
    next(flow)
    rows = np.full((len(values), 1), -1.0)
    scores = TokenScores(rows, np.zeros_like(rows), np.zeros(len(rows)), np.array(values))
    with pytest.raises(CapabilityError, match="lacks some"):
        flow.send([Completion("text", scores, "stop")])


def test_a_completion_without_log_probabilities_is_refused():
    flow = Greedy().flow()
    next(flow)
    with pytest.raises(CapabilityError, match="log-probability"):
        flow.send([Completion("text", TokenScores(np.log([[0.5]]), ids=[[0]]), "stop")])
