"""What of a growing text may be shown, and the answers that streams come to, on the exact toy model."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.adapters._shared import cut_at_stop
from calibwrap.base import Answer, Decoder, Sampling
from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, InputError, ModelError
from calibwrap.scores import TokenScores
from calibwrap.streaming import Piece, RunningConfidence, StreamedToken, grown, settled, spread, streamed_token
from calibwrap.testing import ToyAdapter, ToyModel

PROMPT = "In the morning the sun"
WARM = cw.Temperature(2.0, level="token")
TEXTS = st.text(alphabet="ab\u00e9\u2603\U0001f600.\n", max_size=12)


@dataclass(frozen=True)
class Drawn(Decoder):
    """Answers with the text of one drawn completion."""

    sampling: ClassVar[Sampling] = Sampling(max_tokens=12, seed=4)
    stop: tuple[str, ...] = ()

    def flow(self):
        (one,) = yield replace(self.sampling, stop=self.stop)
        return Answer(one.text, 0.5, (0.5, 0.5), candidates=(one,))


@pytest.fixture
def lm():
    return cw.CalibratedLM(ToyAdapter(ToyModel.random(2)))


def shown_while_growing(tokens, stops):
    """Return what a reader sees of tokens (bytes), joined, and what it should be: the text cut at its stop."""
    shown, data = "", b""
    for place, token in enumerate(tokens):
        data += token
        text, is_stopped = cut_at_stop(data.decode("utf-8", "replace"), stops)
        sure = text if is_stopped or place == len(tokens) - 1 else settled(text, stops)
        shown += grown(shown, sure)
        if is_stopped:
            break
    return shown, text


@given(text=TEXTS, cuts=st.lists(st.integers(0, 40), max_size=8), stops=st.lists(TEXTS.filter(bool), max_size=2))
def test_what_is_shown_stays_and_makes_up_the_text(text, cuts, stops):
    data = text.encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    tokens = [data[start:end] for start, end in pairwise(edges)]
    if tokens:
        shown, wanted = shown_while_growing(tokens, tuple(stops))
        assert shown == wanted


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8))
def test_bytes_that_are_no_text_come_out_as_they_do_together(tokens):
    shown, wanted = shown_while_growing(tokens, ())
    assert shown == wanted == b"".join(tokens).decode("utf-8", "replace")
    assert "".join(spread(wanted, tokens)) == wanted


@pytest.mark.parametrize(
    ("text", "stops", "sure"),
    [
        ("", (), ""),
        ("snow\ufffd", (), "snow"),
        ("a\ufffdb", (), "a\ufffdb"),
        ("Paris.", (".\n",), "Paris"),
        ("Paris.\n", (".\nQ",), "Paris"),
        ("Paris. ", (".\nQ",), "Paris. "),
        ("aab", ("abc", "bx"), "a"),
        ("x \ufffd", (" \u2603",), "x"),
    ],
)
def test_what_cannot_change_any_more_is_settled(text, stops, sure):
    assert settled(text, stops) == sure


def test_a_text_that_takes_back_what_was_shown_is_an_error():
    with pytest.raises(ModelError, match="without streaming"):
        grown("Paris", "Rome")


def test_tokens_that_do_not_spell_their_text_bring_it_with_the_last():
    assert spread("snow", [b"s", None, b"now"]) == ["s", "", "now"]
    assert spread("snow", [b"s", b"x"]) == ["", "snow"]
    assert spread("\u2603!", [b"\xe2", b"\x98", b"\x83", b"!"]) == ["", "", "\u2603", "!"]


def test_the_running_confidence_is_the_geometric_mean():
    so_far = RunningConfidence()
    probabilities = [0.9, 0.5, 0.02]
    for count, probability in enumerate(probabilities, start=1):
        so_far = so_far.added(TokenScores([[math.log(probability)]], [[0]], [0], [math.log(probability)]))
        assert so_far.value == pytest.approx(math.prod(probabilities[:count]) ** (1 / count))


def test_what_a_server_does_not_tell_is_not_made_up():
    unknown = TokenScores([[-1.0]], [[5]], [5], [math.nan])
    so_far = RunningConfidence().added(unknown)
    token = streamed_token(Piece("a", unknown), unknown, so_far)
    assert math.isnan(token.probability)
    assert math.isnan(token.confidence)
    nothing = TokenScores(np.empty((0, 1)), np.empty((0, 1), dtype=np.int64), [], [])
    assert RunningConfidence().added(nothing) == RunningConfidence()
    assert streamed_token(Piece("a", nothing), nothing, so_far).id == -1


@pytest.mark.parametrize("calibrator", [cw.Identity(), WARM], ids=["raw", "calibrated"])
@pytest.mark.parametrize("stop", [(), (" A",), (" B C",)])
def test_a_stream_is_the_answer(calibrator, stop):
    for seed in range(8):
        lm = cw.CalibratedLM(ToyAdapter(ToyModel.random(seed)), calibrator)
        stream = lm.stream(PROMPT, Drawn(stop))
        tokens = list(stream)
        answer, (whole,) = lm(PROMPT, Drawn(stop)), lm(PROMPT, Drawn(stop)).candidates
        assert (stream.answer.text, stream.answer.calibrated_by) == (answer.text, calibrator.kind)
        assert "".join(token.text for token in tokens) == answer.text
        assert [token.id for token in tokens] == whole.scores.chosen.tolist()
        np.testing.assert_allclose([token.probability for token in tokens], np.exp(whole.scores.chosen_logprob))
        (raw,) = cw.CalibratedLM(lm.adapter)(PROMPT, Drawn(stop)).candidates
        np.testing.assert_allclose([token.raw_probability for token in tokens], np.exp(raw.scores.chosen_logprob))
        np.testing.assert_array_equal(stream.answer.candidates[0].scores.logprobs, whole.scores.logprobs)


def test_no_token_shows_a_part_of_a_character():
    seen = set()
    for seed in range(12):
        stream = cw.CalibratedLM(ToyAdapter(ToyModel.random(seed))).stream(PROMPT, Drawn())
        seen |= {token.text for token in stream}
    assert "\u2603" in seen
    assert "" in seen
    assert not any("\ufffd" in text for text in seen)


def test_traces_are_shown_one_after_the_other(lm):
    decoder = cw.ConfidenceAtK(k=3, labels=("A", "B", "C"), marker="", max_tokens=2)
    stream = lm.stream(PROMPT, decoder)
    tokens = list(stream)
    answer = lm(PROMPT, decoder)
    assert [token.completion for token in tokens] == [0, 0, 1, 1, 2, 2]
    assert (stream.answer.text, stream.answer.confidence) == (answer.text, answer.confidence)
    assert stream.answer.probabilities == answer.probabilities
    for number, one in enumerate(answer.candidates):
        assert "".join(token.text for token in tokens if token.completion == number) == one.text
    assert tokens[2].confidence == tokens[2].probability


def test_rounds_of_an_adaptive_decoder_are_shown_too(lm):
    decoder = cw.MajorityVote(k=8, labels=("A", "B", "C"), marker="", max_tokens=2, adaptive=True, threshold=0.9)
    stream = lm.stream(PROMPT, decoder)
    tokens = list(stream)
    assert len(stream.answer.candidates) == len(lm(PROMPT, decoder).candidates)
    assert len(tokens) == sum(len(one.scores) for one in stream.answer.candidates)


@pytest.mark.parametrize(
    "decoder",
    [
        cw.ConfidenceAtK(k=8, labels=("A", "B"), marker="", max_tokens=2, adaptive=True, threshold=1.0),
        cw.Stated(elicitation=cw.freetext.TWO_STEP, k=2, temperature=1.0, max_tokens=3),
    ],
    ids=["adaptive", "two-step"],
)
def test_completions_are_counted_through_all_rounds(lm, decoder):
    stream = lm.stream(PROMPT, decoder)
    tokens = list(stream)
    assert len(stream.answer.candidates) > 2
    for number, one in enumerate(stream.answer.candidates):
        assert [token.id for token in tokens if token.completion == number] == one.scores.chosen.tolist()
    assert {token.completion for token in tokens} == set(range(len(stream.answer.candidates)))


def test_the_answer_is_there_in_the_end_only(lm):
    with lm.stream(PROMPT) as stream:
        assert isinstance(next(stream), StreamedToken)
        with pytest.raises(InputError, match="take all tokens"):
            _ = stream.answer
    assert list(stream) == []
    with pytest.raises(InputError, match="take all tokens"):
        _ = stream.answer
    stream.close()


def test_nothing_is_asked_before_the_first_token(lm):
    stream = lm.stream(PROMPT)
    assert not lm.adapter.calls
    next(stream)
    assert lm.adapter.calls == {"stream": 1}


def test_what_cannot_be_streamed_is_named_before_any_call():
    adapter = ToyAdapter(provides=replace(ToyAdapter.everything, streams=False))
    with pytest.raises(CapabilityError, match=r"streams=True.*vLLM's own"):
        cw.CalibratedLM(adapter).stream(PROMPT)
    with pytest.raises(CapabilityError, match="option"):
        cw.CalibratedLM(ToyAdapter(), cw.Temperature(2.0)).stream(PROMPT)
    few = cw.CalibratedLM(ToyAdapter(provides=Provides(streams=True)))
    with pytest.raises(CapabilityError, match="traces"):
        few.stream(PROMPT, cw.ConfidenceAtK())
    assert not adapter.calls
    with pytest.raises(CapabilityError, match="streams"):
        adapter.stream(PROMPT, Sampling())


def test_an_adapter_streams_only_where_it_says_how():
    class Plain(ToyAdapter):
        stream = cw.Adapter.stream

    with pytest.raises(CapabilityError, match="'toy' streams no tokens"):
        Plain().stream(PROMPT, Sampling())
