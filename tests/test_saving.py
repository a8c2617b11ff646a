"""Saved calibrators: bit-equal round trips, and a named error for everything that a file can be instead."""

import json
import os
import pickle
import resource
import sys
import tempfile
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from calibwrap.base import Calibrator
from calibwrap.calibrators import (
    KINDS,
    Chain,
    Identity,
    MatrixScaling,
    Probe,
    Temperature,
    VectorScaling,
    chain,
    fit_daca,
    fit_temperature,
)
from calibwrap.errors import InputError, ProvenanceMismatch, ProvenanceWarning, SavedFileError
from calibwrap.inline_arrays import from_inline, inline
from calibwrap.provenance import FitReport, Provenance
from calibwrap.saving import MAX_BYTES, check_provenance, load, save
from tests.conformance.table import CALIBRATORS, CONFIDENCE_FITS, FITS

HERE = Provenance(runtime="hf", model="tiny", revision="abc", dtype="float32", tokenizer="t", template="")
VECTOR = VectorScaling([0.1, 1 / 3, -2.0], [0.0, 5e-324, 1e99])
MATRIX = MatrixScaling(np.random.default_rng(0).normal(size=(3, 3)), [0.0, -0.0, 0.3])


def round_trip(calibrator, **options):
    with tempfile.TemporaryDirectory() as folder:
        save(calibrator, f"{folder}/cal", **options)
        return load(f"{folder}/cal")


@settings(max_examples=100, deadline=None)
@given(st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False), st.sampled_from(["option", "token"]))
def test_a_temperature_comes_back_bit_for_bit(value, level):
    back = round_trip(Temperature(value, level))
    assert back == Temperature(value, level)
    assert back.value.hex() == value.hex()


floats = st.floats(-1e100, 1e100)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5).flatmap(lambda k: st.lists(st.lists(floats, min_size=k, max_size=k), min_size=2, max_size=2)))
def test_arrays_come_back_bit_for_bit(rows):
    back = round_trip(VectorScaling(*rows))
    assert back.weights.tobytes() == np.array(rows[0]).tobytes()
    assert back.biases.tobytes() == np.array(rows[1]).tobytes()


def bits(value):
    """What a calibrator holds, down to the sign of a zero; `==` would take -0.0 for 0.0."""
    if is_dataclass(value):
        return type(value), [
            (one.name, bits(getattr(value, one.name))) for one in fields(value) if one.name != "report"
        ]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return [bits(one) for one in value]
    return value.hex() if isinstance(value, float) else value


GIVEN = {entry.name: entry.make for entry in CALIBRATORS} | {
    "probe": lambda: Probe([1.0, -0.0, 5e-324], 3, "letter"),  # it stands in no table: its fit wants a model
    "vector-of-odd-numbers": lambda: VECTOR,
    "matrix-of-zeros-of-both-signs": lambda: MATRIX,
    "chain-of-arrays-of-one-name": lambda: chain(MATRIX, VECTOR, MATRIX),
}


@pytest.mark.parametrize("ending", ["", ".json", ".safetensors"])
@pytest.mark.parametrize("make", GIVEN.values(), ids=GIVEN)
def test_every_kind_comes_back_bit_for_bit(make, ending, tmp_path):
    save(make(), tmp_path / f"cal{ending}")
    back = load(tmp_path / f"cal{ending}")
    assert back == make()
    assert bits(back) == bits(make())
    holds_arrays = "array(" in repr(make())
    is_json = (tmp_path / f"cal{ending}").read_bytes()[:1] == b"{"
    assert is_json == (ending == ".json" or not holds_arrays)


def test_no_kind_is_left_out():
    assert {make().kind for make in GIVEN.values()} == set(KINDS)


ROWS = np.log(np.random.default_rng(1).dirichlet(np.ones(3), 200))
RIGHT = (ROWS + np.random.default_rng(2).gumbel(size=ROWS.shape)).argmax(axis=1)
SAID, WAS_RIGHT = np.exp(ROWS.max(axis=1)), ROWS.argmax(axis=1) == RIGHT


def on_options(entry):
    return entry.make()(2.0 * ROWS, ROWS if entry.options.get("second") == "reference" else RIGHT)


FITTED = {entry.name: partial(on_options, entry) for entry in FITS} | {
    f"confidence-{entry.name}": lambda entry=entry: entry.make()(SAID, WAS_RIGHT) for entry in CONFIDENCE_FITS
}


@pytest.mark.filterwarnings("ignore::calibwrap.errors.CalibrationWarning")
@pytest.mark.parametrize("fit", FITTED.values(), ids=FITTED)
def test_every_fit_comes_back_with_its_report(fit, tmp_path):
    fitted = fit()
    for ending in (".json", ".safetensors"):
        save(fitted, tmp_path / f"cal{ending}")
        back = load(tmp_path / f"cal{ending}")
        assert bits(back) == bits(fitted)
        assert reports(back) == reports(fitted)
        assert reports(back)


def reports(calibrator):
    """The reports of a calibrator and of all parts inside it, in order."""
    parts = [getattr(calibrator, one.name) for one in fields(calibrator)]
    inside = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
    own = [] if calibrator.report is None else [calibrator.report]
    return own + [report for one in inside if isinstance(one, Calibrator) for report in reports(one)]


@pytest.mark.parametrize("calibrator", [VECTOR, MATRIX, chain(MATRIX, VECTOR)], ids=["vector", "matrix", "chain"])
def test_a_file_that_is_called_json_is_json_and_comes_back_bit_for_bit(calibrator, tmp_path):
    save(calibrator, tmp_path / "cal.json")
    assert json.loads((tmp_path / "cal.json").read_text(encoding="utf-8"))["calibrator"]["kind"] == calibrator.kind
    save(calibrator, tmp_path / "cal.safetensors")
    back = [load(tmp_path / f"cal.{suffix}") for suffix in ("json", "safetensors")]
    assert back == [calibrator, calibrator]
    parts = [one.parts[-1] if isinstance(one, Chain) else one for one in back]
    assert parts[0].biases.tobytes() == parts[1].biases.tobytes()
    assert not parts[0].biases.flags.writeable


@pytest.mark.parametrize(
    ("array", "said"),
    [
        ({"dtype": "object", "values": [1.0, 2.0, 3.0]}, "an array of numbers was expected"),
        ({"dtype": "U3", "values": ["1", "2", "3"]}, "an array of numbers was expected"),
        ({"dtype": "nothing", "values": [1.0]}, "an array that is none"),
        ({"dtype": "float64", "values": [[1.0], [2.0, 3.0]]}, "an array that is none"),
        ({"dtype": "uint8", "values": [1, 2, 1000]}, "an array that is none"),
        ({"dtype": "float64", "values": ["nan", "0", "0"]}, "NaN|finite"),
        ({"dtype": "float64", "values": [0.0]}, "shape|numbers|length"),
    ],
)
def test_a_broken_array_in_json_is_a_named_error(array, said, tmp_path):
    save(VECTOR, tmp_path / "cal.json")
    file = json.loads((tmp_path / "cal.json").read_text())
    file["calibrator"]["parameters"]["biases"] = array
    (tmp_path / "cal.json").write_text(json.dumps(file))
    with pytest.raises(SavedFileError, match=said) as told:
        load(tmp_path / "cal.json")
    assert "cal.json" in str(told.value)


@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=4),
    st.sampled_from(["float64", "float32", "float16"]),
)
def test_arrays_in_json_come_back_bit_for_bit_infinities_too(numbers, dtype):
    with np.errstate(over="ignore"):
        array = np.array(numbers).astype(dtype)
    back = from_inline(json.loads(json.dumps(inline(array), allow_nan=False)))
    assert (back.dtype, back.tobytes()) == (array.dtype, array.tobytes())


def test_the_report_comes_back_with_its_provenance():
    fitted = fit_temperature([[4.0, 0.0]] * 4, [0, 0, 1, 0])
    assert round_trip(fitted).report == fitted.report
    assert round_trip(fitted, provenance=HERE).report == replace(fitted.report, provenance=HERE)
    other = replace(HERE, model="other")
    known = replace(fitted, report=replace(fitted.report, provenance=other))
    assert round_trip(known, provenance=HERE).report.provenance == other  # what the report says is not overwritten
    aligned = fit_daca(np.random.default_rng(0).normal(size=(90, 3)) + 3 * np.eye(3)[np.arange(90) % 3],
                       3 * np.eye(3)[np.arange(90) % 3])  # fmt: skip
    assert round_trip(aligned).report == aligned.report
    assert round_trip(aligned).report.interval == aligned.report.interval


def test_numbers_that_were_given_say_so():
    report = round_trip(Temperature(2.0), provenance=HERE).report
    assert (report.method, report.rows, report.provenance) == ("given", 0, HERE)
    parts = round_trip(chain(Temperature(2.0), VECTOR), provenance=HERE).parts
    assert [part.report.provenance for part in parts] == [HERE, HERE]


def test_the_file_is_legible(tmp_path):
    save(Temperature(2.5), tmp_path / "cal.json")
    saved = json.loads((tmp_path / "cal.json").read_text(encoding="utf-8"))
    assert saved["format"] == "calibwrap-calibrator"
    assert saved["format_version"] == 1
    assert saved["calibrator"] == {
        "kind": "temperature",
        "level": "option",
        "parameters": {"value": 2.5},
        "report": None,
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "cal.json"]


def with_changes(**changes):
    """A JSON file's bytes, with a field of the header or of the calibrator changed."""
    record = {"kind": "temperature", "level": "option", "parameters": {"value": 2.0}, "report": None}
    header = {"format": "calibwrap-calibrator", "format_version": 1, "date": "2026-11-22", "calibrator": record}
    for name, value in changes.items():
        (record if name in record else header)[name] = value
    return json.dumps(header).encode()


BROKEN = {
    "empty": (b"", "broken or truncated"),
    "truncated": (with_changes()[:-9], "broken or truncated"),
    "not UTF-8": (b'{"format": "\xff"}', "broken or truncated"),
    "NaN": (with_changes(parameters={"value": float("nan")}), "NaN is not a number"),
    "too large a number": (with_changes().replace(b"2.0", b"1e999"), "finite number above 0"),
    "negative": (with_changes(parameters={"value": -1.0}), "finite number above 0"),
    "text for a number": (with_changes(parameters={"value": "2"}), "finite number above 0"),
    "another file": (b'{"temperature": 2.0}', "not a saved calibrator"),
    "a list": (b"[1, 2]", "not a saved calibrator"),
    "a newer version": (with_changes(format_version=2), "newer calibwrap .format 2; this one reads up to 1"),
    "no version": (with_changes(format_version=None), "'format_version'"),
    "an unknown field": (with_changes(colour="red"), "'colour'"),
    "an unknown kind": (with_changes(kind="temprature"), "Did you mean 'temperature'"),
    "an unknown level": (with_changes(level="word"), "'calibrator.level'"),
    "a wrong level": (with_changes(level="confidence"), "'option' or 'token'"),
    "missing parameters": (with_changes(parameters={}), r"\['value'\], and \[\] came"),
    "foreign parameters": (with_changes(parameters={"value": 2.0, "x": 1}), "'x'"),
    "a missing array": (with_changes(kind="vector-scaling", parameters={"weights": {"array": "w"}, "biases": [0.0]}),
                        "array 'w' is missing"),
    "a chain of nothing": (with_changes(kind="chain", parameters={"parts": []}), "at least one Calibrator"),
    "a chain of numbers": (with_changes(kind="chain", parameters={"parts": [2.0]}), "at least one Calibrator"),
    "a chain of odd parts": (with_changes(kind="chain", parameters={"parts": [{"kind": 3}]}), "validation error"),
    "a chain of another level": (with_changes(kind="chain", level="token", parameters={"parts": [
        {"kind": "identity", "level": "option", "parameters": {}}]}), "of level 'option', not 'token'"),
    "too deep": (b'{"a":' * 200_000, "broken or truncated"),
    "a pickle": (pickle.dumps(Temperature(2.0)), "never opened"),
    "an archive": (b"PK\x03\x04 zip", "never opened"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_a_named_error(data, words, tmp_path):
    path = tmp_path / "cal.json"
    path.write_bytes(data)
    with pytest.raises(SavedFileError, match=words) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_safetensors_file_is_a_named_error(tmp_path):
    path = tmp_path / "cal.safetensors"
    save(VECTOR, path)
    data = path.read_bytes()
    for end in range(1, len(data), 7):
        path.write_bytes(data[:end])
        with pytest.raises(SavedFileError, match=r"broken|not a saved"):
            load(path)


def test_a_safetensors_file_of_something_else_is_a_named_error(tmp_path):
    save_file({"weights": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(SavedFileError, match="not a saved calibrator"):
        load(tmp_path / "model.safetensors")


def test_nan_in_an_array_is_a_named_error(tmp_path):
    path = tmp_path / "cal"
    save(VECTOR, path)
    path.write_bytes(path.read_bytes().replace(np.float64(-2.0).tobytes(), np.float64("nan").tobytes()))
    with pytest.raises(SavedFileError, match="'weights' of VectorScaling must be finite"):
        load(path)


def test_what_is_no_file_is_a_named_error(tmp_path):
    with pytest.raises(SavedFileError, match="No such file"):
        load(tmp_path / "none")
    with pytest.raises(SavedFileError, match="not a file"):
        load(tmp_path)
    with pytest.raises(SavedFileError, match="not a file"):
        load(os.devnull)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)  # sparse: no disk is used, and none would be read
    with pytest.raises(SavedFileError, match="1099511627776 bytes"):
        load(tmp_path / "huge")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "cal.json"
    save(Temperature(2.0), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))  # a real failing write; a full disk cannot be had here
    try:
        with pytest.raises(SavedFileError, match=r"could not be saved .*untouched") as caught:
            save(Temperature(3.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value.__cause__, OSError)
    assert load(path) == Temperature(2.0)
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_a_named_error(tmp_path):
    with pytest.raises(SavedFileError, match=r"could not be saved \(No such file"):
        save(Temperature(2.0), tmp_path / "no" / "folder")
    with pytest.raises(SavedFileError, match="could not be saved"):
        save(Temperature(2.0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_would_not_be_opened_again_is_not_saved(tmp_path):
    path = tmp_path / "cal"
    save(VECTOR, path)
    n = MAX_BYTES // 16  # two arrays of 8 bytes each: at the limit, and the header beyond
    with pytest.raises(SavedFileError, match=f"more than {MAX_BYTES} is not opened again.*untouched"):
        save(VectorScaling(np.ones(n), np.zeros(n)), path)
    assert load(path) == VECTOR
    assert list(tmp_path.iterdir()) == [path]


def test_saving_over_a_file_replaces_it(tmp_path):
    save(VECTOR, tmp_path / "cal")
    save(Temperature(2.0), tmp_path / "cal")
    assert load(tmp_path / "cal") == Temperature(2.0)


@dataclass(frozen=True)
class Odd(Identity):
    thing: object = None
    report: FitReport | None = field(default=None, compare=False)


@pytest.mark.parametrize("thing", [object(), {"a": 1}, Path("x"), float("nan")])
def test_what_cannot_be_written_is_a_named_error(thing, tmp_path):
    with pytest.raises(InputError, match="cannot be saved"):
        save(Odd(thing=thing), tmp_path / "cal")
    with pytest.raises(InputError, match="must be a Calibrator"):
        save(thing, tmp_path / "cal")
    assert list(tmp_path.iterdir()) == []


def fitted_on(provenance, readout="label:letter"):
    report = FitReport("temperature", 10, 10, 1.0, 0.5, provenance=provenance, readout=readout)
    return Temperature(2.0, report=report)


def test_the_same_model_and_readout_pass():
    check_provenance(fitted_on(HERE), HERE, "label:letter", strict=True)
    check_provenance(Temperature(2.0), HERE, "label:letter", strict=True)
    check_provenance(fitted_on(None, ""), HERE, "label:letter", strict=True)
    check_provenance(fitted_on(HERE), HERE, "", strict=True)


@pytest.mark.parametrize("name", Provenance.__dataclass_fields__)
@pytest.mark.parametrize(
    "wrap", [lambda one: one, lambda one: chain(Temperature(1.0), one)], ids=["alone", "in a chain"]
)
def test_every_difference_warns_or_refuses(name, wrap):
    there = replace(HERE, **{name: "different"})
    with pytest.warns(ProvenanceWarning, match=f"{name}: .* against 'different'"):
        check_provenance(wrap(fitted_on(HERE)), there, "label:letter")
    with pytest.raises(ProvenanceMismatch, match=name):
        check_provenance(wrap(fitted_on(HERE)), there, "label:letter", strict=True)


def test_another_readout_is_a_difference_and_one_sentence_names_all():
    with pytest.raises(
        ProvenanceMismatch, match="dtype: 'float32' against 'Q4'; readout: 'label:letter' against 'p_true'"
    ):
        check_provenance(fitted_on(HERE), replace(HERE, dtype="Q4"), "p_true", strict=True)


def test_a_chain_keeps_its_parts_types():
    back = round_trip(chain(Temperature(2.0), VECTOR))
    assert isinstance(back, Chain)
    assert [type(part) for part in back.parts] == [Temperature, VectorScaling]


def test_weights_beyond_all_sense_are_refused_and_the_largest_give_no_nan():
    with pytest.raises(InputError, match=r"at most 1e\+100 in size"):
        VectorScaling([1e308, -1e308], [0.0, 0.0])
    mapped = VectorScaling([1e100, -1e100], [1e100, 0.0])(np.log([[0.9, 0.1]]))
    assert np.isfinite(np.exp(mapped)).all()
    assert np.isfinite(np.exp(MatrixScaling([[1e100, -1e100], [-1e100, 1e100]], [0.0, 1e100])([[0.0, -1e300]]))).all()


def test_texts_that_no_file_can_hold_are_named(tmp_path):
    report = FitReport("temperature", 1, 1, 0.0, 0.0, notes=("\ud800",))
    with pytest.raises(InputError, match="half a character"):
        save(Temperature(2.0, report=report), tmp_path / "x.json")


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_versions_are_whole_numbers_from_one_on(version, tmp_path):
    save(Temperature(2.0), tmp_path / "x.json")
    held = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(held | {"format_version": version}))
    with pytest.raises(SavedFileError, match="format_version"):
        load(tmp_path / "x.json")
