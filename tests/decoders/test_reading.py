"""Label probabilities read off the list at one position of a trace, worked by hand."""

import numpy as np
import pytest

import calibwrap as cw
from calibwrap.decoders import traces_of
from calibwrap.decoders.reading import signed, with_labels
from calibwrap.scores import TokenScores
from calibwrap.testing import ToyAdapter

WORDS = (b" (A", b" (B", b" A", b"x", b" (C", b"Answer:", b")", b"A", b"A)", b"**Answer**:", b"\\boxed{", b"}")
RULE = cw.AnswerRule(("A", "B", "C"))


class Words(ToyAdapter):
    """A backend of a few words, of which only the bytes are asked for."""

    def token_bytes(self, ids):
        return [WORDS[token] for token in ids]


def written(*drawn, listed, probabilities, cut):
    """A completion of the words `drawn`, with the same list at each position; what is not listed has 0.04."""
    size = len(drawn)
    where = dict(zip(listed, probabilities, strict=True))
    scores = TokenScores(
        np.log([probabilities] * size),
        ids=np.array([listed] * size),
        chosen=np.array(drawn),
        chosen_logprob=np.log([where.get(token, 0.04) for token in drawn]),
        log_cut=np.log([cut] * size),
    )
    text = b"".join(WORDS[token] for token in drawn).decode()
    return cw.Completion(text, scores, "stop")


def read(completion, rule=RULE):
    [[one]] = with_labels(Words(), [[completion]], rule)
    return one.labels


def test_the_form_that_was_drawn_counts_for_all_labels_and_the_drawn_token_is_known():
    """Shown: A 0.3 + 0.1, B 0.2, C 0.04 though it is not listed; 0.31 is left, at most 0.05 for each other form."""
    labels = read(written(5, 4, 6, listed=[0, 1, 2, 3], probabilities=[0.3, 0.2, 0.1, 0.05], cut=0.05))
    np.testing.assert_allclose(labels.probabilities[0], np.array([0.4, 0.2, 0.04]) / 0.64)
    # five forms each: " (A", "A", " A", "A.", " A."; of A two are shown, of B and C one
    np.testing.assert_allclose(labels.lower[0], [0.4 / (0.64 + 0.31), 0.2 / (0.64 + 0.31), 0.04 / (0.64 + 0.31)])
    np.testing.assert_allclose(labels.upper[0], [0.55 / 0.79, 0.4 / 0.84, 0.24 / 0.84])
    assert labels.label_mass[0] == pytest.approx(0.64)
    assert labels.readout == RULE.readout


def test_a_token_that_holds_more_than_the_label_counts_with_it():
    labels = read(written(5, 8, listed=[8, 7, 0], probabilities=[0.5, 0.2, 0.1], cut=1e-12))
    np.testing.assert_allclose(labels.probabilities[0], [1.0, 0.0, 0.0], atol=1e-9)
    assert labels.label_mass[0] == pytest.approx(0.7)  # "A)" and "A"; " (A" would be another beginning


def test_a_label_that_the_list_shows_is_not_counted_twice():
    labels = read(written(5, 0, listed=[0, 1, 2, 3], probabilities=[0.3, 0.2, 0.1, 0.05], cut=0.05))
    assert labels.label_mass[0] == pytest.approx(0.6)


def test_the_labels_are_read_where_the_last_answer_is_named():
    twice = written(5, 2, 5, 4, listed=[0, 1, 2], probabilities=[0.3, 0.2, 0.1], cut=1e-12)
    assert read(twice).label_mass[0] == pytest.approx(0.64)
    assert read(written(5, 3, listed=[0, 1, 2], probabilities=[0.3, 0.2, 0.1], cut=1e-12)) is None


@pytest.mark.parametrize("drawn", [(9, 2), (10, 7, 11), (3, 10, 7, 6)])
def test_the_labels_are_read_behind_every_way_to_write_the_marker(drawn):
    labels = read(written(*drawn, listed=[0, 2, 7], probabilities=[0.3, 0.2, 0.1], cut=1e-12))
    assert labels.label_mass[0] == pytest.approx(0.3)  # " A" and "A"; " (A" would be another beginning


def test_an_answer_is_signed_once():
    temperature, own = cw.Temperature(2.0), cw.Answer("A", 0.5, (0.5, 0.5), calibrated_by="none")
    assert signed(own, temperature).calibrated_by == "none"
    assert signed(cw.Answer("A", 0.5, (0.5, 0.5)), temperature).calibrated_by == "temperature"


FALLING = cw.HistogramBinning([0.0, 0.3, 0.6, 1.0], [0.2, 0.9, 0.4])


@pytest.mark.parametrize(
    ("calibrator", "bounds", "mapped"),
    [
        (FALLING, (0.1, 0.8), (0.0, 1.0)),  # at the ends 0.2 and 0.4, and 0.9 between them
        (cw.chain(cw.Platt(1.0, 0.0), FALLING), (0.1, 0.8), (0.0, 1.0)),
        (FALLING, (0.5, 0.5), (0.9, 0.9)),
        (cw.HistogramBinning([0.0, 0.3, 0.6, 1.0], [0.2, 0.4, 0.9]), (0.1, 0.8), (0.2, 0.9)),
        (cw.chain(cw.Platt(1.0, 0.0), cw.Platt(-1.0, 0.0)), (0.1, 0.8), (0.2, 0.9)),
    ],
)
def test_bounds_map_to_bounds_only_where_the_map_goes_one_way(calibrator, bounds, mapped):
    answer = signed(cw.Answer("A", 0.5, bounds), calibrator)
    assert answer.bounds == pytest.approx(mapped)


@pytest.mark.parametrize(
    ("tokens", "finish", "label"),
    [
        ([b" ", b"1"], "length", None),  # the next token may be "0"
        ([b" ", b"1"], "stop", 0),
        ([b" ", b"1", b","], "length", 0),
        ([b" ", b"1", b"0"], "length", None),
        ([b" ", b"1."], "length", 0),
        ([b" A"], "length", 2),  # " Apple" would be another token
    ],
)
def test_a_number_that_is_cut_off_has_no_vote(tokens, finish, label):
    names = [b" ", b"1", b"0", b",", b"1.", b" A"]
    ids = np.array([names.index(token) for token in tokens])
    rows = np.full((len(ids), len(names)), -np.log(len(names)))

    class Digits(ToyAdapter):
        def token_bytes(self, ids):
            return [names[one] for one in ids]

    scores = TokenScores(rows, chosen=ids, chosen_logprob=rows[:, 0])
    one = cw.Completion(b"".join(tokens).decode(), scores, finish)
    rule = cw.AnswerRule(("1", "2", "A"), "")
    [[said]] = with_labels(Digits(), [[one]], rule)
    assert [trace.label for trace in traces_of(rule, [said])] == ([] if label is None else [label])
