"""Saved guarantees and monitors: bit-equal round trips, and a named error for everything that a file can be instead."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.errors import CalibwrapError, SavedFileError
from calibwrap.guarantees import (
    CalibrationMonitor,
    ConformalSets,
    DriftMonitor,
    Guard,
    SavedGuarantee,
    load_guarantee,
    load_monitor,
    save_guarantee,
    save_monitor,
)
from calibwrap.provenance import Provenance

HERE = Provenance("hf", "tiny", "abc", "float32", "t", "")
GUARD = Guard(risk=0.1, delta=0.05, threshold=0.1 + 0.2, rows=400, tested=300, answered=120, errors=3)
NEVER = replace(GUARD, threshold=None, answered=0, errors=0)
SETS = ConformalSets("raps", 0.9, 1 / 3, 200, 0.05, 1)
MATRIX = cw.MatrixScaling(np.random.default_rng(0).normal(size=(3, 3)), [0.0, -0.0, 0.3])


@pytest.mark.parametrize("guarantee", [GUARD, NEVER, SETS, replace(SETS, threshold=None)], ids=repr)
@pytest.mark.parametrize("calibrator", [cw.Temperature(1 / 3), MATRIX, cw.chain(MATRIX, cw.Temperature(2.0))])
def test_guarantees_come_back_with_their_calibrator(guarantee, calibrator, tmp_path) -> None:
    saved = SavedGuarantee(guarantee, calibrator, HERE, "label:letter")
    save_guarantee(saved, tmp_path / "guard")
    assert load_guarantee(tmp_path / "guard") == saved


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.floats(0.07, 1, exclude_max=True))  # 3 of 120 bound the risk at .0633
def test_numbers_come_back_bit_for_bit(tmp_path_factory, threshold, risk) -> None:
    path = tmp_path_factory.getbasetemp() / "guard.json"
    guard = replace(GUARD, threshold=threshold, risk=risk)
    save_guarantee(SavedGuarantee(guard, cw.Temperature(2.0), HERE, ""), path)
    back = load_guarantee(path).guarantee
    assert (back.threshold.hex(), back.risk.hex()) == (threshold.hex(), risk.hex())


@pytest.mark.parametrize(
    "monitor",
    [
        CalibrationMonitor(0.1).update([1.0, 0.7, 0.6], [0, 1, 0.25]),  # the first bet ruins one: -inf
        CalibrationMonitor(),
        DriftMonitor.from_calibration([0.5, 0.9, 0.9], seed=3).update([0.9, 0.1]),
    ],
)
def test_a_monitor_goes_on_where_it_stopped(monitor, tmp_path) -> None:
    save_monitor(monitor, tmp_path / "monitor.json")
    back = load_monitor(tmp_path / "monitor.json")
    assert type(back) is type(monitor)
    more = ([0.4, 0.9], [1, 0]) if isinstance(monitor, CalibrationMonitor) else ([0.4, 0.9],)
    one, two = monitor.update(*more), back.update(*more)
    assert (one.log_value.hex(), one.n, one.alarm(5.0)) == (two.log_value.hex(), two.n, two.alarm(5.0))


def guard_file(tmp_path, **changes) -> dict:
    save_guarantee(SavedGuarantee(GUARD, cw.Temperature(2.0), HERE, "label"), tmp_path / "x.json")
    raw = json.loads((tmp_path / "x.json").read_text())
    raw["guarantee"]["parameters"].update(changes)
    return raw


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(format_version=9), "newer calibwrap"),
        (lambda raw: raw.update(format="else"), "not a saved guarantee"),
        (lambda raw: raw.update(extra=1), "extra"),
        (lambda raw: raw.pop("provenance"), "provenance"),
        (lambda raw: raw["guarantee"].update(kind="promise"), "no guarantee is called 'promise'"),
        (lambda raw: raw["guarantee"].update(kind="sets"), "has the parameters"),
        (lambda raw: raw["guarantee"]["parameters"].pop("risk"), "has the parameters"),
        (lambda raw: raw["guarantee"]["parameters"].update(risk=2.0), "'risk' must lie"),
        (lambda raw: raw["guarantee"]["parameters"].update(risk="0.1"), "'risk' must lie"),
        (lambda raw: raw["guarantee"]["parameters"].update(risk=None), "'risk' must lie"),
        (lambda raw: raw["guarantee"]["parameters"].update(threshold=[0.5]), "'threshold' must be"),
        (lambda raw: raw["guarantee"]["parameters"].update(errors=-1), "'errors' <="),
        (lambda raw: raw["guarantee"]["parameters"].update(rows=True), "'rows' must be"),
        (lambda raw: raw["calibrator"]["parameters"].update(value=-1.0), "'value' of Temperature"),
        (lambda raw: raw["calibrator"].update(kind="none"), "none"),
    ],
)
def test_a_hostile_guarantee_is_a_named_error(change, words, tmp_path) -> None:
    raw = guard_file(tmp_path)
    change(raw)
    (tmp_path / "x.json").write_text(json.dumps(raw))
    with pytest.raises(SavedFileError, match=words) as caught:
        load_guarantee(tmp_path / "x.json")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_a_named_error(number, tmp_path) -> None:
    text = json.dumps(guard_file(tmp_path, threshold=12345)).replace("12345", number)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SavedFileError):
        load_guarantee(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(log_bets=[0.0]), "must be 16 numbers"),
        (lambda raw: raw.update(steps=-1), "at least 0"),
        (lambda raw: raw.update(steps=50), "cannot leave"),
        (lambda raw: raw["monitor"].update(kind="odd"), "no monitor is called"),
        (lambda raw: raw["monitor"].update(kind="calibration-monitor"), "has the parameters"),
        (lambda raw: raw["monitor"]["parameters"].update(seen=[0.9, 0.1, 0.2]), "sorted from low to high"),
        (lambda raw: raw["monitor"]["parameters"].update(seen=["a"]), "could not convert"),
        (lambda raw: raw["monitor"]["parameters"].update(seen=3), "not iterable"),
        (lambda raw: raw["monitor"]["parameters"].update(seed="1"), "'seed'"),
        (lambda raw: raw.update(log_bets=["a"] * 16), "log_bets"),
        (lambda raw: raw.update(log_peak=-1.0), "at least 0"),
    ],
)
def test_a_hostile_monitor_is_a_named_error(change, words, tmp_path) -> None:
    save_monitor(DriftMonitor((0.1, 0.9)).update([0.5]), tmp_path / "m.json")
    raw = json.loads((tmp_path / "m.json").read_text())
    change(raw)
    (tmp_path / "m.json").write_text(json.dumps(raw))
    with pytest.raises(SavedFileError, match=words):
        load_monitor(tmp_path / "m.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict:
    return guard_file(tmp_path_factory.getbasetemp())


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(asdict(GUARD))), json_values)
def test_any_value_in_any_field_is_sound_or_a_named_error(tmp_path_factory, sound, name, value) -> None:
    folder, raw = tmp_path_factory.getbasetemp(), json.loads(json.dumps(sound))
    raw["guarantee"]["parameters"][name] = value
    (folder / "x.json").write_text(json.dumps(raw))
    try:
        back = load_guarantee(folder / "x.json").guarantee
    except CalibwrapError:
        return
    assert 0 < back.risk < 1
    assert 0 < back.delta < 1
    assert back.threshold is None or math.isfinite(back.threshold)
    assert 0 <= back.errors <= back.answered <= back.tested <= back.rows


def test_a_file_of_another_kind_says_how_to_open_it(tmp_path) -> None:
    save_guarantee(SavedGuarantee(GUARD, cw.Temperature(2.0), HERE, ""), tmp_path / "guard.json")
    save_monitor(CalibrationMonitor(), tmp_path / "monitor.json")
    cw.save(cw.Temperature(2.0), tmp_path / "cal.json")
    with pytest.raises(SavedFileError, match=r"saved guarantee: open it with GuardedLM\.load or SetLM\.load"):
        cw.load(tmp_path / "guard.json")
    with pytest.raises(SavedFileError, match=r"saved calibrator: open it with calibwrap\.load"):
        load_guarantee(tmp_path / "cal.json")
    with pytest.raises(SavedFileError, match="saved monitor: open it with"):
        load_guarantee(tmp_path / "monitor.json")
