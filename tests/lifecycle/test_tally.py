"""Sums of events: equal to the metrics of all events at once however they come, with intervals that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibwrap import metrics
from calibwrap.errors import InputError
from calibwrap.lifecycle.tally import BLOCKS, RANKS, Tally, block_of
from calibwrap.metrics import CalibrationState


def drawn(seed, n, texts=30):
    """Return n events in some texts: names, confidences, verdicts, log-probabilities."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.0, 1.0, n)
    return (
        [f"text-{at}" for at in random.integers(texts, size=n)],
        confidence,
        random.random(n) < confidence**1.5,
        -random.exponential(1.0, n),
    )


def summed(events, parts=None):
    """Return the tally of events that come in `parts`, each a list of places."""
    names, *arrays = events
    tally = Tally.empty()
    for part in parts if parts is not None else [range(len(names))]:
        for name in sorted({names[at] for at in part}):
            rows = [at for at in part if names[at] == name]
            tally = tally.update(name, *(array[rows] for array in arrays))
    return tally


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 6))
def test_any_chunking_gives_what_all_events_at_once_give(seed, n, chunks):
    events = drawn(seed, n)
    order = np.random.default_rng(seed).permutation(n)
    streamed, whole = summed(events, np.array_split(order, chunks)), summed(events)
    _, confidence, correct, logprob = events
    found = streamed.figures()
    assert found["accuracy"] == pytest.approx(correct.mean())
    assert found["confidence"] == pytest.approx(confidence.mean())
    assert found["gap"] == pytest.approx(confidence.mean() - correct.mean(), abs=1e-12)
    assert found["ece"] == pytest.approx(metrics.ece(confidence, correct, n_bins=10))
    assert found["brier"] == pytest.approx(metrics.top_label_brier(confidence, correct))
    assert found["nll"] == pytest.approx(-logprob.mean())
    np.testing.assert_array_equal(streamed.count, whole.count)
    np.testing.assert_array_equal(streamed.ranks, whole.ranks)
    if 0 < correct.sum() < n:
        exact = metrics.auroc(np.minimum(confidence * RANKS, RANKS - 1).astype(int) / RANKS, correct)
        assert streamed.auroc() == pytest.approx(exact)
        assert streamed.auroc() == pytest.approx(metrics.auroc(confidence, correct), abs=0.02)
    else:
        assert streamed.auroc() is None


def test_by_hand():
    tally = Tally.empty(2).update("a", [0.75, 0.25], [True, False], [-0.5, -1.5])
    assert tally.figures() == {"accuracy": 0.5, "confidence": 0.5, "ece": 0.25, "gap": 0.0, "brier": 0.0625, "nll": 1.0}
    assert tally.auroc() == 1.0
    assert tally.count.sum(axis=1).tolist() == [2 * (block == block_of("a")) for block in range(BLOCKS)]


def test_memory_does_not_grow():
    tally = summed(drawn(0, 5000, texts=500))
    assert sum(getattr(tally, name).nbytes for name in tally.__dataclass_fields__) < 64_000


def test_an_interval_of_the_accuracy_covers():
    """60 texts whose chances differ: resampling events would be too narrow, resampling blocks is not."""
    random, inside = np.random.default_rng(0), 0
    for study in range(100):
        chances = random.uniform(0.2, 0.8, 60)
        tally = Tally.empty()
        for number, chance in enumerate(chances):
            tally = tally.update(f"{study}-{number}", [0.5] * 20, random.random(20) < chance, [-1.0] * 20)
        low, high = tally.intervals()["accuracy"]
        inside += low <= 0.5 <= high
    assert 86 <= inside <= 100  # binomial(100, .95) is below 87 once in 1 000; blocks of few texts are a little narrow


def test_a_difference_is_paired():
    names, confidence, correct, logprob = drawn(1, 2000, texts=300)
    one = summed((names, confidence, correct, logprob))
    other = summed((names, np.clip(confidence + 0.1, 0.0, 1.0), correct, logprob))
    value, low, high = other.difference(one)["confidence"]
    assert value == pytest.approx(np.clip(confidence + 0.1, 0, 1).mean() - confidence.mean())
    alone = one.intervals()["confidence"]
    assert low <= value <= high
    assert high - low < 0.3 * (alone[1] - alone[0])
    assert other.difference(one)["accuracy"] == (0.0, 0.0, 0.0)
    with pytest.raises(InputError, match="did not see the same events"):
        other.difference(summed(drawn(2, 100)))


@pytest.mark.parametrize(
    ("confidence", "correct", "logprob", "says"),
    [
        ([1.5], [True], [-1.0], "0, 1"),
        ([0.5], [True], [0.1], "at most 0"),
        ([0.5], [True], [np.nan], "at most 0"),
        ([0.5, 0.5], [True, True], [-1.0], "numbers of at most 0"),
    ],
)
def test_wrong_events_are_refused(confidence, correct, logprob, says):
    with pytest.raises(InputError, match=says):
        Tally.empty().update("a", confidence, correct, logprob)
    with pytest.raises(InputError, match="no events"):
        Tally.empty().figures()
    with pytest.raises(InputError, match="equally many"):
        Tally.empty(5).merge(Tally.empty(6))


@pytest.mark.parametrize(("events", "lift"), [(300, 0.056), (1000, 0.031)])
def test_chance_alone_lifts_an_ece_by_what_the_report_says(events, lift):
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        confidence = random.random(events)
        correct = random.random(events) < confidence  # a model without any error
        found.append(CalibrationState.empty(10).update(confidence, correct).ece())
    assert np.mean(found) == pytest.approx(lift, abs=0.002)
