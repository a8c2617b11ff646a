"""decision.json: what Transformers reads there is what was fitted, and nothing else in the file changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import calibwrap as cw
from calibwrap.calibrators import Chain
from calibwrap.errors import InputError, SavedFileError
from calibwrap.provenance import FitReport

# The fields of DecisionConfig in Transformers 5.23, with values of their types; "sort_choices" is one of older exports.
OTHERS = {
    "labels": {"choice": ["A", "B"], "noul": ["Yes", "No"]},
    "noul_options": ["false", "true"],
    "sanitize_control_tokens": False,
    "adapter": "lora",
    "sort_choices": True,
    "note": "größer 😀 \ud800",
}


def write(path: Path, **content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_new_file_holds_the_one_number(tmp_path: Path) -> None:
    cw.save_decision(cw.Temperature(1.7), tmp_path / "decision.json")
    assert json.loads((tmp_path / "decision.json").read_text()) == {"temperature": {"choice": 1.7}}


def test_a_folder_means_the_file_in_it(tmp_path: Path) -> None:
    cw.save_decision(cw.Temperature(1.7), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["decision.json"]
    assert cw.load_decision(tmp_path).value == 1.7


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_the_number_comes_back_bit_for_bit(value: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        cw.save_decision(cw.Temperature(value), folder)
        assert cw.load_decision(folder).value == value


def test_every_other_field_stays_and_in_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "decision.json", **OTHERS, temperature={"noul": 0.5, "choice": 3, "own": 9.0}, last=1)
    cw.save_decision(cw.Temperature(2.0), path)
    content = json.loads(path.read_text())
    assert content.pop("temperature") == {"noul": 0.5, "choice": 2.0, "own": 9.0}
    assert content == {**OTHERS, "last": 1}
    assert list(content) == [*OTHERS, "last"]


@pytest.mark.parametrize("question_type", ["choice", "noul", "score"])
def test_each_type_of_question_has_its_own(tmp_path: Path, question_type: str) -> None:
    cw.save_decision(cw.Temperature(2.5), tmp_path, question_type=question_type)  # type: ignore[arg-type]
    assert cw.load_decision(tmp_path, question_type=question_type).value == 2.5  # type: ignore[arg-type]
    assert len(json.loads((tmp_path / "decision.json").read_text())["temperature"]) == 1


def test_a_type_that_is_not_mentioned_is_one_as_in_transformers(tmp_path: Path) -> None:
    loaded = cw.load_decision(write(tmp_path / "decision.json", labels={}))
    assert loaded.value == 1.0
    assert loaded.report is not None
    assert "does not mention" in loaded.report.notes[0]


def test_identity_and_a_chain_of_temperatures_are_one_number(tmp_path: Path) -> None:
    cw.save_decision(cw.chain(cw.Temperature(2.0), cw.Identity(), cw.Temperature(1.5)), tmp_path)
    assert cw.load_decision(tmp_path).value == 3.0
    rows = np.log([[0.7, 0.2, 0.1]])
    np.testing.assert_allclose(
        cw.load_decision(tmp_path)(rows), cw.chain(cw.Temperature(2.0), cw.Temperature(1.5))(rows)
    )


@pytest.mark.parametrize(
    ("calibrator", "words"),
    [
        (cw.VectorScaling([1.0, 1.0], [0.0, 1.0]), "vector"),
        (Chain((cw.Temperature(2.0), cw.VectorScaling([1.0, 1.0], [0.0, 1.0]))), "vector"),
        (cw.Temperature(2.0, level="token"), "level 'token'"),
        (2.0, "float"),
    ],
)
def test_what_the_file_cannot_say_is_refused_by_name(tmp_path: Path, calibrator: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cw.save_decision(calibrator, tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_product_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finite and above 0"):
        cw.save_decision(cw.chain(cw.Temperature(1e300), cw.Temperature(1e300)), tmp_path)
    with pytest.raises(InputError, match="served_at"):
        cw.save_decision(cw.Temperature(2.0), tmp_path, served_at=-1.0)
    with pytest.raises(InputError, match="choice, noul, score"):
        cw.save_decision(cw.Temperature(2.0), tmp_path, question_type="predicate")  # type: ignore[arg-type]


def fitted(readout: str) -> cw.Temperature:
    return cw.Temperature(2.0, report=FitReport("temperature", 9, 9, 1.0, 0.5, readout=readout))


def test_on_top_of_a_served_temperature_one_must_say_which_is_meant(tmp_path: Path) -> None:
    path = write(tmp_path / "decision.json", temperature={"choice": 1.5})
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"served_at=1\.5"):
        cw.save_decision(fitted("decision"), path)
    assert path.read_bytes() == before
    cw.save_decision(fitted("decision"), path, served_at=1.5)
    assert cw.load_decision(path).value == 3.0
    cw.save_decision(fitted("decision"), path, served_at=1.0)
    assert cw.load_decision(path).value == 2.0
    cw.save_decision(fitted("label:letter"), path)
    assert cw.load_decision(path).value == 2.0


BROKEN = {
    "not JSON": "{",
    "no JSON": '{"temperature": {"choice": NaN}}',
    "JSON object": "[]",
    "an object with a number": '{"temperature": 2.0}',
    "temperature.choice": '{"temperature": {"choice": 0}}',
    "temperature.noul": '{"temperature": {"choice": 1.0, "noul": true}}',
    "finite number": '{"temperature": {"choice": 1e999}}',
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_file_is_named_and_left_as_it_is(tmp_path: Path, words: str) -> None:
    path = tmp_path / "decision.json"
    path.write_text(BROKEN[words])
    with pytest.raises(SavedFileError, match=words) as told:
        cw.load_decision(path)
    assert "decision.json" in str(told.value)
    with pytest.raises(SavedFileError):
        cw.save_decision(cw.Temperature(2.0), path)
    assert path.read_text() == BROKEN[words]


def test_a_calibrator_that_calibwrap_saved_is_not_read_as_temperature_one(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    cw.save(cw.Temperature(9.7), path)
    for use in (lambda: cw.load_decision(path), lambda: cw.save_decision(cw.Temperature(2.0), path)):
        with pytest.raises(SavedFileError, match=r"a calibwrap calibrator.*calibwrap\.load"):
            use()
    assert cw.load(path) == cw.Temperature(9.7)


def test_no_file_and_no_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SavedFileError, match="cannot be read"):
        cw.load_decision(tmp_path)
    with pytest.raises(SavedFileError, match="could not be written"):
        cw.save_decision(cw.Temperature(2.0), tmp_path / "nowhere" / "decision.json")


def test_commands_read_and_write_it_by_its_name(tmp_path: Path) -> None:
    from calibwrap.cli.calibrator_files import check_file_holds, load_calibrator, save_calibrator

    path = tmp_path / "decision.json"
    save_calibrator(cw.Temperature(1.25), path, cw.Provenance())
    assert json.loads(path.read_text()) == {"temperature": {"choice": 1.25}}
    assert load_calibrator(path) == cw.Temperature(1.25)
    save_calibrator(cw.Temperature(1.25), tmp_path / "own.json", cw.Provenance(model="m"))
    loaded = load_calibrator(tmp_path / "own.json")
    assert loaded.report is not None
    assert loaded.report.provenance == cw.Provenance(model="m")
    check_file_holds("vector", tmp_path / "own.json")
    with pytest.raises(InputError, match="method 'matrix' fits more"):
        check_file_holds("matrix", path)


def test_a_method_that_fits_more_than_one_number_is_refused_before_the_model_is_opened(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from calibwrap.cli.app import app

    words = ["fit", "llama-cpp:absent.gguf", "--data", "absent.jsonl", "--method", "vector"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "decision.json")])
    assert isinstance(done.exception, InputError)
    assert "method 'vector' fits more" in str(done.exception)
