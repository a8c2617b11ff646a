"""The study's report: everything in it, nothing fetched, and names that cannot inject anything."""

import re
from dataclasses import replace

import pytest

from calibwrap.lifecycle.drawings import Line, against, along, heat, interval_rows
from calibwrap.lifecycle.page import page_of
from calibwrap.lifecycle.result import Finding, Study
from calibwrap.lifecycle.settings import Stage, checked_study
from calibwrap.lifecycle.tally import Tally
from calibwrap.metrics import CalibrationState
from calibwrap.provenance import Provenance

SETTINGS = checked_study(
    {"models": [{"stage": "a", "spec": "toy:0"}], "probes": {"understanding": {"source": "arc_easy"}}, "title": "A < B"}
)


def finding(name, right, probe="understanding", tokenizer="t", groups=True, **axes):
    tally = Tally.empty()
    for number in range(40):
        tally = tally.update(f"q{number}", [0.8], [number % 10 < right], [-0.5])
    state = CalibrationState.empty(10).update([0.8] * 10, [1] * right + [0] * (10 - right))
    stage = Stage(name=name, stage="tuning", spec="toy:0", axes=axes)
    own = {"law": state, "art": state} if groups else {}
    return Finding(stage, probe, tally, own, Provenance(tokenizer=tokenizer))


def page(*findings, failures=None):
    study = Study(SETTINGS, findings, failures or {})
    return page_of(study, study.rows(), "calibwrap study study.yaml")


def test_it_holds_everything_and_fetches_nothing():
    found = [finding(f"m{step}", right, step=step) for step, right in ((1, 8), (100, 6), (5000, 3))]
    html = page(*found, failures={"torn": "ModelError: <b>no</b>"})
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=|url\(|@import", html)
    assert "A &lt; B" in html
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    for title in (
        "Along step",
        "Reliability, and how often",
        "ECE by group of questions",
        "accuracy against confidence",
    ):
        assert title in html
    assert html.count("Reliability diagram, m") == 2 * 3  # a title and a label each
    assert re.search(r"higher beyond the noise for [12] of 2", html)
    assert "calibwrap study study.yaml" in html
    assert html.count("<polyline") == 2


def test_small_studies_have_small_reports():
    html = page(finding("only", 8, groups=False))
    assert "Along" not in html
    assert "accuracy against confidence" not in html
    assert "ECE by group" not in html
    assert "only has an ECE of 0.000 at 80.0% right" in html
    assert "No model could be measured" in page(failures={"a": "b"})


def test_what_to_know_before_the_figures_are_believed_is_said():
    few = finding("one", 8)
    few = replace(few, tally=Tally.empty().update("q1", [0.8], [True], [-0.5]))
    html = page(few)
    assert "of few questions, 1 blocks of them: their intervals are too short" in html
    assert "too short" not in page(finding("one", 8))
    asked = {"generation": {"source": "my.txt", "events": 100}}
    missing = {"models": [{"stage": "a", "spec": "toy:0"}], "probes": asked, "base": "gone"}
    study = Study(checked_study(missing), (finding("a", 8, "generation"),), {"gone": "ModelError: no"})
    assert study.notes() == [
        "The base 'gone' has no figures of generation, so that no change is told.",
        "100 events of generation were asked for, and my.txt has 40.",
    ]
    html = page_of(study, study.rows())
    assert "no change is told" in html
    assert ">other events<" not in html


def test_hidden_probabilities_are_said():
    assert Study(SETTINGS, (replace(finding("api", 8), cut=7),)).notes() == [
        "In 7 of 40 events of understanding api hid a part of the probabilities: "
        "their confidences and losses are points inside bounds."
    ]


def test_another_tokenizer_is_said():
    html = page(finding("one", 8, "generation"), finding("other", 5, "generation", tokenizer="u"))
    assert "other events" in html
    assert "beyond the noise" not in html


def test_names_cannot_inject_anything():
    html = page(finding("<img src=x onerror=alert(1)>", 8), finding("b", 6))
    assert "<img" not in html


def test_more_lines_than_colours_are_not_drawn():
    many = [finding(f"{step}-{size}", 6, step=step, size=size) for step in (1, 2, 3) for size in range(5)]
    html = page(*many)
    assert "Along size" in html  # three lines, one for each step
    assert "Not drawn: 5 lines" in html  # along the step
    assert html.count("<polyline") == 2 * 3


def test_drawings_are_where_they_should_be():
    rows = interval_rows(["a", "b"], [(0.2, 0.1, 0.3), (0.4, 0.3, 0.5)], "ECE", "ECE", 0)
    places = [float(x) for x in re.findall(r'<circle cx="([0-9.]+)"', rows)]
    assert (places[1] - 8) / (places[0] - 8) == pytest.approx(2.0, abs=0.01)
    dots = re.findall(r'<circle cx="([0-9.]+)" cy="([0-9.]+)"', against([(0.36, 0.18)], "x"))
    assert [float(one) for one in dots[0]] == pytest.approx([46 + 304 * 0.9, 10 + 290 * 0.55])  # it ends at 0.4
    crowd = against([(0.3, 0.15)] * 6, "x")
    numbers = re.findall(r'<text x="([0-9.]+)" y="([0-9.]+)"[^>]*>([1-6])</text>', crowd)
    assert [name for *_, name in numbers] == list("123456")
    assert len({(x, y) for x, y, _ in numbers}) == 6  # no number on another
    line = Line("70M", (1.0, 100.0, 10000.0), ((0.1, 0.0, 0.2),) * 3)
    xs = [float(x) for x in re.findall(r'<circle cx="([0-9.]+)"', along([line], "x", "step", "ECE"))]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)  # logarithmic
    assert heat(1.0, 1.0) == '<span class="heat h5">1.00</span>'
    assert heat(None, 1.0) == '<span class="heat">–</span>'
