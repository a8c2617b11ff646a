"""Decoders by name, and decoders on stored traces: equal to asking the model, whatever k."""

from dataclasses import replace

import pytest

import calibwrap as cw
from calibwrap.calibrators import Identity, Platt
from calibwrap.decoders.named import DECODERS, decoder_name, find_decoder
from calibwrap.decoders.replay import replayed
from calibwrap.errors import CapabilityError, InputError
from calibwrap.testing import ToyAdapter, ToyModel
from tests.decoders.made import trace

ASK = {"labels": ("A", "B", "C"), "marker": "", "max_tokens": 2}
PROMPT = "In the morning the sun"


@pytest.mark.parametrize("name", [*(f"{kind}@4" for kind in DECODERS), "greedy"])
def test_a_name_finds_its_decoder_and_a_decoder_its_name(name):
    found = find_decoder(name, **ASK)
    assert decoder_name(found) == name
    assert (found.k, found.temperature) == ((1, 0.0) if name == "greedy" else (4, 1.0))
    assert found.labels == ASK["labels"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("confidnce@8", "Did you mean 'confidence'"),
        ("median@8", "Known: best-of@K"),
        ("confidence", "needs the number of traces, such as 'confidence@8'"),
        ("confidence@0", "at least 1"),
        ("majority@-2", "at least 1"),
        ("majority@2.5", "at least 1"),
        ("greedy@2", "no decoder"),
        ("", "no decoder"),
    ],
)
def test_a_wrong_name_is_told(name, said):
    with pytest.raises(InputError, match=said):
        find_decoder(name)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("calibrator", [Identity(), cw.Temperature(2.0), Platt(0.5, 0.1)])
def test_stored_traces_give_the_answer_that_the_model_gives(kind, calibrator):
    """The toy draws sample i of a prompt from seed and i alone, so k = 3 is the beginning of k = 8."""
    lm = cw.wrap(ToyAdapter(ToyModel.random(2)))
    stored = lm(PROMPT, find_decoder(f"{kind}@8", **ASK)).candidates
    for k in (1, 3, 8):
        decoder = find_decoder(f"{kind}@{k}", **ASK)
        asked = lm.with_calibrator(calibrator)(PROMPT, decoder)
        again = replayed(decoder, stored, calibrator)
        assert (again.text, again.confidence, again.bounds, again.probabilities, again.calibrated_by) == (
            asked.text,
            asked.confidence,
            asked.bounds,
            asked.probabilities,
            asked.calibrated_by,
        )
        assert [one.text for one in again.candidates] == [one.text for one in asked.candidates]


def test_an_adaptive_decoder_takes_as_many_stored_traces_as_it_needs():
    sure = [trace("B", (0.01, 0.98, 0.01))] * 8
    decoder = cw.ConfidenceAtK(k=8, labels=("A", "B", "C"), adaptive=True)
    assert len(replayed(decoder, sure, Identity()).candidates) == 2  # rounds of 2; two of .98 agree
    assert len(replayed(replace(decoder, adaptive=False), sure, Identity()).candidates) == 8


def test_too_few_stored_traces_are_told():
    with pytest.raises(InputError, match=r"asks for 4 completions\. Got 2 stored ones"):
        replayed(cw.MajorityVote(k=4, labels=("A", "B", "C")), [trace("A", (0.5, 0.3, 0.2))] * 2, Identity())


def test_a_calibrator_of_tokens_is_refused():
    with pytest.raises(CapabilityError, match="maps whole distributions"):
        replayed(cw.MajorityVote(k=1), [trace("A", (0.5, 0.3, 0.2))], cw.Temperature(2.0, level="token"))
