"""The HTML page: well formed, self-contained, escaped, and its numbers are those of the metrics."""

import itertools
import re
import time

import numpy as np
import pytest

from calibwrap import metrics
from calibwrap.answer_scores import outcome_scores
from calibwrap.base import Answer
from calibwrap.provenance import Candidate, FitReport, Provenance
from calibwrap.questions import Question
from calibwrap.report import Section, Series, render_report, write_report
from calibwrap.summary import difference, figures

from .page_tree import Page
from .sets import asked, planted, scores

MODEL = Provenance("hf", "tiny-instruct", "abc123", "float32", "t0k", "t3mpl")
BASE = Provenance("hf", "tiny-base", "def456", "float32", "t0k")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'&amp; </style></title>"


def page_of(*sections, **more):
    return render_report("Report", sections, provenance=more.pop("provenance", {}), **more)


@pytest.fixture(scope="module")
def usual():
    """Return the page of an ordinary case with everything in it."""
    section = planted()
    fit = FitReport(
        "daca", 200, 150, 1.5, 1.2, agreement_rate=0.75, interval=(2.5, 3.5), provenance=MODEL, reference=BASE
    )
    series = section.series[0], Series("DACA", section.series[1].scores, fit)
    section = Section("Planted", section.questions, series, note="Drawn by a formula.")
    more = {"provenance": {"model": MODEL, "data": "planted.jsonl"}, "command": "calibwrap evaluate X --out Y"}
    return section, page_of(section, notes=("Read this first.",), **more)


def test_structure(usual):
    page = Page(usual[1])
    assert usual[1].startswith("<!doctype html>")
    assert page.named("html")[0][1] == {"lang": "en"}
    assert page.text("title").startswith("Report")
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_pictures_have_words_and_tables_have_scopes(usual):
    page = Page(usual[1])
    pictures = page.named("svg")
    assert len(pictures) == 4 * 2 + 2 + 1  # a strip for each tile and state, two reliability diagrams, one risk curve
    assert all(attributes["role"] == "img" and attributes["aria-label"].strip() for _, attributes in pictures)
    assert all(attributes.get("scope") in ("row", "col") for _, attributes in page.named("th"))
    assert page.named("table")


def test_the_page_needs_nothing_but_itself(usual):
    page = Page(usual[1])
    assert not page.named("script", "link", "img", "iframe", "object", "embed", "base", "form", "use", "image")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [
        attributes for _, attributes in page.elements if {"src", "href", "xlink:href", "style"} & set(attributes)
    ]
    assert not re.search(r"@import|url\(|https?:", usual[1])
    policy = [attributes["content"] for _, attributes in page.named("meta") if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_light_dark_phone_and_print_have_their_rules(usual):
    for rule in ("prefers-color-scheme: dark", "max-width: 40rem", "@media print"):
        assert rule in usual[1]
    assert "width=device-width" in usual[1]


def test_numbers_are_those_of_the_metrics(usual):
    section, html = usual
    text = Page(html).text()
    right = section.answers == section.series[0].scores.choice
    for one in section.series:
        confidence = one.scores.confidence
        assert f"{metrics.ece(confidence, right):.3f}" in text
        assert f"{100 * confidence.mean():.1f}%" in text
        assert f"{metrics.brier(one.scores.probabilities, section.answers):.3f}" in text
        assert f"{metrics.nll(one.scores.logprobs, section.answers):.3f}" in text
        assert f"{metrics.auroc(confidence, right):.3f}" in text
        assert f"{metrics.aurc(confidence, right):.3f}" in text
        interval = figures(one.scores, section.answers)["ece"]
        assert f"{interval.low:.3f} to {interval.high:.3f}" in text
    change = difference(section.series[0].scores, section.series[1].scores, section.answers)["brier"]
    signed = [f"{value:+.3f}".replace("-", "−") for value in (change.value, change.low, change.high)]
    assert f"{signed[0]} {signed[1]} to {signed[2]}" in text


def test_bins_are_told_with_their_numbers(usual):
    section, html = usual
    curve = metrics.reliability_curve(*section.stated(section.series[0]))
    text = Page(html).text("details")
    for index in np.flatnonzero(curve.count):
        assert f"{curve.count[index]} {curve.confidence[index]:.3f} {curve.accuracy[index]:.3f}" in text


def test_headline_mistakes_fits_provenance_and_command_are_there(usual):
    section, html = usual
    text = Page(html).text()
    assert text.index("On 200 held-out questions") < text.index("Before and after") < text.index("The most confident")
    wrong = section.series[0].scores.choice != section.answers
    surest = int(np.argmax(np.where(wrong, section.series[0].scores.confidence, 0)))
    assert f"Question {surest}? q{surest} chose option" in text
    for part in ("Read this first.", "Drawn by a formula.", "150 of 200", "on 75% of the rows", "2.500 to 3.500"):
        assert part in text
    for part in ("tiny-instruct", "tiny-base", "abc123", "def456", "planted.jsonl", "calibwrap evaluate X --out Y"):
        assert part in text
    assert text.count("tiny-instruct") == 1, "a model that the caller gave and the fit names is shown once"


def test_mistakes_are_ten_at_most_and_surest_first(usual):
    said = re.findall(r'<span class="swatch s0"></span><strong>([^<]*)%</strong>', usual[1])
    numbers = [99.5 if "over" in one else float(one) for one in said]
    assert len(numbers) == 10
    assert numbers == sorted(numbers, reverse=True)


def test_hostile_texts_stay_texts():
    question = Question(HOSTILE, [HOSTILE, "right " + HOSTILE], 1, HOSTILE, context=HOSTILE)
    compared = (Candidate(HOSTILE, 1, note=HOSTILE),)
    fit = FitReport(HOSTILE, 1, 1, 0.0, 0.0, notes=(HOSTILE,), readout=HOSTILE, candidates=compared)
    section = Section(HOSTILE, [question] * 3, [Series(HOSTILE, scores([[0.0, -1.0]] * 3), fit)], note=HOSTILE)
    provenance = {HOSTILE: HOSTILE, "model": Provenance(model=HOSTILE), "fields": {HOSTILE: HOSTILE}}
    html = render_report(HOSTILE, [section], provenance=provenance, command=HOSTILE, notes=[HOSTILE])
    page = Page(html)
    assert not page.named("script", "img")
    assert len(page.named("style")) == 1
    assert page.text().count("<script>alert(1)</script>") > 10


def test_unicode_and_what_cannot_be_written(tmp_path):
    texts = ["光合作用", "Österreich", "مرحبا", "👩🏽‍🔬 e\u0301", "broken \ud800 and \0"]
    section = asked([1] * 5, [[0.0, -1.0]] * 5)
    section = Section("日本", [Question(text, ["a", "b"], 1) for text in texts], section.series)
    page = Page(write_report(tmp_path / "r.html", "Δ", [section], provenance={}).read_text(encoding="utf-8"))
    for text in [*texts[:4], "broken ? and", "日本"]:
        assert text in page.text()


@pytest.mark.parametrize(
    ("texts", "told", "not_told"),
    [
        (
            ["", "", ""],
            ["Of 3 questions, 3 have no answer that could be read", "3 of 3 questions"],
            "no more off than luck",
        ),
        (["", "", "Mars"], ["2 of 3 questions have no readable answer"], "Brier score 0.000"),
        (["", "Mars", "Mars"], ["Of 3 questions, 1 have no answer that could be read"], "not defined: 1 of 3"),
    ],
)
def test_answers_that_could_not_be_read_are_neither_perfect_nor_no_mistakes(texts, told, not_told):
    said = [Answer(text, 0.5 if text else 0.0, (0.0, 1.0)) for text in texts]
    questions = [Question(f"Q{row}?", [text or "(no answer)", "Venus"], 1) for row, text in enumerate(texts)]
    page = page_of(Section("Set", questions, [Series("raw", outcome_scores(said, "freetext"))]))
    text = Page(page).text()
    assert "made no mistake" not in text
    assert all(sentence in text for sentence in told), text
    assert not_told not in text


def test_the_worst_brier_score_is_that_of_the_answers():
    said = outcome_scores([Answer("Mars", 1.0, (1.0, 1.0))], "freetext")
    free = page_of(Section("Set", [Question("Q?", ["Mars", "Venus"], 1)], [Series("raw", said)]))
    options = page_of(asked([1], [[9.0, 0.0]]))
    assert ("1 the worst" in free, "2 the worst" in free) == (True, False)
    assert ("1 the worst" in options, "2 the worst" in options) == (False, True)


@pytest.mark.parametrize(("answers", "told"), [([0, 0, 0], "no mistake"), ([1, 1, 1], "right 0% of the time")])
def test_all_right_and_all_wrong(answers, told):
    text = Page(page_of(asked(answers, [[0.0, -1.0], [0.0, -2.0], [0.0, -3.0]]))).text()
    assert told in text
    assert "not defined: all answers are" in text


def test_one_question():
    text = Page(page_of(asked([0], [[0.0, -1.0]]))).text()
    assert "On 1 held-out question the model was right 100% of the time" in text
    assert "one question has no spread" in text


def test_ragged_options():
    questions = [Question("Two?", ["a", "b"], 0), Question("Three?", ["a", "b", "c"], 1), Question("One?", ["a"], 0)]
    logits = [[0.0, -1.0, -np.inf], [-1.0, 0.0, -2.0], [0.0, -np.inf, -np.inf]]
    text = Page(page_of(Section("Ragged", questions, [Series("raw", scores(logits))]))).text()
    assert "3 questions with 1 to 3 options each" in text


def test_questions_without_answers_show_confidence_only():
    page = Page(page_of(asked([None, None], [[0.0, -1.0], [0.0, -2.0]])))
    assert "cannot be measured" in page.text()
    assert "How sure the model says it is" in page.text()
    assert "Reliability" not in page.text().split("How to read this")[0]
    assert len(page.named("svg")) == 1


def test_unanswered_questions_do_not_count():
    text = Page(page_of(asked([0, None, 1], [[0.0, -1.0], [0.0, -2.0], [0.0, -3.0]]))).text()
    assert "On 2 held-out questions" in text
    assert "1 question has no known answer" in text


def test_empty_sections_and_empty_report():
    assert "No questions were scored." in Page(page_of(Section("Empty", [], []))).text()
    assert "There is no question set in this report." in Page(page_of()).text()


def test_several_sections_each_have_their_headline():
    text = Page(page_of(planted(seed=1), asked([None], [[0.0, -1.0]], title="Other"))).text()
    lead = text[: text.index("Before and after")]
    assert "Planted On 200 held-out questions" in lead
    assert "Other No question has a known answer" in lead


def test_truncation_and_little_label_mass_are_told():
    cut = scores([[0.0, -1.0], [0.0, -2.0]], missing=[[False, True]] * 2, argmax_certified=[True, False])
    section = Section("Cut", asked([0, 0], [[0.0, -1.0]] * 2).questions, [Series("raw", cut)])
    assert "In 2 questions the backend's list did not show everything" in Page(page_of(section)).text()
    assert "In 1 question even the first choice is therefore not certain." in Page(page_of(section)).text()
    little = Series("raw", scores([[0.0, -1.0]] * 2, label_mass=[0.1, 0.3]))
    assert "look at the template" in Page(page_of(Section("Little", section.questions, [little]))).text()


def test_a_bound_that_was_hit_and_a_fit_that_did_not_converge_are_told():
    section = asked([0, 1], [[0.0, -1.0]] * 2)
    bad = [FitReport("a", 2, 2, 1.0, 1.0, at_bound="upper"), FitReport("b", 2, 2, 1.0, 1.0, converged=False)]
    series = [Series(fit.method, section.series[0].scores, fit) for fit in bad]
    text = Page(page_of(Section("Bad", section.questions, series))).text()
    assert "stopped at the upper bound" in text
    assert "did NOT converge" in text


def test_the_methods_that_a_fit_chose_from_are_told():
    section = asked([0, 1], [[0.0, -1.0]] * 2)
    compared = (
        Candidate("temperature", 2, 1.25, (0.0, 0.0), chosen=True),
        Candidate("vector", 20, 1.2, (-0.1, 0.02)),
        Candidate("matrix", 200, note="needs 200 rows"),
    )
    series = [Series("auto", section.series[0].scores, FitReport("temperature", 2, 2, 1.5, 1.2, candidates=compared))]
    html = page_of(Section("Chosen", section.questions, series))
    text = Page(html).text()
    assert "Methods compared for auto" in html
    for row in ("temperature 1.250", "chosen", "vector 1.200 −0.100 to +0.020", "matrix – – needs 200 rows"):
        assert row in text
    assert "Methods compared" not in page_of(section)


def test_ten_thousand_questions_are_quick_and_small(tmp_path):
    section = planted(10_000)
    began = time.process_time()
    path = write_report(tmp_path / "report.html", "Large", [section], provenance={})
    assert time.process_time() - began < 3.0
    assert path.stat().st_size < 1_000_000


def test_the_same_input_gives_the_same_bytes():
    section = asked([0, 1, 0], [[0.0, -1.0]] * 3)
    assert page_of(section) == page_of(section)


def test_a_report_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_report(tmp_path / "report.html", "Old", [], provenance={})
    old = path.read_bytes()
    with pytest.raises(AttributeError):
        write_report(path, "New", [object()], provenance={})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "none" / "report.html", "New", [], provenance={})
