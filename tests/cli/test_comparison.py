"""Evaluations of the same questions side by side, and what people read for each series."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import calibwrap as cw
from calibwrap.calibrators import CONFIDENCE_FITS, FITS, Identity, Temperature
from calibwrap.cli.comparison import side_by_side
from calibwrap.cli.report import read_evaluation, section_of
from calibwrap.cli.series import series_name
from calibwrap.errors import InputError
from calibwrap.summary import figures
from calibwrap.testing import ToyModel, toy_questions

ASKED = toy_questions(60, seed=2, model=ToyModel.random(seed=0))


@pytest.fixture(autouse=True)
def files(toy_runtime: None, tmp_path: Path) -> None:
    cw.save_questions(ASKED, tmp_path / "qs.jsonl")


def evaluated(run: Any, out: str, *words: str, data: str = "qs.jsonl") -> None:
    code, _, told = run("evaluate", "toy:0", "--data", data, "--out", out, *words)
    assert code == 0, told


def test_readouts_stand_side_by_side_on_questions_that_no_fit_has_seen(run: Any) -> None:
    evaluated(run, "asked", "--readout", "label", "--fit", "temperature")
    evaluated(run, "turned", "--readout", "permuted")
    alone = Path("asked/report.html").read_bytes()
    code, out, _ = run("report", "asked", "turned", "--json")
    assert code == 0
    assert json.loads(out)["report"] == "asked/comparison.html"
    assert Path("asked/report.html").read_bytes() == alone
    page = Path("asked/comparison.html").read_text()
    for words in (
        "asked: temperature scaling, with labels",
        "turned: as the model says it",
        "These are the 30 questions that no fit of any of the 2 evaluations has seen.",
        "30 questions with 3 options each, read with label:letter and permuted:label:letter.",
        "permuted:label:letter: This readout is not the model",
        "Model of turned",
        "always stays, and so does the accuracy",
    ):
        assert words in page, words
    assert "label:letter: This readout is not" not in page.replace("permuted:label:letter", "")


def test_the_rows_of_all_series_are_those_of_the_same_questions(run: Any) -> None:
    evaluated(run, "a", "--readout", "label", "--fit", "temperature", "--seed", "1")
    evaluated(run, "b", "--readout", "label", "--fit", "temperature", "--seed", "2")
    read = {name: read_evaluation(Path(name))[0] for name in "ab"}
    _, section = side_by_side({name: (result, section_of(name, result)) for name, result in read.items()})
    both = read["a"].held_out & read["b"].held_out
    assert 0 < len(section.questions) == both.sum() < 30
    assert [one.name for one in section.series][::2] == ["a: as the model says it", "b: as the model says it"]
    for name, one in zip("aabb", section.series, strict=True):
        series = "raw" if one.fit is None else "temperature"
        wanted = read[name].scores[series].take(both)
        assert figures(one.scores, section.answers)["nll"] == figures(wanted, section.answers)["nll"]


def test_what_cannot_be_compared_is_refused_by_name(run: Any) -> None:
    cw.save_questions([replace(ASKED[0], answer=None), *ASKED[1:]], "other.jsonl")
    cw.save_questions(ASKED[:-1], "fewer.jsonl")
    evaluated(run, "a", "--readout", "label")
    for data, why in (("other", "question number 1 is another one"), ("fewer", "59, not 60")):
        evaluated(run, data, "--readout", "label", data=f"{data}.jsonl")
        code, _, told = run("report", "a", data)
        assert code == 1
        assert f"{data} is not of the same questions as a ({why})" in told
    assert run("report", "a", "a")[0] == 1
    assert not Path("a/comparison.html").exists()


def test_evaluations_without_a_common_held_out_question_are_refused(run: Any) -> None:
    evaluated(run, "a", "--readout", "label", "--fit", "temperature")
    result, _ = read_evaluation(Path("a"))
    parts = {"a": result, "b": replace(result, held_out=~result.held_out)}
    with pytest.raises(InputError, match="held out in all"):
        side_by_side({name: (one, section_of(name, one)) for name, one in parts.items()})


def test_every_fit_has_words_that_say_whether_labels_were_needed() -> None:
    names = [*FITS, *CONFIDENCE_FITS, "probe", "raw"]
    words = [series_name(name) for name in names]
    assert len(set(words)) == len(names)
    for name, told in zip(names, words, strict=True):
        assert told != name
        if name != "raw":
            without = name in FITS and not FITS[name].needs_answers
            assert told.endswith("without labels" if without else "with labels")


def test_a_calibrator_that_came_with_the_model_is_called_by_how_it_was_fitted() -> None:
    daca = cw.fit_daca([[4.0, 0.0], [3.0, 0.0]] * 20, [[2.0, 0.0], [1.5, 0.0]] * 20)
    assert daca.kind == "temperature"
    assert series_name("saved-temperature", daca) == "DACA, without labels (saved before)"
    assert series_name("temperature", daca) == "DACA, without labels"
    assert series_name("temperature", Temperature(2.0)) == "temperature"  # nobody knows how
    assert series_name("raw", Identity()) == "as the model says it"
