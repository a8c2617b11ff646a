"""The ledger: pieces in any order come to the sums of all, and nothing of a single one stays."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibwrap.errors import JournalError
from calibwrap.lifecycle.ledger import Ledger, Sums
from calibwrap.lifecycle.probes import Seen


def seen(number):
    random = np.random.default_rng(number)
    confidence = random.random(3)
    return Seen(f"text-{number}", confidence, random.random(3) < confidence, -random.random(3), f"g{number % 2}")


def record(piece, numbers):
    sums = Sums.of(map(seen, numbers), bins=5)
    told = {"id": f"own\0generation\0{piece}", "asked": {"spec": "toy:own"}, "origin": {"name": "own"}, **sums.told()}
    return json.loads(json.dumps(told))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.integers(1, 5), st.randoms())
def test_pieces_in_any_order_come_to_the_sums_of_all(numbers, size, dice):
    pieces = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    records = [record(at, piece) for at, piece in enumerate(pieces)]
    dice.shuffle(records)
    ledger = Ledger()
    assert [ledger.add(one) for one in records] == [{}] * len(records)
    found, whole = ledger.sums["own", "generation"], Sums.of(map(seen, numbers), bins=5)
    for name in ("count", "correct", "ranks"):
        np.testing.assert_array_equal(getattr(found.tally, name), getattr(whole.tally, name))
    for name, value in whole.tally.figures().items():
        assert found.tally.figures()[name] == pytest.approx(value, abs=1e-12)
    assert {name: own.n for name, own in found.groups.items()} == {name: own.n for name, own in whole.groups.items()}
    assert ledger.sources == {"own": [{"asked": {"spec": "toy:own"}, "origin": {"name": "own"}}]}
    assert ledger.done == {one["id"] for one in records}


@pytest.mark.parametrize(
    "harm",
    [
        {"id": "no place"},
        {"tally": {}},
        {"tally": {"count": 3}},
        {"groups": {"g0": {"count": [1.0]}}},
        {"origin": None, "tally": None},
    ],
)
def test_a_record_that_is_not_complete_is_told(harm):
    with pytest.raises(JournalError, match="not complete"):
        Ledger().add({**record(0, [1, 2]), **harm})


def test_two_sources_of_one_model_are_both_known():
    ledger = Ledger()
    ledger.add(record(0, [1]))
    ledger.add({**record(1, [2]), "origin": {"name": "other"}})
    assert [one["origin"]["name"] for one in ledger.sources["own"]] == ["own", "other"]
