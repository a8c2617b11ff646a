"""Decoders that pick one trace: Confidence@k, best of n, and what the pick does to a confidence."""

from dataclasses import replace

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.decoders import (
    label_confidence,
    least_logprob,
    mean_logprob,
    selected_scores,
    total_logprob,
    traces_of,
)
from calibwrap.errors import CapabilityError, InputError
from calibwrap.metrics import ece
from calibwrap.scores import OptionScores, TokenScores

from .made import LABELS, SCORES, finish, trace


def confidence_at(k, **settings):
    return cw.ConfidenceAtK(k=k, labels=LABELS, **settings)


def test_the_trace_whose_own_label_is_most_probable_wins():
    drawn = [trace("A", [0.6, 0.3, 0.1]), trace("B", [0.1, 0.7, 0.2]), trace("C", [0.0, 0.9, 0.1])]
    answer = finish(confidence_at(3), drawn)
    assert answer.text == "B"
    assert answer.confidence == pytest.approx(0.7)
    assert answer.bounds == pytest.approx((0.7, 0.7))
    assert answer.probabilities == pytest.approx({"A": 0.1, "B": 0.7, "C": 0.2})
    assert answer.candidates == tuple(drawn)
    assert answer.unparsed == 0


def test_ties_go_to_the_first():
    drawn = [trace("A", [0.2, 0.5, 0.3]), trace("B", [0.4, 0.4, 0.2]), trace("C", [0.3, 0.3, 0.4])]
    assert finish(confidence_at(3), drawn).text == "B"
    assert finish(confidence_at(3), drawn[::-1]).text == "C"


def test_a_trace_without_a_label_is_kept_counted_and_has_no_vote():
    drawn = [trace("", [1.0, 0.0, 0.0]), trace("A", [0.5, 0.3, 0.2]), trace("D", [0.0, 0.0, 1.0])]
    answer = finish(confidence_at(3), drawn)
    assert (answer.text, answer.unparsed, len(answer.candidates)) == ("A", 2, 3)


def test_a_label_whose_probabilities_could_not_be_read_has_no_vote():
    drawn = [replace(trace("B", [0.0, 1.0, 0.0]), labels=None), trace("A", [0.5, 0.3, 0.2])]
    answer = finish(confidence_at(2), drawn)
    assert (answer.text, answer.unparsed) == ("A", 1)


def test_no_label_at_all_is_no_answer():
    answer = finish(confidence_at(2), [trace("", [1.0, 0.0, 0.0])] * 2)
    assert (answer.text, answer.confidence, answer.bounds, answer.unparsed) == ("", 0.0, (0.0, 0.0), 2)
    assert answer.probabilities == {}


def test_bounds_are_those_of_the_picked_trace():
    wide = trace("A", [0.6, 0.3, 0.1], bounds=([0.4, 0.1, 0.0], [0.8, 0.5, 0.3]))
    assert finish(confidence_at(2), [wide, trace("B", [0.3, 0.5, 0.2])]).bounds == (0.4, 0.8)


def test_a_calibrator_of_picked_answers_changes_the_confidence_and_not_the_pick():
    drawn = [trace("A", [0.9, 0.08, 0.02]), trace("B", [0.05, 0.9001, 0.0499])]
    plain, cooled = (finish(confidence_at(2, selected=one), drawn) for one in (None, cw.Temperature(2.0)))
    assert plain.text == cooled.text == "B"
    wanted = np.sqrt([0.05, 0.9001, 0.0499])
    assert cooled.confidence == pytest.approx(wanted[1] / wanted.sum())
    assert (plain.calibrated_by, cooled.calibrated_by) == ("identity", "temperature")
    assert cooled.candidates == plain.candidates


@pytest.mark.parametrize(
    ("score", "wanted"), [(total_logprob, "A"), (mean_logprob, "B"), (least_logprob, "C"), (label_confidence, "D")]
)
def test_each_ready_score_picks_its_own_best(score, wanted):
    labels = ("A", "B", "C", "D")
    drawn = [
        trace("A", [0.3, 0.3, 0.2, 0.2], labels=labels, values=[-2.0]),  # sum -2, mean -2, least -2
        trace("B", [0.3, 0.3, 0.2, 0.2], labels=labels, values=[-0.1, -0.1, -0.1, -3.0]),  # -3.3, -0.825, -3
        trace("C", [0.3, 0.2, 0.3, 0.2], labels=labels, values=[-0.9, -0.9, -0.9]),  # -2.7, -0.9, -0.9
        trace("D", [0.1, 0.1, 0.1, 0.7], labels=labels, values=[-4.0]),
    ]
    answer = finish(cw.BestOfN(k=4, labels=labels, score=score), drawn)
    assert answer.text == wanted
    assert answer.confidence == pytest.approx(0.7 if wanted == "D" else 0.3)


def test_the_score_of_best_of_n_may_be_any_function():
    drawn = [trace("A", [0.9, 0.1, 0.0]), trace("B", [0.9, 0.1, 0.0])]
    decoder = cw.BestOfN(k=2, labels=LABELS, score=lambda one: one.completion.text.count("B"))
    assert finish(decoder, drawn).text == "B"
    assert finish(replace(decoder, score=lambda one: 1.0), drawn).text == "A"  # the first among equals
    with pytest.raises(InputError, match="score"):
        finish(replace(decoder, score=lambda one: float("nan")), drawn)


def test_a_score_of_log_probabilities_needs_them():
    bare = replace(trace("A", [0.5, 0.3, 0.2]), scores=TokenScores(SCORES.logprobs, ids=SCORES.ids))
    with pytest.raises(CapabilityError, match="label_confidence"):
        finish(cw.BestOfN(k=1, labels=LABELS), [bare])


def test_selected_scores_are_the_rows_of_the_picked_traces():
    decoder = confidence_at(2, selected=cw.Temperature(3.0))
    one = finish(decoder, [trace("A", [0.6, 0.3, 0.1]), trace("B", [0.1, 0.7, 0.2])])
    other = finish(decoder, [trace("C", [0.1, 0.1, 0.8]), trace("", [1.0, 0.0, 0.0])])
    rows = selected_scores(decoder, [one, other])
    np.testing.assert_allclose(rows.probabilities, [[0.1, 0.7, 0.2], [0.1, 0.1, 0.8]])
    empty = finish(decoder, [trace("", [1.0, 0.0, 0.0])] * 2)
    with pytest.raises(InputError, match=r"answers\[1\]"):
        selected_scores(decoder, [one, empty])
    with pytest.raises(InputError):
        selected_scores(decoder, [])


def made_traces(confidence):
    """Traces of a question of two labels: each names A or B in turn with the given probability."""
    labels = ("A", "B")
    rows = np.where(
        np.arange(len(confidence))[:, None] % 2 == np.arange(2), confidence[:, None], 1 - confidence[:, None]
    )
    scores = OptionScores(np.log(rows), "trace")
    texts = [f"Answer: {labels[index % 2]}" for index in range(len(confidence))]
    return [cw.Completion(text, SCORES, "stop", labels=scores.take([row])) for row, text in enumerate(texts)]


def test_with_calibrated_candidates_the_pick_is_right_as_often_as_the_mean_of_the_largest():
    """k = 8 confidences uniform on [0, 1], each right with its own probability: E[max] = 8/9."""
    random = np.random.default_rng(0)
    prompts, k = 1500, 8
    confidence = random.uniform(size=(prompts, k))
    right = random.uniform(size=(prompts, k)) < confidence
    decoder = cw.ConfidenceAtK(k=k, labels=("A", "B"))
    hits = []
    for row, correct in zip(confidence, right, strict=True):
        drawn = made_traces(row)
        answer = finish(decoder, drawn)
        picked = int(row.argmax())
        assert answer.confidence == pytest.approx(row.max())
        assert answer.text == "AB"[picked % 2]
        hits.append(correct[picked])
    error = np.sqrt(8 / 9 * 1 / 9 / prompts)
    assert np.mean(hits) == pytest.approx(8 / 9, abs=4 * error)
    assert np.mean(right) == pytest.approx(0.5, abs=0.02)


def noisy_prompts(n, seed, k=8):
    """Prompts whose every single trace is calibrated: label A is right with probability p, and a trace sees p noisily.

    The log-odds u of A are normal; trace i states the posterior mean of the truth given u + noise, worked out by Bayes'
    rule on a grid, and names a label drawn from that.
    """
    random = np.random.default_rng(seed)
    grid = np.linspace(-10, 10, 81)
    prior = np.exp(-0.5 * (grid / 2.5) ** 2)
    log_odds = random.choice(grid, size=n, p=prior / prior.sum())
    is_a = random.uniform(size=n) < 1 / (1 + np.exp(-log_odds))
    seen = log_odds[:, None] + random.normal(0, 1.5, (n, k))
    weight = prior * np.exp(-0.5 * ((seen[..., None] - grid) / 1.5) ** 2)
    stated = (weight / (1 + np.exp(-grid))).sum(-1) / weight.sum(-1)
    names_a = random.uniform(size=(n, k)) < stated
    return stated, names_a, np.where(is_a, 0, 1)


def answers_to(stated, names_a, decoder):
    answers = []
    for row, names in zip(stated, names_a, strict=True):
        scores = OptionScores(np.log(np.stack([row, 1 - row], axis=1)), "trace")
        drawn = [
            cw.Completion("Answer: A" if name else "Answer: B", SCORES, "stop", labels=scores.take([index]))
            for index, name in enumerate(names)
        ]
        answers.append(finish(decoder, drawn))
    return answers


def test_the_winners_curse_and_its_cure():
    """Single traces are calibrated, picked ones over-confident; a calibrator fitted on picked ones mends it."""
    decoder = cw.ConfidenceAtK(k=8, labels=("A", "B"))
    stated, names_a, truth = noisy_prompts(600, seed=1)
    fitted = cw.fit_temperature(selected_scores(decoder, answers_to(stated, names_a, decoder)), truth)
    assert fitted.value > 1.3

    stated, names_a, truth = noisy_prompts(1200, seed=2)
    single = np.where(names_a, stated, 1 - stated)
    single_ece = ece(single.ravel(), (names_a == (truth[:, None] == 0)).ravel())
    found = []
    for one in (decoder, replace(decoder, selected=fitted)):
        answers = answers_to(stated, names_a, one)
        correct = [answer.text == "AB"[right] for answer, right in zip(answers, truth, strict=True)]
        confidence = [answer.confidence for answer in answers]
        found.append((ece(confidence, correct), np.mean(confidence) - np.mean(correct), np.mean(correct)))
    before, after = found
    assert single_ece < 0.03
    assert before[0] > 0.08
    assert before[1] > 0.08
    assert after[0] < before[0] / 2
    assert abs(after[1]) < 0.03
    assert after[2] == before[2]


def test_traces_are_found_in_order():
    drawn = [trace("B", [0.1, 0.7, 0.2]), trace("", [1.0, 0.0, 0.0]), trace("A", [0.6, 0.3, 0.1])]
    found = traces_of(cw.AnswerRule(LABELS), drawn)
    assert [(one.label, one.completion is kept) for one, kept in zip(found, drawn[::2], strict=True)] == [
        (1, True),
        (0, True),
    ]


def test_selected_must_map_options():
    with pytest.raises(InputError, match="selected"):
        confidence_at(2, selected=cw.Temperature(2.0, level="token"))
