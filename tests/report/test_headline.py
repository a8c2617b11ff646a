"""The words at the top: they say what the numbers say, bad news included."""

import numpy as np
import pytest

from calibwrap.questions import Question
from calibwrap.report import Section, Series, sentences, summary
from calibwrap.report.headline import Headline
from calibwrap.summary import FIGURES, Figure

from .sets import asked, planted, scores


def told(section):
    return sentences(summary(section.series, section.questions), len(section.questions))


@pytest.fixture(scope="module")
def cured():
    """Return an over-confident set with its cure, and what is said about it."""
    section = planted(400)
    return section, told(section)


def swapped(section):
    return Section("Swapped", section.questions, section.series[::-1])


def headline(change, **others):
    """Return a calibrated state whose ECE changed as given."""
    found = {name: Figure(0.3, 0.2, 0.4) for name in FIGURES}
    changes = {name: Figure(0.0, 0.0, 0.0) for name in FIGURES} | {"ece": change} | others
    return [
        Headline("raw", found, {}, Figure(0.02, 0.01, 0.03)),
        Headline("cal", found, changes, Figure(0.02, 0.01, 0.03)),
    ]


def test_overconfidence_and_its_cure(cured):
    first, second = cured[1]
    assert first.startswith("On 400 held-out questions the model was right ")
    assert "it claims too much (ECE 0." in first
    assert "After “temperature” it says" in second
    assert "is still right" in second
    assert "fell from 0." in second


def test_the_numbers_in_the_sentence_are_those_of_the_scores(cured):
    section, (first, _) = cured
    raw = section.series[0].scores
    right = np.mean(raw.choice == section.answers)
    assert f"right {100 * right:.0f}% of the time and said {100 * raw.confidence.mean():.0f}% on average" in first


def test_harm_is_called_harm():
    first, second = told(swapped(planted(400)))
    assert "luck explains" in first
    assert "ROSE from" in second
    assert "worse than no calibration. Worse too: Brier score +" in second
    assert "negative log-likelihood +" in second


def test_underconfidence():
    section = planted(600, sharpness=0.3)
    assert "it claims too little" in sentences(summary(section.series[:1], section.questions), 600)[0]


def test_errors_that_cancel_in_the_average_are_told():
    """Half of the answers claim 0.95 and keep 0.75, half claim 0.55 and keep 0.75: the mean is right, no answer is."""
    probabilities = np.repeat([[0.95, 0.05], [0.55, 0.45]], 200, axis=0)
    answers = np.tile([0, 0, 0, 1], 100).tolist()
    assert (
        "the average fits better than the single answers do (ECE 0.200)"
        in told(asked(answers, np.log(probabilities)))[0]
    )


def test_an_interval_with_zero_shows_no_difference():
    text = sentences(headline(Figure(-0.01, -0.03, 0.02)), 500)[1]
    assert "(change −0.010, 95% interval −0.030 to +0.020): that includes zero, so no difference is shown." in text


@pytest.mark.parametrize(
    ("name", "change", "clear"),
    [
        ("accuracy", Figure(-0.05, -0.08, -0.02), True),
        ("accuracy", Figure(0.05, 0.02, 0.08), False),
        ("nll", Figure(0.4, 0.2, 0.6), True),
        ("nll", Figure(0.4, -0.1, 0.6), False),
        ("brier", Figure(-0.4, -0.6, -0.1), False),
        ("brier", Figure(None, None, None, "not defined"), False),
    ],
)
def test_a_better_ece_does_not_hide_a_loss_elsewhere(name, change, clear):
    text = sentences(headline(Figure(-0.2, -0.3, -0.1), **{name: change}), 500)[1]
    assert "fell from" in text
    assert ("But clearly worse" in text) is clear


def test_no_interval_shows_nothing():
    text = sentences(headline(Figure(-0.2, None, None, "one question has no spread")), 1)[1]
    assert "without an interval (one question has no spread): nothing is shown by it." in text


def test_few_questions_are_warned_about():
    states = headline(Figure(-0.2, -0.3, -0.1))
    assert "With only 99 questions the intervals are wide" in sentences(states, 99)[-1]
    assert "only" not in " ".join(sentences(states, 100))


def test_a_changed_accuracy_is_told():
    questions = [Question("?", ["a", "b"], 0)] * 4
    right, wrong = scores([[0.0, -1.0]] * 4), scores([[-1.0, 0.0]] * 4)
    section = Section("Flip", questions, [Series("raw", right), Series("flipped", wrong)])
    assert "and is right 0% of the time" in told(section)[1]


def test_summary_without_answers_is_empty():
    assert summary([Series("raw", scores([[0.0, -1.0]]))], [Question("?", ["a", "b"])]) == ()
